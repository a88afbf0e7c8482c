"""Wide keys as columns: their elements are taken in pieces, so that no object of Python lives for each of them.

A key is in one part, with all of its rows, and so in memory. What its rows have in common is there once, and rows that
are in order are neither sorted nor copied by what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.rows import SCHEMA, WIDE_ELEMENTS, Expiry, byte_strings, score_texts, width_of

BLOCK_ROWS = 1 << 16
_INDEX_BYTES = 8


class WideKey:
    """The elements of one container, taken in pieces.

    Args:
        kind: Its type: `hash`, `list`, `set` or `zset`.
    """

    def __init__(self, kind: str) -> None:
        self._kind, self._width = kind, width_of(kind)
        self._names: list[pa.LargeBinaryArray] = []
        self._values: list[pa.LargeBinaryArray] = []
        self._expiries: list[pa.Int64Array] = []
        self.taken = 0
        """How many elements were taken, those among them that came again."""

    def add(self, items: Sequence[bytes], expiries: Sequence[Expiry] | None = None) -> None:
        """Take items as a server gives them: fields and values in turn, members and scores, members, or items.

        Args:
            items: The items.
            expiries: When single fields go by themselves, where any of the key may; one for each.
        """
        columns = [pa.array(items[n :: self._width], pa.large_binary()) for n in range(self._width)]
        times = None if expiries is None else pa.array(expiries, pa.int64())
        self.add_columns(columns[0], columns[1] if self._width > 1 else None, times)

    def add_columns(
        self,
        names: pa.LargeBinaryArray,
        values: pa.LargeBinaryArray | None = None,
        expiries: pa.Int64Array | None = None,
    ) -> None:
        """Take elements as columns: fields, members or items, and values or scores."""
        self._names.append(names)
        if values is not None:
            self._values.append(score_texts(values) if self._kind == "zset" else values)
        if expiries is not None:
            self._expiries.append(expiries)
        self.taken += len(names)

    def settle(self) -> None:
        """Sort the elements; of one that came twice, as SCAN may give it, the later counts."""
        names, self._names = _joined(self._names), []
        self._give_back()
        if self._kind != "list":
            order = pc.sort_indices(names)
            names = names.take(order)
            again = pc.equal(names.slice(0, max(0, len(names) - 1)), names.slice(1))
            if again.true_count:
                last = pc.invert(pa.concat_arrays([again, pa.array([False])]))
                names, order = names.filter(last), order.filter(last)
            for columns in filter(None, (self._values, self._expiries)):
                columns[:] = [_joined(columns)]  # the pieces go before the copy is made
                columns[:] = [columns[0].take(order)]
                self._give_back()
        self._names = [names]

    def _give_back(self) -> None:
        """Give back what the pieces took: so many small ones leave as much free memory as they were."""
        if self.taken > BLOCK_ROWS:
            pa.default_memory_pool().release_unused()

    def __len__(self) -> int:
        """How many elements there are, once they are settled."""
        return sum(map(len, self._names))

    @property
    def is_narrow(self) -> bool:
        """Whether the elements are few, and none of them expires: then one row may hold all of them."""
        return len(self) <= WIDE_ELEMENTS and all(each.null_count == len(each) for each in self._expiries)

    def items(self) -> list[bytes]:
        """Return the items of a key that is narrow, as a server gives them."""
        columns = [byte_strings(_joined(column)) for column in (self._names, self._values) if column]
        return [word for words in zip(*columns, strict=True) for word in words]

    def rows(self, key: bytes, expires_ms: Expiry) -> pa.Table:
        """Return the head and a row for each element, in order, and let go of the elements.

        Args:
            key: The key.
            expires_ms: When it goes by itself.
        """
        [names], values, expiries = self._names, self._values, self._expiries
        self._names, self._values, self._expiries = [], [], []
        head, kind = _head(key, self._kind, expires_ms), self._kind
        held, at = (values[0] if values else None), (expiries[0] if expiries else None)
        if kind == "list":
            return pa.concat_tables([head, *_blocks(key, kind, len(names), None, names, at)])
        return pa.concat_tables([head, *_blocks(key, kind, len(names), names, held, at)])


def shared(rows: pa.Table) -> pa.Table:
    """Return the rows of one key so that what they have in common is there once."""
    key, kind, expiries = rows.column("key")[0].as_py(), rows.column("type")[0].as_py(), rows.column("expires_ms")
    at = None if expiries.null_count == len(expiries) else expiries
    blocks = _blocks(key, kind, rows.num_rows, rows.column("element"), rows.column("value"), at)
    return pa.concat_tables(list(blocks))


def _blocks(
    key: bytes,
    kind: str,
    count: int,
    elements: pa.Array | pa.ChunkedArray | None,
    values: pa.Array | pa.ChunkedArray | None,
    expiries: pa.Array | pa.ChunkedArray | None,
) -> Iterator[pa.Table]:
    """Yield rows of one key, some at a time; without elements these are numbers, without values they are empty."""
    most = min(count, BLOCK_ROWS)
    keys, kinds = _same(key, pa.large_binary(), most), _same(kind, pa.large_string(), most)
    nothing, never = _same(b"", pa.large_binary(), most), pa.nulls(most, pa.int64())
    for start in range(0, count, BLOCK_ROWS):
        size = min(BLOCK_ROWS, count - start)
        columns = [
            keys.slice(0, size),
            _indexes(start, size) if elements is None else elements.slice(start, size),
            kinds.slice(0, size),
            nothing.slice(0, size) if values is None else values.slice(start, size),
            never.slice(0, size) if expiries is None else expiries.slice(start, size),
        ]
        yield pa.Table.from_arrays(columns, schema=SCHEMA)


def long_string(key: bytes, kind: str, value: bytes, expires_ms: Expiry) -> pa.Table:
    """Return the row of a key whose value is long, without copying it."""
    bounds = pa.py_buffer(np.array([0, len(value)], np.int64))
    held = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, bounds, pa.py_buffer(value)])
    return _head(key, kind, expires_ms).set_column(SCHEMA.get_field_index("value"), SCHEMA.field("value"), held)


def _head(key: bytes, kind: str, expires_ms: Expiry) -> pa.Table:
    columns = [[key], [None], [kind], [None], [expires_ms]]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def _joined(columns: list[pa.Array]) -> pa.Array:
    """Return one column, and let go of its pieces one by one as far as that is possible."""
    if len(columns) == 1:
        return columns.pop()
    joined = pa.concat_arrays(columns) if columns else pa.array([], pa.large_binary())
    columns.clear()
    return joined


def _same(value: bytes | str, kind: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _indexes(start: int, count: int) -> pa.LargeBinaryArray:
    """Write the elements of a list's items: 8 bytes each, big-endian."""
    data = np.arange(start, start + count, dtype=">u8")
    bounds = np.arange(count + 1, dtype=np.int64) * _INDEX_BYTES
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), count, [None, pa.py_buffer(bounds), pa.py_buffer(data.tobytes())]
    )
