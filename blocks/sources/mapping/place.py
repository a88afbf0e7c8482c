"""Where a restore writes: a state object, or a file that stands in for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from blocks.host.leftovers import temporary_folder
from blocks.host.room import TEMPORARY, Need, check_room
from blocks.sources.mapping.writing import WritableStore


@dataclass(frozen=True)
class Place:
    """Where a restore writes.

    Attributes:
        name: What errors call it.
        check: Refuses where it cannot be written; takes whether keys will be deleted.
        opened: Opens the store for writing.
        occupied: Says what the place holds, as a phrase; None where it is empty.
        folder: The local folder whose file system takes the data; None for an object.
        at_once: Whether all that is written appears together.
        undetermined: Returns the keys that the plan's patterns neither surely cover nor surely leave out.
    """

    name: str
    check: Callable[[bool], None]
    opened: Callable[[], AbstractContextManager[WritableStore]]
    occupied: Callable[[], str | None]
    folder: Path | None
    at_once: bool
    undetermined: Callable[[Sequence[str]], list[str]]

    def check_room(self, size_bytes: int) -> None:
        """Check that what is staged, and what is written to a file, has room.

        Raises:
            RestoreRefused: It has not; names the folder.
            ConfigurationError: There is no folder for temporary data.
        """
        what = f"restoring {self.name}"
        temporary = Need(temporary_folder(), size_bytes, what, "the folder for temporary data", TEMPORARY)
        check_room(temporary, *([] if self.folder is None else [Need(self.folder, size_bytes, what)]))
