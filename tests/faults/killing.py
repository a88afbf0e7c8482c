"""Ways for a process to kill itself at the wanted moment, as the machine's power supply would."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocks.sources.files import renames
from blocks.sources.files.target import FilesTarget
from blocks.sources.sqlite.live import LiveTarget
from blocks.storage.base import StorageTier

DIED = "died"
"""File in the case's folder that says where the victim died."""
_STEP_BYTES = 4096


class Executioner:
    """Counts moments, before and after operations, and kills at the wanted one.

    A moment counts where the disk is not as it was at the one before: whoever comes later sees nothing but the disk,
    and after one operation it mostly is as it is before the next.

    Args:
        folder: What is on the disk, and where to leave a word.
        number: The moment to die at, from 1.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._numbers, self._guard = itertools.count(1), threading.Lock()
        self._seen: set[tuple[str, int, int, int]] | None = None

    def moment(self, operation: str, name: str, when: str) -> None:
        with self._guard:
            if (seen := set(_entries(self._folder))) == self._seen:
                return
            self._seen = seen
            if next(self._numbers) == self._number:
                (self._folder / DIED).write_text(f"{when} {operation} {name}")
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, name: str, after: bool = True) -> None:
        """Count the calls of a function."""
        original: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            self.moment(name, str(args[0]) if args else "", "before")
            result = original(*args, **options)
            if after:
                self.moment(name, str(args[0]) if args else "", "after")
            return result

        setattr(owner, name, watched)


def _entries(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    """Look at all that is on the disk: path, inode, size and time of change."""
    for inside, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                status = os.lstat(path := f"{inside}/{name}")
                yield path, status.st_ino, status.st_size, status.st_ctime_ns


def at_durable_operations(folder: Path, number: int) -> None:
    """Die at an operation of the repository's storage."""
    StorageTier.durable = staticmethod(Executioner(folder, number).moment)


class RestoreSteps:
    """Dies at a step of a restore: as parts enter and leave, around each commit, at each change of the tree.

    It is the restore's progress, so that counting begins when the emergency backup has been made.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._executioner = Executioner(folder, number)
        self._armed = False

    def entered(self, part: str) -> None:
        if not self._armed:
            self._armed = True
            for target in (LiveTarget, FilesTarget):
                self._executioner.watch(target, "commit")
            for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink"):
                self._executioner.watch(os, name)
            self._executioner.watch(renames, "swap_in")
        self._executioner.moment("entering", part, "before")

    def left(self, part: str) -> None:
        self._executioner.moment("leaving", part, "after")


def inside_sqlite_commit(folder: Path, number: int) -> None:
    """Die in the middle of a write, when a file of the database would grow beyond `number` pages."""
    commit = LiveTarget.commit

    def limited(target: LiveTarget) -> None:
        # Python ignores this signal; its default is death
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        (folder / DIED).write_text(f"at {number * _STEP_BYTES} bytes")
        resource.setrlimit(resource.RLIMIT_FSIZE, (number * _STEP_BYTES, hard))
        commit(target)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    LiveTarget.commit = limited  # type: ignore[method-assign]
