"""A Redis is the same after a restart and a failover, under each of its addresses; another server is another one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import NotConfirmed, RestoreRefused
from blocks.records import BackupType
from blocks.sources.identity import difference
from blocks.sources.redis import RedisSource
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from tests.blocks.sources.redis.cluster_kit import RedisCluster
from tests.blocks.sources.redis.kit import RedisServer, plan_of


@pytest.fixture
def one(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "one")
    server("SET", "a", 1)
    yield server
    server.kill()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other")
    server("SET", "a", 1)
    yield server
    server.kill()


def test_two_servers_are_two_sources(one: RedisServer, other: RedisServer) -> None:
    before = RedisSource(url=one.url).identity()
    told = difference(before, RedisSource(url=other.url).identity())
    assert told is not None
    assert f"localhost:{other.port}" in told
    for url in (one.url, f"redis://localhost:{one.port}/0", f"unix://{one.socket}"):
        assert difference(before, RedisSource(url=url).identity()) is None, url


def test_a_restart_keeps_the_identity(one: RedisServer) -> None:
    source = RedisSource(url=one.url)
    before = source.identity()
    one.kill()
    assert source.identity() == {}
    one.start()
    assert source.identity() != before
    assert difference(before, source.identity()) is None


def test_who_takes_over_the_history_takes_over_the_identity(one: RedisServer, other: RedisServer) -> None:
    other("REPLICAOF", "127.0.0.1", one.port)
    while b"master_link_status:up" not in other("INFO", "replication"):  # type: ignore[operator]
        time.sleep(0.01)
    before = RedisSource(url=one.url).identity()  # a server has a history that lasts since its first replica
    assert difference(before, RedisSource(url=other.url).identity()) is None
    one.kill()
    other("REPLICAOF", "NO", "ONE")
    assert difference(before, RedisSource(url=other.url).identity()) is None


def test_a_cluster_is_known_by_its_nodes(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path / "cluster")
    try:
        words = RedisSource(url=cluster.url).identity()["server"]
        assert len([word for word in words if word.startswith("node ")]) == len(cluster.masters)
    finally:
        cluster.kill()


def test_a_file_is_known_by_its_place(tmp_path: Path) -> None:
    for name in ("one.rdb", "other.rdb"):
        (tmp_path / name).write_bytes(b"REDIS")
    before, told = (RedisSource(url=str(tmp_path / name)).identity() for name in ("one.rdb", "other.rdb"))
    assert difference(before, told) is not None
    assert RedisSource(url=str(tmp_path / "missing.rdb")).identity() == {}


def test_a_password_that_is_not_there_makes_no_identity(one: RedisServer) -> None:
    assert RedisSource(url=one.url, password_env="LASTGOOD_NOT_SET").identity() == {}


def test_a_plan_that_names_another_server_makes_a_full_and_does_not_overwrite_it(
    one: RedisServer, other: RedisServer, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, RedisSource(url=one.url))
    first = make_backup(plan, BackupType.FULL)
    one.kill()
    one.start()
    one("SET", "a", 1)
    assert make_backup(plan, BackupType.INCREMENTAL).base == first.backup_id
    other("SET", "a", 2)
    copied = plan.model_copy(update={"sources": {"cache": RedisSource(url=other.url)}})
    made = make_backup(copied, BackupType.INCREMENTAL)
    assert made.backup_type is BackupType.FULL
    assert f"localhost:{other.port}" in str(made.promoted_because)
    with pytest.raises(RestoreRefused, match="another Redis"):
        make_restore(plan, RestoreRequest(made.backup_id))
    with pytest.raises(NotConfirmed, match="another Redis"):
        apply_retention(copied)
    assert one("GET", "a") == b"1"
    other("FLUSHALL")
    make_restore(copied, RestoreRequest(first.backup_id))
    assert other("GET", "a") == b"1"
