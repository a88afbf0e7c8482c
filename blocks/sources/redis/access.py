"""How a server is reached: sockets, TLS, Sentinels, users."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from blocks.errors import ConfigurationError, SourceUnavailable
from blocks.sources.redis.place import Kind, Place
from blocks.sources.redis.wire import Connection, texts, translated


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

    def log_in(self, connection: Connection) -> None:
        """Become the user on a new connection.

        Raises:
            ConfigurationError: Wrong password.
        """
        if self.password is not None:
            words = [self.user] if self.user else []
            connection.call("AUTH", *words, self.password, doing="logging in")


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
    """Ask the Sentinels in turn who the master is now."""
    said = []
    for host, port in place.hosts:
        try:
            return _dial(place, access, *_ask_sentinel(place, access, host, port))
        except SourceUnavailable as exc:
            said.append(exc.message)
    raise SourceUnavailable(
        f"{place}: no Sentinel leads to a master ({'; '.join(said)})", hint="Is the name of the master right?"
    )


def _ask_sentinel(place: Place, access: Access, host: str, port: int) -> tuple[str, int]:
    connection = Connection(_dial(place, access, host, port), f"Sentinel {host}:{port}")
    try:
        if access.sentinel_password is not None:
            connection.call("AUTH", access.sentinel_password, doing="logging in")
        found = connection.call("SENTINEL", "get-master-addr-by-name", place.master)
    finally:
        connection.close()
    if not isinstance(found, list):
        raise SourceUnavailable(f"Sentinel {host}:{port} knows no master {place.master!r}")
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
