"""A proxy before an object server that answers some requests itself: what a server refuses when it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

Rule = Callable[[str, str, bytes], tuple[int, bytes] | None]
"""Given method, decoded path with query and body: status and body of the answer; None to pass the request on."""


def denied(code: str = "AccessDenied", message: str = "Access Denied.") -> bytes:
    """The body of a refusal."""
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class Proxy:
    """A proxy at `endpoint`; `rule` may be set at any time, `seen` are the requests so far (method and path)."""

    def __init__(self, port: int, server: str) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.server = urlsplit(server)
        self.rule: Rule = lambda method, path, body: None
        self.seen: list[tuple[str, str]] = []


@contextmanager
def refusing_proxy(server: str) -> Iterator[Proxy]:
    """Run a proxy before the server at a URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(self.path)
            proxy.seen.append((self.command, path))
            if (answer := proxy.rule(self.command, path, body)) is not None:
                self._answer(answer[0], [("Content-Type", "application/xml")], answer[1])
                return
            connection = http.client.HTTPConnection(proxy.server.hostname or "", proxy.server.port)
            # with the host that the request was signed for
            connection.request(self.command, self.path, body, dict(self.headers))
            given = connection.getresponse()
            data = given.read()
            kept = [one for one in given.getheaders() if one[0].lower() not in ("transfer-encoding", "connection")]
            self._answer(given.status, kept, data)
            connection.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        proxy = Proxy(http_server.server_address[1], server)
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            http_server.shutdown()
            thread.join()
