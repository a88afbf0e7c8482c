"""Tables whose rows lie in another order than that of their key: each part would read most pages of the table.

So the table is read once, page after page, for all its parts. The server computes for each row in which part it is;
rows wait in files where they are many. An incremental looks for changed rows first, and lets only what it has to read
wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import LastgoodError, TemporaryFolderUnusable
from blocks.sources.collection import Bounds
from blocks.sources.postgres.connect import identifier
from blocks.sources.postgres.read.key_scan import ChangeCount
from blocks.sources.postgres.read.parts import PartNumbers, part_number, select_all, select_keys
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.read.xmin_tracking import FEW, written_since_by_part
from blocks.sources.postgres.schema.tables import Table, free_name
from blocks.sources.runs import Allowance, RunFolder, Spool

PAGES_ARE_FOUND = 140000
"""The first version of the server that finds a range of pages without looking at all of them."""
_SESSIONS = 2
_SMALL_PAGES = 1024
_SLICE_PAGES = 32 * 1024
"""Pages that are read by one query: the server remembers where the changed rows among them are."""
_PLACES_BYTES = 256 * 1024 * 1024
"""How much text may hold the places of changed rows; parts whose places do not fit are read as a whole."""


class HeapScan:
    """One table, which is read once for all its parts. Several threads may ask.

    Args:
        table: The table that is read.
        parts: The bounds of all its parts; of shares any one stands for all.
        readers: Connections that see the same snapshot.
        folder: Where rows wait that are more than `room`.
        room: How much may wait in memory.
    """

    def __init__(
        self, table: Table, parts: Sequence[Bounds], readers: Readers, folder: RunFolder, room: Allowance
    ) -> None:
        self._table, self._readers, self._folder, self._room = table, readers, folder, room
        self._numbers = PartNumbers(parts)
        self._part = part_number(table.shape, parts)
        self._name = identifier(free_name("lastgood_part", {column.name for column in table.shape.columns}))
        self._numbered = f"{self._part} AS {self._name}"
        self._lock = Lock()
        self._change_counts: dict[int, ChangeCount] | None = None
        self._waiting: dict[str, PartQueue] = {}
        self._passed = set[int]()
        self._full: TemporaryFolderUnusable | None = None
        self._stopped = Event()

    def passed(self, bounds: Bounds) -> None:
        """Say that a part was read; what waits for any part is let go with the last of them."""
        with self._lock:
            self._passed.add(self._numbers.of(bounds))
            if len(self._passed) >= self._numbers.count:
                self._let_go()

    def discard(self) -> None:
        """Let go what still waits; the table is partitioned again."""
        with self._lock:
            self._let_go()

    def stop(self) -> None:
        """End what is being read, soon and with an error."""
        self._stopped.set()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise LastgoodError("the backup was given up")

    def _let_go(self) -> None:
        self._change_counts = None
        while self._waiting:
            self._waiting.popitem()[1].discard()

    def holds(self, bounds: Bounds) -> bool:
        """Whether bounds are those of one of the parts."""
        return self._numbers.holds(bounds)

    def count_changes(self, bounds: Bounds, oldest: int, upcoming: int) -> ChangeCount:
        """Count what of one part may be newer than a snapshot; numbers as for `written_since`."""
        with self._lock:
            if self._change_counts is None:
                self._change_counts = self._count_changes(oldest, upcoming)
            return self._change_counts.get(self._numbers.of(bounds), ChangeCount(0, 0, "{}"))

    def rows(self, bounds: Bounds) -> pa.Table:
        """Return the rows of one part."""
        return self._complete(self._taken("rows", bounds, self._all_rows))

    def rows_of_many(self, bounds: Bounds) -> pa.Table:
        """Return the rows of a part for which `count_changes` gives no places, because they are too many."""
        assert self._change_counts is not None, "nobody looked"
        many = [part for part, counted in self._change_counts.items() if counted.places is None]
        assert self._numbers.of(bounds) in many, "not among what is read"
        return self._complete(self._taken("rows of many", bounds, self._all_rows, many))

    def keys(self, bounds: Bounds) -> pa.Table:
        """Return the keys of one part's rows, with `xmin` and `ctid`."""
        shape = self._table.shape
        return self._taken("keys", bounds, lambda pages: select_keys(shape, pages, self._numbered))

    def _all_rows(self, pages: str) -> str:
        return select_all(self._table.shape, self._numbered, pages)

    def _complete(self, rows: pa.Table) -> pa.Table:
        row = self._table.shape.row
        return rows if row is None else _count_equal(rows, *row)

    def _count_changes(self, oldest: int, upcoming: int) -> dict[int, ChangeCount]:
        counts: dict[int, tuple[int, int]] = {}
        places: dict[int, list[str] | None] = {}
        room, lock = Allowance(_PLACES_BYTES), Lock()

        def count_changes(pages: str) -> None:
            rows = f"(SELECT {self._part} AS part, xmin, ctid FROM ONLY {self._table.shape.quoted} {pages}) numbered"
            self._go_on()
            found = self._readers.fetch(written_since_by_part(rows, oldest, upcoming), self._table.doing)
            with lock:
                for part, total, count, where in zip(*(column.to_pylist() for column in found.columns), strict=True):
                    before = counts.get(part, (0, 0))
                    counts[part] = before[0] + total, before[1] + count
                    kept = places.setdefault(part, [])
                    if kept is not None and room.take(len(where)):
                        kept.append(where[1:-1])
                    else:
                        places[part] = None

        self._each(count_changes)
        found = {}
        for part, (total, count) in counts.items():
            kept = places[part] if count <= FEW * total else None
            found[part] = ChangeCount(total, count, None if kept is None else "{" + ",".join(filter(None, kept)) + "}")
        return found

    def _taken(
        self, what: str, bounds: Bounds, query: Callable[[str], str], only: Sequence[int] | None = None
    ) -> pa.Table:
        """Take what waits of one part; the first who asks reads it for all parts, or for some."""
        with self._lock:
            if self._full is not None:
                raise self._full  # to fill the disk once is enough
            waiting = self._waiting.get(what) or self._wait(query, only)
            self._waiting[what] = waiting
            return waiting.of(self._numbers.of(bounds))

    def _wait(self, query: Callable[[str], str], only: Sequence[int] | None) -> PartQueue:
        waiting = PartQueue(self._folder, self._room)
        narrowed = None if only is None else f"{self._name} = ANY ('{{{','.join(map(str, only))}}}')"

        def read(pages: str) -> None:
            every = query(pages)
            if narrowed is not None:
                # OFFSET 0 keeps the server from working out twice in which part a row is
                every = f"SELECT * FROM ({every} OFFSET 0) numbered WHERE {narrowed}"
            for rows in self._readers.stream(every, self._table.doing):
                self._go_on()
                waiting.put(rows)

        try:
            self._each(read)
            waiting.end()
        except BaseException as exc:
            self._full = exc if isinstance(exc, TemporaryFolderUnusable) else None
            waiting.discard()
            raise
        return waiting

    def _each(self, work: Callable[[str], None]) -> None:
        """Do something for each range of pages, two at a time."""
        with ThreadPoolExecutor(_SESSIONS, thread_name_prefix="lastgood-pages") as pool:
            try:
                for _ in pool.map(work, _ranges_of_pages(self._table.pages)):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


class PartQueue:
    """Rows by the number of their part, which is their last column.

    Args:
        folder: Where those wait that are more than `room`.
        room: How much may wait in memory.
    """

    def __init__(self, folder: RunFolder, room: Allowance) -> None:
        self._spool, self._lock = Spool(folder, room), Lock()
        self._schema = pa.schema([])

    def put(self, rows: pa.Table) -> None:
        """Take rows."""
        last = rows.num_columns - 1
        positions = rows.column(last).to_numpy().astype(np.uint32)
        with self._lock:
            self._schema = rows.schema.remove(last)
            self._spool.put(rows.remove_column(last), positions)

    def end(self) -> None:
        """Say that all rows were put."""
        self._spool.end()

    def of(self, number: int) -> pa.Table:
        """Return the rows of one part."""
        tables = self._spool.slices(number, number + 1)
        # mostly copied, so that what was read of the files does not count as memory of this process for as long
        return pa.concat_tables(tables).combine_chunks() if tables else self._schema.empty_table()

    def discard(self) -> None:
        """Let all rows go; what was returned stays readable."""
        self._spool.discard()


def _ranges_of_pages(pages: int) -> list[str]:
    """Write the conditions for ranges of pages that cover all of a table, also what was added since it was measured."""
    count = max(_SESSIONS if pages > _SMALL_PAGES else 1, -(-pages // _SLICE_PAGES))
    edges = [f"ctid >= '({pages * n // count},0)'" for n in range(1, count)]
    ends = [edge.replace(">=", "<") for edge in edges]
    tests = [" AND ".join(filter(None, pair)) for pair in zip(["", *edges], [*ends, ""], strict=True)]
    return [f"WHERE {test}" if test else "" for test in tests]


def _count_equal(rows: pa.Table, row: str, number: str) -> pa.Table:
    """Add the column that distinguishes equal rows: they are counted from 1."""
    codes = pc.dictionary_encode(rows.column(row).combine_chunks()).indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=np.int32(-1)))
    lengths = np.diff(np.append(starts, len(codes)))
    numbers = np.empty(len(codes), np.int64)
    numbers[order] = np.arange(1, len(codes) + 1) - np.repeat(starts, lengths)
    return rows.append_column(number, pa.array(numbers))
