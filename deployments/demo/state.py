"""The application's state, live or restored, as it can be looked at from outside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from deployments.demo.oracle import FOLDERS, Oracle, broken_invariants, freeze, order_ids
from deployments.demo.oracle_servers import look_at_books, look_at_cache
from deployments.demo.servers import Servers, running_redis
from deployments.demo.trading import Places
from deployments.demo.trading.books import Books
from deployments.demo.trading.cache import Cache
from deployments.demo.trading.redis import Redis
from flows.pipeline.results import RestoreResult

Number = tuple[str, int]
"""What is numbered (ledger's order, cache's order, fill of the books), and its number."""


@dataclass(frozen=True)
class State:
    """State in one place.

    Attributes:
        ledger: The database in SQLite.
        folders: The folders of files, by name.
        cache: The socket of the Redis; None without one.
        books: How libpq connects to the books; None without a PostgreSQL.
        programs: The folder with pg_dump, where there are books.
    """

    ledger: Path
    folders: dict[str, Path]
    cache: Path | None = None
    books: str | None = None
    programs: Path | None = None

    def freeze(self) -> Oracle:
        """Look at all of it; nothing may write meanwhile."""
        files = freeze(self.ledger, self.folders)
        cache = None if self.cache is None else look_at_cache(self.cache)
        books = None
        if self.books is not None and self.programs is not None:
            books = look_at_books(self.books, self.programs)
        return Oracle(files.dump, files.files, files.size_bytes, cache, books)

    def broken(self) -> int:
        """Count sums that are wrong: a copy that mixes two moments has some."""
        count = broken_invariants(self.ledger)
        if self.cache is not None:
            with Cache(self.cache) as cache:
                count += cache.broken()
        if self.books is not None:
            with Books(self.books) as books:
                count += books.broken()
        return count

    def numbers(self) -> set[Number]:
        """Return the numbers of all orders and fills."""
        found = {("ledger", number) for number in order_ids(self.ledger)}
        if self.cache is not None:
            with Cache(self.cache) as cache:
                found |= {("cache", number) for number in cache.orders()}
        if self.books is not None:
            with Books(self.books) as books:
                found |= {("books", number) for number in books.fills()}
        return found

    def destroy(self) -> str:
        """Lose it, but for the configuration; say what went."""
        for path in self.ledger.parent.glob(f"{self.ledger.name}*"):
            path.unlink()
        shutil.rmtree(self.folders["models"])
        lost = ["ledger and models deleted"]
        if self.cache is not None:
            with Redis(self.cache) as redis:
                redis("FLUSHALL")
            lost.append("Redis flushed")
        if self.books is not None:
            name = str(conninfo_to_dict(self.books)["dbname"])
            with psycopg.connect(self.books, dbname="postgres", autocommit=True) as server:
                server.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))
            lost.append("PostgreSQL's database dropped")
        return ", ".join(lost)


def live_state(places: Places, servers: Servers) -> State:
    """Return what the application works on."""
    folders = {name: places.folder / name for name in FOLDERS}
    programs = servers.books.programs if servers.books is not None else None
    return State(places.ledger, folders, places.cache, places.books, programs)


@contextmanager
def restored_state(folder: Path, result: RestoreResult, servers: Servers) -> Iterator[State]:
    """Open what a restore put into a folder (and into a database beside the live one)."""
    with ExitStack() as exits:
        cache = books = programs = None
        if servers.cache is not None:
            dump = folder / "cache" / "dump.rdb"
            cache = exits.enter_context(running_redis(servers.home, servers.cache.program, "redis-copy", dump)).socket
        if servers.books is not None:
            books, programs = result.places["books"], servers.books.programs
        folders = {name: folder / name / "tree" for name in FOLDERS}
        yield State(folder / "ledger" / "ledger.db", folders, cache, books, programs)
