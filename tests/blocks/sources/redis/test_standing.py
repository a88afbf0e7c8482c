"""Replicas, stale ones above all, and Sentinels of which some know better than others: what is read is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import SourceChanged, SourceUnavailable
from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.kit import RedisServer, free_port, prepare, read_all, write_all

Start = Callable[..., RedisServer]


@pytest.fixture
def start(redis_program: str, tmp_path: Path) -> Iterator[Start]:
    """Starts servers."""
    servers: list[RedisServer] = []

    def started(*options: str, **more: object) -> RedisServer:
        folder = tmp_path / str(len(servers))
        servers.append(RedisServer(folder, *options, program=redis_program, **more))  # type: ignore[arg-type]
        return servers[-1]

    yield started
    for server in servers:
        server.kill()


def follow(replica: RedisServer, master: RedisServer) -> None:
    """Let a server become a replica, and wait until it has what its master has."""
    replica("REPLICAOF", "127.0.0.1", master.port)
    while b"master_link_status:up" not in replica("INFO", "replication"):  # type: ignore[operator]
        pass


@pytest.fixture
def pair(start: Start) -> tuple[RedisServer, RedisServer]:
    """A master and its replica."""
    master, replica = start("--repl-timeout", "5"), start("--repl-timeout", "5")
    master("SET", "a", "1")
    follow(replica, master)
    return master, replica


@pytest.mark.parametrize("consistent", [False, True])
def test_a_replica_that_follows_is_read_without_a_word(pair: tuple[RedisServer, RedisServer], consistent: bool) -> None:
    source = RedisSource(url=pair[1].url, consistent=consistent)
    with source.view() as view:
        assert not view.warnings
        assert datetime.now(UTC) - view.taken_at < timedelta(seconds=20)
    assert read_all(source).keys() == {b"a"}


def test_a_replica_without_a_link_is_as_old_as_that(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    source = RedisSource(url=replica.url)
    master.kill()
    while b"master_link_status:up" in replica("INFO", "replication"):  # type: ignore[operator]
        pass
    while replica.info("replication", "master_link_down_since_seconds") < 1:
        pass
    with source.view() as view:
        [said] = view.warnings
        assert f"is a replica of 127.0.0.1:{master.port} and has no link to it for" in said
        assert datetime.now(UTC) - view.taken_at >= timedelta(seconds=1)
    assert read_all(source).keys() == {b"a"}
    with pytest.raises(SourceUnavailable, match="NOMASTERLINK") as caught:
        read_all(source.model_copy(update={"consistent": True}))
    assert "back up the master" in caught.value.hint


@pytest.mark.parametrize("consistent", [False, True])
def test_a_replica_that_never_got_its_data_is_no_source(start: Start, consistent: bool) -> None:
    replica, dead = start(), free_port()
    replica("REPLICAOF", "127.0.0.1", dead)
    with pytest.raises(SourceUnavailable, match=f"replica of 127.0.0.1:{dead} that has not received its data"):
        read_all(RedisSource(url=replica.url, consistent=consistent, databases=[0]))


def test_a_replica_that_has_data_of_before_it_was_started_says_so(start: Start) -> None:
    replica, dead = start(), free_port()
    replica("SET", "a", "1")
    replica("REPLICAOF", "127.0.0.1", dead)
    source = RedisSource(url=replica.url)
    with source.view() as view:
        assert ["has no link to it" in said for said in view.warnings] == [True]
    assert read_all(source).keys() == {b"a"}


def test_a_replica_that_takes_other_data_while_it_is_read_fails_the_backup(
    pair: tuple[RedisServer, RedisServer], start: Start
) -> None:
    _, replica = pair
    other = start()
    other("SET", "b", "2")
    with RedisSource(url=replica.url, track_changes=False).view() as view:
        [spec] = view.collections()
        assert view.partition(spec)
        follow(replica, other)
        with pytest.raises(SourceChanged, match="took another dataset"):
            view.finish()


def test_a_replica_that_is_promoted_while_it_is_read_keeps_its_data(pair: tuple[RedisServer, RedisServer]) -> None:
    _, replica = pair
    with RedisSource(url=replica.url).view() as view:
        [spec] = view.collections()
        [bounds] = view.partition(spec)
        replica("REPLICAOF", "NO", "ONE")
        assert view.read(spec, bounds, None).rows.num_rows == 1  # type: ignore[union-attr]
        view.finish()


def sentinel(start: Start, folder: Path, of: RedisServer, epoch: int = 0) -> str:
    """Start a Sentinel that takes a server for the master; return its address."""
    folder.mkdir()
    port, config = free_port(), folder / "sentinel.conf"
    lines = [f"port {port}", f"dir {folder}", "logfile log", f"sentinel monitor shop 127.0.0.1 {of.port} 9"]
    config.write_text("\n".join([*lines, f"sentinel config-epoch shop {epoch}", ""]))
    start(sentinel=config, port=port)
    return f"127.0.0.1:{port}"


def test_a_sentinel_that_leads_to_a_replica_is_passed_over(
    pair: tuple[RedisServer, RedisServer], start: Start, tmp_path: Path
) -> None:
    master, replica = pair
    stale, right = sentinel(start, tmp_path / "stale", replica), sentinel(start, tmp_path / "right", master)
    source = RedisSource(url=f"redis+sentinel://{stale},{right}/shop/0")
    master("SET", "b", "2")
    backup = read_all(source)
    assert backup.keys() == {b"a", b"b"}
    master("SET", "c", "3")
    write_all(backup, prepare(backup, source))
    assert master("EXISTS", "c") == 0
    with pytest.raises(SourceUnavailable, match="a Sentinel calls it the master, but it is a replica"):
        read_all(RedisSource(url=f"redis+sentinel://{stale}/shop/0"))


def test_of_two_masters_the_one_of_the_newer_failover_is_right(start: Start, tmp_path: Path) -> None:
    old, new = start(), start()
    old("SET", "old", "1")
    new("SET", "new", "1")
    first, second = sentinel(start, tmp_path / "one", old, 3), sentinel(start, tmp_path / "two", new, 7)
    for hosts in (f"{first},{second}", f"{second},{first}"):
        assert read_all(RedisSource(url=f"redis+sentinel://{hosts}/shop/0")).keys() == {b"new"}
    new.kill()
    with pytest.raises(SourceUnavailable, match="no Sentinel leads to a master"):
        read_all(RedisSource(url=f"redis+sentinel://{first},{second}/shop/0"))
