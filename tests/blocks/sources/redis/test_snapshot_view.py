"""`consistent`: one moment of a server, read while it is sent."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import SourceUnavailable
from blocks.records import BackupType
from blocks.sources.redis import RedisSource
from blocks.sources.redis.globs import Globs
from blocks.sources.redis.net.wire import Connection
from blocks.sources.redis.read.keys import END, position_of
from blocks.sources.redis.read.spool import RowSpool
from blocks.sources.redis.rows import SCHEMA
from blocks.sources.redis.views.prefetch import prefetched
from blocks.sources.redis.views.replica import Dataset
from blocks.sources.runs import Allowance
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.blocks.sources.redis.kit import (
    FAR_MS,
    RedisServer,
    changes,
    fill_gallery,
    plan_of,
    prepare,
    read_all,
    write_all,
)
from tests.blocks.sources.redis.rdb_kit import in_order, rdb_of, read, wait_until_ms

NO_PROGRAM = "no-such-redis"
TOKEN = b"+FULLRESYNC " + b"0123456789abcdef0123456789abcdef01234567" + b" 42\r\n"


def consistent(live: RedisServer, **how: object) -> RedisSource:
    """A source that cannot start a server."""
    return RedisSource.model_validate({"url": live.url, "consistent": True, "server_program": NO_PROGRAM} | how)


@pytest.mark.parametrize("part_size_bytes", [20_000, 64 * 1024 * 1024])
def test_a_moment_has_the_rows_of_reading_key_by_key(live: RedisServer, part_size_bytes: int) -> None:
    fill_gallery(live)
    backup = read_all(consistent(live, part_size_bytes=part_size_bytes))
    assert {name: in_order(backup.table(name)) for name in backup.rows} == read(live)
    assert (len(backup.rows["db0"]) > 3) == (part_size_bytes == 20_000)
    assert backup.warnings == []


def test_a_moment_may_come_from_a_file_of_the_server(tmp_path: Path, redis_program: str) -> None:
    options = ["--repl-diskless-sync", "no", "--rdbchecksum", "no"]
    server = RedisServer(tmp_path / "other", *options, program=redis_program)
    fill_gallery(server)
    backup = read_all(consistent(server))
    assert {name: in_order(backup.table(name)) for name in backup.rows} == read(server)
    server.kill()


def test_a_moment_of_nothing_has_no_collections(live: RedisServer) -> None:
    assert read_all(consistent(live)).rows == {}
    [rows] = read_all(consistent(live, databases=[2])).rows["db2"]
    assert rows.equals(SCHEMA.empty_table())


def test_databases_and_patterns_are_those_of_scan(live: RedisServer) -> None:
    keys = [b"a:1", b"a:b:2", b"[x]", b"x", b"\xff", b"a\nb", b"^", b"a-b", b"", b"*", "é".encode()]
    for db in (0, 3):
        live.many([("SET", key, "x") for key in keys] + [("RPUSH", b"l" + key, key) for key in keys], db=db)
    for patterns in (["a*"], ["*"], ["[^a]*", "a:?"], ["\\[x]", "é"], ["l[a-c]*"], ["**"], ["", "nothing"], ["[x"]):
        for databases in (None, [3], [0, 5]):
            how = {"patterns": patterns, "databases": databases}
            one, other = consistent(live, **how), RedisSource(url=live.url, **how)  # type: ignore[arg-type]
            found = [read_all(source) for source in (one, other)]
            assert [backup.rows.keys() for backup in found] == [found[1].rows.keys()] * 2
            for name in found[0].rows:
                assert in_order(found[0].table(name)) == in_order(found[1].table(name)), how


def test_a_renumbered_database_is_read(live: RedisServer) -> None:
    live("SET", "a", 1, db=5)
    backup = read_all(consistent(live, renumbered={0: 5}))
    assert backup.keys("db0") == {b"a"}


globs = st.text(st.sampled_from("ab?*[]^-\\"), max_size=8)


@given(st.lists(globs, min_size=1, max_size=3), st.lists(st.text(st.sampled_from("ab-]^\\[*"), min_size=1, max_size=5)))
def test_globs_match_what_servers_match(glob_server: RedisServer, patterns: list[str], names: list[str]) -> None:
    glob_server("FLUSHALL")
    keys = [name.encode() for name in {*names, ""}]
    glob_server.many([("SET", key, "x") for key in keys])
    found = {key for pattern in patterns for key in glob_server("SCAN", 0, "MATCH", pattern, "COUNT", 1000)[1]}  # type: ignore[index,union-attr]
    assert {key for key, one in zip(keys, Globs(patterns).matches(keys), strict=True) if one} == found


@pytest.fixture(scope="module")
def glob_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("globs"))
    yield server
    server.kill()


def test_globs_of_letters_beyond_ascii_are_matched_as_a_server_does(live: RedisServer) -> None:
    live.many([("SET", "é", 1), ("SET", "a", 1)])
    source = consistent(live, patterns=["[é]*"], server_program=live.program)
    assert read_all(source).keys() == read_all(source.model_copy(update={"consistent": False})).keys() == {"é".encode()}


def test_a_token_tells_whether_anything_was_written(live: RedisServer) -> None:
    def token() -> str | None:
        with consistent(live).view() as view:
            return view.token

    live("SET", "a", 1)
    first = token()
    assert first is not None
    assert token() == first
    live("SET", "a", 1)
    second = token()
    assert second not in (first, None)
    live("EXPIRE", "a", 1_000_000)
    assert token() not in (first, second, None)
    last = token()
    with consistent(live, patterns=["a*"]).view() as view:
        assert view.token not in (last, None)


def test_a_replica_has_no_token(live: RedisServer, tmp_path: Path, redis_program: str) -> None:
    live("SET", "a", 1)
    replica = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(live.port), program=redis_program)
    while b"master_link_status:up" not in replica("INFO", "replication"):  # type: ignore[operator]
        pass
    with consistent(replica).view() as view:
        assert view.token is None
        [spec] = view.collections()
        assert [view.read(spec, bounds, None).rows.num_rows for bounds in view.partition(spec)] == [1]
    replica.kill()


def test_what_had_expired_is_left_out(live: RedisServer) -> None:
    live("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    live.many([("SET", "gone", 1, "PX", 1), ("SET", "stays", 1, "PXAT", FAR_MS), ("SET", "ever", 1)])
    now = live("TIME")
    assert isinstance(now, list)
    wait_until_ms(int(now[0]) * 1000 + 3_000)  # type: ignore[arg-type]
    assert read_all(consistent(live)).keys() == {b"stays", b"ever"}


def test_a_chain_goes_on_key_by_key_and_the_other_way_round(live: RedisServer, tmp_path: Path) -> None:
    fill_gallery(live)
    small = {"part_size_bytes": 500_000}
    plan = plan_of(tmp_path, consistent(live, **small))
    make_backup(plan, BackupType.FULL)
    for n, source in enumerate((RedisSource(url=live.url, part_size_bytes=500_000), consistent(live, **small))):
        plan = plan.model_copy(update={"sources": {"cache": source}})
        assert changes(make_backup(plan, BackupType.INCREMENTAL)) == (0, 0)
        live.many([("HSET", "h:wide", "field7", f"other{n}"), ("SET", f"new{n}", "x"), ("DEL", f"goes{n}")])
        assert changes(make_backup(plan, BackupType.INCREMENTAL)) == (2, 0)
    before = live.digest(), live.groups()
    live.many([("DEL", "x", "h:wide"), ("SET", "added", "later")])
    plan = plan.model_copy(update={"sources": {"cache": RedisSource(url=live.url)}})
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert (live.digest(), live.groups()) == before


def test_a_part_that_grew_by_far_ends_the_chain_but_not_a_key(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", "x" * 100) for n in range(500)])
    live("ZADD", "wide", *[word for n in range(5_000) for word in (n, f"m{n}")])
    source = consistent(live, part_size_bytes=50_000)
    with source.view() as view:
        [spec] = view.collections()
        bounds = view.partition(spec)
        assert not view.needs_repartition(spec, bounds)
    live.many([("SET", f"k{n}", "x" * 100) for n in range(5_000)])
    with source.view() as view:
        assert view.needs_repartition(spec, bounds)


def test_a_moment_has_functions_and_nothing_that_restores_left(live: RedisServer) -> None:
    code = "#!lua name=mine\nredis.register_function('f', function() return 1 end)"
    live("FUNCTION", "LOAD", code)
    live.many([("SET", "a", 1), ("SET", "lastgood:restoring:{1}:x:new:b", 1), ("SET", "lastgood:aside:x:b", 1)])
    for backup in (read_all(consistent(live)), read_all(RedisSource(url=live.url))):
        assert backup.definition["functions"] == [{"name": "mine", "engine": "LUA", "code": code}]
        assert backup.keys() == {b"a"}


def test_a_moment_comes_back_as_it_was(live: RedisServer, tmp_path: Path, redis_program: str) -> None:
    fill_gallery(live)
    other = RedisServer(tmp_path / "other", program=redis_program)
    source = consistent(live)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, other.url))
    assert (other.digest(), other.groups()) == (live.digest(), live.groups())
    other.kill()


def rows_of(keys: list[bytes]) -> pa.Table:
    count = len(keys)
    types = ["string", "hash"] * (count // 2) + ["list" if count % 3 else "module:any"] * (count % 2)
    columns = [keys, [None] * count, types, keys, range(count)]
    return pa.table([pa.array(column, each.type) for column, each in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


@given(
    st.lists(st.lists(st.binary(max_size=12), min_size=1, max_size=40), max_size=8),
    st.sampled_from([0, 2_000, 1 << 20]),
    st.lists(st.integers(0, END), max_size=5),
)
def test_every_row_is_in_one_range_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], room_bytes: int, cuts: list[int]
) -> None:
    spool = RowSpool(tmp_path_factory.mktemp("spool"), Allowance(room_bytes))
    for keys in batches:
        spool.add(rows_of(keys))
    spool.end()
    assert len(spool) == sum(map(len, batches))
    found: list[dict[str, object]] = []
    for start, end in itertools.pairwise([0, *sorted(cuts), END]):
        rows = spool.between(start, end)
        assert rows.schema == SCHEMA
        assert rows.num_rows == spool.count(start, end)
        found += rows.to_pylist()
        assert all(start <= position_of(key) < end for key in rows.column("key").to_pylist())
    everything = [row for keys in batches for row in rows_of(keys).to_pylist()]
    assert sorted(map(repr, found)) == sorted(map(repr, everything))


def test_what_has_no_room_in_memory_is_read_from_a_folder(live: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.sources.redis.views.snapshot_view.MEMORY_BYTES", 50_000)
    fill_gallery(live)
    backup = read_all(consistent(live, part_size_bytes=20_000))
    assert {name: in_order(backup.table(name)) for name in backup.rows} == read(live)


class Fake:
    """A server of a few answers, which then goes away."""

    def __init__(self, *answers: bytes) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listening.accept()
        with sock:
            sock.recv(1000)
            for answer in self._answers:
                sock.sendall(answer)

    def chunks(self) -> bytes:
        connection = Connection(socket.create_connection(("127.0.0.1", self.port), 5), "fake")
        try:
            return b"".join(Dataset(connection).chunks())
        finally:
            connection.close()
            self._thread.join()
            self._listening.close()


MARK = b"0123456789" * 4


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([TOKEN + b"$5\r\nabcde"], b"abcde"),
        ([b"\n\n", TOKEN, b"\n", b"$5\r\n", b"ab", b"cde"], b"abcde"),
        ([TOKEN + b"$EOF:" + MARK + b"\r\nabcde" + MARK], b"abcde"),
        ([TOKEN, b"\n$EOF:" + MARK + b"\r\n", MARK[:3] + b"x" + MARK], MARK[:3] + b"x"),
        ([TOKEN + b"$0\r\n"], b""),
    ],
)
def test_a_dataset_comes_in_two_forms(answers: list[bytes], found: bytes) -> None:
    assert Fake(*answers).chunks() == found


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([TOKEN + b"$5\r\nabcd"], "closed the connection"),
        ([TOKEN + b"$EOF:" + MARK + b"\r\nabcde" + MARK[1:]], "closed the connection"),
        ([TOKEN], "closed the connection"),
        ([TOKEN + b"$EOF:short\r\nabc"], "unknown form"),
        ([b"-NOMASTERLINK Can't SYNC\r\n"], "does not give its dataset away: -NOMASTERLINK"),
        ([b"+CONTINUE\r\n"], "does not give its dataset away"),
        ([TOKEN + b"-ERR no\r\n"], "does not give its dataset away: -ERR no"),
    ],
)
def test_a_server_that_goes_away_or_refuses_is_said(answers: list[bytes], said: str) -> None:
    with pytest.raises(SourceUnavailable, match=said):
        Fake(*answers).chunks()


def test_a_server_that_is_killed_while_it_sends_is_said(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", bytes(50_000)) for n in range(200)])
    live("CONFIG", "SET", "rdb-key-save-delay", 10_000)
    killer = threading.Timer(0.5, live.kill)
    killer.start()
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{live.port}"):
        read_all(consistent(live))
    killer.join()


def test_what_is_taken_ahead_is_what_there_is() -> None:
    with prefetched(iter(range(1000)), 3) as items:
        assert list(items) == list(range(1000))
    with prefetched(iter([]), 3) as items:
        assert list(items) == []


def test_what_fails_ahead_fails_where_it_is_used() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise SourceUnavailable("gone")

    with prefetched(failing(), 3) as items:
        assert next(items) == 1
        with pytest.raises(SourceUnavailable, match="gone"):
            next(items)


def test_nothing_more_is_taken_once_nobody_uses_it() -> None:
    taken: list[int] = []
    with prefetched((taken.append(n) or n for n in itertools.count()), 3) as items:  # type: ignore[func-returns-value]
        assert next(items) == 0
    count = len(taken)
    assert count < 100
    assert threading.active_count() >= 1
    assert len(taken) == count


def test_a_server_can_be_asked_again(live: RedisServer) -> None:
    live("SET", "a", 1)
    assert rdb_of(live)[:5] == rdb_of(live)[:5] == b"REDIS"
