"""The segments of a chain: what each of its backups stored for a part, fetched and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, lru_cache, partial
from threading import Lock
from typing import TypeVar

import pyarrow as pa

from blocks.crypto.stream import ObjectContext, ObjectKind, plaintext_size, unseal_range
from blocks.errors import CorruptionDetected
from blocks.records import BackupMetadata, Blob, Collection, Segment
from blocks.repository.block import Repository
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex
from blocks.rows.parquet import index_from_parquet
from blocks.rows.shared import index_at
from blocks.sources.collection import Bounds
from blocks.sources.source import StateSource
from flows.pipeline.messages import Piece, SharedBlob, SharedPiece

SHARED_KEPT = 64
"""Blobs that several parts share, of up to about a mebibyte each, that are held open for the next part."""


T = TypeVar("T")

_BoundsByName = dict[str, list[tuple[int, Bounds]]]

StoredSegment = tuple[BackupMetadata, Collection, Segment]
"""A segment, with the backup and the collection it is in."""


class ChainSegments:
    """The segments of a backup and of those it depends on, full first.

    Args:
        repository: The unlocked repository.
        target: The backup on top.
        copies: This machine's copies of manifests and indexes will do, which are named by SHA-256: for a base.

    Attributes:
        digest: Computes digests that stand for the content of rows.
        index_digest: Computes those that are in the indexes, which can be shorter.
        proving: Whether what a lookup of single records believes is checked whenever a segment is read.

    Raises:
        CorruptionDetected: A backup is missing or damaged, or its manifest contradicts itself.
    """

    def __init__(self, repository: Repository, target: BackupMetadata, copies: bool = False) -> None:
        self.repository = repository
        self._copies = copies
        self.backups: Sequence[BackupMetadata] = repository.chain(target, copies=copies)
        full = self.backups[0]
        bounds = _bounds_by_collection(full)
        for backup in self.backups:
            _check_collections(backup)
            _check_parts(full, bounds, backup)
            _check_sums(backup)
        self.target = target
        self._positions = {backup.backup_id: n for n, backup in enumerate(self.backups)}
        self.digest = RowDigest(repository.keys.digest_key)
        self.proving = False
        self.index_digest = self.digest if target.format_version == 1 else RowDigest(repository.keys.digest_key, 32)
        self.beyond_privileges: dict[str, frozenset[str]] = {}
        """By source, the columns that this process could not restore."""
        self._by_name = [
            {c.name: (c, {part.number: part for part in c.parts}) for c in backup.collections}
            for backup in self.backups
        ]
        # a part that changed in each backup looks into as many blobs, and so does the next one
        kept = max(SHARED_KEPT, 2 * len(self.backups))
        self._shared = _read_once(self._shared_blob, kept)
        self._shared_index = _read_once(self._index_of_blob, kept)

    def open_data(self, sources: Mapping[str, StateSource]) -> None:
        """Make the data readable, for the sources of a plan.

        Raises:
            WrongKey: The credential may not read; so a restore is refused before anything is written.
        """
        self.beyond_privileges = {name: source.beyond_privileges for name, source in sources.items()}
        self.data_keys  # noqa: B018  opened now, where a refusal does no harm

    @cached_property
    def data_keys(self) -> dict[str, bytes | None]:
        """The data key of each backup by id; needs a reader's credential."""
        keys = self.repository.keys
        return {
            b.backup_id: keys.open_data_key(b.encapsulated_key, b.encryption_key_id, b.plan, b.backup_id)
            for b in self.backups
        }

    def segments(self, collection: str, part: int) -> list[StoredSegment]:
        """Return the segments of one part, oldest first, each with the backup and the collection it is in."""
        found = []
        for backup, collections in zip(self.backups, self._by_name, strict=True):
            if collection not in collections:
                raise CorruptionDetected(f"backup {backup.backup_id} of the chain lacks collection {collection}")
            record, parts = collections[collection]
            if part not in parts:
                raise CorruptionDetected(f"backup {backup.backup_id} of the chain lacks part {collection}#{part}")
            if (segment := parts[part].segment) is not None:
                found.append((backup, record, segment))
        return found

    def position(self, backup: BackupMetadata) -> int:
        """Return the position of one of its backups in the chain; the full's is 0."""
        return self._positions[backup.backup_id]

    def piece(self, backup: BackupMetadata, collection: Collection, part: int, segment: Segment) -> Piece | SharedPiece:
        """Fetch the sealed data of one segment."""
        blob = segment.data
        if blob.shared is not None:
            shared = self._shared(backup.backup_id, _without_place(blob))
            return SharedPiece(shared, blob.shared, f"{_name(backup, blob)} ({collection.name}#{part})")
        return self._piece(backup, collection, part, blob, ObjectKind.SEGMENT)

    def read_data(
        self, backup: BackupMetadata, collection: Collection, part: int, segment: Segment
    ) -> tuple[int, Callable[[int, int], bytes]]:
        """Return the size of a segment's data and what reads and opens a range of it: offset and length in bytes."""
        blob, key = segment.data, self.data_keys[backup.backup_id]
        context = _context(backup, collection, part, blob, ObjectKind.SEGMENT)
        size = plaintext_size(blob.size_bytes, encrypted=key is not None, version=backup.format_version)

        stored = partial(self.repository.read_range, backup.plan, backup.backup_id, blob.name)
        header = cache(partial(stored, blob.offset))  # whoever opens a range asks for it

        def sealed(offset: int, length: int) -> bytes:
            return stored(blob.offset + offset, length) if offset else header(length)

        def read(offset: int, length: int) -> bytes:
            return unseal_range(sealed, blob.size_bytes, key, context, offset, length)

        return size, read

    def index(self, collection: str, part: int, rows: int | None = None) -> PartIndex:
        """Fetch and open the indexes of one part.

        Args:
            collection: Full name of the collection.
            part: Number of the part.
            rows: How many records it holds, for who believes the manifest and does not want them counted.

        Raises:
            CorruptionDetected: One is missing or is not what was stored.
        """
        layers = [self.segment_index(b, c, part, s) for b, c, s in self.segments(collection, part)]
        return PartIndex(layers, rows)

    def segment_index(self, backup: BackupMetadata, collection: Collection, part: int, segment: Segment) -> pa.Table:
        """Fetch and open the index of one segment: `_key`, `_digest` and `_deleted`, as `PartIndex` has them.

        Raises:
            CorruptionDetected: It is missing, is not what was stored, or has more or fewer entries than it should.
        """
        blob, name = segment.index, f"{_name(backup, segment.index)} ({collection.name}#{part})"
        if blob.shared is not None:
            table = index_at(self._shared_index(backup.backup_id, _without_place(blob)), blob.shared, name)
        else:
            piece = self._piece(backup, collection, part, blob, ObjectKind.INDEX)
            table = index_from_parquet(piece.open().data, piece.name)
        if table.num_rows != segment.upserts + segment.tombstones:
            raise CorruptionDetected(f"{name}: {table.num_rows} entries where the manifest counts otherwise")
        return table

    def _shared_blob(self, backup_id: str, blob: Blob) -> SharedBlob:
        return SharedBlob(self._piece(self._backup(backup_id), None, 0, blob, ObjectKind.SEGMENT))

    def _index_of_blob(self, backup_id: str, blob: Blob) -> pa.Table:
        piece = self._piece(self._backup(backup_id), None, 0, blob, ObjectKind.INDEX)
        return index_from_parquet(piece.open().data, piece.name)

    def _backup(self, backup_id: str) -> BackupMetadata:
        return next(backup for backup in self.backups if backup.backup_id == backup_id)

    def _piece(
        self, backup: BackupMetadata, collection: Collection | None, part: int, blob: Blob, kind: ObjectKind
    ) -> Piece:
        index = kind is ObjectKind.INDEX and self._copies
        fetch = self.repository.get_index if index else self.repository.get_blob
        sealed = fetch(backup.plan, backup.backup_id, blob)
        key = self.data_keys[backup.backup_id] if kind is ObjectKind.SEGMENT else self.repository.keys.catalogue_key
        of = f" ({collection.name}#{part})" if collection else ""
        return Piece(sealed, key, _context(backup, collection, part, blob, kind), f"{_name(backup, blob)}{of}")


def _read_once(read: Callable[[str, Blob], T], kept: int) -> Callable[[str, Blob], T]:
    """Keep the last answers; who asks for one that is just being read waits for it."""
    remembered, reading = lru_cache(kept)(read), dict[tuple[str, Blob], Lock]()

    def answer(backup_id: str, blob: Blob) -> T:
        with reading.setdefault((backup_id, blob), Lock()):
            return remembered(backup_id, blob)

    return answer


def _context(
    backup: BackupMetadata, collection: Collection | None, part: int, blob: Blob, kind: ObjectKind
) -> ObjectContext:
    if blob.number is not None:
        return ObjectContext.of_blob(backup, kind, blob.number)
    if collection is None:
        raise CorruptionDetected(f"{_name(backup, blob)} has no number", hint=_NOT_OURS)
    return ObjectContext.of_part(backup, kind, collection.number, part)


def _name(backup: BackupMetadata, blob: Blob) -> str:
    return f"{backup.backup_id}/{blob.name}"


def _without_place(blob: Blob) -> Blob:
    return blob.model_copy(update={"shared": None})


def _check_collections(backup: BackupMetadata) -> None:
    for collection in backup.collections:
        columns = {name for name, _ in collection.columns}
        if collection.source not in backup.data_sources:
            wrong = "is of a source that it does not name"
        elif not collection.key or not columns.issuperset(collection.key + collection.label):
            wrong = "has a key that is not among its columns"
        else:
            continue
        raise CorruptionDetected(
            f"in the manifest of backup {backup.backup_id}, collection {collection.name!r} {wrong}", hint=_NOT_OURS
        )


def _check_parts(full: BackupMetadata, bounds: _BoundsByName, backup: BackupMetadata) -> None:
    """A chain keeps the parts of its full: a part that is left out would be rows that are left out."""
    if full.format_version != backup.format_version:
        raise CorruptionDetected(
            f"backup {backup.backup_id} has format {backup.format_version}, and stands on {full.backup_id}, "
            f"which has format {full.format_version}",
            hint=_NOT_OURS,
        )
    if _bounds_by_collection(backup) != bounds:
        raise CorruptionDetected(
            f"backup {backup.backup_id} does not have the parts of {full.backup_id}, on which it stands", hint=_NOT_OURS
        )


def _check_sums(backup: BackupMetadata) -> None:
    """A manifest names all that it counts: a change that is left out would be rows as they were before."""
    segments = [part.segment for part in backup.stored_parts if part.segment]
    rows = sum(collection.rows for collection in backup.collections)
    sums = {
        "rows": (backup.rows, rows),
        "bytes of rows": (backup.size_bytes, sum(one.size_bytes for one in segments)),
        "compressed bytes": (backup.size_compressed, sum(one.size_compressed for one in segments)),
    }
    for what, (said, found) in sums.items():
        if said != found:
            raise CorruptionDetected(
                f"the manifest of backup {backup.backup_id} does not add up: it names other {what} than it says",
                hint=_NOT_OURS,
            )


def _bounds_by_collection(backup: BackupMetadata) -> _BoundsByName:
    return {c.name: [(part.number, part.bounds) for part in c.parts] for c in backup.collections}


_NOT_OURS = "The manifest was not made by lastgood. Do not trust this backup."
