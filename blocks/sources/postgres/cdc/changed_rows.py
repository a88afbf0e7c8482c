"""Reading the rows of a table whose keys were written since the base, and finding out which of these are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from operator import itemgetter
from threading import Event, RLock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import LastgoodError
from blocks.sources.collection import Bounds
from blocks.sources.postgres.cdc.decoding import Key, Keys
from blocks.sources.postgres.cdc.table_identity import KeyColumn
from blocks.sources.postgres.connect import identifier, literal
from blocks.sources.postgres.read.capture import Means
from blocks.sources.postgres.read.heap_scan import PartQueue
from blocks.sources.postgres.read.parts import PartNumbers, part_number, select_all
from blocks.sources.postgres.schema.tables import Table, free_name
from blocks.sources.reading import BaseLookup, Delta, Reading, Unchanged, Updates

SLICE_KEYS = 5000
"""How many keys one query names."""
_SPREAD = 4
"""Keys for each part, from which on none is taken to be without."""
_ONE_SPELLING = frozenset(("smallint", "integer", "bigint", "oid", "uuid", "boolean", "date", "bytea"))
"""Types of which equal values are the same text."""


class ChangedRows:
    """The changed rows of one table, read with the first part that is asked for. Several threads may ask.

    Args:
        table: The table that is read.
        key: The columns of its key.
        keys: What was written since the base, as text.
        parts: The bounds of all its parts; of shares any one stands for all.
        means: Connections and room.
        pool: Threads that wait for queries.
    """

    def __init__(
        self,
        table: Table,
        key: Sequence[KeyColumn],
        keys: Keys,
        parts: Sequence[Bounds],
        means: Means,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._table, self._readers, self._pool = table, means.readers, pool
        self._folder, self._room = means.folder, means.room
        self._keys, self._parts = keys, parts
        self._queries = ChangedRowQueries(table, key, part_number(table.shape, parts))
        self._numbers = PartNumbers(parts)
        # a slice with the old spelling of a key finds the row that another one finds by the new spelling
        self._one_spelling = all(column.type in _ONE_SPELLING for column in key)
        self._lock, self._stopped = RLock(), Event()
        self._passed, self._with_moved = set[int](), set[int]()
        self._waiting: tuple[PartQueue, PartQueue] | None = None
        self._reading: list[Future[None]] = []

    def holds(self, bounds: Bounds) -> bool:
        """Whether bounds are those of one of the parts."""
        return self._numbers.holds(bounds)

    def stop(self) -> None:
        """End what is being read, soon and with an error."""
        self._stopped.set()

    def read(self, bounds: Bounds, base: BaseLookup, empty: Callable[[], pa.Table]) -> Reading:
        """Return what is known of one part.

        Args:
            bounds: The bounds of the part.
            base: What the base holds of it.
            empty: Makes a table without rows that has the table's columns and types.
        """
        if not len(self._keys):
            return Unchanged()
        self._begin()
        if len(self._keys.moved) >= _SPREAD * self._numbers.count:
            base.prepare()  # while the server looks for the rows, some of which are in this part
        number = self._numbers.of(bounds)
        rows, keys = self._taken(number)
        reading = self._reading_of(number, rows, keys, base, empty)
        self._pass(number)
        return reading

    def _reading_of(
        self, number: int, rows: pa.Table, keys: pa.Table, base: BaseLookup, empty: Callable[[], pa.Table]
    ) -> Reading:
        if not rows.num_rows and not keys.num_rows:
            return Unchanged()
        if not rows.num_rows:
            rows = empty()
        elif not self._one_spelling:
            rows = _without_doubles(rows, base.encode(rows.select(self._table.shape.key)))
        if keys.num_rows:
            return Delta(rows, pc.unique(base.encode(keys.filter(base.holds(keys)))))
        return Delta(rows) if number in self._with_moved else Updates(rows)

    def _begin(self) -> None:
        """Begin to read all rows."""
        with self._lock:
            if self._waiting is None:
                self._waiting = rows, keys = PartQueue(self._folder, self._room), PartQueue(self._folder, self._room)
                moved = self._keys.moved
                slices = [(some, False) for some in _slices(self._keys.replaced - moved)]
                slices += [(some, True) for some in _slices(moved)]
                self._reading = [self._pool.submit(self._read_slice, *some, rows, keys) for some in slices]

    def _taken(self, number: int) -> tuple[pa.Table, pa.Table]:
        with self._lock:
            self._begin()  # again, where another part failed
            rows, keys = self._read()
            return rows.of(number), keys.of(number)

    def _read(self) -> tuple[PartQueue, PartQueue]:
        """Wait until all rows were read."""
        assert self._waiting is not None, "nobody began"
        try:
            for reading in self._reading:
                reading.result()
            if self._reading:
                self._reading = []
                for waiting in self._waiting:
                    waiting.end()
        except BaseException:
            self._let_go()
            raise
        return self._waiting

    def _pass(self, number: int) -> None:
        """Let all go with the last part."""
        with self._lock:
            self._passed.add(number)
            if len(self._passed) >= self._numbers.count:
                self._let_go()

    def discard(self) -> None:
        """Let go what still waits."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        for reading in self._reading:
            reading.cancel()
        wait(self._reading)
        self._reading = []
        for waiting in self._waiting or ():
            waiting.discard()
        self._waiting = None

    def _read_slice(self, keys: Sequence[Key], moved: bool, rows: PartQueue, lacking: PartQueue) -> None:
        found = 0
        for batch in self._stream(self._queries.rows(keys)):
            found += batch.num_rows
            rows.put(batch)
            if moved:
                self._with_moved.update(pc.unique(batch.column(batch.num_columns - 1)).to_pylist())
        if found < len(keys) or (moved and not self._one_spelling and len(self._keys.moved) > SLICE_KEYS):
            # some are gone; one that is spelt in another way now (1.0, 1.00) is gone under its old spelling
            for batch in self._stream(self._queries.keys(keys)):
                lacking.put(batch)

    def _stream(self, query: str) -> Iterator[pa.Table]:
        for batch in self._readers.stream(query, self._table.doing):
            if self._stopped.is_set():
                raise LastgoodError("the backup was given up")
            yield batch


class ChangedRowQueries:
    """Queries for the changed keys of one table. `unnest` takes several arrays only where it is not qualified.

    Args:
        table: The table that is read.
        key: The columns of its key.
        part: The expression for the number of a row's part.
    """

    def __init__(self, table: Table, key: Sequence[KeyColumn], part: str) -> None:
        self._shape, self._key = table.shape, key
        taken = {column.name for column in self._shape.columns}
        self._numbered = f"{part} AS {identifier(free_name('lastgood_part', taken))}"
        self._names = [identifier(free_name(f"lastgood_key{n}", taken)) for n in range(len(key))]

    def rows(self, keys: Sequence[Key]) -> str:
        """Write the query for the rows of some keys, each with the number of its part as the last column."""
        columns = [(identifier(column.name), f"OPERATOR({column.equals})") for column in self._key]
        if len(columns) == 1:
            ((name, equals),) = columns
            where = f"WHERE {name} {equals} ANY ({self._arrays(keys)})"
        else:
            pairs = zip(columns, self._names, strict=True)
            tests = " AND ".join(f"{name} {equals} {value}" for (name, equals), value in pairs)
            given = f"unnest({self._arrays(keys)}) given ({', '.join(self._names)})"
            where = f"WHERE EXISTS (SELECT FROM {given} WHERE {tests})"
        return select_all(self._shape, self._numbered, where)

    def keys(self, keys: Sequence[Key]) -> str:
        """Write the query for keys as they would be read, each with the number of its part as the last column."""
        names = [identifier(column.name) for column in self._key]
        collated = ", ".join(
            f"{name} COLLATE {column.collation} AS {name}" if column.collation else name
            for name, column in zip(names, self._key, strict=True)
        )
        read = ", ".join(f"{self._shape.column(c.name).read} AS {identifier(c.name)}" for c in self._key)
        given = f"SELECT {collated} FROM unnest({self._arrays(keys)}) given ({', '.join(names)})"
        return f"SELECT {read}, {self._numbered} FROM ({given}) keys"

    def _arrays(self, keys: Sequence[Key]) -> str:
        values = zip(*keys, strict=True)
        return ", ".join(f"{_array(some)}::{column.type}[]" for some, column in zip(values, self._key, strict=True))


def _slices(keys: set[Key]) -> list[list[Key]]:
    """Take keys apart, in an order in which most of those of one slice are near each other."""
    ordered = sorted(keys, key=itemgetter(0))
    return [ordered[start : start + SLICE_KEYS] for start in range(0, len(ordered), SLICE_KEYS)]


def _array(values: Sequence[str]) -> str:
    # no text of the server's has a zero byte; there may be thousands of values
    quoted = "\0".join(values).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return literal('{"' + quoted + '"}')


def _without_doubles(rows: pa.Table, keys: pa.LargeBinaryArray) -> pa.Table:
    """A row is found twice where two queries name it in different spellings."""
    if pc.count_distinct(keys).as_py() == len(keys):
        return rows
    _, first = np.unique(pc.dictionary_encode(keys).indices.to_numpy(), return_index=True)
    return rows.take(pa.array(first))
