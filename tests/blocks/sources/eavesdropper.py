"""A server that only listens: it takes what it is sent, asks a client of PostgreSQL for its password, and hangs up."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

_SECONDS = 20
_SSL, _GSS = 80877103, 80877104
_CLEARTEXT_PASSWORD = b"R" + struct.pack(">II", 8, 3)


class Eavesdropper:
    """Listens on a free port of 127.0.0.1.

    Attributes:
        heard: All that clients said.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard = b""
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client:
                client.settimeout(_SECONDS)
                try:
                    self._listen(client)
                except OSError:
                    continue

    def _listen(self, client: socket.socket) -> None:
        said = client.recv(65536)
        while said[:1] == b"\0" and struct.unpack(">I", said[4:8])[0] in (_SSL, _GSS):
            client.sendall(b"N")
            said = client.recv(65536)
        self.heard += said
        if said[:1] == b"\0":
            client.sendall(_CLEARTEXT_PASSWORD)
            self.heard += client.recv(65536)
        else:
            client.sendall(b"-ERR unknown\r\n" * 4)
            self.heard += client.recv(65536)

    def close(self) -> None:
        self._listening.close()


@contextmanager
def eavesdropping() -> Iterator[Eavesdropper]:
    """Listen for as long as the context lasts."""
    listening = Eavesdropper()
    try:
        yield listening
    finally:
        listening.close()
