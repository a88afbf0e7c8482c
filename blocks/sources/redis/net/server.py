"""A Redis server that is reached and known: its connections, its version, its databases."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import pyarrow as pa

from blocks.errors import SourceChanged, SourceUnavailable
from blocks.sources.redis.connect import Access, dialled
from blocks.sources.redis.net.wire import Connection, Reply, packed
from blocks.sources.redis.place import Place
from blocks.sources.redis.read.read_keys import KeyReader
from blocks.sources.redis.read.scan import key_names, matching
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import byte_strings

OLDEST = (7, 0)
FIELD_EXPIRY = {"redis": (7, 4), "valkey": (9, 0)}
"""Since when fields of a hash may expire by themselves, by product."""

T = TypeVar("T")


class Server:
    """A server and its pool of connections; may be used from several threads.

    Args:
        place: A server's place; not a file.
        access: How it lets us in.

    Raises:
        ConfigurationError: Wrong password, or too few rights.
        SourceUnavailable: It cannot be reached, or is too old.
    """

    remarks: tuple[str, ...] = ()
    """What a backup of it should say."""

    def __init__(self, place: Place, access: Access) -> None:
        self.place, self._access = place, access
        self._idle: list[Connection] = []
        self._lock = Lock()
        try:
            self.facts = self.info("server", "replication")
            self.version = _version(self.facts)
            self._check()
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return str(self.place)

    @property
    def product(self) -> str:
        """Name and version."""
        return f"{self._name.capitalize()} {self.own_version}"

    @property
    def has_field_expiry(self) -> bool:
        """Whether fields of a hash may expire by themselves."""
        return self._name in FIELD_EXPIRY and _numbers(self.own_version) >= FIELD_EXPIRY[self._name]

    @property
    def writes_older_form(self) -> bool:
        """Whether it can write its dataset as servers before it did: Valkey 9 without fields that expire."""
        if self._name != "valkey" or not self.has_field_expiry:
            return False
        held = [_fields(value) for name, value in self.info("keyspace").items() if name.startswith("db")]
        return bool(held) and all(each.get("keys_with_volatile_items") == "0" for each in held)

    @property
    def in_cluster(self) -> bool:
        """Whether it is a node of a Redis Cluster, and so holds only a part of the state."""
        return "cluster" in (self.facts.get("redis_mode"), self.facts.get("server_mode"))  # Valkey says the latter

    @property
    def _name(self) -> str:
        return self.facts.get("server_name", "redis")

    @property
    def own_version(self) -> str:
        """The version as its product counts it: Valkey also says which Redis it is compatible with."""
        return self.facts.get(f"{self._name}_version", self.facts["redis_version"])

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def connection(self, database: int | None = None) -> Iterator[Connection]:
        """Borrow a connection on which a database is selected; one that failed is not used again."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self.open()
        try:
            if database is not None and connection.database != database:
                connection.call("SELECT", database, doing=f"choosing database {database}")
                connection.database = database
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)

    def open(self) -> Connection:
        """Open a connection of one's own.

        Raises:
            ConfigurationError: Wrong password.
            SourceUnavailable: The server cannot be reached.
        """
        connection = self._connection(dialled(self.place, self._access), str(self.place))
        try:
            self._access.log_in(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def call(self, *words: str | bytes | int, database: int | None = None) -> Reply:
        """Send one command over any connection."""
        with self.connection(database) as connection:
            return connection.call(*words)

    def info(self, *sections: str) -> dict[str, str]:
        """Return sections of INFO."""
        reply = self.call("INFO", *sections)
        assert isinstance(reply, bytes)
        lines = reply.decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def keyspace(self) -> dict[int, int]:
        """Return how many keys each database holds that holds any."""
        found = self.info("keyspace").items()
        return {int(name[2:]): int(_fields(value)["keys"]) for name, value in found if name.startswith("db")}

    def scan(self, database: int, patterns: Sequence[str]) -> Iterator[list[bytes]]:
        """Yield the names of all keys that one of the patterns matches, some of them more than once."""
        with self.connection(database) as one, self.connection(database) as other:
            yield from key_names((one, other), patterns)

    def read(
        self, database: int, keys: pa.LargeBinaryArray, put_off_ms: int, guesses: Guesses
    ) -> tuple[pa.Table, dict[str, int]]:
        """Return the rows of those keys that are there, and how many of each type belong to a module."""

        def once(field_expiry: bool) -> tuple[pa.Table, dict[str, int]]:
            with self.connection(database) as one, self.connection(database) as other:
                reader = KeyReader((one, other), field_expiry, put_off_ms, guesses)
                return reader.read(keys), reader.dumped

        return self.with_fields(database, once)

    def without_large(
        self, database: int, keys: pa.LargeBinaryArray, most_bytes: int
    ) -> tuple[pa.LargeBinaryArray, list[int]]:
        """Leave out keys that take more than some bytes here; return the others, and the bytes of each of those.

        Where the user may not ask (`MEMORY USAGE`), all keys are returned.
        """
        names = byte_strings(keys)
        with self.connection(database) as connection:
            asked = b"".join(packed("MEMORY", "USAGE", name) for name in names)
            replies = connection.ask(asked, len(names)) if names else []
        sizes = [reply if isinstance(reply, int) else 0 for reply in replies]
        kept = [name for name, size in zip(names, sizes, strict=True) if size <= most_bytes]
        return pa.array(kept, pa.large_binary()), [size for size in sizes if size > most_bytes]

    def with_fields(self, database: int, read: Callable[[bool], T]) -> T:
        """Read something, with the expiries of fields where there are any: asking for them takes as long again.

        Args:
            database: Number of the database.
            read: Called with whether to ask for expiries of fields.
        """
        if not self.has_field_expiry:
            return read(False)
        before = self._field_expiries(database)
        if before[0] == "0":
            done = read(False)
            if self._field_expiries(database) == before:
                return done
        return read(True)

    def _field_expiries(self, database: int) -> tuple[str, str]:
        """Return how many hashes of a database have fields that expire, and how many fields ever went so."""
        facts = self.info("keyspace", "stats")
        counted = "keys_with_volatile_items" if self._name == "valkey" else "subexpiry"
        held = facts.get(f"db{database}")
        found = "0" if held is None else _fields(held).get(counted, "unknown")
        gone = facts.get("expired_subkeys", facts.get("expired_fields", "unknown"))
        return found, gone

    def boundaries(self) -> list[int]:
        """Return the positions at which another node begins; one server has none."""
        return []

    def check_same(self) -> None:
        """Make sure that this is still the process that was reached at first, with the data it had.

        Raises:
            SourceChanged: The server was started again, or another one took its place.
        """
        self.close()  # connections kept open would not tell who answers there now
        now = self.info("server", "replication", "persistence")
        if now.get("run_id") != self.facts.get("run_id"):
            raise SourceChanged(f"{self} was restarted, or another server took over, while it was read")
        if not _same_data(self.facts, now):
            raise SourceChanged(f"{self} took another dataset from a master while it was read", hint="Run again.")

    def nodes(self) -> Sequence[Server]:
        """Return the servers that hold the state: this one."""
        return [self]

    def client_ids(self) -> set[str]:
        """Return what the server numbers the connections with that are open to it."""
        with self._lock:
            idle = list(self._idle)
        return {str(connection.call("CLIENT", "ID")) for connection in idle}

    def names_of(self, database: int, pattern: str | bytes) -> Iterator[list[bytes]]:
        """Yield all names that a pattern matches, those of our own, too; some of them more than once."""
        with self.connection(database) as one, self.connection(database) as other:
            yield from matching((one, other), pattern)

    def save(self) -> None:
        """Write the RDB of a private server, however long that takes."""
        with self.connection() as connection:
            connection.patient()
            connection.call("SAVE")

    def _check(self) -> None:
        if self.version < OLDEST:
            raise SourceUnavailable(
                f"{self}: {self.product} is too old", hint="Redis 7.0 or newer is needed (absolute expiries)."
            )

    def _connection(self, sock: socket.socket, place: str) -> Connection:
        return Connection(sock, place)


def is_master(server: Server) -> bool:
    """Whether a server takes writes from clients."""
    return server.info("replication").get("role") == "master"


def _same_data(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a server that is or was a replica went on with the data it had, and did not take others instead."""
    if "slave" not in (before.get("role"), now.get("role")):
        return True
    histories = (now.get("master_replid"), now.get("master_replid2"))
    return now.get("loading", "0") == "0" and before.get("master_replid") in histories


def _version(facts: dict[str, str]) -> tuple[int, ...]:
    try:
        return _numbers(facts["redis_version"])
    except (KeyError, ValueError) as exc:
        raise SourceUnavailable("the server does not say which version of Redis it is") from exc


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(".")[:3])


def _fields(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(","))
