"""Where a backend listens, as people write it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from blocks.host.passwords import has_password

UNIX = "unix://"


class Address(NamedTuple):
    """A host and a port, without what an IPv6 address is written in."""

    host: str
    port: int


def socket_address(text: str, port: int) -> Address:
    """Read `host`, `host:port` or `udp://host:port`.

    Args:
        text: As it is written; `[::1]:8125` for an address of IPv6.
        port: Where none is written.

    Raises:
        ValueError: It is something else; says what to write.
    """
    wanted = "write host:port, such as localhost:8125"
    scheme, slashes, rest = text.rpartition("://")
    if slashes and scheme != "udp":
        raise ValueError(wanted)
    try:
        parts = urlsplit(f"udp://{rest}")
        found = Address(parts.hostname or "", parts.port or port)
    except ValueError:
        raise ValueError(wanted) from None
    if not found.host or parts.username is not None or parts.path or parts.query or parts.fragment:
        raise ValueError(wanted)
    return found


def web_address(text: str, path: str) -> str:
    """Read a URL of HTTP.

    Args:
        text: As it is written.
        path: Where none is written.

    Raises:
        ValueError: It is something else, or holds credentials; says what to write.
    """
    wanted = "write a URL, such as http://localhost:4318"
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  it is read to find out whether it is one
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError(wanted)
    if parts.username is not None or parts.query or has_password(text):
        raise ValueError("no credentials stand in it: set OTEL_EXPORTER_OTLP_HEADERS in the environment")
    return parts._replace(path=parts.path if parts.path.strip("/") else path).geturl()
