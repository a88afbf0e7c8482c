"""Clusters that do not rest: slots that move between nodes, and nodes that die, while a backup or a restore runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.errors import RestoreRefused, SourceChanged, SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.redis.connect import Access
from blocks.sources.redis.coverage import Removal
from blocks.sources.redis.globs import Globs, differing
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.place import parse_place
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.target import RestoreMode
from tests.blocks.sources.redis.cluster_kit import RedisCluster, in_slot
from tests.blocks.sources.redis.kit import RedisServer, prepare, read_all

WIDE = [word for n in range(1_500) for word in (f"f{n}", n)]
HUGE = [word for n in range(12_000) for word in (f"f{n}", n)]


@pytest.fixture(scope="module")
def shared(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("live"), program=redis_program)
    yield cluster
    cluster.kill()


@pytest.fixture
def live(shared: RedisCluster) -> RedisCluster:
    shared.clear()
    return shared


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster with a replica of its first master, and nodes that may be killed."""
    cluster = RedisCluster(tmp_path / "mortal", replicas=1)
    yield cluster
    cluster.kill()


def whole(cluster: RedisCluster) -> Cluster:
    return Cluster(parse_place(cluster.url), Access(None, None, None, None, 10))


def fill(cluster: RedisCluster, tag: str = "{t}") -> set[bytes]:
    """Put keys of every type into one slot, and others elsewhere; return their names."""
    cluster.many([("SET", f"other{n}", n) for n in range(100)])
    cluster.many([("SET", f"{tag}s{n}", n) for n in range(20)] + [("RPUSH", f"{tag}l{n}", n, 2) for n in range(20)])
    cluster.many([("HSET", f"{tag}wide", *WIDE), ("HSET", f"{tag}huge", *HUGE), ("XADD", f"{tag}x", "1-1", "a", "b")])
    cluster.many([("ZADD", f"{tag}z", 1, "a"), ("SADD", f"{tag}m", "a"), ("RPUSH", f"{tag}long", *range(20_000))])
    cluster.many([("SADD", f"{tag}many", *range(3_000)), ("ZADD", f"{tag}ranked", *WIDE[1::2], 7, "x")])
    return cluster.keys()


def rows_of(source: RedisSource) -> pa.Table:
    return in_order([read_all(source).table()])


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows, sorted; they are too many to make Python objects of them again and again."""
    rows = pa.concat_tables(tables)
    return rows.sort_by([(name, "ascending") for name in rows.column_names]).combine_chunks()


@pytest.mark.one_redis
@pytest.mark.parametrize("moved", ["none", "half", "all"])
@pytest.mark.parametrize("part_size_bytes", [30_000, 64 * 1024 * 1024])
def test_a_slot_that_is_left_half_moved_is_in_the_backup(live: RedisCluster, moved: str, part_size_bytes: int) -> None:
    fill(live)
    source = RedisSource(url=live.url, part_size_bytes=part_size_bytes)
    expected = rows_of(source)
    slot, giver = slot_of(b"t"), live.owner("{t}")
    taker = live.other(giver)
    names = sorted(key for key in live.keys() if key.startswith(b"{t}"))  # noqa: SIM118
    live.open(slot, giver, taker)
    share = {"none": [], "half": names[::2], "all": names}[moved]
    live.migrate(giver, taker, *share)
    try:
        assert rows_of(source).equals(expected)
        with pytest.raises(RestoreRefused, match=rf"1 hash slots are being moved .*, {slot} is the first"):
            prepare(read_all(source), source).preflight()
        with pytest.raises(SourceChanged, match="hash slots moved between nodes"):
            rows_of(source.model_copy(update={"consistent": True, "server_program": live.program}))
    finally:
        live.migrate(giver, taker, *(set(names) - set(share)))
        live.close(slot, giver, taker)
    assert rows_of(source).equals(expected)


@pytest.mark.parametrize("consistent", [False, True])
def test_what_an_old_move_left_behind_is_nobodys(live: RedisCluster, consistent: bool) -> None:
    live.many([("SET", "{t}there", "right"), ("SET", "other", "x")])
    giver = live.owner("{t}")
    taker = live.other(giver)
    live.open(slot_of(b"t"), giver, taker)
    taker.many([("ASKING",), ("SET", "{t}there", "stale"), ("ASKING",), ("SET", "{t}ghost", "stale")])
    for server in (giver, taker):
        server("CLUSTER", "SETSLOT", slot_of(b"t"), "STABLE")
    backup = read_all(RedisSource(url=live.url, consistent=consistent, server_program=live.program))
    values = {row["key"]: row["value"] for row in backup.table().to_pylist()}
    assert values == {b"{t}there": b"right", b"other": b"x"}


def test_slots_that_move_after_keys_were_listed_are_followed(live: RedisCluster) -> None:
    fill(live)
    source = RedisSource(url=live.url)
    expected = rows_of(source)
    giver = live.owner("{t}")
    taker = live.other(giver)
    with source.view() as view:
        [spec] = view.collections()
        bounds = view.partition(spec)
        live.move(slot_of(b"t"), taker)
        for key in ("other1", "other2", "other3"):
            live.move(slot_of(key.encode()), live.other(live.owner(key)))
        rows = in_order([view.read(spec, each, None).rows for each in bounds])
        view.finish()
    assert rows.equals(expected)


@pytest.mark.parametrize("patterns", [["*"], ["{t}[ls]1?", "other*"]])
@pytest.mark.parametrize("ended", [True, False])
def test_a_slot_that_moves_while_keys_are_listed_loses_none(
    live: RedisCluster, patterns: list[str], ended: bool
) -> None:
    """It goes to a node that was listed already, from one that is still to be listed."""
    last = live.masters[2]
    slot = 16_000
    names = [name.encode() for name in in_slot(slot, 3)]
    if live.owner(names[0]) is not last:
        live.move(slot, last)
    live.many([("SET", name, "x") for name in names] + [("SET", f"other{n}", n) for n in range(500)])
    cluster = whole(live)
    listing = cluster.scan(0, ["k*"] if patterns == ["*"] else [*patterns, "k[0-9]*"])
    found = set(next(listing))  # of the first node
    live.open(slot, last, live.masters[0])
    live.migrate(last, live.masters[0], *names)
    if ended:
        live.close(slot, last, live.masters[0])
    found |= {key for keys in listing for key in keys}
    assert found >= set(names)
    assert (found > set(names)) == (patterns != ["*"])
    cluster.close()
    if not ended:
        live.close(slot, last, live.masters[0])


def test_a_restore_follows_slots_that_move_before_it_writes(live: RedisCluster) -> None:
    names = fill(live)
    source, before = RedisSource(url=live.url), live.digest()
    backup = read_all(source)
    target = prepare(backup, source)
    live.many([("SET", "{t}later", "x"), ("SET", "{t}s1", "changed"), ("DEL", "{t}wide")])
    target.preflight()
    for rows in backup.rows["db0"]:
        target.apply(backup.specs["db0"], rows)
    for key in ("{t}", "other1", "other2"):
        live.move(slot_of(b"t" if key == "{t}" else key.encode()), live.other(live.owner(key)))
    target.commit()
    assert live.digest() == before
    assert live.keys() == names


def test_a_restore_writes_into_a_slot_whose_keys_have_begun_to_move(live: RedisCluster) -> None:
    """Narrow keys are written where they go. A wide one can take its place only when the slot has come to rest."""
    fill(live)
    source, before = RedisSource(url=live.url), live.digest()
    backup = read_all(source)
    target = prepare(backup, source, mode=RestoreMode.MERGE)
    slot, giver = slot_of(b"t"), live.owner("{t}")
    taker = live.other(giver)
    target.preflight()
    for rows in backup.rows["db0"]:
        target.apply(backup.specs["db0"], rows)
    live.open(slot, giver, taker)
    live.migrate(giver, taker, *(key for key in live.keys() if key.startswith(b"{t}")))  # noqa: SIM118
    taker.many([("ASKING",), ("SET", "{t}s1", "changed"), ("ASKING",), ("DEL", "{t}wide")])

    def end() -> None:
        connection = taker.connection()
        while not connection.call("KEYS", "lastgood:restoring:*"):
            pass
        live.close(slot, giver, taker)

    ending = threading.Thread(target=end)
    ending.start()
    target.commit()
    ending.join()
    assert live.digest() == before


def test_a_master_that_dies_is_named_and_its_replica_is_never_taken_for_it(mortal: RedisCluster) -> None:
    fill(mortal)
    expected = mortal.keys()
    dying, replica = mortal.masters[0], mortal.replicas[0]
    dying("WAIT", 1, 0)
    source = RedisSource(url=mortal.url, part_size_bytes=100_000)
    with source.view() as view:
        [spec] = view.collections()
        bounds = view.partition(spec)
        dying.kill()
        # the others may have noticed already, and say that the cluster is down
        with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{dying.port}|CLUSTERDOWN"):
            [view.read(spec, each, None) for each in bounds]
        mortal.take_over(replica)
        with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{dying.port}|CLUSTERDOWN"):
            [view.read(spec, each, None) for each in bounds]
        with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{dying.port}"):
            view.finish()
    assert read_all(source).keys() == expected


def test_a_master_that_handed_over_while_it_was_read_fails_the_backup(mortal: RedisCluster) -> None:
    fill(mortal)
    replica = mortal.replicas[0]
    source = RedisSource(url=mortal.url)
    with source.view() as view:
        [spec] = view.collections()
        bounds = view.partition(spec)
        mortal.masters[0]("WAIT", 1, 0)
        replica("CLUSTER", "FAILOVER", "TAKEOVER")
        mortal.take_over(replica)
        rows = [view.read(spec, each, None).rows for each in bounds]  # at the replica, which is the master now
        assert {key for each in rows for key in each.column("key").to_pylist()} == mortal.keys() | set(
            replica("KEYS", "*")  # type: ignore[arg-type]
        )
        with pytest.raises(SourceChanged, match=f"127.0.0.1:{mortal.masters[0].port} is no longer a master"):
            view.finish()


def test_a_master_that_was_restarted_meanwhile_fails_the_backup(mortal: RedisCluster) -> None:
    fill(mortal)
    source = RedisSource(url=mortal.url)
    with source.view() as view:
        [spec] = view.collections()
        [view.read(spec, each, None) for each in view.partition(spec)]
        mortal.masters[1].kill()
        mortal.masters[1].start()
        with pytest.raises(SourceChanged, match=f"127.0.0.1:{mortal.masters[1].port} was restarted"):
            view.finish()


def test_a_node_that_dies_before_a_restore_writes_is_named_and_nothing_is_written(mortal: RedisCluster) -> None:
    fill(mortal)
    source = RedisSource(url=mortal.url)
    backup = read_all(source)
    dying = mortal.masters[1]
    key = next(f"other{n}" for n in range(100) if mortal.owner(f"other{n}") is not dying)
    mortal("SET", key, "changed")
    target = prepare(backup, source)
    target.preflight()
    for rows in backup.rows["db0"]:
        target.apply(backup.specs["db0"], rows)
    dying.kill()
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{dying.port}"):
        target.commit()
    target.abort()
    assert mortal("GET", key) == b"changed"


def test_slots_that_nobody_serves_are_no_state_to_back_up(tmp_path: Path) -> None:
    node = RedisCluster(tmp_path / "one", masters=1, ranges=((0, 16383),))
    node.masters[0]("CLUSTER", "DELSLOTSRANGE", 100, 199)
    with pytest.raises(SourceUnavailable, match="100 hash slots have no master, 100 is the first"):
        read_all(RedisSource(url=node.url))
    node.kill()


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("matcher"))
    yield server
    server.kill()


letters = st.text(alphabet="abz-^*?[]\\éà", max_size=8)


@given(letters, letters)
@example("**", "")
@example("[à-é]", "é")
@example("[aé]", "a")
def test_globs_match_as_in_redis(matcher: RedisServer, pattern: str, key: str) -> None:
    matcher("FLUSHALL")
    matcher("SET", key, "x")
    listed = matcher("SCAN", 0, "MATCH", pattern, "COUNT", 10)
    assert isinstance(listed, list)
    matches, scanned = Globs([pattern]).matches([key.encode()])[0], listed[1] == [key.encode()]
    assert matches == scanned or (differing(pattern) and not matches)


@pytest.mark.parametrize("pattern", ["[a-é]", "[é-a]*", "x[^a-é]", "[éa-é]", "[~-\x80]"])
def test_what_servers_match_differently_is_no_pattern_of_a_plan(pattern: str) -> None:
    """A processor takes bytes above 127 for negative or for positive, and so the ends of a range change places."""
    with pytest.raises(ValidationError, match=re.escape(f"the pattern {pattern} means other keys on other servers")):
        RedisSource(patterns=["a*", pattern])


@pytest.mark.parametrize("pattern", ["[a-z]*", "é*", "[aé]", "é[0-9]", "[à-é]", "\\[a-é]", "[a\\-é]", "[éa-z-é]"])
def test_what_all_servers_match_alike_is_a_pattern(pattern: str) -> None:
    assert RedisSource(patterns=[pattern]).patterns == [pattern]


@pytest.mark.parametrize("pattern", ["[a-é]*", "[^a-é]*"])
def test_of_a_backup_whose_patterns_servers_match_differently_nothing_is_removed_by_guessing(
    matcher: RedisServer, pattern: str
) -> None:
    """It was made before such patterns were refused, perhaps on another kind of machine."""
    matcher("FLUSHALL")
    asked = [bytes([first]) for first in range(1, 256)]
    matcher.many([("SET", key, "x") for key in asked])
    listed = matcher("SCAN", 0, "MATCH", pattern, "COUNT", 1000)
    assert isinstance(listed, list)
    removed = Removal(["*"], [pattern], Selection()).of(pa.array(asked, pa.large_binary()))
    assert set(removed.to_pylist()) < set(listed[1])
    assert b"a" in removed.to_pylist() or pattern.startswith("[^")
