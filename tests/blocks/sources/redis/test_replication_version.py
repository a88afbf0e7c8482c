"""What is said to a server before it sends its dataset."""

from __future__ import annotations

import socket
from threading import Thread

import hiredis

from blocks.sources.redis.connect import Access
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.place import parse_place
from blocks.sources.redis.views.replica import dataset_of

FACTS = b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.1\r\nredis_mode:standalone\r\nrole:master\r\n"


def answers(sock: socket.socket, said: list[list[bytes]]) -> None:
    """Answer as Valkey 9 does, on one connection."""
    reader = hiredis.Reader()
    while data := sock.recv(4096):
        reader.feed(data)
        while (words := reader.gets()) is not False:
            said.append(words)
            reply = {b"INFO": b"$%d\r\n%b\r\n" % (len(FACTS), FACTS)}.get(words[0], b"+OK\r\n")
            sock.sendall(b"+FULLRESYNC %b 0\r\n" % (b"a" * 40) if words[0] == b"PSYNC" else reply)


def test_the_version_of_the_server_is_said_before_its_dataset_is_asked_for() -> None:
    said: list[list[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                sock, _ = listening.accept()
                Thread(target=answers, args=(sock, said), daemon=True).start()

        Thread(target=serve, daemon=True).start()
        server = Server(parse_place(f"redis://127.0.0.1:{port}"), Access(None, None, None, None, 5))
        with dataset_of(server):
            pass
        server.close()
    handshake = [words for words in said if words[0] == b"REPLCONF"]
    assert [b"REPLCONF", b"version", b"9.0.1"] in handshake
    assert packed(*said[-1]) == packed("PSYNC", "?", -1)
