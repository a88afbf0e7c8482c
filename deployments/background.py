"""`lastgood serve` beside a program: a child process that runs a plan's schedules, and ends with the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

from deployments import attached as attached_program

STOP_SECONDS = 60.0
"""How long the child may take to end in good order, which ends the runs that are under way."""


class BackgroundSchedules:
    """The schedules of one plan in a child process. Thread-safe.

    The child writes what it has to say to the standard error of this process. It imports modules from where this
    process does, and uses the Prefect API that this process is set to, or a server of its own.

    Args:
        reference: Absolute path of the YAML plan, or name of a saved Backup Plan block.
    """

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the child is there."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child, unless it runs."""
        with self._guard:
            if self.running:
                return
            importing = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._child = subprocess.Popen(  # noqa: S603  our own interpreter
                [sys.executable, "-P", attached_program.__file__, "lastgood", "serve", self._reference],
                env=os.environ | _prefect_settings() | importing,
                stdin=subprocess.PIPE,
                stdout=2,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the child, and wait for it; where it does not end in time, kill it."""
        with self._guard:
            child, self._child = self._child, None
            if child is None:
                return
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            try:
                child.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.communicate()


def _prefect_settings() -> dict[str, str]:
    """Return what this process has set of Prefect, if it has Prefect."""
    if "prefect" not in sys.modules:
        return {}
    from prefect.settings import get_current_settings

    return get_current_settings().to_environment_variables(exclude_unset=True)
