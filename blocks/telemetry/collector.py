"""MetricsCollector: who is told what backups and retention do, or nobody."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from blocks.errors import ConfigurationError
from blocks.host.passwords import has_password
from blocks.host.plugins import Group, names, plugin
from blocks.telemetry.address import UNIX, socket_address, web_address
from blocks.telemetry.backends.base import Backend, Nobody
from blocks.telemetry.published import checked_prefix

if TYPE_CHECKING:  # only who is scraped needs it
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.metrics_core import Metric

    from blocks.telemetry.backends.prometheus import PrometheusBackend
    from blocks.telemetry.backends.pushing import Client

FLUSH_SECONDS = 3.0
"""How long the end of an operation waits at most for its numbers to be sent."""

_STATSD_PORT = 8125


class BackendKind(StrEnum):
    """Who can be told."""

    PROMETHEUS = "prometheus"
    STATSD = "statsd"
    DATADOG = "datadog"
    OTLP = "otlp"


_MODULES = {
    BackendKind.PROMETHEUS: "prometheus_client",
    BackendKind.STATSD: "statsd",
    BackendKind.DATADOG: "datadog",
    BackendKind.OTLP: "opentelemetry.exporter.otlp.proto.http",
}
TAGGED = (BackendKind.DATADOG, BackendKind.OTLP)
"""Those whose numbers have tags."""


class MetricsCollector:
    """Counts and observes for one backend, and never waits for it. Thread-safe.

    Whatever becomes of a backend, nothing is raised here: what cannot be sent is dropped, and a warning logged, once.

    Args:
        backend: `prometheus`, `statsd`, `datadog` or `otlp`, or what another package adds (docs/plugins.md); None for
            nobody, which imports nothing.
        prefix: Stands before each name, with a dot (in Prometheus an underscore) between.
        address: Where it listens: `host:port` of StatsD and Datadog (8125 of this machine where it is None), or
            `unix:///path` of Datadog; a URL of OTLP over HTTP (None for what the environment says, and else for
            http://localhost:4318). Prometheus fetches: see `text` and `serve`.
        tags: Tags of Datadog, attributes of OTLP; the others have none.

    Raises:
        ConfigurationError: There is no such backend, its client is not installed, or something of it is wrong.
    """

    def __init__(
        self,
        backend: BackendKind | str | None = None,
        prefix: str = "",
        address: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        try:
            kind = backend_kind(backend) if backend is not None else None
        except ValueError:
            raise ConfigurationError(f"{backend!r} is none of {', '.join(backend_names())}") from None
        try:
            before = checked_prefix(prefix)
            check_backend(kind, address, tags or {})
        except ValueError as exc:
            raise ConfigurationError(f"metrics: {exc}") from None
        self._scraped: PrometheusBackend | None = None
        self._backend: Backend = Nobody()
        if kind is BackendKind.PROMETHEUS:
            from blocks.telemetry.backends.prometheus import PrometheusBackend

            self._backend = self._scraped = PrometheusBackend(before)
        elif kind is not None:
            from blocks.telemetry.backends.pushing import Pusher

            _check_installed(kind)
            shown = f"{kind} at {address}" if address else str(kind)
            self._backend = Pusher(connector(kind, address, dict(tags or {})), shown, before)

    def record_counter(self, name: str) -> None:
        """Count one.

        Args:
            name: With dots, such as `backup.operations.created_total`.
        """
        self._backend.count(name)

    def record_histogram(self, name: str, value: float) -> None:
        """Observe a value.

        Args:
            name: With dots; it says the unit, such as `backup.operations.duration_seconds`.
            value: In that unit.
        """
        self._backend.observe(name, value)

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Send what was recorded so far; return whether that was done within so many seconds.

        It is done, too, where the backend took nothing; a warning says that. Without being asked it is done soon, and
        when the process ends.
        """
        return self._backend.flush(seconds)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what was recorded, for so many seconds at most, and send nothing any more."""
        self._backend.close(seconds)

    def text(self) -> str:
        """Return all metrics of this process as Prometheus reads them, in its text format.

        Raises:
            ConfigurationError: The backend is another one.
        """
        from prometheus_client import generate_latest

        return generate_latest(self._fetched().registry()).decode()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics: so the collector can be registered with a registry of prometheus_client.

        Raises:
            ConfigurationError: The backend is another one.
        """
        return self._fetched().collect()

    def serve(self, port: int, host: str = "127.0.0.1") -> WSGIServer:
        """Serve what `text` returns at `/metrics`, in a daemon thread.

        Args:
            port: 0 for any that is free.
            host: Where to listen; only this machine by default.

        Returns:
            The server; its `server_port` is the port, its `shutdown` ends it.

        Raises:
            ConfigurationError: The backend is another one.
            OSError: The port cannot be had.
        """
        from prometheus_client import start_http_server

        return start_http_server(port, host, self._fetched().registry())[0]

    def _fetched(self) -> PrometheusBackend:
        if self._scraped is None:
            raise ConfigurationError("only metrics of the backend prometheus are fetched; others are sent")
        return self._scraped


def backend_names() -> list[str]:
    """Return the names of all backends, our own first."""
    return [*BackendKind, *(name for name in names(Group.COLLECTORS) if name not in set(BackendKind))]


def backend_kind(name: str) -> BackendKind | str:
    """Return a backend of ours by its name, or the name of one that another package adds; that is not imported.

    Raises:
        ValueError: There is none.
    """
    try:
        return BackendKind(name)
    except ValueError:
        if name in names(Group.COLLECTORS):
            return name
        raise


def check_backend(kind: BackendKind | str | None, address: str | None, tags: Mapping[str, str]) -> None:
    """Make sure that an address, and tags, are what a backend can have.

    Raises:
        ValueError: They are not; says what to write.
    """
    if kind is None:
        if address is not None or tags:
            raise ValueError(f"name the backend, one of {', '.join(backend_names())}")
        return
    if not isinstance(kind, BackendKind):
        # who adds it says what it takes; but it is kept with the plan, and shown
        if address is not None and has_password(address):
            raise ValueError("no credentials stand in it: set them in the environment, as its package says")
        return
    if tags and kind not in TAGGED:
        raise ValueError(f"{kind.value} has no tags; {' and '.join(TAGGED)} have")
    if address is None:
        return
    if kind is BackendKind.PROMETHEUS:
        raise ValueError("Prometheus fetches metrics, and is sent none: it has no address")
    if kind is BackendKind.OTLP:
        web_address(address, "/")
    elif kind is not BackendKind.DATADOG or not address.startswith(UNIX):
        socket_address(address, _STATSD_PORT)


def check_reached(kind: BackendKind | str, address: str | None) -> str:
    """Return where a backend is, in words, where its client is installed and its host has an address.

    Nothing is sent: whether anybody listens is not known of UDP.

    Raises:
        ConfigurationError: It is not so.
    """
    _check_installed(kind)
    if not isinstance(kind, BackendKind):
        return f"{kind} at {address}" if address else kind
    if kind is BackendKind.OTLP:
        place = address or "where the environment says"
        host = urlsplit(address).hostname if address else None
    elif address and address.startswith(UNIX):
        place, host = address, None
    else:
        place = address or f"localhost:{_STATSD_PORT}"
        host = socket_address(address, _STATSD_PORT).host if address else None
    if host is not None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as exc:  # the latter of what cannot be a name
            why = exc.strerror if isinstance(exc, OSError) else "it cannot be one"
            raise ConfigurationError(
                f"{kind.value} at {address}: the host is not known: {why}",
                hint="Correct `metrics.address` in the plan. Backups are made all the same.",
            ) from None
    return f"{kind.value} at {place}"


def _check_installed(kind: BackendKind | str) -> None:
    """Make sure that the client of a backend is there, without importing it; one of another package is imported.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(kind, BackendKind):
        _added(kind)
        return
    try:
        found = find_spec(_MODULES[kind]) is not None
    except ModuleNotFoundError:  # of what it is in
        found = False
    if not found:
        raise ConfigurationError(
            f"the client of {kind.value} is not installed", hint=f'Install it: pip install "lastgood[{kind.value}]".'
        )


def _added(name: str) -> Callable[[str | None, Mapping[str, str]], Client]:
    """Return what makes the client of a backend that another package adds.

    Raises:
        PluginUnusable: It cannot be used.
    """
    made = plugin(Group.COLLECTORS, name, _callable)
    assert made is not None, name  # whoever asks has its name from `backend_kind`
    return made


def _callable(_name: str, one: object) -> Callable[[str | None, Mapping[str, str]], Client]:
    if not callable(one):
        raise TypeError("it cannot be called with an address and tags")
    return one


def connector(kind: BackendKind | str, address: str | None, tags: Mapping[str, str]) -> Callable[[], Client]:
    """Return what makes the client of a backend to which metrics are sent; only that imports it."""
    if not isinstance(kind, BackendKind):
        added = _added(kind)
        return lambda: added(address, tags)

    def connect() -> Client:
        if kind is BackendKind.OTLP:
            from blocks.telemetry.backends.otlp import OtlpClient

            return OtlpClient(web_address(address, "/v1/metrics") if address else None, tags)
        if kind is BackendKind.DATADOG:
            from blocks.telemetry.backends.datadog import DatadogClient

            if address and address.startswith(UNIX):
                return DatadogClient(address.removeprefix(UNIX), tags)
            return DatadogClient(socket_address(address or "127.0.0.1", _STATSD_PORT), tags)
        from blocks.telemetry.backends.statsd import StatsdClient

        return StatsdClient(socket_address(address or "127.0.0.1", _STATSD_PORT))

    return connect
