"""Rows as COPY takes them in its binary format, encoded column by column.

Each row is the number of its columns, and for each column a length and that many bytes; a NULL is the length -1. What
all rows have at the same place is laid out by numpy as one record per row; values of varying length are joined in
between by Arrow. Both work without Python per row.

Types whose values travel as text are encoded where the binary form is that text, or where a whole column can be parsed
without loss. Everything else stays text, for the input function of its type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.variant import is_variant
from blocks.sources.postgres.connect import identifier
from blocks.sources.postgres.schema.tables import Column

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_NULL = b"\xff\xff\xff\xff"
"""The length that says NULL."""
_INLINE = 256
"""Bytes up to which values that are all of one length are laid out by numpy."""
_UNIX_TO_POSTGRES_DAYS = 10_957
_DAY_MICROSECONDS = 86_400_000_000
_NUMERIC_DIGITS = 18
"""Decimal digits that always fit into 64 bits."""


@dataclass(frozen=True)
class Fixed:
    """Values of one width, one per row, big-endian; NULLs are anything."""

    values: npt.NDArray[np.generic]


@dataclass(frozen=True)
class Varying:
    """Values of varying length, NULL where they are."""

    values: pa.LargeBinaryArray


Encoded = Fixed | Varying
Encoder = Callable[[pa.Array], Encoded | None]
"""Encodes the values of a column; None where one of them has no binary form here."""


def encoders(columns: Sequence[Column]) -> list[Encoder] | None:
    """Return how to encode each column, or None where a type among them has to travel as text."""
    found = [_encoder(column) for column in columns]
    known = [encoder for encoder in found if encoder is not None]
    return known if len(known) == len(found) else None


def encode(rows: pa.Table, how: Sequence[Encoder]) -> memoryview | None:
    """Encode rows, without header and trailer; None where a value has to travel as text."""
    layout = _Layout(rows.num_rows)
    layout.add(Fixed(np.full(rows.num_rows, rows.num_columns, ">i2")))
    for field, column, encoder in zip(rows.schema, rows.columns, how, strict=True):
        if is_variant(field):
            return None
        values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, field.type)
        encoded = _nothing(values) if pa.types.is_null(field.type) else encoder(values)
        if encoded is None:
            return None
        layout.add_column(encoded, values)
    return layout.joined()


def _nothing(values: pa.Array) -> Encoded:
    return Varying(values.cast(pa.large_binary()))


class _Layout:
    """The parts that make up each row, in order: records of one width, and values of varying length between them."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._record: list[npt.NDArray[np.generic]] = []
        self._parts: list[pa.LargeBinaryArray] = []

    def add(self, fixed: Fixed) -> None:
        """Add values of one width."""
        self._record.append(fixed.values)

    def add_column(self, encoded: Encoded, values: pa.Array) -> None:
        """Add the lengths and the values of a column, NULL where `values` is."""
        if isinstance(encoded, Varying):
            if (same := _same_length(encoded.values)) is None:
                lengths = pc.fill_null(pc.binary_length(encoded.values), -1).to_numpy(zero_copy_only=False)
                self.add(Fixed(lengths.astype(">i4")))
                self._close()
                self._parts.append(pc.fill_null(encoded.values, b""))
                return
            encoded = Fixed(same)
        width = _width(encoded.values)
        record = (Fixed(np.full(self._rows, width, ">i4")), encoded)
        if not values.null_count:
            for fixed in record:
                self.add(fixed)
            return
        self._close()
        self._parts.append(pc.if_else(values.is_valid(), _records([fixed.values for fixed in record]), _NULL))

    def _close(self) -> None:
        if self._record:
            self._parts.append(_records(self._record))
            self._record = []

    def joined(self) -> memoryview:
        """Return all rows."""
        self._close()
        whole = self._parts[0]
        if len(self._parts) > 1:
            whole = pc.binary_join_element_wise(*self._parts, pa.scalar(b"", pa.large_binary()))
        _, offsets, data = whole.buffers()
        if data is None:
            return memoryview(b"")
        edges = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
        return memoryview(data)[edges[0] : edges[-1]]


def _width(values: npt.NDArray[np.generic]) -> int:
    return int(values.dtype.itemsize * np.prod(values.shape[1:], dtype=int))


def _records(columns: Sequence[npt.NDArray[np.generic]]) -> pa.LargeBinaryArray:
    """Lay columns of fixed widths side by side, a record per row."""
    rows = len(columns[0])
    kind = np.dtype([(str(n), column.dtype, column.shape[1:]) for n, column in enumerate(columns)])
    records = np.empty(rows, kind)
    for n, column in enumerate(columns):
        records[str(n)] = column
    edges = np.arange(rows + 1, dtype=np.int64) * kind.itemsize
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), rows, [None, pa.py_buffer(edges), pa.py_buffer(records.view(np.uint8))]
    )


def _same_length(values: pa.LargeBinaryArray) -> npt.NDArray[np.uint8] | None:
    """Return the values as rows of a matrix where none is NULL and all have one (small) length."""
    _, offsets, data = values.buffers()
    if values.null_count or not len(values) or data is None:
        return None
    edges = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    width = int(edges[1] - edges[0])
    if not 0 < width <= _INLINE or (np.diff(edges) != width).any():
        return None
    return np.frombuffer(data, np.uint8)[edges[0] : edges[-1]].reshape(-1, width)


def _encoder(column: Column) -> Encoder | None:
    domain = f"{identifier(column.name)}::pg_catalog."
    if column.read.startswith(domain):
        # the values of a domain are read, and so are written, as those of its base
        return _ENCODERS.get(column.read.removeprefix(domain))
    if (numeric := _NUMERIC.fullmatch(column.type)) is not None:
        return _numeric(int(numeric[1]), int(numeric[2]))
    return _ENCODERS.get(_MODIFIER.sub("", column.type))


_MODIFIER = re.compile(r"\(\d+\)")
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")


def _number(kind: str, ours: pa.DataType) -> Encoder:
    def encoder(values: pa.Array) -> Encoded | None:
        if values.type not in (pa.int64(), pa.float64(), pa.int32(), pa.int16(), pa.float32(), pa.bool_()):
            return None
        filled = values.fill_null(False if values.type == pa.bool_() else 0)
        try:
            own = filled.cast(ours, safe=not pa.types.is_floating(ours))
        except pa.ArrowInvalid:
            # beyond what the type holds: the server says so better
            return None
        return Fixed(own.to_numpy(zero_copy_only=False).astype(kind))

    return encoder


def _binary(values: pa.Array) -> Encoded | None:
    if values.type not in (pa.large_string(), pa.string(), pa.large_binary(), pa.binary()):
        return None
    return Varying(values.cast(pa.large_binary()))


def _jsonb(values: pa.Array) -> Encoded | None:
    kind = pa.large_binary()
    text = _text(values).cast(kind)
    return Varying(pc.binary_join_element_wise(pa.scalar(b"\1", kind), text, pa.scalar(b"", kind)))


def _uuid(values: pa.Array) -> Encoded | None:
    digits = _same_length(pc.replace_substring(_text(values).fill_null("0" * 32), "-", "").cast(pa.large_binary()))
    if digits is None or digits.shape[1] != 32:
        return None
    nibbles = _NIBBLES[digits]
    if (nibbles > 15).any():
        return None
    return Fixed(nibbles[:, ::2] << 4 | nibbles[:, 1::2])


_NIBBLES = np.full(256, 16, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def _days(values: pa.Array) -> Encoded | None:
    days = _parsed(values, pa.date32(), pa.int32())
    return None if days is None else Fixed((days - _UNIX_TO_POSTGRES_DAYS).astype(">i4"))


def _moments(zone: str | None) -> Encoder:
    def encoder(values: pa.Array) -> Encoded | None:
        since = _parsed(values, pa.timestamp("us", zone), pa.int64())
        if since is None:
            return None
        return Fixed((since - _UNIX_TO_POSTGRES_DAYS * _DAY_MICROSECONDS).astype(">i8"))

    return encoder


def _numeric(precision: int, scale: int) -> Encoder | None:
    """Encode numbers of a declared scale, which all print that many decimals; groups of four decimal digits."""
    padding = -scale % 4
    if scale > precision or precision + padding > _NUMERIC_DIGITS:
        return None
    whole, groups = -(-(precision - scale) // 4), -(-(precision - scale) // 4) + (scale + padding) // 4

    def encoder(values: pa.Array) -> Encoded | None:
        text = _text(values)
        if scale:
            points = pc.equal(pc.utf8_slice_codeunits(text, -scale - 1, -scale), ".")
            if not pc.all(points, min_count=0).as_py():
                return None
            text = pc.replace_substring(text, ".", "", max_replacements=1)
        if (numbers := _parsed(text, pa.int64(), pa.int64())) is None:
            return None
        rest = np.abs(numbers) * 10**padding
        out = np.empty((len(numbers), 4 + groups), ">i2")
        out[:, :4] = (groups, whole - 1, 0, scale)
        out[:, 2] = np.where(numbers < 0, 0x4000, 0)
        for n in range(groups):
            out[:, 3 + groups - n] = rest % 10_000
            rest //= 10_000
        return Fixed(out)

    return encoder


def _text(values: pa.Array) -> pa.LargeStringArray:
    return values.cast(pa.large_string())


def _parsed(values: pa.Array, kind: pa.DataType, number: pa.DataType) -> npt.NDArray[np.int64] | None:
    """Parse text, as numbers in which NULL is 0; None where a value has no place in the type."""
    try:
        parsed = _text(values).cast(kind)
    except pa.ArrowInvalid:
        return None
    return np.asarray(parsed.cast(number).fill_null(0).to_numpy(), np.int64)


_ENCODERS: dict[str, Encoder] = {
    "boolean": _number("u1", pa.bool_()),
    "smallint": _number(">i2", pa.int16()),
    "integer": _number(">i4", pa.int32()),
    "bigint": _number(">i8", pa.int64()),
    "real": _number(">f4", pa.float32()),
    "double precision": _number(">f8", pa.float64()),
    "text": _binary,
    "character varying": _binary,
    "character": _binary,
    "bpchar": _binary,
    "bytea": _binary,
    "json": _binary,
    "jsonb": _jsonb,
    "uuid": _uuid,
    "date": _days,
    "timestamp without time zone": _moments(None),
    "timestamp with time zone": _moments("UTC"),
}
_ENCODERS |= {
    short: _ENCODERS[long]
    for short, long in {
        "bool": "boolean",
        "int2": "smallint",
        "int4": "integer",
        "int8": "bigint",
        "float4": "real",
        "float8": "double precision",
        "varchar": "character varying",
    }.items()
}
