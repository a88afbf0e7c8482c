"""A proxy before an object store that notes every request, as the storage sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_NOT_PASSED_ON = {"connection", "transfer-encoding", "keep-alive"}


class CountingProxy:
    """Passes requests on to a server; `requests` names each: `GET locks/trading/000000000001`, `LIST backups/trading/`.

    Args:
        port: Of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[str] = []
        self._backend = port
        self._guard = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[CountingProxy]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def note(self, method: str, target: str) -> None:
        parts = urlsplit(target)
        asked = parse_qs(parts.query, keep_blank_values=True)
        # a bucket and a folder of the repository stand before every name
        name = unquote(parts.path).lstrip("/").partition("/")[2].partition("/")[2]
        if "list-type" in asked:
            method, name = "LIST", asked.get("prefix", [""])[0].partition("/")[2]
        elif "delete" in asked:
            method = "DELETE"
        with self._guard:
            self.requests.append(f"{method} {name}")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: answers are written in pieces
                self._server = HTTPConnection("127.0.0.1", proxy._backend)

            def finish(self) -> None:
                self._server.close()
                super().finish()

            def _pass_on(self) -> None:
                proxy.note(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                self._server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _NOT_PASSED_ON:
                        self._server.putheader(name, value)
                self._server.endheaders(body or None)
                answer = self._server.getresponse()
                content = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {*_NOT_PASSED_ON, "content-length"}:
                        self.send_header(name, value)
                length = answer.getheader("content-length") if self.command == "HEAD" else str(len(content))
                self.send_header("content-length", length or "0")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

            def log_message(self, *_words: object) -> None:
                """Say nothing."""

        return Handler


@contextmanager
def counting_proxy(port: int) -> Iterator[CountingProxy]:
    """A running proxy before the server at a port."""
    with CountingProxy(port).running() as proxy:
        yield proxy
