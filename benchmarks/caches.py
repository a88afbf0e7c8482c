"""`python -m benchmarks.caches`: fill a Redis with the keys of R1, change some of them, and compare two of them."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import hiredis

_AT_ONCE = 5_000
Command = tuple[str | int, ...]


def main() -> None:
    """Run one of `fill PORT KEYS`, `change PORT KEYS SEED`, `forget PORT` and `compare PORT PORT`."""
    verb, *words = sys.argv[1:]
    numbers = [int(word) for word in words]
    if verb == "fill":
        send(numbers[0], (command for n in range(numbers[1]) for command in key(n, random.Random(n))))
    elif verb == "change":
        send(numbers[0], changes(numbers[1], random.Random(numbers[2])))
    elif verb == "forget":
        ask(numbers[0], ("DEBUG", "CHANGE-REPL-ID"))
    elif verb == "compare":
        one, other = (ask(port, ("DEBUG", "DIGEST")) for port in numbers)
        if one != other:
            raise SystemExit(f"the digests differ: {one!r} and {other!r}")
    else:
        raise SystemExit(f"unknown: {verb}")


def key(n: int, rng: random.Random) -> list[Command]:
    """Make one key: 60% JSON texts, then hashes, lists and sorted sets; one of ten expires."""
    kind = rng.random()
    if kind < 0.6:
        order = {"id": n, "symbol": rng.choice(["AAPL", "MSFT", "NVDA"]), "qty": rng.randrange(1000)}
        order |= {"price": round(rng.random() * 500, 4), "note": f"{rng.getrandbits(64):x}", "open": n % 2 == 0}
        made: Command = ("SET", f"order:{n}", json.dumps(order))
    elif kind < 0.75:
        made = ("HSET", f"position:{n}", "qty", rng.randrange(1000), "avg", str(rng.random()), "account", n % 1000)
    elif kind < 0.9:
        made = ("RPUSH", f"queue:{n}", *[rng.randrange(10**9) for _ in range(8)])
    else:
        made = ("ZADD", f"book:{n}", *[w for _ in range(8) for w in (str(rng.random() * 100), rng.randrange(10**6))])
    return [("DEL", made[1]), made] + ([("PEXPIREAT", made[1], 4_102_444_800_000 + n)] if n % 10 == 0 else [])


def changes(keys: int, rng: random.Random) -> Iterator[Command]:
    """Change or delete one key of a hundred, and add as many as are deleted."""
    for _ in range(keys // 200):
        yield from key(rng.randrange(keys), rng)
        chosen = rng.randrange(keys)
        for name in ("order", "position", "queue", "book"):
            yield "DEL", f"{name}:{chosen}"


def send(port: int, commands: Iterable[Command]) -> None:
    """Send commands in pipelines."""
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        source, reader = iter(commands), hiredis.Reader()
        while some := list(islice(source, _AT_ONCE)):
            sock.sendall(b"".join(hiredis.pack_command(words) for words in some))  # type: ignore[arg-type]
            _replies(sock, reader, len(some))


def ask(port: int, command: Command) -> object:
    """Send one command and return its answer."""
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(hiredis.pack_command(command))  # type: ignore[arg-type]
        return _replies(sock, hiredis.Reader(), 1)


def _replies(sock: socket.socket, reader: hiredis.Reader, count: int) -> object:
    reply: object = False
    while count:
        reply = reader.gets()
        if reply is False:
            reader.feed(sock.recv(1 << 18))
            continue
        if isinstance(reply, hiredis.ReplyError):
            raise SystemExit(str(reply))
        count -= 1
    return reply


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[int]:
    """Run a server without persistence in a folder; gives its port."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    # without the delay the peer does not wait five seconds for other replicas
    words = ["--port", str(port), "--dir", str(folder), "--save", "", "--repl-diskless-sync-delay", "0"]
    words += ["--enable-debug-command", "yes", "--logfile", "log", *options]
    child = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    try:
        _wait(child, port)
        yield port
    finally:
        child.kill()
        child.wait()


def _wait(child: subprocess.Popen[bytes], port: int) -> None:
    while child.poll() is None:
        try:
            if ask(port, ("PING",)) == b"PONG":
                return
        except (OSError, SystemExit):  # it is not up yet, or still loads its file
            time.sleep(0.05)
    raise SystemExit("redis-server did not start")


if __name__ == "__main__":
    main()
