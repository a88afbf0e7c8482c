"""Folders of a tree, opened from its root downwards."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from .stats import leaf, parent

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST_HELD = 64


class FolderHandles:
    """Descriptors of the folders from a root down to the one asked for last, opened one component at a time.

    No component may be a symbolic link. Used by one thread; the root's descriptor stays its owner's.
    """

    def __init__(self, root: int) -> None:
        self._fds = [root]
        self._names: list[bytes] = []
        self._path = b""

    def folder(self, path: bytes) -> int:
        """Return a descriptor of a folder, valid until the next call.

        Raises:
            OSError: A component is missing, is no folder (ENOTDIR, also for a symbolic link) or cannot be opened.
        """
        if path == self._path:
            return self._fds[-1]
        names = path.split(b"/") if path else []
        held = 0
        while held < min(len(names), len(self._names)) and names[held] == self._names[held]:
            held += 1
        self._drop(held)
        try:
            for name in names[held:]:
                self._descend(name)
        finally:  # also where a component was missing: what is held is where it stands
            self._path = b"/".join(self._names)
        return self._fds[-1]

    def _descend(self, name: bytes) -> None:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=self._fds[-1])
        if len(self._names) < _DEEPEST_HELD:
            self._names.append(name)
            self._fds.append(fd)
        else:  # only the end of a very deep path is held: a joined name equals no component later
            os.close(self._fds[-1])
            self._fds[-1] = fd
            self._names[-1] += b"/" + name

    def _drop(self, keep: int) -> None:
        for fd in self._fds[keep + 1 :]:
            os.close(fd)
        del self._fds[keep + 1 :], self._names[keep:]

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Stat an entry without following links; None where it, or a folder above it, is not there."""
        try:
            if not path:
                return os.fstat(self._fds[0])
            return os.lstat(leaf(path), dir_fd=self.folder(parent(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def close(self) -> None:
        """Close all descriptors but the root's."""
        self._drop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
