"""Ways for a process to kill itself at the wanted moment, as the machine's power supply would."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocks.sources.files.target import FilesTarget
from blocks.sources.sqlite.build import BuildTarget
from blocks.tiers import StorageTier

DIED = "died"
"""File in the case's folder that tells where the victim died."""
_STEP_BYTES = 4096


class Executioner:
    """Counts moments and kills at the wanted one.

    Args:
        folder: Where to leave a word.
        when: Which moments count: `before` or `after`.
        number: The one to die at, from 1.
    """

    def __init__(self, folder: Path, when: str, number: int) -> None:
        self._folder, self._when, self._number = folder, when, number
        self._numbers, self._guard = itertools.count(1), threading.Lock()

    def moment(self, operation: str, name: str, when: str) -> None:
        if when != self._when:
            return
        with self._guard:
            if next(self._numbers) == self._number:
                (self._folder / DIED).write_text(f"{when} {operation} {name}")
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of a function."""
        original: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            self.moment(name, str(args[0]) if args else "", "before")
            result = original(*args, **options)
            self.moment(name, str(args[0]) if args else "", "after")
            return result

        setattr(owner, name, watched)


def at_durable_operations(folder: Path, when: str, number: int) -> None:
    """Die at an operation of the repository's storage."""
    StorageTier.durable = staticmethod(Executioner(folder, when, number).moment)


class RestoreSteps:
    """Dies at a step of a restore: as parts enter and leave, around each commit, at each change of the tree.

    It is the restore's progress, so that counting begins when the emergency backup has been made.
    """

    def __init__(self, folder: Path, when: str, number: int) -> None:
        self._executioner = Executioner(folder, when, number)
        self._armed = False

    def entered(self, part: str) -> None:
        if not self._armed:
            self._armed = True
            for target in (BuildTarget, FilesTarget):
                self._executioner.watch(target, "commit")
            for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink"):
                self._executioner.watch(os, name)
        self._executioner.moment("entering", part, "before")

    def left(self, part: str) -> None:
        self._executioner.moment("leaving", part, "after")


def inside_sqlite_commit(folder: Path, number: int) -> None:
    """Die in the middle of a write, when a file of the database would grow beyond `number` pages."""
    copy_over = BuildTarget._copy_over

    def limited(target: BuildTarget) -> None:
        # Python ignores this signal; its default is death
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        (folder / DIED).write_text(f"at {number * _STEP_BYTES} bytes")
        resource.setrlimit(resource.RLIMIT_FSIZE, (number * _STEP_BYTES, hard))
        copy_over(target)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    BuildTarget._copy_over = limited  # type: ignore[method-assign]
