"""Restored rows as a pandas frame, for checks that compare values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.variant import Scalar, decode_variant, is_variant

if TYPE_CHECKING:
    import pandas as pd

MIXED_LIMIT_BYTES = 1 << 30
"""Memory that a column of mixed types may take while it is checked; a larger one is left out of the frame."""


def make_frame(rows: pa.Table, read: Collection[str]) -> pd.DataFrame:
    """Make a frame of the columns that are read; the others are there by name only, all NULL, and take no memory.

    Args:
        rows: The restored rows: a table with canonical types, one column per field.
        read: Names of the columns whose values are needed.
    """
    # importing it takes a while, and most commands never need it
    import pandas as pd

    columns = {}
    for field in rows.schema:
        if field.name in read:
            # one that cannot be converted is left out, so that nothing about it can be proved
            if (series := _series(rows.column(field.name), field)) is not None:
                columns[field.name] = series
        else:
            columns[field.name] = pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.nulls(rows.num_rows)])))
    return pd.DataFrame(columns, index=pd.RangeIndex(rows.num_rows), copy=False)


@dataclass(frozen=True)
class _Blob:
    """Bytes in a variant column: pandas takes bytes among other types for ASCII text when it hashes a frame."""

    value: bytes


def _series(column: pa.ChunkedArray, field: pa.Field) -> pd.Series[Any] | None:
    """Convert one column so that comparisons are exact and a NULL does not change the type; None if it is too large."""
    import pandas as pd

    if is_variant(field):
        return _mixed_series(decode_variant(column))
    if pa.types.is_time(column.type):
        column = pc.cast(column, pa.large_string())
    if pa.types.is_decimal(column.type):
        return pd.Series(pd.arrays.ArrowExtensionArray(column))
    # NULLs would turn integers into floats, which do not hold every integer
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()} if column.null_count else {}
    series: pd.Series[Any] = column.to_pandas(types_mapper=nullable.get)
    return series


def _mixed_series(values: list[Scalar]) -> pd.Series[Any] | None:
    import pandas as pd

    longest = max((len(value) for value in values if isinstance(value, str)), default=0)
    # pandas hashes mixed values in an array of fixed width, 4 bytes for each character of the longest text
    if longest * len(values) * 4 > MIXED_LIMIT_BYTES and len({type(v) for v in values if v is not None}) > 1:
        return None
    return pd.Series([_Blob(bytes(v)) if isinstance(v, bytes | bytearray) else v for v in values], dtype=object)
