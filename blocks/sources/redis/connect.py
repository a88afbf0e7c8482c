"""How a server is reached: sockets, TLS, Sentinels, users."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, replace

from blocks.errors import ConfigurationError, LastgoodError, SourceUnavailable
from blocks.sources.redis.net.wire import Connection, packed, texts, translated
from blocks.sources.redis.place import Kind, Place

_ATTEMPTS, _PAUSE_SECONDS = 6, 0.05
_SENTINEL_SECONDS = 5.0
"""How long a Sentinel may take, of which there are others."""


@dataclass(frozen=True)
class Access:
    """How a server lets us in. `repr` shows no password.

    Attributes:
        user: Name of the ACL user; None for the default one.
        password: The user's password; None without one.
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

    def log_in(self, connection: Connection) -> None:
        """Become the user on a new connection.

        Raises:
            ConfigurationError: Wrong password.
        """
        if self.password is not None:
            _log_in(connection, *([self.user] if self.user else []), self.password)


def _log_in(connection: Connection, *words: str) -> None:
    """Say who we are; a server that does not know the command repeats its arguments."""
    try:
        connection.call("AUTH", *words, doing="logging in")
    except LastgoodError as exc:
        said = exc.message.partition(", with args")[0]
        raise type(exc)(said.replace(words[-1], "***") if words[-1] else said, hint=exc.hint) from None


def dialled(place: Place, access: Access) -> socket.socket:
    """Connect to the server of a place.

    Raises:
        ConfigurationError: The password of the Sentinels is wrong.
        SourceUnavailable: It cannot be reached.
    """
    if place.kind is Kind.SENTINEL:
        return _of_master(place, access)
    if place.kind is Kind.UNIX:
        return _of_path(place, access)
    return _dial(place, access, *place.hosts[0])


def _dial(place: Place, access: Access, host: str, port: int) -> socket.socket:
    with translated(f"Redis {host}:{port}", "connecting"):
        sock = socket.create_connection((host, port), access.timeout_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not place.tls:
            return sock
        assert access.tls is not None
        return access.tls.wrap_socket(sock, server_hostname=host)


def _of_path(place: Place, access: Access) -> socket.socket:
    with translated(str(place), "connecting"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(access.timeout_seconds)
        try:
            sock.connect(str(place.path))
        except BaseException:
            sock.close()
            raise
        return sock


def _of_master(place: Place, access: Access) -> socket.socket:
    """Connect to the master that Sentinels name; one that turns out to be a replica is old news of a failover."""
    said: list[str] = []
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        said, named = [], _named_masters(place, access)
        said += named.failures
        for host, port in named.addresses:
            try:
                return _master_at(place, access, host, port)
            except SourceUnavailable as exc:
                said.append(exc.message)
        if not named.addresses:
            break
    raise SourceUnavailable(
        f"{place}: no Sentinel leads to a master ({'; '.join(said)})", hint="Is the name of the master right?"
    )


@dataclass(frozen=True)
class _Named:
    """The addresses of masters that Sentinels name, and what others said."""

    addresses: list[tuple[str, int]]
    failures: list[str]


def _named_masters(place: Place, access: Access) -> _Named:
    """Ask all Sentinels who the master is; only those that know of the newest failover count."""
    quickly = replace(access, timeout_seconds=min(access.timeout_seconds, _SENTINEL_SECONDS))
    found: dict[tuple[str, int], int] = {}
    failures = []
    for host, port in place.hosts:
        try:
            address, epoch = _ask_sentinel(place, quickly, host, port)
        except SourceUnavailable as exc:
            failures.append(exc.message)
        else:
            found[address] = max(epoch, found.get(address, epoch))
    return _Named([address for address, epoch in found.items() if epoch == max(found.values())], failures)


def _master_at(place: Place, access: Access, host: str, port: int) -> socket.socket:
    """Connect to a server, if it is a master."""
    sock = _dial(place, access, host, port)
    try:
        _check_master(Connection(sock, f"Redis {host}:{port}"), access)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_master(connection: Connection, access: Access) -> None:
    access.log_in(connection)
    said = connection.call("INFO", "replication", doing="asking for its role")
    if not (isinstance(said, bytes) and b"role:master" in said.splitlines()):
        raise SourceUnavailable(f"{connection.place}: a Sentinel calls it the master, but it is a replica")


def _ask_sentinel(place: Place, access: Access, host: str, port: int) -> tuple[tuple[str, int], int]:
    """Ask one Sentinel for the address of the master, and of which failover it knows that."""
    connection = Connection(_dial(place, access, host, port), f"Sentinel {host}:{port}")
    try:
        if access.sentinel_password is not None:
            _log_in(connection, access.sentinel_password)
        found = connection.call("SENTINEL", "get-master-addr-by-name", place.master)
        more = connection.ask(packed("SENTINEL", "master", place.master), 1)[0]
    finally:
        connection.close()
    if not isinstance(found, list):
        raise SourceUnavailable(f"Sentinel {host}:{port} knows no master {place.master!r}")
    address, number = texts(found)
    facts = texts(more) if isinstance(more, list) else []
    return (address, int(number)), int(dict(zip(facts[::2], facts[1::2], strict=False)).get("config-epoch", 0))


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
