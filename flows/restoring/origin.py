"""What a pre-restore backup says of the restore that it was made for, kept in its tags."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from blocks.plan.retention import BEFORE_RESTORE, RESTORED
from blocks.records import BackupMetadata, BackupType
from blocks.rows.selection import Selection
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreMode


@dataclass(frozen=True)
class Origin:
    """The restore that a backup was made before.

    Attributes:
        restored: Id of the backup that was restored.
        mode: MERGE or EXACT.
        selection: What was selected of it.
        places: By source what its place is known by, as `marks_of` makes it.
        absent: Names of sources of which nothing was there.
    """

    restored: str
    mode: RestoreMode
    selection: Selection
    places: Mapping[str, frozenset[str]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def tags(self) -> list[str]:
        """Write it as tags."""
        return [
            BEFORE_RESTORE,
            f"{RESTORED}{self.restored}",
            f"mode={self.mode.value}",
            *(f"collection={glob}" for glob in self.selection.collections),
            *(f"key={glob}" for glob in self.selection.keys),
            *(f"place={mark}:{source}" for source, marks in self.places.items() for mark in sorted(marks)),
            *(f"absent={source}" for source in self.absent),
        ]

    @classmethod
    def of(cls, backup: BackupMetadata) -> Origin | None:
        """Read it from a backup; None where that was made before no restore, or does not say before which."""
        if backup.backup_type is not BackupType.EMERGENCY or BEFORE_RESTORE not in backup.tags:
            return None
        said: dict[str, list[str]] = {}
        for tag in backup.tags:
            name, equals, value = tag.partition("=")
            if equals:
                said.setdefault(name, []).append(value)
        modes = [mode for mode in (RestoreMode.MERGE, RestoreMode.EXACT) if said.get("mode") == [mode.value]]
        if not modes or len(said.get("restored", [])) != 1:
            return None
        selection = Selection(tuple(said.get("collection", ())), tuple(said.get("key", ())))
        places: dict[str, frozenset[str]] = {}
        for mark, _, source in (value.partition(":") for value in said.get("place", ())):
            places[source] = places.get(source, frozenset()) | {mark}
        return cls(said["restored"][0], modes[0], selection, places, tuple(said.get("absent", ())))


def marks_of(source: StateSource) -> frozenset[str]:
    """Return what the place of a source is known by: one mark in common is enough to be the same place.

    It is the path where it is local; else what the address says, and what the server says of itself, which is
    something else when it has been started again.
    """
    found = source.location()
    if found.paths:
        return frozenset((_mark(os.path.realpath(found.paths[0])),))
    databases = sorted(found.databases) if found.databases is not None else []
    prefix = [found.prefix] if found.prefix else []
    return frozenset((_mark(found.shown), _mark(*found.server, *databases, *prefix)))


def _mark(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]
