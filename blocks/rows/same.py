"""Values that are stored once: a row of a segment may say of which other row its value is, in place of holding it.

Such a row has NULL as its value and names, in two columns more, a row of the same collection. What it means is the
value that this row has in the same backup: there, or in those that it stands on. A backup never changes, and neither
does what it means. All of this is beneath the rows: digests and indexes are those of rows with their values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import one_chunk

VALUE = "data"
"""The column whose values may be stored once: the content of files."""
SAME_PART = "_same_part"
"""Number of the part of the row whose value it is (int64); NULL where the value is here."""
SAME_KEY = "_same_key"
"""`_key` of that row (large_binary); NULL where the value is here."""
AS_OF = "_as_of"
"""While a chain is merged: position in it of the backup that a row was stored in (int64)."""

LEAST_BYTES = 1024
"""A shorter value is stored where it is: what names it would hardly be smaller."""

_HINT = "It was not made by lastgood. Do not trust this backup."


def candidates(rows: pa.Table, parents: pa.Array, first_key: str) -> list[int]:
    """Find the rows whose values are worth looking for elsewhere.

    Args:
        rows: Canonical columns.
        parents: Values of the first key column: other rows may have the values of their rows, too.
        first_key: Name of the first key column.
    """
    if VALUE not in rows.column_names or not pa.types.is_large_binary(rows.schema.field(VALUE).type):
        return []
    concerned = pc.is_in(rows.column(first_key), parents.cast(rows.schema.field(first_key).type))
    long = pc.fill_null(pc.greater_equal(pc.binary_length(rows.column(VALUE)), LEAST_BYTES), False)
    found: list[int] = pc.indices_nonzero(pc.and_(concerned, long)).to_pylist()
    return found


def fingerprints(rows: pa.Table, positions: Sequence[int]) -> list[bytes]:
    """Return for each of some rows 32 bytes that stand for its value: those of no other value are the same."""
    values = rows.column(VALUE)
    return [hashlib.blake2b(values[at].as_buffer(), digest_size=32).digest() for at in positions]


def with_references(rows: pa.Table, references: Mapping[int, tuple[int, bytes]]) -> pa.Table:
    """Put references in the place of values.

    Args:
        rows: A segment: `_key` and the canonical columns.
        references: By position the number of the part, and the `_key`, of the row whose value it is.
    """
    parts = np.zeros(rows.num_rows, np.int64)
    here = np.ones(rows.num_rows, np.bool_)
    keys: list[bytes | None] = [None] * rows.num_rows
    for at, (part, key) in references.items():
        parts[at], keys[at], here[at] = part, key, False
    values = pc.if_else(pa.array(here), one_chunk(rows.column(VALUE)), pa.scalar(None, pa.large_binary()))
    rows = rows.set_column(rows.column_names.index(VALUE), VALUE, values)
    rows = rows.append_column(SAME_PART, pa.array(parts, mask=here))
    return rows.append_column(SAME_KEY, pa.array(keys, pa.large_binary()))


def told_apart(rows: pa.Table, as_of: int) -> pa.Table:
    """Note in the rows of a segment which backup of the chain their references are of; others stay as they are.

    Args:
        rows: A segment as it was stored.
        as_of: Position of its backup in the chain.
    """
    if SAME_KEY not in rows.column_names and SAME_PART not in rows.column_names:
        return rows
    return rows.append_column(AS_OF, pa.repeat(pa.scalar(as_of, pa.int64()), rows.num_rows))


def references(rows: pa.Table) -> list[tuple[int, int, int, bytes]]:
    """Return the references in rows: position, and of what they refer to backup (its position), part and `_key`.

    Raises:
        CorruptionDetected: Some are not whole.
    """
    if SAME_KEY not in rows.column_names and SAME_PART not in rows.column_names:
        return []
    kinds = {AS_OF: pa.int64(), SAME_PART: pa.int64(), SAME_KEY: pa.large_binary()}
    for name, kind in kinds.items():
        if name not in rows.column_names or rows.schema.field(name).type not in (kind, pa.null()):
            raise CorruptionDetected(f"a segment has no column {name} of the right type", hint=_HINT)
    at = pc.indices_nonzero(rows.column(SAME_KEY).is_valid())
    named = rows.select([*kinds]).take(at).to_pydict()
    found = list(zip(at.to_pylist(), named[AS_OF], named[SAME_PART], named[SAME_KEY], strict=True))
    values = rows.column(VALUE).take(at).null_count if VALUE in rows.column_names else -1
    if any(part is None for _, _, part, _ in found) or values != len(found):
        raise CorruptionDetected("a row has a value, and says that it is that of another one", hint=_HINT)
    return found


def without_references(rows: pa.Table) -> pa.Table:
    """Leave out the columns that name other rows."""
    return rows.drop_columns([name for name in (SAME_PART, SAME_KEY, AS_OF) if name in rows.column_names])


def with_values(rows: pa.Table, found: Mapping[int, tuple[pa.Array, int]]) -> pa.Table:
    """Put values in their places.

    Args:
        rows: Canonical columns.
        found: By position an array that holds the value, and its place there.
    """
    own = one_chunk(rows.column(VALUE)).cast(pa.large_binary())
    takes = np.arange(rows.num_rows, dtype=np.int64)
    pieces, starts, length = [own], dict[int, int](), len(own)
    for at, (values, place) in found.items():
        if id(values) not in starts:
            starts[id(values)] = length
            pieces.append(values)
            length += len(values)
        takes[at] = starts[id(values)] + place
    filled = pa.chunked_array(pieces, pa.large_binary()).take(pa.array(takes))
    return rows.set_column(rows.column_names.index(VALUE), VALUE, filled)
