"""Serves metrics, and a page for people, over HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, SHUT_RDWR, getaddrinfo
from socketserver import TCPServer
from typing import Any, ClassVar

from blocks.errors import ConfigurationError
from blocks.version import VERSION

logger = logging.getLogger(__name__)

HTML = "text/html; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"

Page = tuple[str, Callable[[], str]]
"""Type of the content, and what makes it."""

_PATIENCE = 10.0
"""Seconds that a client may take for each piece of what it asks, and of the answer."""
MOST_CONNECTIONS = 200
"""So many connections are open at a time: for one more the oldest is closed, so that slow clients keep nobody away."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # those who ask at the same moment are not turned away, to ask again seconds later
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Page]) -> None:
        self.pages = pages
        self._guard = threading.Lock()
        self._open: dict[Any, None] = {}
        found = getaddrinfo(*address)
        self.address_family = found[0][0]
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Listen; nobody asks a name server first what this machine is called, as HTTPServer does."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        with self._guard:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > MOST_CONNECTIONS else None
            self._open.pop(oldest, None)
        if oldest is not None:
            with suppress(OSError):  # it has gone
                oldest.shutdown(SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, _request: object, _client: object) -> None:
        """A client that goes away is no error of ours."""
        logger.debug("a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = f"lastgood/{VERSION}"
    sys_version = ""
    timeout = _PATIENCE
    _BODY: ClassVar = {"GET": True, "HEAD": False}

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            return self._answer(HTTPStatus.NOT_FOUND, PLAIN, "there is no such page\n")
        kind, make = page
        try:
            text = make()
        except Exception:
            logger.exception("%s cannot be shown", self.path)
            return self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, PLAIN, "it failed; the log says why\n")
        return self._answer(HTTPStatus.OK, kind, text)

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self._BODY[self.command]:
            self.wfile.write(body)

    def log_message(self, form: str, *args: object) -> None:
        logger.debug(form, *args)


@contextmanager
def serving(host: str, port: int, pages: Mapping[str, Page]) -> Iterator[str]:
    """Serve pages in threads for as long as the context lasts.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        pages: By path.

    Yields:
        The address, as a URL.

    Raises:
        ConfigurationError: That address cannot be listened on.
    """
    try:
        server = _Server((host, port), pages)
    except (OSError, OverflowError, ValueError) as exc:  # ValueError: no name of a host can be like that
        raise ConfigurationError(
            f"cannot listen on {host}, port {port}: {getattr(exc, 'strerror', None) or exc}",
            hint="Choose another port, or another address of this machine.",
        ) from exc
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True)
    thread.start()
    try:
        shown = f"[{host}]" if server.address_family == AF_INET6 else host
        yield f"http://{shown}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
