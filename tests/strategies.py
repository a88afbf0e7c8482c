"""Hypothesis strategies for rows of every canonical type."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st

from blocks.rows.variant import encode_variant, variant_field

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
scalars = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True),
    text,
    st.binary(max_size=12),
    st.binary(max_size=8).map(lambda b: bytearray(b"\xff" + b)),
)

TYPED = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.large_string(): text,
    pa.large_binary(): st.binary(max_size=12),
    pa.timestamp("us", "UTC"): st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    pa.timestamp("us"): st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    pa.date32(): st.dates(date(1, 1, 2), date(9999, 12, 30)),
    pa.time64("us"): st.times(time(0), time(23, 59, 59)),
    pa.decimal128(20, 4): st.integers(-(10**19), 10**19).map(lambda n: Decimal(n).scaleb(-4)),
}


def column(kind: pa.DataType, rows: int) -> st.SearchStrategy[pa.Array]:
    """Columns of one type with NULLs among the values."""
    return st.lists(st.one_of(st.none(), TYPED[kind]), min_size=rows, max_size=rows).map(
        lambda values: pa.array(values, kind)
    )


def variants(rows: int) -> st.SearchStrategy[pa.Array]:
    """Columns of mixed types."""
    return st.lists(scalars, min_size=rows, max_size=rows).map(encode_variant)


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 20) -> pa.Table:
    """Tables with an integer key `id`, and columns of any type, some with names that need escaping."""
    ids = draw(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=max_rows))
    arrays: list[pa.Array] = [pa.array(ids, pa.int64())]
    fields = [pa.field("id", pa.int64())]
    names = draw(st.lists(st.sampled_from(["a", "_b", "_key", "_deleted", "ü c"]), unique=True, max_size=4))
    for name in names:
        kind = draw(st.sampled_from([*TYPED, None]))
        if kind is None:
            arrays.append(draw(variants(len(ids))))
            fields.append(variant_field(name))
        else:
            arrays.append(draw(column(kind, len(ids))))
            fields.append(pa.field(name, kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
