"""What a key of Redis looks like as rows.

A narrow key is one row: `element` is NULL, `value` holds all of it. A wide one (over 1,000 elements or 64 KiB) has a
head row, whose `value` is NULL, and a row per element:

    type      value of a narrow key                       element, value of a wide one
    string    the bytes                                   (never wide)
    hash      field, value, ... sorted by field           field, value
    list      items in order                              index (8 bytes, big-endian), item
    set       members, sorted                             member, empty
    zset      member, score, ... sorted by member         member, score
    stream    (always wide)                               id (2 × 8 bytes, big-endian), field, value, ...
    others    what DUMP gives                             (never wide)

Several byte strings in one value are written as a RESP array. A score is the shortest text that reads back as the
same double. The head of a stream holds what else belongs to it (see streams.py). `expires_ms` is the absolute
time in milliseconds since 1970 at which the key (or, in the row of a field, that field) goes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.net.wire import packed

WIDE_ELEMENTS = 1_000
WIDE_BYTES = 64 * 1024
LARGE_BYTES = 4 * 1024 * 1024
"""From so many bytes of rows on a key is kept apart from the others, so that it need not be copied with them."""
MODULE = "module:"
"""Before the type of a key that a module owns."""

TYPES = ("string", "hash", "list", "set", "zset", "stream")
COLUMNS = (
    ("key", "binary"),
    ("element", "binary"),
    ("type", "text"),
    ("value", "binary"),
    ("expires_ms", "milliseconds since 1970"),
)
SCHEMA = pa.schema(
    [
        ("key", pa.large_binary()),
        ("element", pa.large_binary()),
        ("type", pa.large_string()),
        ("value", pa.large_binary()),
        ("expires_ms", pa.int64()),
    ]
)

index_bytes = Struct(">Q").pack
"""The element of a list's item: its index."""
id_struct = Struct(">QQ")
"""The element of a stream's entry: milliseconds and sequence number of its id."""

_SETTLED_ROWS = 50_000
# between these neither Arrow nor Python writes a fraction with an exponent, and below that Python no whole number
_SMALLEST_PLAIN, _LARGEST_PLAIN, _LARGEST_WHOLE = 1e-4, 1e10, 1e16
_POINT, _NOTHING = pa.scalar(b".0", pa.large_binary()), pa.scalar(b"", pa.large_binary())

Elements = list[tuple[bytes, bytes]]
"""Elements of a container, each with its value, in canonical order."""

Expiry = int | None


@dataclass(frozen=True)
class Content:
    """What one key holds.

    Attributes:
        type: One of TYPES, or MODULE and the module's name of it.
        expires_ms: When it goes by itself.
        elements: Those of a container.
        value: That of anything else; what goes into a stream's head.
        fields_ms: When single fields go by themselves.
    """

    type: str
    expires_ms: Expiry
    elements: Elements | None = None
    value: bytes | None = None
    fields_ms: dict[bytes, int] | None = None


def width_of(kind: str) -> int:
    """Return how many items an element of a container has."""
    return 2 if kind in ("hash", "zset") else 1


class RowBuilder:
    """Collects rows of one part, column by column."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._large: list[pa.Table] = []
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._elements: list[bytes | None] = []
        self._types: list[str] = []
        self._values: list[bytes | None] = []
        self._expiries: list[Expiry] = []

    def columns(self, keys: pa.LargeBinaryArray, kind: str, values: pa.LargeBinaryArray, expiries: pa.Array) -> None:
        """Add keys of one type, each a row."""
        count = len(keys)
        elements, kinds = pa.nulls(count, pa.large_binary()), pa.repeat(pa.scalar(kind, pa.large_string()), count)
        self._tables.append(pa.Table.from_arrays([keys, elements, kinds, values, expiries], schema=SCHEMA))

    def narrow(self, key: bytes, kind: str, items: list[bytes], expires_ms: Expiry) -> bool:
        """Add a container by the answer it came in, if it is narrow; most are, and elements need not be made of it."""
        if len(items) > WIDE_ELEMENTS * width_of(kind):
            return False
        value = packed(*_NARROW[kind](items))
        if len(value) > WIDE_BYTES:
            return False
        self._row(key, None, kind, value, expires_ms)
        if len(self._keys) > _SETTLED_ROWS:
            self.settle()
        return True

    def add(self, key: bytes, content: Content) -> None:
        """Add one key of any type: as one row, or as a head and its elements."""
        kind, elements = content.type, content.elements
        if elements is None:
            self._row(key, None, kind, content.value, content.expires_ms)
            return
        self._row(key, None, kind, content.value, content.expires_ms)
        count = len(elements)
        self._keys += [key] * count
        self._types += [kind] * count
        self._elements += [element for element, _ in elements]
        self._values += [value for _, value in elements]
        fields = content.fields_ms or {}
        self._expiries += [fields.get(element) for element, _ in elements] if fields else [None] * count
        if len(self._keys) > _SETTLED_ROWS:
            self.settle()

    def add_rows(self, rows: pa.Table) -> None:
        """Add all rows of one key, in order; where they are large, `table` does not copy them."""
        (self._large if rows.nbytes >= LARGE_BYTES else self._tables).append(rows)

    def settle(self) -> None:
        """Turn what was collected into columns: Python's objects take several times the room."""
        if self._keys:
            columns = (self._keys, self._elements, self._types, self._values, self._expiries)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            self._tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
            self._clear()

    def table(self) -> pa.Table:
        """Return all rows; in several chunks, and sorted by key, where there is a large one."""
        self.settle()
        rest = pa.concat_tables(self._tables).combine_chunks() if self._tables else SCHEMA.empty_table()
        return interleaved(rest, self._large) if self._large else rest

    def _row(self, key: bytes, element: bytes | None, kind: str, value: bytes | None, expires_ms: Expiry) -> None:
        self._keys.append(key)
        self._elements.append(element)
        self._types.append(kind)
        self._values.append(value)
        self._expiries.append(expires_ms)


def hash_elements(flat: Sequence[bytes]) -> Elements:
    """Sort the fields of a hash; SCAN may give one twice, the later wins."""
    return sorted(dict(zip(flat[::2], flat[1::2], strict=True)).items())


def byte_strings(column: pa.LargeBinaryArray) -> list[bytes]:
    """Turn a column without NULLs into a list, several times faster than Arrow's own way."""
    return cast("list[bytes]", column.to_numpy(zero_copy_only=False).tolist())


def list_elements(items: Iterable[bytes]) -> Elements:
    """Number the items of a list."""
    return [(index_bytes(n), item) for n, item in enumerate(items)]


def set_elements(members: Iterable[bytes]) -> Elements:
    """Sort the members of a set."""
    return [(member, b"") for member in sorted(set(members))]


def zset_elements(flat: Sequence[bytes]) -> Elements:
    """Sort the members of a sorted set; equal scores become equal texts whatever the server's version writes."""
    return sorted({m: b"%a" % float(score) for m, score in zip(flat[::2], flat[1::2], strict=True)}.items())


def score_texts(scores: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Write scores as `zset_elements` does, many at once: Arrow writes most of them as Python does."""
    try:
        doubles = scores.cast(pa.large_string()).cast(pa.float64())
    except pa.ArrowInvalid:
        doubles = pa.array([float(score) for score in scores.to_pylist()], pa.float64())
    return double_texts(doubles)


def double_texts(doubles: pa.DoubleArray) -> pa.LargeBinaryArray:
    """Write scores as the shortest texts that read back as the same."""
    numbers = doubles.to_numpy()
    sizes = np.abs(numbers)
    texts = doubles.cast(pa.large_string()).cast(pa.large_binary())
    # what has no fraction is written as an integer: Arrow would write it with an exponent early
    whole = (numbers == np.floor(numbers)) & (sizes < _LARGEST_WHOLE) & ~((numbers == 0) & np.signbit(numbers))
    if whole.any():
        integers = pa.array(numbers[whole].astype(np.int64)).cast(pa.large_string()).cast(pa.large_binary())
        written = pc.binary_join_element_wise(integers, _POINT, _NOTHING)
        texts = pc.replace_with_mask(texts, pa.array(whole), written)
    others = ~whole & ~((sizes >= _SMALLEST_PLAIN) & (sizes < _LARGEST_PLAIN))
    if not others.any():
        return texts
    written = pa.array([b"%a" % number for number in numbers[others].tolist()], pa.large_binary())
    return pc.replace_with_mask(texts, pa.array(others), written)


def is_of_one_key(rows: pa.Table) -> bool:
    """Whether all rows are of one key, of which there are some."""
    keys = rows.column("key")
    return rows.num_rows > 0 and keys[0] == keys[-1] and bool(pc.all(pc.equal(keys, keys[0])).as_py())


def interleaved(rest: pa.Table, blocks: Sequence[pa.Table]) -> pa.Table:
    """Put large keys where they belong among other rows, without copying them.

    Args:
        rest: Rows of other keys; those of one key in order.
        blocks: All rows of a key each, in order.

    Returns:
        All rows, sorted by key, in several chunks.
    """
    rest = rest.take(pc.sort_indices(rest.column("key"))).combine_chunks()  # stable
    keys, pieces, last = rest.column("key"), [SCHEMA.empty_table()], 0
    for block in sorted(blocks, key=lambda block: block.column("key")[0].as_py()):
        at = pc.sum(pc.less(keys, block.column("key")[0])).as_py() or 0
        pieces += [rest.slice(last, at - last), block]
        last = at
    return pa.concat_tables([*pieces, rest.slice(last)])


ELEMENTS: dict[str, Callable[[list[bytes]], Elements]] = {
    "hash": hash_elements,
    "list": list_elements,
    "set": set_elements,
    "zset": zset_elements,
}
"""How the answer of a server becomes elements, by type."""


def _flat(elements: Elements) -> list[bytes]:
    return [word for pair in elements for word in pair]


_NARROW: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "hash": lambda flat: _flat(hash_elements(flat)),
    "list": lambda items: items,
    "set": lambda members: sorted(set(members)),
    "zset": lambda flat: _flat(zset_elements(flat)),
}
