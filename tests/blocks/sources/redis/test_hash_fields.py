"""Fields of hashes that expire by themselves (Redis 7.4 and newer), and vector sets (Redis 8)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable
from blocks.records import BackupStatus, BackupType
from blocks.sources.redis import RedisSource
from blocks.sources.redis.connect import Access
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.place import parse_place
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.redis.cluster_kit import RedisCluster
from tests.blocks.sources.redis.kit import (
    FAR_MS,
    ODD,
    RedisServer,
    changes,
    fill_gallery,
    no_children,
    plan_of,
    prepare,
    read_all,
    write_all,
)
from tests.blocks.sources.redis.newer import newer_redis

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL
Expiries = dict[bytes, dict[bytes, int]]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "live", program=newer_redis())
    yield server
    server.kill()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other", program=newer_redis())
    yield server
    server.kill()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "old")
    yield server
    server.kill()


def source_of(server: RedisServer, consistent: bool = False) -> RedisSource:
    return RedisSource(url=server.url, consistent=consistent, server_program=newer_redis())


def fielded(name: str = "") -> list[tuple[str | bytes | int, ...]]:
    """Commands that make hashes whose fields expire: narrow, wide, huge, odd, with an expiry of the key too."""
    wide, huge = range(1_500), range(12_000)
    return [
        ("HSET", f"{name}narrow", "a", 1, "b", 2, "c", 3),
        ("HPEXPIREAT", f"{name}narrow", FAR_MS, "FIELDS", 1, "b"),
        ("HSET", f"{name}all", "a", 1), ("HPEXPIREAT", f"{name}all", FAR_MS + 1, "FIELDS", 1, "a"),
        ("HSET", f"{name}plain", "a", 1), ("HSET", ODD + b"h", ODD, ODD, "", ""),
        ("HPEXPIREAT", ODD + b"h", FAR_MS, "FIELDS", 2, ODD, ""),
        ("HSET", f"{name}both", "a", 1, "b", 2), ("HPEXPIREAT", f"{name}both", FAR_MS + 2, "FIELDS", 1, "a"),
        ("PEXPIREAT", f"{name}both", FAR_MS + 3),
        ("HSET", f"{name}wide", *[w for n in wide for w in (f"f{n}", n)]),
        *[("HPEXPIREAT", f"{name}wide", FAR_MS + n % 3, "FIELDS", 1, f"f{n}") for n in wide if n % 5],
        ("HSET", f"{name}huge", *[w for n in huge for w in (f"f{n}", n)]),
        ("HPEXPIREAT", f"{name}huge", FAR_MS, "FIELDS", 11_000, *[f"f{n}" for n in range(11_000)]),
        ("HSET", f"{name}once", "a", 1, "b", 2), ("HPEXPIREAT", f"{name}once", FAR_MS, "FIELDS", 1, "a"),
        ("HPERSIST", f"{name}once", "FIELDS", 1, "a"),
    ]  # fmt: skip


def expiries(do: RedisServer | RedisCluster, keys: list[bytes]) -> Expiries:
    """When fields go, of all keys that are hashes."""
    found: Expiries = {}
    for key in keys:
        if do("TYPE", key) == b"hash":
            names = do("HKEYS", key)
            assert isinstance(names, list)
            times = do("HPEXPIRETIME", key, "FIELDS", len(names), *names)  # type: ignore[arg-type]
            found[key] = dict(zip(names, times, strict=True))  # type: ignore[arg-type]
    return found


def all_of(server: RedisServer) -> tuple[object, Expiries]:
    return server.digest(), expiries(server, server("KEYS", "*"))  # type: ignore[arg-type]


@pytest.mark.parametrize("consistent", [False, True])
def test_fields_expire_when_they_would_have(live: RedisServer, other: RedisServer, consistent: bool) -> None:
    live.many(fielded())
    fill_gallery(live)
    source = source_of(live, consistent)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, other.url))
    assert all_of(other) == all_of(live)
    assert expiries(other, [b"narrow"]) == {b"narrow": {b"a": -1, b"b": FAR_MS, b"c": -1}}
    assert no_children()


def test_expiries_of_fields_are_read_of_one_moment(live: RedisServer) -> None:
    """A field is written with an expiry under one value and without under another, over and over."""
    many = [("HSET", f"h{n}", *itertools.chain(*((f"f{m}", "stays") for m in range(20)))) for n in range(200)]
    live.many([*many, ("HSET", "wide", *itertools.chain(*((f"f{m}", "stays") for m in range(15_000))))])
    ended = threading.Event()

    def write() -> None:
        connection = live.connection()
        for n in itertools.count():
            if ended.is_set():
                return
            key = "wide" if n % 20 == 0 else f"h{n % 200}"
            going = packed("HSET", key, "f", "goes") + packed("HPEXPIREAT", key, FAR_MS, "FIELDS", 1, "f")
            staying = packed("HSET", key, "f", "stays") + packed("HDEL", key, "f") + packed("HSET", key, "f", "stays")
            body, count = (going, 2) if n % 2 else (staying, 3)
            connection.checked(connection.ask(packed("MULTI") + body + packed("EXEC"), count + 2), "writing")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            rows = read_all(source_of(live)).table().to_pylist()
            assert {row["key"] for row in rows} == {b"wide", *(b"h%d" % n for n in range(200))}
            fields = [row for row in rows if row["element"] is not None]
            assert all((row["value"] == b"goes") == (row["expires_ms"] == FAR_MS) for row in fields)
            assert sum(row["key"] == b"wide" for row in rows) in (15_001, 15_002)
    finally:
        ended.set()
        writer.join()


def test_an_expiry_that_comes_while_keys_are_read_is_not_missed(live: RedisServer) -> None:
    live("HSET", "h", "a", 1)
    server = Server(parse_place(live.url), Access(None, None, None, None, 10))
    asked = []

    def read(fields: bool) -> bool:
        asked.append(fields)
        if len(asked) == 2:
            live("HPEXPIREAT", "h", FAR_MS, "FIELDS", 1, "a")
        return fields

    assert [server.with_fields(0, read) for _ in range(3)] == [False, True, True]
    assert asked == [False, False, True, True]
    server.close()


def test_what_an_incremental_stores_of_fields_that_expire(live: RedisServer, tmp_path: Path) -> None:
    live.many(fielded())
    plan = plan_of(tmp_path, source_of(live))
    make_backup(plan, FULL)
    assert changes(make_backup(plan, INCREMENTAL)) == (0, 0)
    live("HPEXPIREAT", "wide", FAR_MS + 9, "FIELDS", 1, "f7")
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 0)
    live.many([("HPERSIST", "wide", "FIELDS", 1, "f7"), ("HSET", "huge", "f3", "changed")])
    assert changes(make_backup(plan, INCREMENTAL)) == (2, 0)
    live("HPEXPIREAT", "narrow", FAR_MS + 9, "FIELDS", 1, "b")
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 0)
    live("HPERSIST", "narrow", "FIELDS", 1, "b")  # one row again in place of a head and three
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 3)
    live("HPEXPIREAT", "plain", FAR_MS, "FIELDS", 1, "a")
    assert changes(make_backup(plan, INCREMENTAL)) == (2, 0)
    before = all_of(live)
    result = make_verification(plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())
    live.many([("DEL", "wide", "narrow"), ("HSET", "huge", "f3", "x"), ("HPERSIST", "plain", "FIELDS", 1, "a")])
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert all_of(live) == before


def test_a_verification_says_what_it_needs_for_fields_that_expire(live: RedisServer, tmp_path: Path) -> None:
    live.many(fielded())
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, FULL)
    result = make_verification(plan)
    assert (result.findings, result.results["restorable"].outcome) == ((), "unproven")
    assert "`server_program`" in result.results["restorable"].warnings[0]


def test_an_older_server_is_refused_before_the_first_write(live: RedisServer, old: RedisServer) -> None:
    live.many([("SET", "a", "1"), *fielded()])
    source = source_of(live)
    backup = read_all(source)
    old("SET", "stays", "x")
    before = old.digest()
    with pytest.raises(RestoreRefused, match="expires by itself"):
        write_all(backup, prepare(backup, source, old.url))
    assert old.digest() == before


def test_all_else_goes_from_a_newer_server_into_an_older_one_and_back(live: RedisServer, old: RedisServer) -> None:
    fill_gallery(live)
    live.many([("HSET", "once", "a", 1), ("HPEXPIREAT", "once", FAR_MS, "FIELDS", 1, "a")])
    live("HPERSIST", "once", "FIELDS", 1, "a")
    source, before = source_of(live), (all_of(live), live.groups())
    write_all(backup := read_all(source), prepare(backup, source, old.url))
    assert old.groups() == live.groups()
    # the digests of the two versions differ by how they write scores: so it is taken where it was taken before
    live("FLUSHALL")
    source = RedisSource(url=old.url)
    write_all(backup := read_all(source), prepare(backup, source, live.url))
    assert (all_of(live), live.groups()) == before


@pytest.mark.parametrize("wide", [0, 1_200])
def test_fields_that_expired_since_are_not_restored(live: RedisServer, tmp_path: Path, wide: int) -> None:
    filling = [word for n in range(wide) for word in (f"f{n}", n)]
    live.many([("HSET", "some", "goes", 1, "stays", 2, *filling), ("HPEXPIRE", "some", 1200, "FIELDS", 1, "goes")])
    live.many([("HSET", "all", "goes", 1), ("HPEXPIRE", "all", 1200, "FIELDS", 1, "goes")])
    plan = plan_of(tmp_path, source_of(live))
    backup = make_backup(plan, FULL)
    assert backup.collections[0].rows == 5 + wide
    while live("EXISTS", "all") or live("HEXISTS", "some", "goes"):
        pass
    assert make_verification(plan).status is BackupStatus.VERIFIED
    live("DEL", "some")
    result = make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert "1 keys had expired since the backup and were not restored." in result.notes
    assert "1 fields of hashes had expired since the backup and were not restored." in result.notes
    assert live("KEYS", "*") == [b"some"]
    assert live("HGET", "some", "stays") == b"2"
    assert live("HLEN", "some") == 1 + wide


@pytest.mark.parametrize("consistent", [False, True])
def test_a_hash_of_which_only_expired_fields_are_left_is_none(live: RedisServer, consistent: bool) -> None:
    live("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    wide = [word for n in range(1_200) for word in (f"f{n}", n)]
    live.many([("HSET", "narrow", "f", 1), ("HSET", "some", "f", 1, "stays", 1), ("HSET", "wide", *wide)])
    names = wide[::2]
    live.many([("HPEXPIRE", key, 1, "FIELDS", 1, "f") for key in ("narrow", "some")])
    live("HPEXPIRE", "wide", 1, "FIELDS", len(names), *names)
    while live("HGET", "wide", "f0") or live("HGET", "some", "f"):
        pass
    assert live("EXISTS", "narrow", "wide") == 2
    assert read_all(source_of(live, consistent)).keys() == {b"some"}


def test_a_hash_whose_fields_all_go_while_it_is_restored_stops_nothing(live: RedisServer, other: RedisServer) -> None:
    live.many([("HSET", f"h{n}", "a", 1) for n in range(300)] + [("SET", "last", "x")])
    live.many([("HPEXPIRE", f"h{n}", 400 + 2 * n, "FIELDS", 1, "a") for n in range(300)])
    source = source_of(live)
    backup = read_all(source)
    target = prepare(backup, source, other.url)
    target.preflight()
    for rows in backup.rows["db0"]:
        target.apply(backup.specs["db0"], rows)
    while live("EXISTS", "h150"):
        pass
    target.commit()  # what was staged before goes while it is written
    assert other("GET", "last") == b"x"
    assert not other("EXISTS", "h0")


def test_fields_that_expire_in_a_cluster_whose_slots_move(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path / "cluster", program=newer_redis())
    cluster.many([*fielded("{t}"), *fielded()])
    source, names = RedisSource(url=cluster.url), sorted(cluster.keys())
    tagged = [name for name in names if name.startswith(b"{t}")]
    before = cluster.digest(), expiries(cluster, names)
    giver = cluster.owner("{t}")
    taker = cluster.other(giver)
    cluster.open(slot_of(b"t"), giver, taker)
    cluster.migrate(giver, taker, *tagged[::2])
    backup = read_all(source)
    cluster.migrate(giver, taker, *tagged[1::2])
    cluster.close(slot_of(b"t"), giver, taker)
    cluster.many([("HPERSIST", "{t}narrow", "FIELDS", 1, "b"), ("DEL", "wide"), ("SET", "later", "x")])
    write_all(backup, prepare(backup, source))
    assert (cluster.digest(), expiries(cluster, names)) == before
    cluster.kill()


@pytest.mark.parametrize("consistent", [False, True])
def test_vector_sets_are_kept_as_dump_gives_them(
    live: RedisServer, other: RedisServer, old: RedisServer, consistent: bool
) -> None:
    for n in range(20):
        live("VADD", "v", "VALUES", 3, n, 1, -n, f"item{n}", "SETATTR", f'{{"n": {n}}}')
    live("PEXPIREAT", "v", FAR_MS)
    source = source_of(live, consistent)
    backup = read_all(source)
    assert set(backup.table().column("type").to_pylist()) == {"module:vectorset"}
    assert backup.warnings == [
        "db0: 1 keys of type vectorset belong to a module and are kept as DUMP gives them; "
        "they can be restored only where that module is loaded."
    ]
    write_all(backup, prepare(backup, source, other.url))
    assert other.digest() == live.digest()
    for words in (("VCARD", "v"), ("VEMB", "v", "item7"), ("VGETATTR", "v", "item7"), ("PEXPIRETIME", "v")):
        assert other(*words) == live(*words)
    with pytest.raises(RestoreRefused, match="key b'v' would be refused"):
        write_all(backup, prepare(backup, source, old.url))


def test_a_dataset_with_vector_sets_needs_a_server_that_has_them(live: RedisServer) -> None:
    live("VADD", "v", "VALUES", 1, 1, "item")
    with pytest.raises(SourceUnavailable, match="did not start") as caught:
        read_all(RedisSource(url=live.url, consistent=True))
    assert "same version" in caught.value.hint
    with pytest.raises(ConfigurationError, match="no Redis server program"):
        read_all(RedisSource(url=live.url, consistent=True, server_program="no-such-redis"))
