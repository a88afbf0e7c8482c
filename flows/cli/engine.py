"""What a command can do without: one that needs neither Prefect nor pandas starts in a third of the time."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from blocks.engine import do_without_prefect
from blocks.reference import is_path
from flows.cli.early import begin_unlocking, begin_viewing, glance, may_use_pandas

_READING = (["init"], ["list"], ["show"], ["diff"], ["check"], ["key", "list"], ["key", "add"], ["key", "remove"])
_RECORDED = ("backup", "restore", "verify", "retention")
"""Commands whose run a Prefect server records, where there is one."""

_ALGEBRA_THREADS = "OPENBLAS_NUM_THREADS"

_SETTINGS = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH")
_FILES = ("prefect.toml", ".env", "~/.prefect/profiles.toml")
"""Where Prefect looks for the address of a server."""


def start(words: Sequence[str]) -> None:
    """Begin what takes long, and leave aside what a command line does not need; before blocks and flows are imported.

    Args:
        words: The words after `lastgood`.
    """
    path = plan_file(words)
    plan = glance(Path(path)) if path is not None else {}
    alone = not needs_prefect(words)
    # quality suites are run on pandas' frames
    without_pandas = words[:1] != ["verify"] and not may_use_pandas(plan)
    if alone:
        do_without_prefect()
    if path is not None:
        begin_unlocking(Path(path).parent, plan)
        if alone and without_pandas and words[0] == "backup":
            begin_viewing(Path(path).parent, plan, incremental=_incremental(words))
    if without_pandas:
        _do_without_pandas()


def leave(code: int) -> NoReturn:
    """End this process without taking all modules apart: with Prefect that takes as long as a small backup's whole run.

    What registered itself for the end of the process is called, and threads are waited for, as always.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # which was met before, and gave the code
            if stream is not None:
                stream.flush()
    os._exit(code)


def needs_prefect(words: Sequence[str]) -> bool:
    """Tell whether a command line needs Prefect: for a plan by its name, or for a server that may be configured.

    Args:
        words: The words after `lastgood`.
    """
    if plan_file(words) is None:
        return True
    return words[0] in _RECORDED and "--no-server" not in words and _may_have_server()


def plan_file(words: Sequence[str]) -> str | None:
    """Return the path of the plan that a command line is about, where it names one as a path and opens its repository.

    Args:
        words: The words after `lastgood`.
    """
    for command in (*_READING, *([word] for word in _RECORDED)):
        rest = words[len(command) :]
        if list(words[: len(command)]) == command and rest and is_path(rest[0]):
            return rest[0]
    return None


class _Hidden:
    """Says that there is no pandas."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Refuse the one module, and leave all others to those who look next."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _do_without_pandas() -> None:
    """Keep pyarrow from importing pandas, as it does at the first array that is made, to know pandas' own objects.

    Only pyarrow is told that there is no pandas, for as long as this process lives; whatever else may want it imports
    it as always.
    """
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        with _one_thread_for_algebra():
            import pyarrow as pa

        import blocks  # noqa: F401  settles Arrow's allocator, which the next import decides for good

        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)


@contextmanager
def _one_thread_for_algebra() -> Iterator[None]:
    """Keep numpy, while it is imported, from starting a thread for each core: they spin, and nobody here has matrices.

    Child processes are not told.
    """
    if _ALGEBRA_THREADS in os.environ:
        yield
        return
    os.environ[_ALGEBRA_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_ALGEBRA_THREADS]


def _incremental(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for an incremental backup, as one that says nothing does."""
    said = [word.partition("=")[2] or after for word, after in pairwise([*words, ""]) if word.split("=")[0] == "--type"]
    return said[-1:] in ([], ["incremental"])


def _may_have_server() -> bool:
    """Tell whether Prefect's settings could name a server, without asking Prefect, which would have to be imported."""
    named = any(name in os.environ for name in _SETTINGS)
    return named or any(Path(name).expanduser().exists() for name in _FILES) or _project_has_settings()


def _project_has_settings() -> bool:
    try:
        return b"[tool.prefect" in Path("pyproject.toml").read_bytes()
    except OSError:
        return False
