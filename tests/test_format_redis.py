"""What docs/format.md says of Redis: its own Python writes commands that `redis-cli --pipe` restores a server with."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.plan.plan import BackupPlan, parse_plan
from blocks.records import BackupType
from blocks.sources.redis.rows import SCHEMA, TYPES
from flows.backup import make_backup
from tests.blocks.sources.redis.kit import FAR_MS, ODD, RedisServer, fill_gallery
from tests.blocks.sources.redis.old_streams import random_stream
from tests.format_support import DOCUMENT, program, restore


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that load a module with a type of its own."""
    made = tmp_path_factory.mktemp("module") / "counter.so"
    code = Path(__file__).parent / "blocks" / "sources" / "redis" / "counter.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(code)], check=True)
    return ["--loadmodule", str(made)]


@pytest.fixture
def servers(tmp_path: Path, module: list[str]) -> Iterator[tuple[RedisServer, RedisServer]]:
    """The one that is backed up, and an empty one."""
    both = RedisServer(tmp_path / "live", *module), RedisServer(tmp_path / "other", *module)
    yield both
    for server in both:
        server.kill()


def plan_of(server: RedisServer, folder: Path) -> BackupPlan:
    raw = {
        "name": "trading",
        "sources": {"cache": {"type": "redis", "url": server.url, "part_size_bytes": 30_000}},
        "repository": {"url": str(folder / "backups")},
        "encryption": "none",
    }
    plan = parse_plan(raw, "the test's plan")
    plan.repository.initialize(plan.encryption)
    return plan


def pipe(server: RedisServer, commands: Path) -> None:
    with commands.open("rb") as file:
        words = ["redis-cli", "-p", str(server.port), "--pipe"]
        done = subprocess.run(words, stdin=file, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "errors: 0" in done.stdout


def change(server: RedisServer) -> None:
    """Change, add and delete keys of every type, in databases 0 and 3."""
    server.many(
        [
            ("SET", "text", "changed"), ("DEL", "empty", "big", "l:long", "x:gone", ODD + b"h"), ("PERSIST", "goes"),
            ("HDEL", "h:wide", "field7", "field8"), ("HSET", "h:wide", "field9", b"\xfe"), ("PERSIST", "h:wide"),
            ("HSET", "h:table", "more", "y" * 70_000), ("LPUSH", "l:wide", b"\x00 first"), ("RPOP", "l:1001"),
            ("SREM", "s:wide", "m5"), ("SADD", "s", b"\x01"), ("ZADD", "z", "-inf", "top", "1e300", b"\xfd new"),
            ("ZREM", "z:wide", "m0", "m1"), ("PEXPIREAT", "z:wide", FAR_MS + 9), ("ZINCRBY", "z:exact", "0.1", ""),
            ("XACK", "x", "g", "9-1"), ("XDEL", "x", "10-2"), ("XADD", "x", "70-0", "late", ""),
            ("XREADGROUP", "GROUP", b"\xff g", "carol", "COUNT", 3, "STREAMS", "x", ">"),
            ("XTRIM", "x:wide", "MAXLEN", "=", 1200), ("XGROUP", "DESTROY", "x:new", "g"),
            ("DEL", "hll"), ("RPUSH", "hll", "a list", "by now"), ("COUNTER.SET", "counted", 8),
        ]
    )  # fmt: skip
    server.many([("DEL", "h:wide", "s:ints"), ("SET", "{tag}a", "2")], db=3)


def test_the_document_restores_every_type_with_redis_cli(
    servers: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    live, other = servers
    fill_gallery(live)
    live.many([("COUNTER.SET", "counted", 7), ("COUNTER.SET", "goes too", 1), ("PEXPIREAT", "goes too", FAR_MS)])
    live.many([("RESTORE", f"x:old{seed}", 0, random_stream(random.Random(seed)).dump()) for seed in range(9)])
    plan = plan_of(live, tmp_path)
    full = make_backup(plan, BackupType.FULL)
    assert max(len(collection.parts) for collection in full.collections) > 5
    was = live.digest(), live.groups()
    change(live)
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert made.backup_type is BackupType.INCREMENTAL, made.promoted_because
    assert made.tombstones > 5
    now = live.digest(), live.groups()
    assert now[0] != was[0]
    # the later one over the earlier one: keys are replaced
    for backup, expected in ((full, was), (made, now)):
        to = tmp_path / backup.backup_id
        done = restore(tmp_path, backup.backup_id, "--to", str(to), "--check", "--no-encryption")
        assert done.returncode == 0, done.stderr
        if backup is made:
            other("FLUSHALL")
        pipe(other, to / "cache")
        assert (other.digest(), other.groups()) == expected


def test_keys_are_replaced_others_stay_and_expired_ones_go(
    servers: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    live, other = servers
    live.many([("SET", "a", "1"), ("RPUSH", "l", *range(1500)), ("SET", "soon", "x", "PXAT", FAR_MS)])
    make_backup(plan_of(live, tmp_path), BackupType.FULL)
    other.many([("SADD", "a", "another type"), ("RPUSH", "l", "old"), ("SET", "mine", "stays")])
    done = restore(tmp_path, "latest", "--to", str(tmp_path / "restored"), "--no-encryption")
    assert done.returncode == 0, done.stderr
    commands = tmp_path / "restored" / "cache"
    assert commands.read_bytes().count(b"%d" % FAR_MS) == 1
    commands.write_bytes(commands.read_bytes().replace(b"%d" % FAR_MS, b"1000000000000"))
    pipe(other, commands)
    assert sorted(other("KEYS", "*")) == [b"a", b"l", b"mine"]
    assert other("GET", "a") == b"1"
    assert other("LRANGE", "l", 0, -1) == [b"%d" % n for n in range(1500)]


def test_fields_that_expire_get_their_times() -> None:
    names: dict[str, Any] = {"__name__": "document"}
    exec(compile(program(), str(DOCUMENT), "exec", dont_inherit=True), names)
    rows = [{"element": e, "type": "hash", "value": v, "expires_ms": x} for e, v, x in _FIELDS]
    assert list(names["redis_key"](b"k", rows[0], rows[1:])) == [
        ("DEL", b"k"),
        ("HSET", b"k", b"a", b"1", b"b", b"2"),
        ("HPEXPIREAT", b"k", FAR_MS, "FIELDS", 1, b"b"),
        ("PEXPIREAT", b"k", FAR_MS + 1),
    ]


_FIELDS: list[tuple[bytes | None, bytes | None, int | None]] = [
    (None, None, FAR_MS + 1), (b"a", b"1", None), (b"b", b"2", FAR_MS),
]  # fmt: skip


def test_the_document_names_every_type_and_column() -> None:
    text = DOCUMENT.read_text().partition("\n## Redis\n")[2].partition("```python")[0]
    assert [name for name in (*TYPES, *SCHEMA.names) if f"`{name}`" not in text] == []
