"""Clusters that hold several databases, as those of Valkey 9 may: only database 0 can be backed up and restored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.sources.redis import RedisSource
from blocks.sources.target import RestoreMode
from tests.blocks.sources.redis.cluster_of_one import ClusterOfOne
from tests.blocks.sources.redis.kit import Backup, RedisServer, prepare, read_all, write_all


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "holder")
    server.many([("SET", f"k{n}", n) for n in range(60)])
    server.many([("SET", "there", "in 1"), ("SET", "k1", "in 1")], db=1)
    yield server
    server.kill()


@pytest.fixture
def live(holder: RedisServer) -> Iterator[ClusterOfOne]:
    cluster = ClusterOfOne(holder)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("consistent", [False, True])
def test_keys_in_other_databases_fail_a_backup_of_all(live: ClusterOfOne, consistent: bool) -> None:
    with pytest.raises(SourceUnavailable, match="holds keys in database 1") as caught:
        read_all(RedisSource(url=live.url, consistent=consistent))
    assert "/0" in caught.value.hint


@pytest.mark.parametrize("consistent", [False, True])
def test_database_0_alone_can_be_backed_up(live: ClusterOfOne, consistent: bool) -> None:
    backup = read_all(RedisSource(url=f"{live.url}/0", consistent=consistent))
    assert values(backup) == {b"k%d" % n: b"%d" % n for n in range(60)}


def values(backup: Backup) -> dict[object, object]:
    rows = backup.table("db0").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row["value"] for row in rows}


@pytest.mark.parametrize("patterns", [["*"], ["k*", "there", "[é]"]])
def test_what_came_when_the_datasets_were_already_asked_for_is_seen(live: ClusterOfOne, patterns: list[str]) -> None:
    """Also where the datasets are read by private servers, because of such patterns."""
    live.shows_others = False
    assert len(values(read_all(RedisSource(url=f"{live.url}/0", consistent=True, patterns=patterns)))) == 60
    with pytest.raises(SourceUnavailable, match="holds keys in database 1"):
        read_all(RedisSource(url=live.url, consistent=True, patterns=patterns))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_restore_that_would_remove_them_is_refused_before_the_first_write(
    live: ClusterOfOne, holder: RedisServer, tmp_path: Path, elsewhere: bool
) -> None:
    server = RedisServer(tmp_path / "server")
    server.many([("SET", f"k{n}", "new") for n in range(60)])
    source = RedisSource(url=server.url)
    backup, before = read_all(source), holder.digest()
    server.kill()
    source, to = (source, live.url) if elsewhere else (RedisSource(url=live.url), None)
    with pytest.raises(RestoreRefused, match="holds keys in database 1") as caught:
        prepare(backup, source, to).preflight()
    assert "/0" in caught.value.hint
    with pytest.raises(RestoreRefused, match="holds keys in database 1"):
        write_all(backup, prepare(backup, source, to))
    assert holder.digest() == before


def test_a_restore_finds_those_that_came_after_it_was_prepared(live: ClusterOfOne, holder: RedisServer) -> None:
    holder("FLUSHDB", db=1)
    source = RedisSource(url=live.url)
    backup = read_all(source)
    holder("SET", "k1", "changed")
    target = prepare(backup, source)
    target.preflight()
    holder("SET", "k1", "in 1", db=1)
    before = holder.digest()
    with pytest.raises(RestoreRefused, match="holds keys in database 1"):
        write_all(backup, target)
    assert holder.digest() == before


def test_a_restore_of_database_0_alone_leaves_the_others(live: ClusterOfOne, holder: RedisServer) -> None:
    source, before = RedisSource(url=f"{live.url}/0"), holder.digest()
    backup = read_all(source)
    holder.many([("SET", "k1", "changed"), ("SET", "later", "goes")])
    write_all(backup, prepare(backup, source))
    assert holder.digest() == before
    holder.many([("SET", "k1", "changed")])
    write_all(backup, prepare(backup, RedisSource(url=live.url), mode=RestoreMode.MERGE))
    assert holder.digest() == before
