"""A Redis server that is reached and known: its connections, its version, its databases."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from blocks.errors import ConfigurationError, SourceUnavailable
from blocks.sources.redis.place import Kind, Place
from blocks.sources.redis.wire import Connection, Reply, texts, translated

OLDEST = (7, 0)
FIELD_EXPIRY = (7, 4)


@dataclass(frozen=True)
class Access:
    """How a server lets us in. `repr` shows no password.

    Attributes:
        user: Name of the ACL user; None for the default one.
        password: Its password.
        sentinel_password: The password of Sentinels.
        tls: What certificates are checked with; None without TLS.
        timeout_seconds: How long a connection, or one answer, may take.
    """

    user: str | None
    password: str | None
    sentinel_password: str | None
    tls: ssl.SSLContext | None
    timeout_seconds: float

    def __repr__(self) -> str:
        return f"Access(user={self.user!r})"


class Server:
    """A server and its pool of connections; may be used from several threads.

    Args:
        place: A server's place; not a file.
        access: How it lets us in.

    Raises:
        ConfigurationError: Wrong password, or too few rights.
        SourceUnavailable: It cannot be reached, is too old, or is a node of a Redis Cluster.
    """

    def __init__(self, place: Place, access: Access) -> None:
        self.place, self._access = place, access
        self._idle: list[Connection] = []
        self._lock = Lock()
        try:
            self.facts = self.info("server")
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
        name = self.facts.get("server_name", "redis").capitalize()
        return f"{name} {self.facts.get(f'{name.lower()}_version', self.facts['redis_version'])}"

    @property
    def has_field_expiry(self) -> bool:
        """Whether fields of a hash may expire by themselves."""
        return self.version >= FIELD_EXPIRY and self.facts.get("server_name", "redis") == "redis"

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
        if self.place.kind is Kind.SENTINEL:
            return self._login(self._of_master(), str(self.place))
        if self.place.kind is Kind.UNIX:
            return self._login(self._dial_socket(), str(self.place))
        return self._login(self._dial(*self.place.hosts[0]), str(self.place))

    def call(self, *words: str | bytes | int, database: int | None = None) -> Reply:
        """Send one command over any connection."""
        with self.connection(database) as connection:
            return connection.call(*words)

    def info(self, section: str) -> dict[str, str]:
        """Return one section of INFO."""
        reply = self.call("INFO", section)
        assert isinstance(reply, bytes)
        lines = reply.decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def keyspace(self) -> dict[int, int]:
        """Return how many keys each database holds that holds any."""
        found = self.info("keyspace").items()
        return {int(name[2:]): int(_fields(value)["keys"]) for name, value in found if name.startswith("db")}

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
        if self.facts.get("redis_mode") == "cluster":
            raise SourceUnavailable(
                f"{self} is a node of a Redis Cluster, which this version cannot back up as a whole",
                hint="Nothing was read. A single node would be only a part of the state.",
            )

    def _login(self, sock: socket.socket, place: str) -> Connection:
        connection = Connection(sock, place)
        try:
            if self._access.password is not None:
                words = [self._access.user] if self._access.user else []
                connection.call("AUTH", *words, self._access.password, doing="logging in")
        except BaseException:
            connection.close()
            raise
        return connection

    def _dial(self, host: str, port: int) -> socket.socket:
        with translated(f"Redis {host}:{port}", "connecting"):
            sock = socket.create_connection((host, port), self._access.timeout_seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self.place.tls:
                return sock
            assert self._access.tls is not None
            return self._access.tls.wrap_socket(sock, server_hostname=host)

    def _dial_socket(self) -> socket.socket:
        with translated(str(self.place), "connecting"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(self._access.timeout_seconds)
            try:
                sock.connect(str(self.place.path))
            except BaseException:
                sock.close()
                raise
            return sock

    def _of_master(self) -> socket.socket:
        """Ask the Sentinels in turn who the master is now, and make sure that it agrees."""
        said = []
        for host, port in self.place.hosts:
            try:
                master = self._ask_sentinel(host, port)
                return self._dial(*master)
            except SourceUnavailable as exc:
                said.append(exc.message)
        raise SourceUnavailable(
            f"{self.place}: no Sentinel leads to a master ({'; '.join(said)})", hint="Is the name of the master right?"
        )

    def _ask_sentinel(self, host: str, port: int) -> tuple[str, int]:
        connection = Connection(self._dial(host, port), f"Sentinel {host}:{port}")
        try:
            if self._access.sentinel_password is not None:
                connection.call("AUTH", self._access.sentinel_password, doing="logging in")
            found = connection.call("SENTINEL", "get-master-addr-by-name", self.place.master)
        finally:
            connection.close()
        if not isinstance(found, list):
            raise SourceUnavailable(f"Sentinel {host}:{port} knows no master {self.place.master!r}")
        address, number = texts(found)
        return address, int(number)


def tls_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Make what certificates are checked with.

    Raises:
        ConfigurationError: A file is missing or wrong.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as exc:
        raise ConfigurationError(
            f"the TLS files of a Redis cannot be used: {exc}", hint="Check `ca_file`, `cert_file` and `key_file`."
        ) from exc
    return context


def is_master(server: Server) -> bool:
    """Whether a server takes writes from clients."""
    return server.info("replication").get("role") == "master"


def _version(facts: dict[str, str]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in facts["redis_version"].split(".")[:3])
    except (KeyError, ValueError) as exc:
        raise SourceUnavailable("the server does not say which version of Redis it is") from exc


def _fields(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(","))
