"""Command lines of `lastgood` and `prefect`, each in a process of its own that has nothing left to import.

To import Prefect takes longer than what most commands do. So one process imports everything, starts no thread, and
forks a child for each command.

    request  {"words": ["lastgood", "list", "trading.yaml"], "output": "/tmp/x", "errors": "/tmp/y"}   one line of JSON
    reply    0                                                                                         the exit code
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
_USED = ("lastgood", "flows.cli", "prefect.cli.deploy", "prefect.cli.deployment", "prefect.cli.work_pool")


class Warm:
    """Runs command lines, one after the other.

    Args:
        folder: Where they run.
        environment: What they find; it is settled when this is made, for Prefect reads it when it is imported.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._output, self._errors = folder / "output of the command", folder / "errors of the command"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.warm", str(folder)],
            cwd=ROOT,
            env=dict(environment) | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Run a command line; return its exit code and all that it printed."""
        return self._asked(words, self._output), self._output.read_text()

    def done(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command line; return what became of it, with what it printed as a result and beside it."""
        code = self._asked(words, self._errors)
        return subprocess.CompletedProcess(words, code, self._output.read_text(), self._errors.read_text())

    def _asked(self, words: Sequence[str], errors: Path) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"words": words, "output": str(self._output), "errors": str(errors)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def main() -> None:
    """Import, then fork for each request; in the child, become the command."""
    for name in _USED:
        importlib.import_module(name)
    os.chdir(sys.argv[1])
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request["words"], request["output"], request["errors"])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(words: list[str], output: str, errors: str) -> None:
    written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, output, written), (2, errors, written)):
        if number == 2 and errors == output:
            os.dup2(1, 2)
            continue
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  it is the process's own from now on
    sys.argv = words
    if words[0] == "lastgood":
        from lastgood import main as command

        sys.exit(command())
    from prefect.cli import app

    sys.exit(app())


if __name__ == "__main__":
    main()
