"""Servers that metrics are sent to: a bound UDP socket, and a small receiver of OTLP over HTTP."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

PATIENCE_SECONDS = 30.0


class Packets:
    """A UDP socket on a free port of this machine, and what it got.

    Attributes:
        address: `host:port`.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self.address = f"127.0.0.1:{bound.getsockname()[1]}"

    def lines(self, count: int) -> list[str]:
        """Return the next lines, as soon as there are as many; what else there is stays away: no more came."""
        self._socket.settimeout(PATIENCE_SECONDS)
        found: list[str] = []
        while len(found) < count:
            found += self._socket.recv(65536).decode().splitlines()
        return found

    def silent(self) -> bool:
        """Whether nothing waits."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(65536)
        except BlockingIOError:
            return True
        return False


@contextmanager
def packets() -> Iterator[Packets]:
    """Bind a UDP socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield Packets(bound)


class Collector:
    """An OTLP receiver.

    Attributes:
        address: Its URL.
        requests: What it got: the path, the headers, and the message.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, dict[str, str], ExportMetricsServiceRequest]] = []

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of all messages, by name; of several messages the last one."""
        return {
            metric.name: metric
            for _, _, message in self.requests
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def otlp_collector() -> Iterator[Collector]:
    """Run an OTLP receiver."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.requests.append((self.path, dict(self.headers), ExportMetricsServiceRequest.FromString(body)))
            answer = ExportMetricsServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[int]:
    """Listen on a port, accept, and never answer; gives the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening.getsockname()[1]
