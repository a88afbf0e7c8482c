"""The Redis that R1 and R2 are about, and those who back it up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.bench import Bench, need
from benchmarks.caches import redis_server
from benchmarks.measure import Run
from benchmarks.ours import Lastgood
from benchmarks.peers import Restic

KEYS = 1_000_000


@dataclass(frozen=True)
class Cache:
    """A filled server, and a repository of each contestant: ours of one moment, ours key by key, and restic's."""

    bench: Bench
    keys: int
    port: int
    ours: Lastgood
    by_key: Lastgood
    restic: Restic

    def clear_copy(self) -> None:
        """Make room for the peer's copy."""
        self.bench.fresh("rdb").mkdir()

    def peer(self) -> Run:
        """Take an RDB file as a replica, then let restic store it."""
        script = 'redis-cli -p "$1" --rdb "$2/dump.rdb" && cd "$2" && restic --repo "$3" backup dump.rdb'
        places = [str(self.port), str(self.bench.folder / "rdb"), str(self.restic.repository)]
        return self.bench.run(["sh", "-c", script, "sh", *places])

    def change(self, seed: int) -> None:
        """Change one key of a hundred."""
        self.bench.make("caches", "change", self.port, self.keys, seed)

    def forget(self) -> None:
        """Let the server begin another history, as if its backlog had been too small for the last one."""
        self.bench.make("caches", "forget", self.port)

    def check(self) -> None:
        """Restore both and compare Redis's own digests of them with that of the original."""
        with redis_server(self.bench.fresh("restored-ours")) as port:
            to = f"redis://127.0.0.1:{port}"
            self.ours("restore", "latest", "--to", to, "--mode", "exact", "--yes", "--no-server")
            self.bench.make("caches", "compare", self.port, port)
        theirs = self.bench.fresh("restored-theirs")
        self.restic.restore(theirs)
        with redis_server(theirs) as port:
            self.bench.make("caches", "compare", self.port, port)


@contextmanager
def cache(bench: Bench) -> Iterator[Cache]:
    """Start a server and fill it."""
    for program, package in (("redis-server", "redis-server"), ("redis-cli", "redis-tools")):
        need(program, package)
    keys = bench.size(KEYS, least=10_000)
    with redis_server(bench.fresh("redis"), "--repl-backlog-size", "64mb") as port:
        bench.say(f"  filling a Redis with {keys:,} keys")
        bench.make("caches", "fill", port, keys)
        source = {"type": "redis", "url": f"redis://127.0.0.1:{port}"}
        ours = Lastgood(bench, "redis", {"cache": source | {"consistent": True}})
        by_key = Lastgood(bench, "redis-by-key", {"cache": source})
        yield Cache(bench, keys, port, ours, by_key, Restic(bench, "redis"))
