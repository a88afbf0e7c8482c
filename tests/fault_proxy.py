"""A proxy between a client and an HTTP server of a test: counts requests, and spoils those that it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Spoiling = Literal["lose the reply", "cut the body", "answer", "hang"]


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What a server answers."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Fault:
    """What is done to the next requests that fit.

    Attributes:
        how: `lose the reply` passes the request on and cuts the connection; `cut the body` sends half of the answer;
            `answer` answers by itself; `hang` never answers.
        method: Of the requests.
        path: A part of their path, decoded or not.
        times: To so many of them.
        reply: For `answer`.
        inside: A part of their bodies.
    """

    how: Spoiling
    method: str
    path: str = ""
    times: int = 1_000_000
    reply: Reply = field(default_factory=lambda: Reply(503))
    inside: bytes = b""

    def fits(self, request: Request) -> bool:
        """Whether it is for this request; counts it."""
        fits = request.method == self.method and self.path in request.path and self.inside in request.body
        if fits and self.times > 0:
            self.times -= 1
            return True
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are a matter of tests."""


class FaultProxy:
    """A running proxy.

    Attributes:
        port: Of the proxy.
        requests: Method and path of all requests, in the order in which they came.
        headers: Of all requests, by names in small letters.
        faults: What is done to requests; the first that fits counts.
    """

    def __init__(
        self,
        server_port: int,
        translate: Callable[[Request], Request] | None = None,
        answer: Callable[[Request, Reply], Reply] | None = None,
    ) -> None:
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Fault] = []
        self._server_port, self._translate, self._answer = server_port, translate, answer
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._http = _Server(("127.0.0.1", 0), self._handler())
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str, path: str = "") -> int:
        """How many requests there were."""
        return sum(one == method and path in where for one, where in self.requests)

    def close(self) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def _fault(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append((request.method, request.path))
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            return next((fault for fault in self.faults if fault.fits(request)), None)

    def _passed_on(self, request: Request) -> Reply:
        sent = self._translate(request) if self._translate else request
        connection = HTTPConnection("127.0.0.1", self._server_port, timeout=60)
        try:
            connection.putrequest(sent.method, sent.path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent.body or None)
            found = connection.getresponse()
            reply = Reply(found.status, dict(found.getheaders()), found.read())
            return self._answer(request, reply) if self._answer else reply
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers.items()), body)
                fault = proxy._fault(request)
                if fault is not None and fault.how == "hang":
                    proxy._closed.wait(60)
                    self.close_connection = True
                    return
                reply = fault.reply if fault and fault.how == "answer" else proxy._passed_on(request)
                if fault is not None and fault.how == "lose the reply":
                    self.close_connection = True
                    return
                self._send(reply, half=fault is not None and fault.how == "cut the body")

            def _send(self, reply: Reply, half: bool) -> None:
                self.send_response_only(reply.status)
                headers = {name.lower(): value for name, value in reply.headers.items()}
                headers.pop("transfer-encoding", None)
                if self.command != "HEAD":
                    headers["content-length"] = str(len(reply.body))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) // 2] if half else reply.body)
                self.wfile.flush()
                self.close_connection = self.close_connection or half

        return Handler


@contextmanager
def fault_proxy(
    server_port: int,
    translate: Callable[[Request], Request] | None = None,
    answer: Callable[[Request, Reply], Reply] | None = None,
) -> Iterator[FaultProxy]:
    """A proxy before a server of this machine, which may speak another protocol than the client."""
    proxy = FaultProxy(server_port, translate, answer)
    try:
        yield proxy
    finally:
        proxy.close()
