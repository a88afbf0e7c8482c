"""Where a Redis is: the URLs that people write, without secrets.

    redis://[user@]host[:6379][/db]             rediss:// with TLS
    unix:///path/of/socket[?db=0]
    redis+sentinel://host[:26379],host.../master[/db]       rediss+sentinel:// with TLS
    redis+cluster://[user@]host[:6379],host...              rediss+cluster:// with TLS
    ./dump.rdb, or the absolute path of an RDB file

`?password_env=NAME` names the environment variable with the password of this place; `none` that it asks for none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from blocks.errors import ConfigurationError
from blocks.host.passwords import has_password

PROOF = "proof:"
"""Before the path of an RDB file: its expiries are put off, so that a verification finds all keys again."""

_HINT = (
    "Write redis://host:6379/0, rediss://, unix:///path, redis+sentinel://host,host/master/0, "
    "redis+cluster://host,host, or a path to an .rdb."
)
_PORT, _SENTINEL_PORT = 6379, 26379


class Kind(StrEnum):
    """How a place is reached."""

    TCP = "tcp"
    UNIX = "unix"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
    FILE = "file"


@dataclass(frozen=True)
class Place:
    """A server, or a file.

    Attributes:
        kind: How it is reached.
        hosts: Host and port; several for Sentinel, and for a cluster, of which any node leads to the others.
        path: Of the socket or the file.
        master: The name that Sentinels know the master by.
        database: The one that the URL names, if it does.
        tls: Whether the connection is encrypted.
        user: The ACL user that the URL names.
        password_env: The variable with the password that the URL names, or `none`.
        proof: Whether expiries are put off.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: Path = Path()
    master: str = ""
    database: int | None = None
    tls: bool = False
    user: str | None = None
    password_env: str | None = None
    proof: bool = False

    def __str__(self) -> str:
        """Name the place for people."""
        if self.kind in (Kind.UNIX, Kind.FILE):
            return f"Redis {'socket' if self.kind is Kind.UNIX else 'file'} {self.path}"
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        if self.kind is Kind.SENTINEL:
            return f"Redis {self.master} of Sentinel {hosts}"
        return f"Redis Cluster {hosts}" if self.kind is Kind.CLUSTER else f"Redis {hosts}"


def parse_place(text: str) -> Place:
    """Read a place.

    Raises:
        ConfigurationError: It is none, or there is a password in it.
    """
    if text.removeprefix(PROOF).endswith(".rdb"):
        path = text.removeprefix(PROOF).removeprefix("file://")
        return Place(Kind.FILE, path=Path(path).expanduser(), proof=text.startswith(PROOF))
    url = _split(text)
    if url.password is not None or has_password(text):
        raise ConfigurationError(
            "there is a password in the URL of a Redis, where it would be kept and shown",
            hint="Put it into an environment variable and name that: `password_env`, or ?password_env=NAME in the URL.",
        )
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    if unknown := sorted(query.keys() - {"db", "password_env"}):
        raise ConfigurationError(f"unknown {unknown[0]!r} in the URL of a Redis", hint=_HINT)
    return replace(_located(url, query), user=_user(url), password_env=query.get("password_env"))


def same_server(one: Place, other: Place) -> bool:
    """Return whether the other place names the server, cluster or master of the one, and is reached as safely."""
    asked = {Kind.CLUSTER: Kind.TCP}  # any node leads to the whole cluster, in either way of writing it
    alike = (asked.get(one.kind, one.kind), one.path, one.master) == (
        asked.get(other.kind, other.kind),
        other.path,
        other.master,
    )
    return alike and other.tls >= one.tls and same_hosts(one, other)


def same_hosts(one: Place, other: Place) -> bool:
    """Return whether all hosts of the other place are named by the one, too."""
    known = {(host.casefold(), port) for host, port in one.hosts}
    return all((host.casefold(), port) in known for host, port in other.hosts)


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        # what it says may quote the URL
        raise ConfigurationError("the URL of a Redis cannot be read", hint=_HINT) from None


def _located(url: SplitResult, query: dict[str, str]) -> Place:
    scheme, _, kind = url.scheme.partition("+")
    if scheme == "unix" and url.path:
        return Place(Kind.UNIX, path=Path(unquote(url.path)), database=_database(query.get("db")))
    if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
        raise ConfigurationError(f"{url.scheme or url.path!r} is no place of a Redis", hint=_HINT)
    words = [unquote(word) for word in url.path.split("/") if word]
    sentinel = kind == "sentinel"
    if len(words) > 1 + sentinel or (sentinel and not words):
        raise ConfigurationError(f"{url.path!r} is no path in the URL of a Redis", hint=_HINT)
    master = words.pop(0) if sentinel else ""
    number = _database(words[0] if words else query.get("db"))
    hosts = tuple(_host(each, _SENTINEL_PORT if sentinel else _PORT) for each in _hosts(url).split(","))
    if kind == "cluster" and number:
        raise ConfigurationError(f"there is no database {number} in a Redis Cluster", hint="It has only database 0.")
    place = Place(Kind(kind or "tcp"), hosts=hosts, master=master, database=number)
    return replace(place, tls=scheme == "rediss")


def _hosts(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2] or "localhost"


def _user(url: SplitResult) -> str | None:
    name = url.netloc.rpartition("@")[0]
    return unquote(name) if name else None


def _host(text: str, port: int) -> tuple[str, int]:
    host, colon, number = text.rpartition(":")
    if not colon or number.endswith("]"):
        return text.strip("[]"), port
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise ConfigurationError(f"{number!r} is no port", hint=_HINT)
    return host.strip("[]"), int(number)


def _database(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"{text!r} is no number of a database", hint=_HINT)
    return int(text)
