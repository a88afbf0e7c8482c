"""A whole Redis Cluster there and back: into clusters, single servers and files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import RestoreRefused
from blocks.records import BackupStatus, BackupType
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.redis.temporary_names import temporary_name
from blocks.sources.redis.views import shards
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.redis.cluster_kit import RedisCluster
from tests.blocks.sources.redis.kit import (
    ODD,
    RedisServer,
    changes,
    no_children,
    plan_of,
    prepare,
    read_all,
    write_all,
)

MERGE, EXACT = RestoreMode.MERGE, RestoreMode.EXACT

STREWN = tuple((first, min(first + 999, 16383)) for first in range(0, 16384, 1000))


@pytest.fixture(scope="module")
def live(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("live"), program=redis_program)
    cluster.fill_gallery()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="module")
def strewn(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Another cluster, whose nodes hold many ranges of slots each."""
    cluster = RedisCluster(tmp_path_factory.mktemp("strewn"), ranges=STREWN, masters=4, program=redis_program)
    yield cluster
    cluster.kill()


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("part_size_bytes", [20_000, 64 * 1024 * 1024])
def test_all_types_come_back_in_another_cluster(
    live: RedisCluster, strewn: RedisCluster, consistent: bool, part_size_bytes: int
) -> None:
    source = RedisSource(
        url=live.url, consistent=consistent, part_size_bytes=part_size_bytes, server_program=live.program
    )
    backup = read_all(source)
    assert (len(backup.rows["db0"]) > 3) == (part_size_bytes == 20_000)
    assert len(backup.rows["db0"]) >= 3
    strewn.clear()
    strewn.many([("SET", f"old{n}", "x") for n in range(50)])
    write_all(backup, prepare(backup, source, strewn.url))
    assert strewn.digest() == live.digest()
    assert strewn.groups() == live.groups()
    assert no_children()


def test_a_cluster_goes_into_a_single_server_and_back(live: RedisCluster, strewn: RedisCluster, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "single", program=live.program)
    source = RedisSource(url=live.url)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, server.url))
    assert server.digest() == live.digest()
    assert server.groups() == live.groups()
    single = RedisSource(url=server.url)
    strewn.clear()
    strewn("SET", "old", "x")
    write_all(again := read_all(single), prepare(again, single, strewn.url))
    assert strewn.digest() == live.digest()
    assert strewn.groups() == live.groups()
    server.kill()


def test_a_cluster_goes_into_a_file(live: RedisCluster, tmp_path: Path) -> None:
    source = RedisSource(url=live.url)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, str(tmp_path / "dump.rdb")))
    server = RedisServer(tmp_path, program=live.program)
    assert server.digest() == live.digest()
    server.kill()


def test_wide_containers_of_any_name_come_back(strewn: RedisCluster) -> None:
    """They are built under other names, which have to be in the same slot."""
    strewn.clear()
    names: list[bytes] = [b"", b"plain", b"{tag}x", b"x{tag}", b"{}c", b"a}b", b"}{", b"{{a}}", b"a{b}{c}", b"{", ODD]
    elements = [word for n in range(1_500) for word in (f"f{n}", n)]
    strewn.many([("HSET", name, *elements) for name in names] + [("XADD", "{tag}s", "1-1", "a", "b")])
    source, before = RedisSource(url=strewn.url), strewn.digest()
    backup = read_all(source)
    strewn.clear()
    strewn.many([("SET", name, "of another type") for name in names])
    write_all(backup, prepare(backup, source))
    assert strewn.digest() == before
    assert strewn.keys() == {*names, b"{tag}s"}


@given(st.binary(max_size=12))
def test_what_is_built_for_a_key_is_in_its_slot(key: bytes) -> None:
    assert slot_of(temporary_name(key)) == slot_of(key)
    assert temporary_name(key) != temporary_name(key)


def test_one_key_of_a_cluster_is_restored_and_others_stay(strewn: RedisCluster) -> None:
    strewn.clear()
    strewn.many([("SET", f"position:{n}", n) for n in range(100)] + [("SET", "{app}order:1", "o")])
    source = RedisSource(url=strewn.url)
    backup = read_all(source)
    strewn.many([("SET", "position:3", "bad"), ("SET", "position:x", "new"), ("SET", "{app}order:1", "later")])
    selection = Selection(keys=("position:3",))
    write_all(backup, prepare(backup, source, selection=selection), selection)
    assert [strewn("GET", key) for key in ("position:3", "position:x", "{app}order:1")] == [b"3", b"new", b"later"]
    selection = Selection(keys=("position:*",))
    write_all(backup, prepare(backup, source, selection=selection), selection)
    assert [strewn("GET", key) for key in ("position:3", "position:x", "{app}order:1")] == [b"3", None, b"later"]
    write_all(backup, prepare(backup, source, mode=MERGE))
    assert strewn("GET", "{app}order:1") == b"o"


def test_an_exact_restore_of_a_cluster_never_touches_keys_beyond_the_patterns(strewn: RedisCluster) -> None:
    strewn.clear()
    strewn.many([("SET", f"{name}:{n}", n) for name in ("a", "b", "c") for n in range(200)])
    source = RedisSource(url=strewn.url, patterns=["a:*", "b:[0-9]"])
    backup = read_all(source)
    assert len(backup.keys()) == 210
    strewn.many([("SET", f"{name}:{n}", "x") for name in ("a", "c") for n in range(150, 900)])
    strewn("SET", "b:77", "stays")
    write_all(backup, prepare(backup, source))
    there = strewn.keys()
    assert {key for key in there if key.startswith(b"a")} == {b"a:%d" % n for n in range(200)}
    assert len(there) == 200 + 200 + 900
    assert strewn("GET", "b:77") == b"stays"


def test_several_databases_do_not_go_into_a_cluster(strewn: RedisCluster, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "single")
    server("SET", "a", "1")
    server("SET", "b", "2", db=3)
    source = RedisSource(url=server.url)
    backup = read_all(source)
    strewn.clear()
    with pytest.raises(RestoreRefused, match="no database 3, only database 0"):
        prepare(backup, source, strewn.url).preflight()
    selection = Selection(collections=("db3",))
    write_all(backup, prepare(backup, source, f"{strewn.url}/0", selection=selection), selection)
    assert strewn.keys() == {b"b"}
    server.kill()


def test_a_node_without_room_is_refused_before_the_first_write(strewn: RedisCluster) -> None:
    strewn.clear()
    strewn.many([("SET", f"{{t}}{n}", "x" * 1000) for n in range(3000)])
    source = RedisSource(url=strewn.url)
    backup = read_all(source)
    strewn.clear()
    full = strewn.owner("{t}")
    full.many([("SET", f"{{t}}other{n}", "x" * 1000) for n in range(2000)])
    full("CONFIG", "SET", "maxmemory", full.info("memory", "used_memory") + 1_000_000)
    before = strewn.digest()
    with pytest.raises(RestoreRefused, match=f"127.0.0.1:{full.port} has .* bytes free of maxmemory"):
        write_all(backup, prepare(backup, source))
    assert strewn.digest() == before
    # what is already there under the same names gives its room
    full("CONFIG", "SET", "maxmemory", 0)
    write_all(backup, prepare(backup, source))
    full("CONFIG", "SET", "maxmemory", full.info("memory", "used_memory") + 1_500_000)
    write_all(backup, prepare(backup, source))
    full("CONFIG", "SET", "maxmemory", 0)


def test_a_chain_of_a_cluster_is_verified_deeply_and_restored_in_place(strewn: RedisCluster, tmp_path: Path) -> None:
    strewn.clear()
    strewn.fill_gallery()
    plan = plan_of(tmp_path, RedisSource(url=strewn.url, part_size_bytes=50_000))
    full = make_backup(plan, BackupType.FULL)
    assert full.sources[0].system.startswith(("Redis 7.", "Redis 8."))
    assert "(4 masters) at Redis Cluster 127.0.0.1:" in full.sources[0].system
    strewn.many([("HSET", "h:wide", "field7", "other"), ("DEL", "text"), ("ZADD", "z:wide", "1e300", "m5")])
    strewn.many([("LPUSH", "l", "more"), ("SET", "new", "x"), ("PERSIST", "goes")])
    assert changes(make_backup(plan, BackupType.INCREMENTAL)) == (5, 1)
    strewn.move(slot_of(b"l:wide"), strewn.other(strewn.owner("l:wide")))
    assert changes(make_backup(plan, BackupType.INCREMENTAL)) == (0, 0)
    before = strewn.digest(), strewn.groups()
    result = make_verification(plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())
    strewn.many([("DEL", key) for key in ("x", "h:wide", "l")] + [("SET", "z:wide", "not"), ("SET", "added", "x")])
    restored = make_restore(plan, RestoreRequest(mode=EXACT))
    assert (strewn.digest(), strewn.groups()) == before
    make_restore(plan, RestoreRequest(restored.rescue_id or "", mode=EXACT))
    assert strewn("GET", "added") == b"x"
    assert no_children()


def test_what_an_incremental_of_a_cluster_stores(strewn: RedisCluster, tmp_path: Path) -> None:
    strewn.clear()
    strewn.many([("HSET", "wide", *[w for n in range(20_000) for w in (f"f{n}", "v" * 100)])])
    plan = plan_of(tmp_path, RedisSource(url=strewn.url, consistent=True, server_program=strewn.program))
    full = make_backup(plan, BackupType.FULL)
    assert "taken at one moment, but not all at the same, between" in " ".join(full.sources[0].warnings)
    strewn("HSET", "wide", "f77", "changed")
    assert changes(make_backup(plan, BackupType.INCREMENTAL)) == (1, 0)


def test_when_each_master_was_taken_is_said_in_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC) for second in (7, 5)]
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        said = shards._remark([*taken, None])
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "between 2026-01-02 08:34:05 XYZ and 2026-01-02 08:34:07 XYZ:" in said
