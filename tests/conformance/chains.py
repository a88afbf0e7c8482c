"""Backups and restores in memory: a source's rows through diff and merge, without a repository around them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
from pydantic import JsonValue

from blocks.rows.canonical import DIGEST, KEY
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex, PartLookup
from blocks.rows.merge import merged
from blocks.rows.normalize import from_normal, to_normal
from blocks.rows.selection import Selection
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.part_changes import changes_since
from blocks.sources.reading import Delta, FullRead, Unchanged, Updates
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreMode, RestoreScope, Target
from blocks.sources.view import Salvaging, View, read_whole

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

    def scope(
        self, mode: RestoreMode = RestoreMode.EXACT, keys: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> RestoreScope:
        """Say what a restore of it writes; `names` are those of some collections."""
        specs = {name: spec for name, spec in self.specs.items() if not names or name in names}
        tables = {name: self.rows(name) for name in specs}
        chosen = names or (tuple(specs) if keys else ())
        return RestoreScope(
            definition=self.definition,
            collections=tuple((s, sum(rows.num_rows for rows in tables[n])) for n, s in specs.items()),
            mode=mode,
            selection=Selection(chosen, keys),
            size_bytes=sum(rows.nbytes for parts in tables.values() for rows in parts),
            plan="conformance",
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


def holder_of(kept: Kept, key: str) -> str:
    """Name the collection that holds a record under a key."""
    glob = Selection(keys=(key,))
    for name, spec in kept.specs.items():
        if any(rows.num_columns and glob.rows(rows, spec.label).num_rows for rows in kept.rows(name)):
            return name
    raise AssertionError(f"no collection holds {key}")


def back_up(source: StateSource) -> Kept:
    """Make a full backup."""
    with source.view() as view:
        return kept_of(view)


def kept_of(view: View) -> Kept:
    """Read all that a view shows."""
    specs = {spec.name: spec for spec in view.collections()}
    kept = Kept(
        view.definition, view.token, {n: [Piece(b) for b in view.partition(s)] for n, s in specs.items()}, specs
    )
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
    known = PartLookup(lambda: base, len(base), spec.key, DIGEST_OF, kept.token)
    reading = view.read(spec, piece.bounds, known) if tracked else read_whole(view, spec, piece.bounds)
    if isinstance(reading, Unchanged):
        return
    assert set(reading.rows.column_names) == {name for name, _ in spec.columns}
    normal = replace(reading, rows=to_normal(reading.rows, spec.key, DIGEST_OF))
    _check(normal, base)
    changes = changes_since(base, normal)
    if changes.upserts or changes.tombstones:
        piece.segments.append(changes.rows)
        piece.indexes.append(changes.index)


def _check(reading: FullRead | Delta | Updates, base: PartIndex) -> None:
    """Make sure of what a reading says about the base; its rows are normalised."""
    before, read = set(base.keys.to_pylist()), set(reading.rows.column(KEY).to_pylist())
    match reading:
        case FullRead(unchanged=keys) if keys is not None:
            unchanged = keys.to_pylist()
            assert len(unchanged) == len(set(unchanged)), "unchanged, and counted twice"
            assert set(unchanged) <= before, "unchanged, but not in the base"
            assert not set(unchanged) & read, "unchanged, but read as well"
        case Delta(reread=keys) if keys is not None:
            reread = keys.to_pylist()
            assert len(reread) == len(set(reread)), "read again, and counted twice"
            assert set(reread) <= before, "read again, but not in the base"
        case Updates():
            assert read <= before, "an update of a record that is not in the base"


def restore(
    kept: Kept,
    source: StateSource,
    to: str | None = None,
    mode: RestoreMode = RestoreMode.EXACT,
    keys: tuple[str, ...] = (),
) -> None:
    """Restore a chain as the flow does: preflight, begin, parts from two threads, commit; aborted when refused."""
    scope = kept.scope(mode, keys)
    target = source.target(scope, to)
    try:
        target.preflight()
        target.begin()
        apply_all(kept, target, scope)
        target.commit()
    finally:
        target.abort()


def restore_in_place(
    kept: Kept,
    source: StateSource,
    mode: RestoreMode = RestoreMode.EXACT,
    keys: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    created: tuple[str, ...] = (),
) -> Kept:
    """Restore to the live place as the flow does; return the backup that is made before."""
    scope = replace(kept.scope(mode, keys, names), created=created)
    target = source.target(scope)
    try:
        before = ready(kept, source, target, scope)
        target.check_unwritten()
        target.commit()
    finally:
        target.abort()
    return before


def ready(kept: Kept, source: StateSource, target: Target, scope: RestoreScope) -> Kept:
    """Do all that comes before the last look and the commit; return the backup of before."""
    target.preflight()
    target.hold()
    before = guarded(source, target)
    target.begin()
    apply_all(kept, target, scope, source)
    return before


def guarded(source: StateSource, target: Target) -> Kept:
    """Make the backup before a restore, of a state that can be read as a whole."""
    with source.salvage() as view:
        target.guard(view)
        before = kept_of(view)
        unread = view.unread if isinstance(view, Salvaging) else ()
    assert not unread
    return before


def apply_all(kept: Kept, target: Target, scope: RestoreScope, source: StateSource | None = None) -> None:
    """Write the selected rows of all parts, those that the plan of a source covers."""
    work = [
        (spec, _covered(source, spec, scope.selection_of(spec.name).rows(rows, spec.label)))
        for spec, _ in scope.collections
        if source is None or source.covers(spec)
        for rows in kept.rows(spec.name)
        if rows.num_columns
    ]
    with ThreadPoolExecutor(2) as pool:
        for written, (_, rows) in zip(
            pool.map(lambda w: target.apply(*w) if w[1].num_rows else 0, work), work, strict=True
        ):
            assert written == rows.num_rows


def _covered(source: StateSource | None, spec: CollectionSpec, rows: pa.Table) -> pa.Table:
    mask = None if source is None else source.covered(spec, rows)
    return rows if mask is None else rows.filter(mask)


def index_of(kept: Kept, name: str) -> list[PartIndex]:
    """Return what a chain's indexes hold of a collection."""
    return [PartIndex(piece.indexes) for piece in kept.pieces[name]]
