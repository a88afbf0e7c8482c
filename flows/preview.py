"""What a restore would do, found by comparing the backup with the place it would be restored to; writes nothing."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pyarrow as pa

from blocks.canonical import DIGEST, KEY, PartIndex
from blocks.errors import SourceUnavailable
from blocks.plan import BackupPlan
from blocks.rowdigest import RowDigest
from blocks.selection import Selection
from blocks.sources.base import RestoreMode, View
from flows.chain import Chain
from flows.parcel import RestorePart, spec_of
from flows.parquet import from_parquet
from flows.results import CollectionResult, RestoreResult
from flows.stages.diff import changes_between, merged
from flows.stages.encrypt import open_piece
from flows.stages.normalize import from_normal, to_normal
from flows.targets import place_of, selected


def preview_restore(
    plan: BackupPlan, chain: Chain, selection: Selection, to: str | None, started: float
) -> RestoreResult:
    """Count, for each selected collection, the rows a restore would add, change and remove."""
    collections = selected(chain, selection)
    sources = sorted({c.source for c in collections})
    totals = {c.name: CollectionResult(collection=c.name, rows=0, added=0, changed=0, removed=0) for c in collections}
    places, notes = {}, []
    with ExitStack() as opened:
        views: dict[str, View | None] = {}
        for name in sources:
            place = place_of(plan.sources[name], name, to, several=len(sources) > 1, make=False)
            places[name] = place or "live"
            source = plan.sources[name] if place is None else plan.sources[name].at(place)
            try:
                views[name] = opened.enter_context(source.view())
            except SourceUnavailable as exc:
                views[name] = None
                notes.append(f"{name}: nothing there that can be read ({exc.message})")
        for part in chain.parts(selection):
            _count(totals[part.collection.name], part, views[part.collection.source], chain.digest)
    return RestoreResult(
        plan=plan.name,
        backup_id=chain.target.backup_id,
        timestamp=chain.target.timestamp,
        mode=RestoreMode.PREVIEW,
        collections=list(totals.values()),
        places=places,
        notes=notes,
        seconds=round(time.monotonic() - started, 3),
    )


def _count(total: CollectionResult, part: RestorePart, view: View | None, digest: RowDigest) -> None:
    wanted = comparable(load_part(part), part, digest)
    live = _live(part, view, digest)
    changes = changes_between(live, wanted)
    total.rows += wanted.num_rows
    added = wanted.num_rows - (len(live) - changes.tombstones)
    total.added = (total.added or 0) + added
    total.changed = (total.changed or 0) + changes.upserts - added
    total.removed = (total.removed or 0) + changes.tombstones


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


def _live(part: RestorePart, view: View | None, digest: RowDigest) -> PartIndex:
    spec = spec_of(part.collection)
    here = next((c for c in view.collections() if c.name == spec.name), None) if view is not None else None
    if view is None or here is None or not set(spec.key) <= {name for name, _ in here.columns} | set(here.key):
        return PartIndex(pa.array([], pa.large_binary()), pa.array([], pa.uint64()))
    rows = view.read(here, part.part.bounds, None).rows
    if part.selection:
        rows = part.selection.rows(rows, spec.label)
    normal = comparable(rows, part, digest)
    return PartIndex(normal.column(KEY).combine_chunks(), normal.column(DIGEST).combine_chunks())
