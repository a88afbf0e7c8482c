"""What a restore writes, leaves alone and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected, RestoreRefused, SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.redis.rows import SCHEMA
from blocks.sources.target import RestoreMode
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, fill_gallery, prepare, read_all, write_all

MERGE, EXACT = RestoreMode.MERGE, RestoreMode.EXACT


@pytest.fixture
def other(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other", program=redis_program)
    yield server
    server.kill()


def test_merging_replaces_the_keys_of_the_backup_as_a_whole_and_leaves_others(live: RedisServer) -> None:
    live.many([("HSET", "h", "a", 1), ("SET", "s", "x"), ("RPUSH", "l", "1")])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("HSET", "h", "b", 2), ("DEL", "s"), ("HSET", "s", "other", "type"), ("SET", "later", "stays")])
    live.many([("PEXPIREAT", "h", FAR_MS), ("DEL", "l")])
    write_all(backup, prepare(backup, source, mode=MERGE))
    assert live("HGETALL", "h") == [b"a", b"1"]
    assert live("PEXPIRETIME", "h") == -1
    assert live("MGET", "s", "later") == [b"x", b"stays"]
    assert live("LRANGE", "l", 0, -1) == [b"1"]


def test_an_exact_restore_never_touches_keys_beyond_the_patterns(live: RedisServer) -> None:
    live.many([("SET", "position:1", "a"), ("SET", "order:1", "b"), ("SET", "other", "c")])
    source = RedisSource(url=live.url, patterns=["position:*", "order:[0-9]"])
    backup = read_all(source)
    assert backup.keys() == {b"position:1", b"order:1"}
    live.many([("SET", "position:2", "x"), ("SET", "order:2", "x"), ("SET", "another", "d"), ("SET", "there", 1)])
    live("SET", "position:9", "x", db=4)
    live("SET", "far", "x", db=4)
    write_all(backup, prepare(backup, source))
    assert sorted(live("KEYS", "*")) == [b"another", b"order:1", b"other", b"position:1", b"there"]  # type: ignore
    assert live("KEYS", "*", db=4) == [b"far"]


def test_a_source_of_one_database_leaves_the_others_alone(live: RedisServer) -> None:
    live("SET", "a", "1", db=2)
    source = RedisSource(url=f"{live.url}/2")
    backup = read_all(source)
    live("SET", "b", "2", db=2)
    live("SET", "c", "3", db=1)
    write_all(backup, prepare(backup, source))
    assert live("KEYS", "*", db=2) == [b"a"]
    assert live("KEYS", "*", db=1) == [b"c"]


def test_a_database_is_restored_under_another_number(live: RedisServer) -> None:
    fill_gallery(live)
    source = RedisSource(url=f"{live.url}/3")
    backup = read_all(source)
    place = f"{live.url}/7"
    write_all(backup, prepare(backup, source, place))
    assert live("DBSIZE", db=7) == live("DBSIZE", db=3)
    there = read_all(source.at(place))
    assert sorted(there.table("db3").to_pylist(), key=str) == sorted(backup.table("db3").to_pylist(), key=str)
    whole = RedisSource(url=live.url)
    with pytest.raises(RestoreRefused, match="cannot all go to database 7"):
        prepare(read_all(whole), whole, place)


def test_one_collection_of_several_goes_to_another_database(live: RedisServer) -> None:
    fill_gallery(live)
    source = RedisSource(url=live.url)
    selection = Selection(collections=("db9",))
    backup = read_all(source)
    write_all(backup, prepare(backup, source, f"{live.url}/12", EXACT, selection, in_place=False), selection)
    assert live("KEYS", "*", db=12) == [b"only here"]


def test_a_replica_is_refused(live: RedisServer, other: RedisServer) -> None:
    live("SET", "a", "1")
    source = RedisSource(url=live.url)
    backup = read_all(source)
    other("REPLICAOF", "127.0.0.1", live.port)
    with pytest.raises(RestoreRefused, match="replica"):
        prepare(backup, source, other.url).preflight()


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
def test_a_server_without_room_is_refused_before_the_first_write(
    live: RedisServer, other: RedisServer, policy: str
) -> None:
    live.many([("SET", f"k{n}", "x" * 1000) for n in range(5000)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    used = int(dict(line.split(":") for line in _info(other))["used_memory"])
    other("CONFIG", "SET", "maxmemory", used + 2_000_000)
    other("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(RestoreRefused, match="bytes free of maxmemory"):
        prepare(backup, source, other.url).preflight()
    # what there is could be replaced, were it only under the same names: that is seen when all keys are known
    other("CONFIG", "SET", "maxmemory", 0)
    other.many([("SET", f"other{n}", "x" * 1000) for n in range(5000)])
    used = int(dict(line.split(":") for line in _info(other))["used_memory"])
    other("CONFIG", "SET", "maxmemory", used + 2_000_000)
    before = other.digest()
    with pytest.raises(RestoreRefused, match="bytes free of maxmemory"):
        write_all(backup, prepare(backup, source, other.url))
    assert other.digest() == before


def test_a_full_server_takes_back_what_it_held(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", "x" * 1000) for n in range(5000)])
    source = RedisSource(url=live.url)
    backup, before = read_all(source), live.digest()
    live("CONFIG", "SET", "maxmemory", int(dict(line.split(":") for line in _info(live))["used_memory"]) + 3_000_000)
    live("SET", "k7", "changed")
    write_all(backup, prepare(backup, source))
    assert live.digest() == before


def test_a_database_that_the_server_does_not_have_is_refused(live: RedisServer, tmp_path: Path) -> None:
    live("SET", "a", "1", db=15)
    source = RedisSource(url=live.url)
    small = RedisServer(tmp_path / "small", "--databases", "4")
    with pytest.raises(RestoreRefused, match="no database 15"):
        prepare(read_all(source), source, small.url).preflight()
    small.kill()


def test_what_is_aborted_was_never_written(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", n) for n in range(100)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live("SET", "k1", "changed")
    before = live.digest()
    target = prepare(backup, source)
    target.preflight()
    target.apply(backup.specs["db0"], backup.table())
    target.abort()
    target.abort()
    assert live.digest() == before


def test_an_exact_restore_to_a_database_touches_no_other(live: RedisServer, other: RedisServer) -> None:
    live.many([("SET", f"k{n}", n) for n in range(3)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("SET", "since", "x")])
    live.many([("SET", "stays", "x")], db=3)
    live.many([("SET", "goes", "x")], db=7)
    write_all(backup, prepare(backup, source, f"{live.url}/7", in_place=False))
    assert [live("DBSIZE", db=number) for number in (0, 3, 7)] == [4, 1, 3]
    other.many([("SET", "goes", "x")], db=3)
    write_all(backup, prepare(backup, source, other.url))
    assert [other("DBSIZE", db=number) for number in (0, 3)] == [3, 0]
    live("FLUSHALL")
    nothing = read_all(source)
    live.many([("SET", "stays", "x")], db=3)
    live.many([("SET", "goes", "x")], db=7)
    write_all(nothing, prepare(nothing, source, f"{live.url}/7", in_place=False))
    assert [live("DBSIZE", db=number) for number in (3, 7)] == [1, 0]


def test_an_error_on_the_way_names_the_key(live: RedisServer, other: RedisServer) -> None:
    live.many([("SET", f"k{n}", n) for n in range(3)] + [("HSET", "h", "a", "b")])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    other("ACL", "SETUSER", "default", "-hset")
    target = prepare(backup, source, other.url)
    with pytest.raises(Exception, match="NOPERM") as caught:
        write_all(backup, target)
    assert "run the restore again" in caught.value.hint  # type: ignore[attr-defined]


def test_a_server_that_dies_on_the_way_is_said(live: RedisServer, other: RedisServer) -> None:
    live("SET", "a", "1")
    source = RedisSource(url=live.url)
    backup = read_all(source)
    target = prepare(backup, source, other.url)
    target.preflight()
    target.apply(backup.specs["db0"], backup.table())
    other.kill()
    with pytest.raises(SourceUnavailable):
        target.commit()
    target.abort()


@pytest.mark.parametrize(
    "row",
    [
        {"key": b"k", "element": b"f", "type": "hash", "value": b"v"},
        {"key": b"k", "element": None, "type": "hash", "value": b"no resp"},
        {"key": b"k", "element": None, "type": "hash", "value": b"*1\r\n$1\r\na\r\n"},
        {"key": b"k", "element": None, "type": "zset", "value": b"*2\r\n$1\r\na\r\n$1\r\nx\r\n"},
        {"key": b"k", "element": None, "type": "stream", "value": b"*1\r\n$1\r\na\r\n"},
        {"key": b"k", "element": None, "type": "set", "value": None},
        {"key": b"k", "element": None, "type": "unheard of", "value": b"x"},
    ],
)
def test_rows_that_no_source_makes_are_refused_before_the_first_write(
    live: RedisServer, row: dict[str, object]
) -> None:
    live("SET", "k", "stays")
    source = RedisSource(url=live.url)
    backup = read_all(source)
    hostile = pa.Table.from_pylist([row | {"expires_ms": None}], schema=SCHEMA)
    target = prepare(backup, source)
    target.preflight()
    with pytest.raises(CorruptionDetected, match="b'k'"):
        target.apply(backup.specs["db0"], hostile)
    target.abort()
    assert live("GET", "k") == b"stays"


def test_a_file_is_merged_into_and_replaced_at_once(live: RedisServer, tmp_path: Path) -> None:
    live("SET", "a", "1")
    source, place = RedisSource(url=live.url), str(tmp_path / "kept.rdb")
    first = read_all(source)
    write_all(first, prepare(first, source, place))
    live.many([("DEL", "a"), ("SET", "b", "2")])
    second = read_all(source)
    write_all(second, prepare(second, source, place, MERGE))
    assert read_all(source.at(place)).keys() == {b"a", b"b"}
    write_all(second, prepare(second, source, place))
    assert read_all(source.at(place)).keys() == {b"b"}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept.rdb"]
    with pytest.raises(RestoreRefused, match="no folder"):
        prepare(second, source, str(tmp_path / "none" / "x.rdb")).preflight()


def _info(server: RedisServer) -> list[str]:
    reply = server("INFO", "memory")
    assert isinstance(reply, bytes)
    return [line for line in reply.decode().splitlines() if ":" in line]
