"""Small parts wait for others, and share their blobs: by itself each would be more frame than rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from blocks.rows.changes import Changes

if TYPE_CHECKING:
    from flows.pipeline.attempt import BackupAttempt, BackupPart

SMALL_BYTES = 32 * 1024
"""Bytes up to which a part shares its blobs with others."""
SHARED_BYTES = 1024 * 1024
"""Bytes of several parts at which they are stored."""
_COLUMN_BYTES = 200
"""What Arrow takes to describe a column, besides its name."""


class SharedParts:
    """Small parts that are stored together. Prints as `ledger/orders#0 and 3 more`."""

    __slots__ = ("attempt", "changes", "parts")

    def __init__(self, attempt: BackupAttempt, members: Sequence[tuple[BackupPart, Changes]]) -> None:
        self.attempt = attempt
        self.parts = [part for part, _ in members]
        self.changes = [changes for _, changes in members]

    def __str__(self) -> str:
        """Name the parts as people see them in the UI and in errors."""
        more = len(self.parts) - 1
        return f"{self.parts[0]}" + (f" and {more} more" if more else "")


class SmallParts:
    """Collects small parts of one attempt. Thread-safe."""

    def __init__(self, attempt: BackupAttempt) -> None:
        self._attempt = attempt
        self._members: list[tuple[BackupPart, Changes]] = []
        self._bytes = 0
        self._guard = threading.Lock()

    def add(self, part: BackupPart, changes: Changes) -> SharedParts | None:
        """Let a part wait; return all that wait where they are enough now."""
        with self._guard:
            self._members.append((part, changes))
            self._bytes += size(changes)
            return self._take() if self._bytes >= SHARED_BYTES else None

    def rest(self) -> SharedParts | None:
        """Return what still waits, if something does."""
        with self._guard:
            return self._take() if self._members else None

    def _take(self) -> SharedParts:
        taken = SharedParts(self._attempt, self._members)
        self._members, self._bytes = [], 0
        return taken


def size(changes: Changes) -> int:
    """Return about how many bytes a part takes in a shared blob before it is compressed, its columns' names included.

    A column of NULLs has no bytes of its own, and yet is described.
    """
    described = sum(len(name) + _COLUMN_BYTES for name in changes.rows.column_names)
    return int(changes.rows.nbytes + changes.index.nbytes + described)
