"""Sessions that share one snapshot, and whose answers are Arrow's."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from adbc_driver_manager import AdbcConnection, AdbcStatement
from adbc_driver_manager import Error as AdbcError

from blocks.sources.postgres.connect import BEGIN, SETTINGS, place_of, translated
from blocks.sources.postgres.own_path import OWN_PATH, may_need_path, planned_with_path
from blocks.sources.postgres.read.arrow_driver import Driver

if TYPE_CHECKING:  # a view may be begun before Arrow is imported
    import pyarrow as pa

T = TypeVar("T")

_TABLES = 16
"""Tables that one transaction of a reader looks at: it holds locks on each, and on all its indexes, to its end."""


class Readers:
    """Connections that all see one exported snapshot, lent to one reader at a time.

    Args:
        driver: Makes the connections.
        snapshot: As pg_export_snapshot named it; its transaction is open.
    """

    def __init__(self, driver: Driver, snapshot: str) -> None:
        self._driver, self._snapshot, self._place = driver, snapshot, place_of(driver.conninfo)
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        self._opening: list[Thread] = []
        self._by_path = set[str]()

    def prefetch(self, count: int) -> None:
        """Open connections in the background, for readers to find them open."""
        self._opening = [Thread(target=self._add, name="postgres-reader", daemon=True) for _ in range(count)]
        for opening in self._opening:
            opening.start()

    def _add(self) -> None:
        # a connection that could not be opened is opened again when it is needed, and the error is raised there
        with suppress(AdbcError):
            self._idle.put(self._open())

    def fetch(self, query: str, doing: str) -> pa.Table:
        """Run a query and return its rows as Arrow has them."""
        return self._planned(doing, query, lambda reader, planned: reader.fetch(planned))

    def stream(self, query: str, doing: str) -> Iterator[pa.Table]:
        """Run a query and yield its rows as they come, some megabytes at a time; at least one table, without rows."""
        reader, first, rest = self._planned(doing, query, _begun, keep=True)
        with translated(self._place, doing):
            try:
                yield first
                yield from rest
            except BaseException:
                rest.close()
                reader.close()
                raise
            self._idle.put(reader)

    def _planned(self, doing: str, query: str, ask: Callable[[Reader, str], T], *, keep: bool = False) -> T:
        """Run a query; if need be planned with the database's own search path, as all of its table are from then on.

        Args:
            doing: What is done, which identifies the table.
            query: The query.
            ask: Runs it with a reader.
            keep: Whether the reader stays lent.
        """
        with translated(self._place, doing):
            if doing not in self._by_path:
                try:
                    return self._asked(doing, query, ask, keep=keep)
                except AdbcError as exc:
                    if not may_need_path(exc.sqlstate):
                        raise
                    first = exc
                try:
                    found = self._asked(doing, planned_with_path(query), ask, OWN_PATH, keep=keep)
                except AdbcError:
                    raise first from None
                self._by_path.add(doing)
                return found
            return self._asked(doing, planned_with_path(query), ask, OWN_PATH, keep=keep)

    def _asked(self, doing: str, query: str, ask: Callable[[Reader, str], T], *before: str, keep: bool) -> T:
        reader = self._take(doing)
        try:
            for statement in before:
                reader.run(statement)
            found = ask(reader, query)
        except BaseException:
            reader.close()
            raise
        if not keep:
            self._idle.put(reader)
        return found

    def _take(self, doing: str) -> Reader:
        for opening in self._opening:
            opening.join()
        try:
            reader = self._idle.get_nowait()
        except Empty:
            reader = self._open()
        if len(reader.done) >= _TABLES and doing not in reader.done:
            self._begin(reader, "ROLLBACK")
        reader.done.add(doing)
        return reader

    def _open(self) -> Reader:
        reader = Reader(self._driver)
        self._begin(reader)
        return reader

    def _begin(self, reader: Reader, *before: str) -> None:
        """Begin a transaction in the snapshot, which holds no lock yet."""
        try:
            for statement in (*before, BEGIN, f"SET TRANSACTION SNAPSHOT '{self._snapshot}'"):
                reader.run(statement)
        except BaseException:
            reader.close()
            raise
        reader.done.clear()

    def close(self) -> None:
        """Close all connections that are not lent."""
        for opening in self._opening:
            opening.join()
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                break
            except AdbcError:
                # its server is gone, and with it what there was to close
                continue


def _begun(reader: Reader, query: str) -> tuple[Reader, pa.Table, Generator[pa.Table]]:
    """Begin to stream: what the server refuses before the first row is raised here."""
    rows = reader.stream(query)
    return reader, next(rows), rows


class Reader:
    """A connection whose answers are Arrow's. The driver's own DB-API module is not used, because it imports pandas.

    Args:
        driver: Opens the connection.

    Attributes:
        done: What was done with it since its transaction began.
    """

    def __init__(self, driver: Driver) -> None:
        self._connection = AdbcConnection(driver.database())
        self.done = set[str]()
        try:
            self.run(SETTINGS)
        except BaseException:
            self.close()
            raise

    def fetch(self, query: str) -> pa.Table:
        """Run a query and return its rows."""
        with self.answer(query) as batches:
            return batches.read_all()

    def stream(self, query: str) -> Generator[pa.Table]:
        """Run a query and yield a table without rows, then its rows as they come."""
        import pyarrow as pa

        with self.answer(query) as batches:
            yield batches.schema.empty_table()
            for batch in batches:
                yield pa.Table.from_batches([batch])

    @contextmanager
    def answer(self, query: str) -> Iterator[pa.RecordBatchReader]:
        """Run a query and give its rows, some megabytes at a time."""
        with AdbcStatement(self._connection) as statement:
            statement.set_sql_query(query)
            stream, _ = statement.execute_query()
            # Arrow's own reader would turn an error in the middle of the rows into an OSError without a state
            from adbc_driver_manager._reader import AdbcRecordBatchReader

            with AdbcRecordBatchReader._import_from_c(stream.address) as batches:
                yield batches

    def run(self, statement: str) -> None:
        """Run a statement whose answer is of no interest."""
        with AdbcStatement(self._connection) as prepared:
            prepared.set_sql_query(statement)
            prepared.execute_update()

    def close(self) -> None:
        """Close it."""
        self._connection.close()
