"""Metrics to a StatsD daemon, over UDP."""

from __future__ import annotations

from statsd import StatsClient

from blocks.telemetry.address import Address


class StatsdClient:
    """Sends counters as `c`, and values as `ms`, the only kind of StatsD that keeps a distribution.

    Values are sent as they are, so seconds stay seconds.
    """

    def __init__(self, address: Address) -> None:
        # for host names without an address of IPv6, the client asks for one of IPv4 only
        self._client = StatsClient(address.host, address.port, ipv6=":" in address.host)

    def count(self, name: str) -> None:
        """Send that one is to be counted."""
        self._client.incr(name)

    def observe(self, name: str, value: float) -> None:
        """Send a value."""
        self._client.timing(name, value)

    def flush(self) -> None:
        """Do nothing: all was sent."""

    def close(self) -> None:
        """Close the socket."""
        self._client.close()
