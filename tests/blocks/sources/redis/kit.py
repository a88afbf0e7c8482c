"""Real Redis servers on free ports, data of every type, and exact pictures of what a server holds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Connection, Reply, Word, packed
from blocks.sources.target import RestoreMode, RestoreScope, Target

FAR_MS = 4_102_444_800_123
"""An expiry in the year 2100."""

ODD = b"\xff\x00\xfe{odd}\r\n \xc3"
_START_SECONDS = 20


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """A redis-server of the tests' own, without persistence."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        sentinel: Path | None = None,
        port: int | None = None,
        program: str = "redis-server",
    ) -> None:
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not installed; `make tools` installs it")
        self.program = program
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port or free_port()
        self.socket = folder / "s"
        words = ["--port", str(self.port), "--unixsocket", str(self.socket), "--dir", str(folder), "--save", ""]
        words += ["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0", "--logfile", "log", *options]
        self._words = words if sentinel is None else [str(sentinel), "--sentinel"]
        self._connection: Connection | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen([self.program, *self._words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"redis-server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection = None

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def connection(self) -> Connection:
        return Connection(socket.create_connection(("127.0.0.1", self.port), 20), "test")

    def __call__(self, *words: Word, db: int = 0) -> Reply:
        return self.many([words], db)[0]

    def many(self, commands: Sequence[tuple[Word, ...]], db: int = 0) -> list[Reply]:
        """Do many commands, a thousand at a time, and return their answers."""
        if self._connection is None:
            self._connection = self.connection()
        answers: list[Reply] = []
        for start in range(0, len(commands), 1000):
            some = [("SELECT", db), *commands[start : start + 1000]]
            replies = self._connection.ask(b"".join(packed(*words) for words in some), len(some))
            answers += self._connection.checked(replies, str(some[1][0]))[1:]
        return answers

    def info(self, section: str, name: str) -> int:
        """A number of INFO."""
        reply = self("INFO", section)
        assert isinstance(reply, bytes)
        return int(dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)[name])

    def digest(self) -> Reply:
        """Redis's own digest of all databases."""
        return self("DEBUG", "DIGEST")

    def groups(self, databases: int = 16) -> dict[tuple[int, bytes], object]:
        """What DEBUG DIGEST leaves out: the groups of all streams and what is pending, and the ids."""
        found: dict[tuple[int, bytes], object] = {}
        for db in range(databases):
            keys = self("KEYS", "*", db=db)
            assert isinstance(keys, list)
            for key, kind in zip(keys, self.many([("TYPE", key) for key in keys], db), strict=True):  # type: ignore[misc]
                if kind == b"stream":
                    facts = self("XINFO", "STREAM", key, "FULL", "COUNT", 0, db=db)
                    assert isinstance(facts, list)
                    if facts[facts.index(b"length") + 1] == 0:  # a loaded one makes up an id of its first entry
                        facts[facts.index(b"recorded-first-entry-id") + 1] = None
                    found[db, key] = without_times(facts)  # type: ignore[index]
        return found


def make_certificate(folder: Path) -> list[str]:
    """Make `key` and `cert` for 127.0.0.1 in a folder; return the options with which a server shows them."""
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    key, cert = str(folder / "key"), str(folder / "cert")
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return ["--tls-key-file", key, "--tls-cert-file", cert, "--tls-ca-cert-file", cert]


def without_times(reply: object) -> object:
    """Leave out when consumers were seen, and how a stream is laid out in memory."""
    if not isinstance(reply, list):
        return reply
    hidden = (b"seen-time", b"active-time", b"radix-tree-keys", b"radix-tree-nodes")
    kept, skip = [], False
    for item in reply:
        if skip:
            skip = False
        elif isinstance(item, bytes) and item in hidden:
            skip = True
        else:
            kept.append(without_times(item))
    return kept


def fill_gallery(server: RedisServer) -> None:
    """Put keys of every type, narrow and wide, odd ones too, into databases 0, 3 and 9."""
    for db in (0, 3):
        server.many(strings() + containers() + streams(), db=db)
    server("SET", "only here", "x", db=9)


def strings() -> list[tuple[Word, ...]]:
    return [
        ("SET", "text", "é"), ("SET", "empty", ""), ("SET", "", "the empty key"), ("SET", ODD, ODD), ("SET", "n", 42),
        ("SET", "big", b"\x00\xff" * 100_000), ("SETBIT", "bits", 10_000, 1), ("PFADD", "hll", *map(str, range(500))),
        ("SET", "goes", "v", "PXAT", FAR_MS), ("SET", "{tag}a", "1"), ("SET", "{tag}b", "2"), ("SET", "{}c", "3"),
        ("APPEND", "appended", "abc"), ("SET", "float", "3.14"),
        ("GEOADD", "geo", "13.361389", "38.115556", "Palermo"),
    ]  # fmt: skip


def containers() -> list[tuple[Word, ...]]:
    wide = range(1_100)
    return [
        ("HSET", "h", "f", "v", "", "", b"\xff\x00", b"\x00", "n", "1"), ("PEXPIREAT", "h", FAR_MS + 1),
        ("HSET", ODD + b"h", b"\x00", b"\xff"), ("HSET", "h:table", "f", "x" * 100),
        ("HSET", "h:wide", *[w for n in wide for w in (f"field{n}", f"value{n}")]), ("PEXPIREAT", "h:wide", FAR_MS + 2),
        ("HSET", "h:bytes", *[w for n in range(3) for w in (f"f{n}", "y" * 40_000)]),
        ("RPUSH", "l", "b", "a", "", b"\xff\x00", "a"), ("RPUSH", "l:wide", *[f"i{n % 7}" for n in wide]),
        ("RPUSH", "l:long", "z" * 100_000, "short"), ("RPUSH", "l:1000", *range(1000)),
        ("RPUSH", "l:1001", *range(1001)),
        ("SADD", "s", "a", "", b"\xff\x00"), ("SADD", "s:int", 3, 1, 2), ("SADD", "s:wide", *[f"m{n}" for n in wide]),
        ("SADD", "s:ints", *wide),
        ("ZADD", "z", "inf", "top", "-inf", "low", "0.1", "tenth", "3", "three", "-0.0", "minus", "1e-320", "tiny"),
        ("ZADD", "z:exact", 2**53 - 1, b"\xff", "0.30000000000000004", "", "1.7976931348623157e308", "max"),
        ("ZADD", "z:wide", *[w for n in wide for w in (n / 7, f"m{n}")]), ("PEXPIREAT", "z:wide", FAR_MS + 3),
    ]  # fmt: skip


def streams() -> list[tuple[Word, ...]]:
    return [
        *[("XADD", "x", f"{n}-{n % 3 + 1}", "n", n, b"\xff", b"\x00") for n in range(1, 60)],
        ("XGROUP", "CREATE", "x", "g", "0"), ("XGROUP", "CREATE", "x", "idle", "$"),
        ("XGROUP", "CREATE", "x", b"\xff g", "5-1"), ("XGROUP", "CREATECONSUMER", "x", "g", "nobody"),
        ("XREADGROUP", "GROUP", "g", "alice", "COUNT", 20, "STREAMS", "x", ">"),
        ("XREADGROUP", "GROUP", "g", b"bob \xff", "COUNT", 10, "STREAMS", "x", ">"),
        ("XACK", "x", "g", "3-1", "4-2"), ("XCLAIM", "x", "g", "alice", 0, "25-2"),
        ("XDEL", "x", "7-2", "50-3", "59-3"),
        ("XADD", "x:gone", "5-0", "a", "b"), ("XDEL", "x:gone", "5-0"), ("XGROUP", "CREATE", "x:gone", "g", "0"),
        ("XGROUP", "CREATE", "x:new", "g", "0", "MKSTREAM"), ("PEXPIREAT", "x:new", FAR_MS),
        *[("XADD", "x:cut", f"{n}-0", "a", "b") for n in range(1, 30)], ("XGROUP", "CREATE", "x:cut", "g", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", 9, "STREAMS", "x:cut", ">"), ("XTRIM", "x:cut", "MAXLEN", "=", 25),
        *[("XADD", "x:wide", "MAXLEN", "1100", f"{10**12 + n}-0", "k", n) for n in range(1300)],
    ]  # fmt: skip


@dataclass
class Backup:
    """What was read of a source, without the stages between."""

    definition: dict[str, object]
    rows: dict[str, list[pa.Table]] = field(default_factory=dict)
    specs: dict[str, CollectionSpec] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def table(self, name: str = "db0") -> pa.Table:
        return pa.concat_tables(self.rows[name])

    def keys(self, name: str = "db0") -> set[bytes]:
        return set(self.table(name).column("key").to_pylist())


def read_all(source: RedisSource) -> Backup:
    with source.view() as view:
        backup = Backup(dict(view.definition), warnings=list(view.warnings))
        for spec in view.collections():
            backup.specs[spec.name] = spec
            readings = [view.read(spec, bounds, None) for bounds in view.partition(spec)]
            backup.rows[spec.name] = [reading.rows for reading in readings]
            backup.warnings += [warning for reading in readings for warning in reading.warnings]
        view.finish()
    return backup


def prepare(
    backup: Backup,
    source: RedisSource,
    to: str | None = None,
    mode: RestoreMode = RestoreMode.EXACT,
    selection: Selection = Selection(),  # noqa: B008
    in_place: bool = True,
) -> Target:
    specs = [spec for spec in backup.specs.values() if selection.has_collection(spec.name)]
    counts = tuple((spec, backup.table(spec.name).num_rows) for spec in specs)
    size = sum(table.nbytes for tables in backup.rows.values() for table in tables)
    scope = RestoreScope(backup.definition, counts, mode, selection, size, in_place=in_place)  # type: ignore[arg-type]
    return source.target(scope, to)


def write_all(backup: Backup, target: Target, selection: Selection = Selection()) -> int:  # noqa: B008
    count = 0
    try:
        assert all(target.preflight())
        for name, spec in backup.specs.items():
            if selection.has_collection(name):
                count += sum(target.apply(spec, selection.rows(rows, spec.label)) for rows in backup.rows[name])
        target.commit()
    finally:
        target.abort()
    return count


def plan_of(folder: Path, *sources: RedisSource) -> BackupPlan:
    plan = BackupPlan(
        name="trading",
        sources={f"cache{n or ''}": source for n, source in enumerate(sources)},
        repository=BackupRepository(url=str(folder / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    return plan


def changes(backup: BackupMetadata) -> tuple[int, int]:
    """How many upserts and tombstones a backup stored."""
    segments = [part.segment for c in backup.collections for part in c.parts if part.segment]
    return sum(s.upserts for s in segments), sum(s.tombstones for s in segments)


def no_children() -> bool:
    """Whether this process left no private server behind."""
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if words[0].endswith(b"sh") and parent == str(os.getpid()) and b"redis-server" in words:
            return False
    return True
