"""A child of the process that runs the tests, in place of a new interpreter: to import everything again costs more
than most of what such a child is started for.

Fit for what a child does to itself, as to become another user or to die; not for what is true of a fresh process only.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

NOBODY = 65534


def forked(work: Callable[[], object]) -> str:
    """Do work in a child of this process; return what it printed.

    Raises:
        AssertionError: The work failed; with its traceback.
    """
    status, said = _forked(work)
    assert status == 0, f"the child's status is {status}:\n{said}"
    return said


def killed(work: Callable[[], object]) -> bool:
    """Do work that may kill its process in a child of this one; return whether it did.

    Raises:
        AssertionError: The work failed; with its traceback.
    """
    status, said = _forked(work)
    by_itself = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert by_itself or status == 0, f"the child's status is {status}:\n{said}"
    return by_itself


def as_nobody(work: Callable[[], object]) -> str:
    """Do work in a child with the effective rights of the user `nobody`; return what it printed."""

    def without_rights() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.seteuid(NOBODY)
        work()

    return forked(without_rights)


def _forked(work: Callable[[], object]) -> tuple[int, str]:
    with tempfile.TemporaryFile() as said:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            said.seek(0)
            return status, said.read().decode()
        code = 1
        try:
            # what this process has in its buffers is not the child's to write
            sys.stdout = io.TextIOWrapper(said, write_through=True)
            work()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        finally:
            said.flush()
            os._exit(code)
