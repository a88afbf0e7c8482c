"""Those who are told: a server of HTTP that answers as a test wants it, and a mail server."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass(frozen=True)
class Request:
    """What was sent.

    Attributes:
        path: With what stands behind it in the URL.
        body: As it came.
    """

    path: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpReceiver:
    """A server of HTTP.

    Attributes:
        url: Where it is.
        statuses: What it answers, in turn; 200 when there are no more.
        delay_seconds: How long it takes to answer.
        requests: What came, in this order.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    delay_seconds: float = 0.0
    requests: list[Request] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.requests]


@contextmanager
def http_receiver() -> Iterator[HttpReceiver]:
    """Run a server until the context ends."""
    told = HttpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            told.requests.append(Request(self.path, body))
            time.sleep(told.delay_seconds)
            with suppress(OSError):  # who asked may be gone
                self.send_response(told.statuses.pop(0) if told.statuses else 200)
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def endless_port() -> Iterator[int]:
    """Answer HTTP with 200, and a body that does not end until nobody reads it."""

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65536)

    def take(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=take, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """Listen on a port, and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class MailReceiver:
    """A mail server on this machine.

    Attributes:
        port: Where it listens.
        letters: What came, with who it was for.
        logins: Who logged in.
        refused: Addresses that it takes nothing for.
    """

    port: int = 0
    letters: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        letter = message_from_bytes(envelope.content or b"", policy=policy.default)  # type: ignore[arg-type]
        self.letters.append((list(envelope.rcpt_tos), letter))  # type: ignore[arg-type]
        return "250 OK"


USER, PASSWORD = "backups", "sw0rdfish-of-mail"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@contextmanager
def mail_receiver(security: str = "none", files: tuple[Path, Path] | None = None) -> Iterator[MailReceiver]:
    """Run a mail server until the context ends.

    Args:
        security: `none`, `starttls` or `tls`; of the last two it asks for a login.
        files: The certificate and its key, for these two.
    """
    context = None
    if files is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)
    told = MailReceiver()

    def let_in(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, said: Any) -> AuthResult:
        assert isinstance(said, LoginPassword)
        good = (said.login, said.password) == (USER.encode(), PASSWORD.encode())
        if good:
            told.logins.append(said.login.decode())
        return AuthResult(success=good, handled=False)

    starttls = security == "starttls"
    controller = Controller(
        told,
        hostname="localhost",
        port=closed_port(),
        ssl_context=context if security == "tls" else None,
        tls_context=context if starttls else None,
        require_starttls=starttls,
        authenticator=let_in,
        auth_required=security != "none",
        auth_require_tls=starttls,
    )
    controller.start()
    told.port = controller.port
    try:
        yield told
    finally:
        controller.stop()
