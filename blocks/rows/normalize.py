"""Normal form: rows in canonical types, with a key and a digest each, sorted by key."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import UnsupportedState
from blocks.rows.canonical import DIGEST, KEY, escape, from_canonical, is_sorted, to_canonical
from blocks.rows.digest import RowDigest
from blocks.rows.keys import encode_keys


def to_normal(rows: pa.Table, key: tuple[str, ...], digest: RowDigest) -> pa.Table:
    """Encode rows in canonical form.

    Args:
        rows: The collection's columns in the types of their source.
        key: Names of the key columns.
        digest: Computes the digest of a row.

    Returns:
        `_key` (large_binary), `_digest` (uint64), and the columns in their canonical types; sorted by `_key`.

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
    """Undo `to_normal`, up to the order of rows; `_key` and `_digest` are dropped where they are there.

    Args:
        rows: Rows with `_key`, maybe `_digest`, and canonical columns.
    """
    return from_canonical(rows.drop_columns([name for name in (KEY, DIGEST) if name in rows.column_names]))
