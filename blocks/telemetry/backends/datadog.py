"""Metrics to a Datadog agent, or another server that knows DogStatsD, over UDP or a Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from datadog.dogstatsd.base import DogStatsd

from blocks.telemetry.address import Address


class DatadogClient:
    """Sends counters as `c` and values as `h`, with tags.

    Args:
        address: Host and port, or path of a Unix socket.
        tags: Tags of all of them.

    Raises:
        OSError: The host has no address.
    """

    def __init__(self, address: Address | str, tags: Mapping[str, str]) -> None:
        constant = [f"{name}:{value}" for name, value in tags.items()]
        if isinstance(address, str):
            self._client = DogStatsd(socket_path=address, constant_tags=constant, disable_telemetry=True)
            return
        # the client itself would look for it with each number, and say nothing
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0][4][0]
        self._client = DogStatsd(str(found), address.port, constant_tags=constant, disable_telemetry=True)

    def count(self, name: str) -> None:
        """Send that one is to be counted."""
        self._client.increment(name)

    def observe(self, name: str, value: float) -> None:
        """Send a value."""
        self._client.histogram(name, value)

    def flush(self) -> None:
        """Send what the client gathered."""
        self._client.flush()

    def close(self) -> None:
        """Close the socket."""
        self._client.close_socket()
