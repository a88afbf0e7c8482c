"""Keys and functions that a server does not take like others, and what a proof can say of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import RestoreRefused
from blocks.records import BackupStatus, BackupType
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource, comparing
from blocks.sources.redis.cli_lines import cli_line
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rdb.cursor import listpack_of
from blocks.sources.redis.rdb.payload import listpack_bytes, packed_set_payload, sorted_set_payload
from blocks.sources.redis.rdb.stream_payload import stream_payload
from blocks.sources.redis.rdb.vectors import settled
from blocks.sources.redis.read.streams import Group, Pending, StreamHead
from blocks.sources.redis.rows import SCHEMA, id_struct
from blocks.sources.redis.views import odd_keys, view
from blocks.sources.target import KeepsGoing, RestoreMode, RestoreScope
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.not_rebuilt import RestoredInPart
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.redis.kit import Backup, RedisServer, plan_of, prepare, read_all, write_all
from tests.blocks.sources.redis.newer import newer_redis

CODE = "#!lua name=%s\nredis.register_function('%s', function() return %d end)"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("live"))
    yield server
    server.kill()


@pytest.fixture
def live(started: RedisServer) -> RedisServer:
    started("FLUSHALL")
    started("FUNCTION", "FLUSH")
    return started


def put_odd_stream(server: RedisServer) -> None:
    """A stream whose last id is below that of its entries, with a group and entries that are pending."""
    pending = (Pending(b"3-0", b"alice", b"1700000000000", b"2"), Pending(b"4-1", b"bob", b"1700000000001", b"1"))
    group = Group(b"g", b"4-1", b"2", (b"alice", b"bob"), pending)
    head = StreamHead(b"5-0", b"1-0", b"1", (group,))
    entries = [(id_struct.pack(n, n % 3), packed(b"name", b"x" * size)) for n, size in ((3, 1), (4, 100), (9, 5_000))]
    server("RESTORE", "odd", 0, stream_payload(head, entries))


def refusing(backup: Backup, keep_going: bool) -> RestoreScope:
    specs = tuple((spec, 3) for spec in backup.specs.values())
    return RestoreScope(backup.definition, specs, RestoreMode.EXACT, Selection(), 1, keep_going=keep_going)  # type: ignore[arg-type]


def test_a_stream_that_no_commands_make_comes_back(live: RedisServer) -> None:
    put_odd_stream(live)
    digest, groups = live.digest(), live.groups()
    source = RedisSource(url=live.url)
    backup = read_all(source)
    assert read_all(RedisSource(url=live.url, consistent=True)).table().num_rows == backup.table().num_rows
    live("FLUSHALL")
    write_all(backup, prepare(backup, source))
    assert (live.digest(), live.groups()) == (digest, groups)


def test_keys_that_no_commands_make_as_they_are_come_back(live: RedisServer, tmp_path: Path) -> None:
    far = [(id_struct.pack(ms, n), packed(b"f", b"v")) for ms, n in ((1, 7), (2, 2**64 - 3), (2**64 - 500, 0))]
    later = Group(b"g", b"1-7", b"", (b"c",), (Pending(b"1-7", b"c", b"4102444800123", b"3"),))
    live("RESTORE", "far", 0, stream_payload(StreamHead(b"5-0", b"0-0", b"3", ()), far))
    live("RESTORE", "later", 0, stream_payload(StreamHead(b"5-0", b"0-0", b"1", (later,)), far[:1]))
    live("RESTORE", "z", 0, packed_set_payload([(b"m", b"1.5"), (b"o", b"nan")]))
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, BackupType.FULL)
    result = make_verification(plan)
    assert (result.status, result.findings, result.warnings) == (BackupStatus.VERIFIED, (), ())
    digest, groups, backup = live.digest(), live.groups(), read_all(source := RedisSource(url=live.url))
    live("FLUSHALL")
    write_all(backup, prepare(backup, source))
    assert (live.digest(), live.groups()) == (digest, groups)


@given(st.lists(st.one_of(st.binary(max_size=5_000), st.integers(-(2**63), 2**63 - 1)), max_size=9))
def test_a_listpack_reads_back(items: list[bytes | int]) -> None:
    assert listpack_of(listpack_bytes(items)) == [each if isinstance(each, bytes) else b"%d" % each for each in items]


def test_vector_sets_are_compared_by_their_content(tmp_path: Path) -> None:
    vectors = RedisServer(tmp_path / "vectors", program=newer_redis())
    for n in range(40):
        vectors("VADD", "v", "VALUES", 3, n, n * n % 7, 1, f"e{n}", *(("SETATTR", '{"n":1}') if n % 2 else ()))
        vectors("VADD", "r", "REDUCE", 2, "VALUES", 3, n, n * n % 7, 1, f"e{n}", "NOQUANT")
    plan = plan_of(tmp_path, RedisSource(url=vectors.url, server_program=vectors.program))
    make_backup(plan, BackupType.FULL)
    result = make_verification(plan)
    assert (result.status, result.findings, result.warnings) == (BackupStatus.VERIFIED, (), ())
    before = vectors("DUMP", "v")
    vectors("VSETATTR", "v", "e1", '{"n":2}')
    assert settled(before) != settled(vectors("DUMP", "v"))  # type: ignore[arg-type]
    assert settled(b"\x07" + bytes(40)) is None
    vectors.kill()


def test_a_key_that_the_server_refuses_holds_no_other_back(live: RedisServer) -> None:
    live.many([("SET", "a", 1), ("ZADD", "z", 1, "m"), ("HSET", "h", "f", 1), ("SET", "long", "x" * 2_000_000)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    bad = {b"z": packed(b"m", b"nan"), b"h": None}
    rows = [row | {"value": bad.get(row["key"]) or row["value"]} for row in backup.table().to_pylist()]
    for row in rows:
        if row["key"] == b"h":
            row |= {"type": "module:nowhere-x", "value": b"no payload of any module"}
    backup.rows["db0"] = [SCHEMA.empty_table().from_pylist(rows, schema=SCHEMA)]
    live.many([("SET", "a", "other"), ("SET", "z", "live"), ("CONFIG", "SET", "proto-max-bulk-len", 1_048_576)])
    live("CONFIG", "SET", "zset-max-listpack-entries", 0)  # packed, it would take the set
    before = live.digest()
    try:
        with pytest.raises(RestoreRefused, match=r"key b'(z|h|long)'") as refused:
            write_all(backup, source.target(refusing(backup, keep_going=False)))
        assert "--keep-going" in refused.value.hint
        assert live.digest() == before
        target = source.target(refusing(backup, keep_going=True))
        write_all(backup, target)
    finally:
        live("CONFIG", "SET", "proto-max-bulk-len", 512 * 1024 * 1024)
        live("CONFIG", "SET", "zset-max-listpack-entries", 128)
    assert isinstance(target, KeepsGoing)
    assert [each.name for each in target.not_rebuilt] == ["key db0/h", "key db0/long", "key db0/z"]
    assert all(each.reason for each in target.not_rebuilt)
    assert (live("GET", "a"), live("GET", "z"), live("KEYS", "lastgood:*")) == (b"1", b"live", [])


def test_functions_come_back_exactly_merged_or_not_at_all(live: RedisServer) -> None:
    live.many([("SET", "a", 1), ("FUNCTION", "LOAD", CODE % ("one", "f", 1))])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live("FUNCTION", "FLUSH")
    live.many([("FUNCTION", "LOAD", CODE % ("one", "g", 2)), ("FUNCTION", "LOAD", CODE % ("two", "h", 3))])
    held = read_all(source).definition["functions"]
    write_all(backup, prepare(backup, source, selection=Selection((), ("a",))), Selection((), ("a",)))
    assert read_all(source).definition["functions"] == held
    target = prepare(backup, source, mode=RestoreMode.MERGE)
    assert any("one is replaced" in said for said in target.preflight())
    write_all(backup, target)
    assert [live("FCALL", name, 0) for name in ("f", "h")] == [1, 3]
    target = prepare(backup, source)
    assert any("two is removed" in said for said in target.preflight())
    write_all(backup, target)
    assert read_all(source).definition == backup.definition
    live.many([("FUNCTION", "FLUSH"), ("FUNCTION", "LOAD", CODE % ("other", "f", 4)), ("SET", "a", 2)])
    target = prepare(backup, source, mode=RestoreMode.MERGE)
    with pytest.raises(RestoreRefused, match="one"):
        write_all(backup, target)
    assert not target.changed
    assert (live("FCALL", "f", 0), live("GET", "a")) == (4, b"2")


def test_undo_of_a_merge_removes_the_functions_that_it_loaded(live: RedisServer) -> None:
    live.many([("SET", "a", 1), ("FUNCTION", "LOAD", CODE % ("one", "f", 1))])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("FUNCTION", "FLUSH"), ("FUNCTION", "LOAD", CODE % ("two", "h", 3))])
    before = read_all(source)
    write_all(backup, prepare(backup, source, mode=RestoreMode.MERGE))
    specs = tuple((spec, 1) for spec in before.specs.values())
    scope = RestoreScope(before.definition, specs, RestoreMode.MERGE, Selection(), 1)  # type: ignore[arg-type]
    write_all(before, source.target(replace(scope, taken_back=backup.definition)))  # type: ignore[arg-type]
    assert read_all(source).definition == before.definition


def test_an_incremental_has_functions_that_changed_since(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", "a", 1), ("ZADD", "z", "-0.0", "m", "1", "-0.0")])
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, BackupType.FULL)
    live("FUNCTION", "LOAD", CODE % ("late", "f", 1))
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert [each["name"] for each in made.sources[0].definition["functions"]] == ["late"]  # type: ignore[index, union-attr]
    put_odd_stream(live)
    live("XGROUP", "SETID", "odd", "g", "4-1", "ENTRIESREAD", 2)
    make_backup(plan, BackupType.INCREMENTAL)
    result = make_verification(plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())


def test_values_that_servers_write_differently_are_compared_by_meaning() -> None:
    head = StreamHead(b"1-0", b"0-0", b"1", (Group(b"g", b"1-0", b"7", (), ()),))
    settled = replace(head, groups=(replace(head.groups[0], entries_read=b"1"),))
    key = {"key": b"k", "element": None, "expires_ms": None}
    zset, stream, other = key | {"type": "zset"}, key | {"type": "stream"}, key | {"type": "module:vectorset"}
    rows = [
        zset | {"value": packed(b"-0.0", b"-0.0")},
        zset | {"value": None}, zset | {"element": b"m", "value": b"-0.0"},
        stream | {"value": head.encode()}, other | {"value": b"bytes"},
    ]  # fmt: skip
    found = comparing.by_meaning(SCHEMA.empty_table().from_pylist(rows, schema=SCHEMA))
    wanted = [packed(b"-0.0", b"0.0"), None, b"0.0", settled.encode(), b"bytes"]
    assert found.column("value").to_pylist() == wanted
    mask, without = comparing.opaque(found)
    assert mask.to_pylist() == [False] * 4 + [True]
    assert without.column("value").to_pylist() == [*wanted[:-1], b""]


def test_a_payload_of_a_sorted_set_is_taken(live: RedisServer) -> None:
    live("RESTORE", "z", 0, sorted_set_payload([(b"a", b"1.5"), (b"x" * 300, b"-inf")]))
    assert live("ZRANGE", "z", 0, -1, "WITHSCORES") == [b"x" * 300, b"-inf", b"a", b"1.5"]


@pytest.mark.parametrize("consistent", [False, True])
def test_a_key_that_alone_is_large_is_named(
    live: RedisServer, consistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "LARGE_KEY_BYTES", 50_000)
    live.many([("SET", "large", "x" * 60_000), ("RPUSH", "wide", *["y" * 30_000] * 3), ("SET", "small", "x" * 10_000)])
    warnings = read_all(RedisSource(url=live.url, consistent=consistent)).warnings
    assert [warning.split(" alone")[0] for warning in sorted(warnings)] == ["db0: key b'large'", "db0: key b'wide'"]


@pytest.mark.parametrize("consistent", [False, True])
def test_keys_that_only_restore_makes_are_named_by_the_backup_that_has_them(
    live: RedisServer, tmp_path: Path, consistent: bool
) -> None:
    put_odd_stream(live)
    live.many([("XADD", "stream", f"{n}-1", "a", "b") for n in range(1, 300)] + [("ZADD", "fine", 1, "nan", 2, "b")])
    source = RedisSource(url=live.url, consistent=consistent)
    plan = plan_of(tmp_path, source)
    assert [said.partition(":")[0] for said in make_backup(plan, BackupType.FULL).sources[0].warnings] == ["db0"]
    live("RESTORE", "z", 0, packed_set_payload([(b"m", b"1.5"), (b"o", b"nan")]))
    [said] = make_backup(plan, BackupType.INCREMENTAL).sources[0].warnings
    assert said.startswith("db0: key b'z' is a sorted set with a score that is no number")
    warnings = read_all(source).warnings
    assert sorted(said.partition(" is ")[0] for said in warnings) == ["db0: key b'odd'", "db0: key b'z'"]


def test_no_more_odd_keys_are_named_than_a_person_reads(live: RedisServer) -> None:
    payload = packed_set_payload([(b"m", b"nan")])
    live.many([("RESTORE", f"z{n:03}", 0, payload) for n in range(100)])
    warnings = read_all(RedisSource(url=live.url)).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "db0: other keys are odd in such a way, too, and are not named."


def test_a_wide_sorted_set_and_a_stream_over_several_batches_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd_keys, "_BATCH_ROWS", 3)
    key, head = {"key": b"z", "type": "zset"}, StreamHead(b"8-0", b"0-0", b"9", ())
    wide = [key, *(key | {"element": b"m%d" % n, "value": b"nan" if n > 7 else b"1.0"} for n in range(12))]
    streams = []
    for name, entries in ((b"fine", range(1, 9)), (b"odd", range(1, 10))):
        stream = {"key": name, "type": "stream"}
        streams += [stream | {"value": head.encode()}]
        streams += [stream | {"element": id_struct.pack(n, 0), "value": packed(b"a", b"b")} for n in entries]
    rows = SCHEMA.empty_table().from_pylist(wide + streams, schema=SCHEMA)
    found = list(odd_keys.OddKeys().warnings("db0", rows))
    assert [said.partition(" is ")[0] for said in found] == ["db0: key b'z'", "db0: key b'odd'"]


def test_a_library_that_was_left_out_is_loaded_by_what_the_restore_wrote_down(
    live: RedisServer, tmp_path: Path
) -> None:
    odd = CODE % ("one", "f", 1) + "\n-- \"quoted\" \\ 'and' \t \xe9;"
    live.many([("SET", "a", 1), ("FUNCTION", "LOAD", odd)])
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    made = make_backup(plan, BackupType.FULL)
    live.many([("FUNCTION", "FLUSH"), ("FUNCTION", "LOAD", CODE % ("other", "f", 4))])
    wanted = RestoreRequest(made.backup_id, mode=RestoreMode.MERGE, keep_going=True)
    with pytest.raises(RestoredInPart, match="library of functions one") as left:
        make_restore(plan, wanted)
    [script] = left.value.result.scripts.values()
    live("FUNCTION", "DELETE", "other")
    with open(script, "rb") as lines:
        said = subprocess.run(["redis-cli", "-p", str(live.port)], stdin=lines, capture_output=True, check=True)
    assert said.stdout.splitlines()[-1] == b"one"
    assert b"ERR" not in said.stdout.splitlines()[-1]
    assert read_all(RedisSource(url=live.url)).definition["functions"] == made.sources[0].definition["functions"]


def test_redis_cli_reads_back_every_byte(live: RedisServer) -> None:
    words = [bytes(range(256)), bytes(range(255, -1, -1)), b"", b"plain:word", b"two words", b'\\"', b"'"]
    line = cli_line("RPUSH", "l", *words) + "\n"
    subprocess.run(["redis-cli", "-p", str(live.port)], input=line.encode(), capture_output=True, check=True)
    assert live("LRANGE", "l", 0, -1) == words
