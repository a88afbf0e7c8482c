"""What a backup holds: its collections, and their rows as people read them. No live source is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from blocks.errors import BackupNotFound, CorruptionDetected
from blocks.plan.plan import BackupPlan
from blocks.records import Collection
from blocks.rows.normalize import from_normal
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.executor import retried
from flows.pipeline.hints import nearest


@dataclass(frozen=True)
class StoredSize:
    """What a collection takes in the repository, in bytes: in all backups of the chain together.

    Attributes:
        rows: Of the Arrow rows, before compression.
        stored: As it is stored.
    """

    rows: int
    stored: int


class Contents:
    """The collections of one backup.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, the beginning or end of one, or `latest`.

    Attributes:
        chain: The chain of the backup, opened for reading; rows need a reader's credential.

    Raises:
        BackupNotFound: There is no such backup.
        CorruptionDetected: A manifest is missing or damaged.
    """

    def __init__(self, plan: BackupPlan, backup: str) -> None:
        repository = plan.repository.unlock(plan.encryption)
        self.chain = Chain(repository, repository.find(plan.name, backup))
        self.backup = self.chain.target
        self._kinds = {source.name: source.type for source in self.backup.sources}

    def kind(self, collection: Collection) -> str:
        """Return the type of a collection's source (`postgres`)."""
        return self._kinds[collection.source]

    def collection(self, name: str) -> Collection:
        """Return a collection by its full name.

        Raises:
            BackupNotFound: There is none; the nearest name is said.
        """
        found = next((one for one in self.backup.collections if one.name == name), None)
        if found is None:
            raise self._missing(name)
        return found

    def chosen(self, globs: Sequence[str]) -> list[Collection]:
        """Return the collections that some names or globs choose, in their order in the backup; all for none.

        Raises:
            BackupNotFound: One of the globs chooses nothing; the nearest name is said.
        """
        for glob in globs:
            if not any(Selection((glob,)).has_collection(one.name) for one in self.backup.collections):
                raise self._missing(glob)
        wanted = Selection(tuple(globs))
        # a name that is written out may hold what means something else in a glob
        return [one for one in self.backup.collections if wanted.has_collection(one.name) or one.name in globs]

    def size(self, collection: Collection) -> StoredSize:
        """Return what a collection takes in the repository."""
        segments = [
            segment for part in collection.parts for _, _, segment in self.chain.segments(collection.name, part.number)
        ]
        return StoredSize(sum(one.size_bytes for one in segments), sum(one.stored_bytes for one in segments))

    def parts(self, collection: Collection, keys: Sequence[str] = ()) -> list[RestorePart]:
        """Return the parts of a collection, of which the rows that some globs choose are read.

        Args:
            collection: One of the backup.
            keys: Globs over keys; none for all.
        """
        return list(self.chain.parts_of(collection, Selection(keys=tuple(keys))))

    def record(self, collection: Collection, key: str) -> list[RestorePart]:
        """Return the parts of a collection, of which the rows of one key are read.

        Args:
            collection: One of the backup.
            key: The key as it is shown; no character in it means anything else.
        """
        literal = "".join("[[]" if c == "[" else f"[{c}]" if c in "*?" else c for c in key)
        # not as it is meant for a tree: what is beneath a folder is other records
        selection = Selection(keys=(literal,), within=collection.selected_keys)
        return [RestorePart(self.chain, collection, part, selection) for part in collection.parts]

    def _missing(self, name: str) -> BackupNotFound:
        names = [one.name for one in self.backup.collections]
        return BackupNotFound(
            f"backup {self.backup.backup_id} has no collection {name!r}{nearest(name, names)}",
            hint="`lastgood ls PLAN BACKUP` shows what a backup holds.",
        )


def load(part: RestorePart) -> pa.Table:
    """Return the rows of a part that were asked for as their source knows them: the collection's columns.

    Raises:
        CorruptionDetected: What is stored is damaged, or there are not as many rows as the manifest counts.
    """
    rows = retried(part.merged)
    if part.wanted is None and rows.num_rows != part.part.rows:
        raise CorruptionDetected(
            f"{part}: its chain holds {rows.num_rows} rows, the manifest counts {part.part.rows}",
            hint="Look at a backup that does not depend on this one.",
        )
    return part.narrowed(from_normal(rows))


def loaded(parts: Sequence[RestorePart]) -> Iterator[pa.Table]:
    """Yield the rows of some parts, a table for each that has any; one is in memory at a time."""
    for part in parts:
        rows = load(part)
        if rows.num_rows:
            yield rows
