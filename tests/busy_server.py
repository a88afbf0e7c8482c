"""A small HTTP server in the place of a Prefect API: busy at first, as one that has just started, then healthy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class BusyServer(ThreadingHTTPServer):
    """Answers 503 so many times, and 200 from then on.

    Attributes:
        answers: The codes that it has answered.
    """

    def __init__(self, busy: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.busy = busy
        self.answers: list[int] = []

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.server_port}/api"


class _Answer(BaseHTTPRequestHandler):
    server: BusyServer

    def do_GET(self) -> None:
        code = 503 if len(self.server.answers) < self.server.busy else 200
        self.server.answers.append(code)
        self.send_response(code)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def busy_server(busy: int) -> Iterator[BusyServer]:
    """Run one for as long as the context lasts."""
    with BusyServer(busy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
