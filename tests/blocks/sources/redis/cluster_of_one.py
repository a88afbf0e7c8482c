"""A server that says it is a whole cluster, and holds several databases, as one of Valkey 9 may."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import cast

import hiredis

from blocks.sources.redis.net.wire import Reply, packed
from tests.blocks.sources.redis.kit import RedisServer

_ID = b"1" * 40


class ClusterOfOne:
    """Stands before a server, and answers what a node is asked of its cluster.

    Args:
        server: Holds the keys of all databases.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server, self._asking = server, threading.Lock()
        self.shows_others = True
        """Whether it says that there are keys in other databases than 0: not before they come."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self._port}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server.port))
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        reader = hiredis.Reader()
        with suppress(OSError):
            while data := client.recv(1 << 20):
                reader.feed(data)
                while (words := reader.gets()) is not False:
                    ours = self._ours(cast("list[bytes]", words))
                    if ours is None:
                        server.sendall(packed(*cast("list[bytes]", words)))
                    else:
                        client.sendall(_encoded(ours))
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _ours(self, words: list[bytes]) -> Reply:
        if words[0] == b"INFO":
            with self._asking:
                said = self._server(*words)
            assert isinstance(said, bytes)
            shown = said if self.shows_others else re.sub(rb"db[1-9].*\r\n", b"", said)
            return shown.replace(b"redis_mode:standalone", b"redis_mode:cluster")
        if words[:2] == [b"CLUSTER", b"NODES"]:
            return b"%b 127.0.0.1:%d@0 myself,master - 0 0 1 connected 0-16383\n" % (_ID, self._port)
        return [[0, 16383, [b"127.0.0.1", self._port, _ID]]] if words[:2] == [b"CLUSTER", b"SLOTS"] else None


def _encoded(reply: Reply) -> bytes:
    if isinstance(reply, list):
        return b"*%d\r\n%b" % (len(reply), b"".join(map(_encoded, reply)))
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b":%d\r\n" % cast("int", reply)
