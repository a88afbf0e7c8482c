"""Where a server's history does not reach back to the base, or may not be asked for, everything is read."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks.errors import SourceChanged, SourceUnavailable
from blocks.sources.redis import RedisSource
from blocks.sources.redis.connect import Access
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.place import parse_place
from blocks.sources.redis.views.backlog import NO_PORT, History, Position
from blocks.sources.redis.views.tokens import Share, read_token, write_token
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import RedisServer

RIGHTS = "+select +info +scan +type +pexpiretime +mget +get +hscan +hgetall +sscan +smembers +lrange +zscan +zrange"
RIGHTS += " +xinfo +dump +watch +multi +exec +ping"
Start = Callable[..., RedisServer]


@pytest.fixture
def start(redis_program: str, tmp_path: Path) -> Iterator[Start]:
    servers: list[RedisServer] = []

    def started(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"server{len(servers)}", *options, program=redis_program))
        return servers[-1]

    yield started
    for server in servers:
        server.kill()


@pytest.fixture
def live(start: Start) -> RedisServer:
    server = start("--repl-diskless-sync-delay", "5")
    server.many([("SET", f"k{n}", n) for n in range(100)])
    return server


def reached(server: RedisServer) -> Server:
    return Server(parse_place(server.url), Access(None, None, None, None, 10))


def follow(replica: RedisServer, master: RedisServer) -> None:
    """Make a server a replica, and wait until it has what its master has."""
    replica("REPLICAOF", "127.0.0.1", master.port)
    caught_up(replica, master)


def caught_up(replica: RedisServer, master: RedisServer) -> None:
    while _field(replica, "master_link_status") != "up" or _field(replica, "master_repl_offset") < _field(
        master, "master_repl_offset"
    ):
        time.sleep(0.02)


def _field(server: RedisServer, name: str) -> str | int:
    reply = server("INFO", "replication")
    assert isinstance(reply, bytes)
    value = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line).get(name, "")
    return int(value) if value.isdigit() else value


def settled(chain: KeptChain) -> None:
    """What the chain holds is what is there, and the next incremental can go on from it."""
    assert chain.rows() == all_rows(chain.source)


def test_a_server_begins_to_keep_a_history_without_a_fork(live: RedisServer) -> None:
    assert live.info("replication", "repl_backlog_active") == 0
    chain = KeptChain(RedisSource(url=live.url))
    assert live.info("replication", "repl_backlog_active") == 1
    assert live.info("stats", "total_forks") == 0
    assert live.info("replication", "connected_slaves") == 0
    live("SET", "k1", "changed")
    assert chain.incremental()
    assert live.info("stats", "total_forks") == 0


@pytest.mark.parametrize("options", [("--repl-diskless-sync", "no"), ("--repl-diskless-sync-delay", "0")])
def test_a_server_that_synchronises_at_once_forks_for_nothing(start: Start, options: tuple[str, str]) -> None:
    server = start(*options)
    server.many([("SET", f"k{n}", "x" * 10_000) for n in range(1_000)])
    chain = KeptChain(RedisSource(url=server.url))
    while server.info("persistence", "rdb_bgsave_in_progress"):
        time.sleep(0.02)
    assert server.info("stats", "total_forks") == 1
    assert server.info("stats", "total_net_repl_output_bytes") < 10_000
    assert not (server.folder / "dump.rdb").exists()
    server("SET", "k1", "changed")
    assert chain.incremental()
    settled(chain)


def test_a_large_server_is_not_made_to_fork(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.sources.redis.views.backlog._QUICK_FORK_BYTES", 0)
    for options in (("--repl-diskless-sync", "no"), ("--repl-diskless-sync-delay", "0")):
        server = start(*options)
        server("SET", "k", "v")
        assert KeptChain(RedisSource(url=server.url)).token is None
        assert server.info("stats", "total_forks") == 0
    server = start("--repl-diskless-sync-delay", "5")
    server("SET", "k", "v")
    assert KeptChain(RedisSource(url=server.url)).token is not None


def test_a_history_that_is_too_short_is_not_asked_for(start: Start) -> None:
    server = start("--repl-backlog-size", "16kb")
    server.many([("SET", f"k{n}", n) for n in range(100)])
    chain = KeptChain(RedisSource(url=server.url))
    server.many([("SET", f"k{n % 7}", "x" * 1_000) for n in range(200)] + [("DEL", "k50")])
    refused = server.info("stats", "sync_partial_err")
    assert not chain.incremental()
    settled(chain)
    assert server.info("stats", "sync_partial_err") == refused
    server("SET", "k1", "changed")
    assert chain.incremental()
    settled(chain)


def test_where_much_was_written_everything_is_read(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", n) for n in range(5_000)])
    chain = KeptChain(RedisSource(url=live.url))
    live.many([("SET", f"k{n}", "other") for n in range(3_600)])
    assert not chain.incremental()
    settled(chain)
    live.many([("SET", f"k{n}", "again") for n in range(3_400)])
    assert chain.incremental()
    settled(chain)


def test_a_history_longer_than_the_data_is_not_read(start: Start) -> None:
    server = start("--repl-backlog-size", "64mb")
    server.many([("SET", f"k{n}", n) for n in range(100)])
    chain = KeptChain(RedisSource(url=server.url))
    server.many([("SET", "k1", "x" * 100_000)] * 100)
    assert not chain.incremental()
    settled(chain)


def test_a_server_that_was_restarted_is_read_anew(live: RedisServer) -> None:
    chain = KeptChain(RedisSource(url=live.url))
    live.kill()
    live.start()
    live.many([("SET", f"k{n}", -n) for n in range(90)])
    assert not chain.incremental()
    settled(chain)


def test_a_restart_from_a_file_older_than_the_base_is_read_anew(live: RedisServer) -> None:
    KeptChain(RedisSource(url=live.url))  # so that the file has a position
    live("SAVE")
    live.many([("SET", f"k{n}", "after the file") for n in range(50)])
    chain = KeptChain(RedisSource(url=live.url))
    live.kill()
    live.start()
    assert live("GET", "k1") == b"1"
    assert not chain.incremental()
    settled(chain)


def test_a_restart_from_a_file_of_the_very_moment_goes_on(live: RedisServer) -> None:
    chain = KeptChain(RedisSource(url=live.url))
    live("SET", "k1", "changed")
    chain.incremental()
    live("SAVE")
    live.kill()
    live.start()
    live("SET", "k2", "changed after the restart")
    assert chain.incremental()
    settled(chain)


def test_data_put_in_place_of_others_are_read_anew(live: RedisServer, start: Start) -> None:
    other = start("--repl-diskless-sync-delay", "5")
    other.many([("SET", f"k{n}", "of another server") for n in range(80)])
    KeptChain(RedisSource(url=other.url))
    other("SAVE")
    chain = KeptChain(RedisSource(url=live.url))
    live.kill()
    shutil.copy(other.folder / "dump.rdb", live.folder / "dump.rdb")
    live.start()
    assert live("DBSIZE") == 80
    assert not chain.incremental()
    settled(chain)


def test_a_reload_of_the_same_data_goes_on(live: RedisServer) -> None:
    chain = KeptChain(RedisSource(url=live.url))
    live("SET", "k1", "changed")
    live("DEBUG", "RELOAD")
    live("SET", "k2", "changed")
    assert chain.incremental()
    settled(chain)


def test_a_promoted_replica_goes_on_where_its_master_was(live: RedisServer, start: Start) -> None:
    replica = start()
    follow(replica, live)
    chain = KeptChain(RedisSource(url=live.url))
    live("SET", "k1", "changed on the master")
    caught_up(replica, live)
    live.kill()
    replica("REPLICAOF", "NO", "ONE")
    replica("SET", "k2", "changed on the new master")
    chain.source = RedisSource(url=replica.url)
    assert chain.incremental()
    settled(chain)


def test_a_promoted_replica_that_lacks_something_is_read_anew(live: RedisServer, start: Start) -> None:
    replica = start()
    follow(replica, live)
    replica("REPLICAOF", "NO", "ONE")
    live("SET", "k1", "only on the old master")
    chain = KeptChain(RedisSource(url=live.url))
    replica.many([("SET", f"k{n}", "on the new master") for n in range(2, 40)])
    chain.source = RedisSource(url=replica.url)
    assert not chain.incremental()
    settled(chain)


def test_a_replica_is_read_by_its_own_history(live: RedisServer, start: Start) -> None:
    replica = start()
    follow(replica, live)
    chain = KeptChain(RedisSource(url=replica.url))
    live.many([("SET", "k1", "changed"), ("DEL", "k2"), ("SET", "elsewhere", 1)])
    caught_up(replica, live)
    assert chain.incremental()
    settled(chain)
    # and its master goes on from there
    live("SET", "k3", "changed")
    chain.source = RedisSource(url=live.url)
    assert chain.incremental()
    settled(chain)


def test_a_dataset_that_is_replaced_while_it_is_read_is_an_error(live: RedisServer, start: Start) -> None:
    other = start()
    other.many([("SET", f"k{n}", "other") for n in range(100)])
    chain = KeptChain(RedisSource(url=live.url))
    live("SET", "k1", "changed")
    with chain.source.view() as view:
        token = view.token
        assert token is not None
        for part in chain.parts:
            view.read(part.spec, part.bounds, part.known(chain.token))
        follow(live, other)
        with pytest.raises(SourceChanged, match="took another dataset"):
            view.finish()
    assert not chain.incremental()
    settled(chain)


def test_a_user_who_may_not_replicate_reads_everything(live: RedisServer) -> None:
    live("ACL", "SETUSER", "backup", "on", ">secret", "~*", *RIGHTS.split())
    live("ACL", "SETUSER", "backup", "+hpexpiretime" if live.program != "redis-server" else "+ping")
    source = RedisSource(url=live.url, user="backup", password="secret")
    chain = KeptChain(source)
    assert chain.token is None
    assert live.info("replication", "repl_backlog_active") == 0
    assert not chain.incremental()
    KeptChain(RedisSource(url=live.url))  # the server begins to keep a history, as if for a replica
    chain.incremental()
    assert chain.token is not None
    live("SET", "k1", "changed")
    assert not chain.incremental()
    assert chain.rows() == all_rows(source)
    for more, enough in (("+psync", False), ("+replconf", False), ("+command|info", True)):
        live("ACL", "SETUSER", "backup", more)
        live("SET", "k1", more)
        assert chain.incremental() is enough
        assert chain.rows() == all_rows(source)


def test_a_token_is_of_one_history_and_one_choice_of_keys() -> None:
    share = Share("", Position("a" * 40, 77))
    assert write_token([share], ["*"], {}) == "a" * 40 + ":77"
    assert read_token("a" * 40 + ":77", ["*"], {}) == [share]
    assert read_token(write_token([share], ["x*", "y"], {}), ["y", "x*"], {}) == [share]
    masters = [Share("0-100,200-300", Position("b", 1)), Share("101-199,301-16383", Position("c", 2))]
    assert write_token(masters, ["*"], {}) == "b:1@0-100,200-300;c:2@101-199,301-16383"
    assert read_token(write_token(masters, ["x"], {}), ["x"], {}) == masters
    for text in (
        None,
        "",
        "a",
        "a:",
        ":",
        "a:b",
        "a:-1",
        "a:1:b",
        '[1, ["x"]]',
        "a:\u0663",
        "a:1;",
        "a:1;b",
        "a:" + "9" * 30,
    ):
        assert read_token(text, ["*"], {}) == []
    assert read_token(write_token([share], ["x"], {}), ["*"], {}) == []
    assert read_token(write_token([share], ["*"], {}), ["x"], {}) == []
    assert write_token([], ["*"], {}) is None


def test_a_token_is_of_one_choice_of_databases() -> None:
    share = Share("", Position("a" * 40, 77))
    usual, moved = {"db0": 0, "db3": 3}, {"db0": 5}
    assert write_token([share], ["x"], usual) == write_token([share], ["x"], {})
    for patterns in (["*"], ["x"]):
        token = write_token([share], patterns, moved)
        assert read_token(token, patterns, moved) == [share]
        for others in (usual, {"db0": 6}, {"db1": 5}):
            assert read_token(token, patterns, others) == []
            assert read_token(write_token([share], patterns, others), patterns, moved) == []


def test_a_server_asked_for_what_it_does_not_know_is_left_at_once(live: RedisServer) -> None:
    KeptChain(RedisSource(url=live.url))
    server = reached(live)
    history = History(server)
    now = history.position()
    assert now is not None
    for asked in (Position("f" * 40, 0), Position(now.replication_id, now.offset + 1_000)):
        assert not history.continues(asked)
        with pytest.raises(SourceUnavailable, match="does not continue"):
            list(history.between(asked, 10_000))
    server.close()
    while live.info("replication", "connected_slaves"):
        time.sleep(0.02)
    assert live.info("stats", "total_forks") == 0


def test_who_reads_a_history_is_no_replica_that_a_sentinel_would_promote(live: RedisServer) -> None:
    KeptChain(RedisSource(url=live.url))
    server = reached(live)
    history = History(server)
    now = history.position()
    assert now is not None
    live("SET", "k1", "changed")
    stream = history.between(now, now.offset + 20)
    next(stream)
    assert f"port={NO_PORT},state=online" in live("INFO", "replication").decode()
    stream.close()
    server.close()
