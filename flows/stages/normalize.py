"""Stage 2: canonical types, a key and a digest for each row, sorted by key, and back."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from blocks.canonical import DIGEST, KEY, escape, from_canonical, is_sorted, to_canonical
from blocks.errors import CorruptionDetected, UnsupportedState
from blocks.rowdigest import RowDigest
from blocks.rowkeys import encode_keys
from blocks.sources.base import Reading
from flows.box import Box
from flows.engine import INSIDE, task
from flows.parcel import Normal, PartJob, RestorePart


@task(task_run_name="normalize {part}", tags=["stage"], **INSIDE)
def normalize(part: PartJob, reading: Box[Reading]) -> Box[Normal]:
    """Give the rows of one part their canonical form, keys and digests, in key order."""
    what = reading.take()
    selected = part.selection.rows(what.rows, part.spec.label) if part.selection else what.rows
    try:
        rows = to_normal(selected, part.spec.key, part.digest)
    except UnsupportedState as exc:
        raise UnsupportedState(f"{part}: {exc.message}", hint=exc.hint) from exc
    return Box(
        Normal(rows, what.unchanged, what.touched, what.rest_unchanged, what.only_replaced, what.whole_part_unchanged)
    )


@task(task_run_name="denormalize {part}", tags=["stage"], **INSIDE)
def denormalize(part: RestorePart, rows: Box[pa.Table]) -> Box[pa.Table]:
    """Give canonical rows the names their source knows, narrowed to what was asked for.

    Raises:
        CorruptionDetected: They are not as many as the manifest counts.
    """
    restored = from_normal(rows.take())
    if restored.num_rows != part.part.rows:
        raise CorruptionDetected(
            f"{part}: its chain holds {restored.num_rows} rows, the manifest counts {part.part.rows}",
            hint="Restore a backup that does not stand on this one.",
        )
    if part.selection is None or not restored.num_columns:
        return Box(restored)
    return Box(part.selection.rows(restored, part.spec.label))


def to_normal(rows: pa.Table, key: tuple[str, ...], digest: RowDigest) -> pa.Table:
    """Return canonical rows with `_key` and `_digest` in front, sorted by `_key`.

    Raises:
        UnsupportedState: A value cannot be kept exactly, or two rows share a key.
    """
    canonical = to_canonical(rows)
    keys = encode_keys(canonical, [escape(name) for name in key])
    table = canonical.add_column(0, DIGEST, digest(canonical)).add_column(0, KEY, keys)
    if is_sorted(keys):
        return table
    table = table.take(pc.sort_indices(keys))
    if not is_sorted(table.column(KEY).combine_chunks()):
        raise UnsupportedState(f"two rows have the same key {', '.join(key)}")
    return table


def from_normal(rows: pa.Table) -> pa.Table:
    """Undo `to_normal`, up to the order of rows and the canonical types."""
    return from_canonical(rows.drop_columns([name for name in (KEY, DIGEST) if name in rows.column_names]))
