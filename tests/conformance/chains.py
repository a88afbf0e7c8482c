"""Backups and restores in memory: a source's rows through diff and merge, without a repository around them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import JsonValue

from blocks.canonical import DIGEST, KEY
from blocks.partindex import KnownPart, PartIndex
from blocks.rowdigest import RowDigest
from blocks.selection import Selection
from blocks.sources.base import Bounds, CollectionSpec, RestoreMode, RestoreScope, StateSource, Target, View
from flows.stages.diff import changes_between, merged
from flows.stages.normalize import from_normal, to_normal

DIGEST_OF = RowDigest(b"k" * 32)

Content = dict[bytes, int]
"""Rows as they are compared: the digest of what is restored, by key."""


@dataclass
class Piece:
    """One part of a chain: its bounds and what each backup stored of it."""

    bounds: Bounds
    segments: list[pa.Table] = field(default_factory=list)
    indexes: list[pa.Table] = field(default_factory=list)


@dataclass
class Kept:
    """A chain of backups of one source."""

    definition: dict[str, JsonValue]
    token: str | None
    pieces: dict[str, list[Piece]]
    specs: dict[str, CollectionSpec]

    def rows(self, name: str) -> list[pa.Table]:
        """Merge the chain: the rows of each part of a collection, as a restore gets them."""
        key = self.specs[name].key
        return [from_normal(merged(piece.segments, key)) for piece in self.pieces[name]]

    def content(self, essence: Callable[[pa.Table], pa.Table] = lambda rows: rows) -> dict[str, Content]:
        """Return what a restore would put, to be compared; `essence` is the adapter's."""
        return {n: content_of(spec, [essence(rows) for rows in self.rows(n)]) for n, spec in self.specs.items()}

    def scope(self, mode: RestoreMode = RestoreMode.EXACT, keys: tuple[str, ...] = ()) -> RestoreScope:
        """Say what a restore of it writes."""
        tables = {name: self.rows(name) for name in self.specs}
        return RestoreScope(
            definition=self.definition,
            collections=tuple((s, sum(rows.num_rows for rows in tables[n])) for n, s in self.specs.items()),
            mode=mode,
            selection=Selection(keys=keys),
            size_bytes=sum(rows.nbytes for parts in tables.values() for rows in parts),
        )


def content_of(spec: CollectionSpec, parts: list[pa.Table]) -> Content:
    """Digest rows without the columns that are not restored; no key may come twice."""
    content: Content = {}
    for rows in parts:
        if not rows.num_columns:
            continue
        normal = to_normal(rows.drop_columns([n for n in spec.tracking if n in rows.column_names]), spec.key, DIGEST_OF)
        found = dict(zip(normal.column(KEY).to_pylist(), normal.column(DIGEST).to_pylist(), strict=True))
        assert not content.keys() & found.keys(), f"two parts of {spec.name} hold the same key"
        content |= found
    return content


def back_up(source: StateSource) -> Kept:
    """Make a full backup."""
    with source.view() as view:
        specs = {spec.name: spec for spec in view.collections()}
        kept = Kept(view.definition, view.token, {n: [Piece(b) for b in view.draw(s)] for n, s in specs.items()}, specs)
        _read(view, kept, tracked=False)
        view.finish()
    return kept


def follow_up(source: StateSource, kept: Kept, tracked: bool = True) -> Kept:
    """Make an incremental (tracked) or a differential over a chain, which stays as it is."""
    pieces = {n: [Piece(p.bounds, [*p.segments], [*p.indexes]) for p in parts] for n, parts in kept.pieces.items()}
    with source.view() as view:
        specs = {spec.name: spec for spec in view.collections()}
        assert {n: s.fingerprint for n, s in specs.items()} == {n: s.fingerprint for n, s in kept.specs.items()}
        following = Kept(view.definition, kept.token, pieces, specs)
        if not tracked or view.token is None or view.token != kept.token:
            _read(view, following, tracked)
        view.finish()
        following.token = view.token
    return following


def _read(view: View, kept: Kept, tracked: bool) -> None:
    for name, pieces in kept.pieces.items():
        for piece in pieces:
            _read_part(view, kept, kept.specs[name], piece, tracked)


def _read_part(view: View, kept: Kept, spec: CollectionSpec, piece: Piece, tracked: bool) -> None:
    base = PartIndex(piece.indexes)
    known = KnownPart(lambda: base, len(base), spec.key, DIGEST_OF, kept.token)
    reading = view.read(spec, piece.bounds, known if tracked else None)
    assert set(reading.rows.column_names) == {name for name, _ in spec.columns}
    if reading.whole_part_unchanged:
        return
    if reading.unchanged is not None:
        assert set(reading.unchanged.to_pylist()) <= set(base.keys.to_pylist()), "unchanged, but not in the base"
    if reading.touched is not None:
        assert reading.rest_unchanged, "touched means nothing without the rest"
        assert set(reading.touched.to_pylist()) <= set(base.keys.to_pylist()), "touched, but not in the base"
    normal = to_normal(reading.rows, spec.key, DIGEST_OF)
    changes = changes_between(base, normal, reading.unchanged, reading.rest_unchanged, reading.touched)
    if changes.upserts or changes.tombstones:
        piece.segments.append(changes.rows)
        piece.indexes.append(changes.index)


def restore(
    kept: Kept,
    source: StateSource,
    to: str | None = None,
    mode: RestoreMode = RestoreMode.EXACT,
    keys: tuple[str, ...] = (),
) -> None:
    """Restore a chain as the flow does: preflight, parts from two threads, commit; aborted when refused."""
    scope = kept.scope(mode, keys)
    target = source.target(scope, to)
    try:
        target.preflight()
        apply_all(kept, target, scope)
        target.commit()
    finally:
        target.abort()


def apply_all(kept: Kept, target: Target, scope: RestoreScope) -> None:
    """Write the selected rows of all parts."""
    work = [
        (spec, scope.selection_of(name).rows(rows, spec.label))
        for name, spec in kept.specs.items()
        for rows in kept.rows(name)
        if rows.num_columns
    ]
    with ThreadPoolExecutor(2) as pool:
        for written, (_, rows) in zip(
            pool.map(lambda w: target.apply(*w) if w[1].num_rows else 0, work), work, strict=True
        ):
            assert written == rows.num_rows


def index_of(kept: Kept, name: str) -> list[PartIndex]:
    """Return what a chain's indexes hold of a collection."""
    return [PartIndex(piece.indexes) for piece in kept.pieces[name]]
