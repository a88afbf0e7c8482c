"""Incrementals of a cluster by the histories of its masters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.records import BackupType
from blocks.sources.redis import RedisSource
from blocks.sources.redis.read.keys import slot_of
from flows.backup import make_backup
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.cluster_kit import RedisCluster, in_slot
from tests.blocks.sources.redis.kit import changes, plan_of


@pytest.fixture
def live(redis_program: str, tmp_path: Path) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path / "live", program=redis_program, replicas=1)
    cluster.fill_gallery()
    cluster.many([("SET", f"k{n}", n) for n in range(300)])
    yield cluster
    cluster.kill()


def test_only_what_was_written_on_each_master_is_read(live: RedisCluster, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    full = make_backup(plan, BackupType.FULL)
    assert (full.sources[0].token or "").count("@") == 3
    chain = KeptChain(RedisSource(url=live.url))
    for n in range(0, 300, 30):
        live("SET", f"k{n}", "changed")
        live("DEL", f"k{n + 1}")
    assert chain.incremental()
    assert chain.read_rows == 10
    assert chain.rows() == all_rows(chain.source)
    assert changes(make_backup(plan, BackupType.INCREMENTAL)) == (10, 10)


def test_slots_that_moved_are_read_anew(live: RedisCluster) -> None:
    chain = KeptChain(RedisSource(url=live.url))
    live.move(slot_of(b"k0"), live.other(live.owner("k0")))
    live("SET", "k0", "changed")
    assert not chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    live("SET", "k0", "again")
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_slots_that_moved_and_came_back_are_right(live: RedisCluster) -> None:
    names = in_slot(slot_of(b"k0"), 5, "moved")
    live.many([("SET", name, 0) for name in names])
    chain = KeptChain(RedisSource(url=live.url))
    home = live.owner("k0")
    live.move(slot_of(b"k0"), live.other(home))
    live.many([("SET", names[0], "changed there"), ("DEL", names[1]), ("RENAME", names[2], names[3])])
    live.move(slot_of(b"k0"), home)
    live("DEL", names[4])
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_slots_that_are_being_moved_leave_no_token(live: RedisCluster) -> None:
    chain = KeptChain(RedisSource(url=live.url))
    home = live.owner("k0")
    away = live.other(home)
    live.open(slot_of(b"k0"), home, away)
    assert not chain.incremental()
    assert chain.token is None
    for server in (home, away):
        server("CLUSTER", "SETSLOT", slot_of(b"k0"), "STABLE")
    live("SET", "k1", "changed")
    assert not chain.incremental()
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_a_replica_that_takes_over_goes_on(live: RedisCluster) -> None:
    chain = KeptChain(RedisSource(url=live.url))
    live.many([("SET", f"k{n}", "before") for n in range(0, 300, 10)])
    assert live.masters[0]("WAIT", 1, 10_000) == 1
    live.masters[0].kill()
    live.take_over(live.replicas[0])
    live.many([("SET", f"k{n}", "after") for n in range(5, 300, 10)])
    assert chain.incremental()
    # of groups of streams a replica of Redis 7.0 has not quite what its master had
    settled, there = (
        [row for row in rows if row["type"] != "stream"] for rows in (chain.rows(), all_rows(chain.source))
    )
    assert settled == there
