"""What a restore would do, found by comparing the backup with the place it would be restored to; writes nothing."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc

from blocks.canonical import DIGEST, KEY
from blocks.errors import SourceUnavailable
from blocks.manifest import Collection
from blocks.partindex import DELETED, PartIndex
from blocks.plan import BackupPlan
from blocks.rowdigest import RowDigest
from blocks.selection import Selection
from blocks.sources.base import CollectionSpec, RestoreMode, View
from flows.chain import Chain
from flows.parcel import RestorePart, spec_of
from flows.parquet import from_parquet
from flows.results import CollectionResult, RestoreResult
from flows.stages.diff import changes_between, merged
from flows.stages.encrypt import open_piece
from flows.stages.normalize import from_normal, to_normal
from flows.targets import by_source, place_of, shown_place


def preview_restore(
    plan: BackupPlan, chain: Chain, selection: Selection, to: str | None, started: float
) -> RestoreResult:
    """Count, for each selected collection, the rows a restore would add, change and (an exact one) remove."""
    groups = by_source(plan, chain, selection)
    places, notes, results = {}, [], []
    with ExitStack() as opened:
        for name, collections in groups.items():
            place = place_of(plan.sources[name], name, to, several=len(groups) > 1, make=False)
            places[name] = shown_place(place)
            source = plan.sources[name] if place is None else plan.sources[name].at(place)
            view: View | None = None
            try:
                view = opened.enter_context(source.view())
            except SourceUnavailable as exc:
                notes.append(f"{name}: nothing there that can be read ({exc.message})")
            results += [_Count(chain, c, view).run(selection) for c in collections]
            if view is not None and selection.everything and chain.target.whole:
                results += _dropped(chain, name, view)
    return RestoreResult(
        plan=plan.name,
        backup_id=chain.target.backup_id,
        timestamp=chain.target.timestamp,
        mode=RestoreMode.PREVIEW,
        collections=results,
        places=places,
        notes=notes,
        seconds=round(time.monotonic() - started, 3),
    )


def _dropped(chain: Chain, source: str, view: View) -> list[CollectionResult]:
    """Count the collections that the backup does not know, which an exact restore of everything removes."""
    state = next(s for s in chain.target.sources if s.name == source)
    if state.definition.get("narrowed"):  # what lies beside the chosen collections is never touched
        return []
    held = {c.name for c in chain.target.collections}
    gone = {f"{source}/{spec.name}": spec for spec in view.collections()}
    return [
        CollectionResult(collection=name, rows=0, added=0, changed=0, removed=_rows_of(view, spec))
        for name, spec in gone.items()
        if name not in held
    ]


def _rows_of(view: View, spec: CollectionSpec) -> int:
    return sum(view.read(spec, bounds, None).rows.num_rows for bounds in view.draw(spec))


class _Count:
    """Compares one collection with what is there.

    A row whose key stayed and which moved to another part is removed from one and added to the other; it counts as
    changed. So the keys that are added and removed are kept until the end.
    """

    def __init__(self, chain: Chain, collection: Collection, view: View | None) -> None:
        self._chain, self._collection, self._view = chain, collection, view
        self._spec = spec_of(collection)
        self._added: list[pa.Array] = [pa.array([], pa.large_binary())]
        self._removed: list[pa.Array] = [pa.array([], pa.large_binary())]
        self._rows = self._changed = 0

    def run(self, selection: Selection) -> CollectionResult:
        """Compare all parts."""
        here = self._here()
        same = here is not None and (here.key, here.definition) == (self._spec.key, self._spec.definition)
        for part in self._chain.parts(selection):
            if part.collection.name == self._collection.name:
                self._compare(part, here if same else None)
        added, removed = pa.concat_arrays(self._added), pa.concat_arrays(self._removed)
        moved = pc.sum(pc.is_in(added, removed)).as_py() or 0
        # under another key the bounds of the parts mean nothing there: the table is replaced as a whole
        replaced = _rows_of(self._view, here) if self._view and here and not same and not selection.keys else 0
        return CollectionResult(
            collection=self._collection.name,
            rows=self._rows,
            added=len(added) - moved,
            changed=self._changed + moved,
            removed=len(removed) - moved + replaced,
        )

    def _here(self) -> CollectionSpec | None:
        specs = self._view.collections() if self._view is not None else ()
        return next((spec for spec in specs if spec.name == self._spec.name), None)

    def _compare(self, part: RestorePart, here: CollectionSpec | None) -> None:
        wanted = comparable(load_part(part), part, self._chain.digest)
        live = self._live(part, here)
        index = changes_between(live, wanted).index
        keys = index.column(KEY).combine_chunks()
        removed = index.column(DELETED).combine_chunks()
        put = keys.filter(pc.invert(removed))
        added = put.filter(pc.invert(pc.is_in(put, live.keys)))
        self._rows += wanted.num_rows
        self._changed += len(put) - len(added)
        self._added.append(added)
        self._removed.append(keys.filter(removed))

    def _live(self, part: RestorePart, here: CollectionSpec | None) -> PartIndex:
        if self._view is None or here is None:
            return PartIndex([])
        rows = self._view.read(here, part.part.bounds, None).rows
        if part.selection:
            rows = part.selection.rows(rows, self._spec.label)
        normal = comparable(rows, part, self._chain.digest)
        return PartIndex.of(normal.column(KEY).combine_chunks(), normal.column(DIGEST).combine_chunks())


def load_part(part: RestorePart) -> pa.Table:
    """Bring one part up to the rows its source knows, in one go."""
    tables = [from_parquet(open_piece(piece), piece.name) for piece in part.chain.pieces(part)]
    rows = from_normal(merged(tables, part.spec.key))
    return part.selection.rows(rows, part.spec.label) if part.selection and rows.num_columns else rows


def comparable(rows: pa.Table, part: RestorePart, digest: RowDigest) -> pa.Table:
    """Normalise rows without the columns that a restore does not bring back, or cannot in this process."""
    if not rows.num_columns:
        return pa.table({KEY: pa.array([], pa.large_binary()), DIGEST: pa.array([], pa.uint64())})
    left_out = part.chain.beyond_privileges.get(part.collection.source, frozenset()).union(part.spec.tracking)
    kept = [name for name in rows.column_names if name not in left_out]
    return to_normal(rows.select(kept), part.spec.key, digest)
