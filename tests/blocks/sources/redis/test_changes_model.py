"""Random writers, several at once, while incrementals are taken: the chain is what reading everything gives."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hiredis
import pytest

from blocks.records import BackupType
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Connection, Word, packed
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, plan_of

Commands = list[tuple[Word, ...]]

_SCRIPT = """
local value = redis.call('INCRBY', KEYS[1], ARGV[1])
if value % 3 == 0 then redis.call('DEL', KEYS[2]) else redis.call('RPUSH', KEYS[2] .. ':made', value) end
"""


@pytest.fixture
def live(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "live", "--repl-backlog-size", "64mb", program=redis_program)
    for db in (0, 3):
        server.many([("SET", f"rests{n}", "x" * 100) for n in range(2_000)], db=db)
        server.many([("HSET", "wide", *[w for n in range(1_500) for w in (f"f{n}", n)])], db=db)
    yield server
    server.kill()


def some_commands(rng: random.Random) -> Commands:
    """Make a few commands that belong together; some fail because a key has another type, as they do in life."""

    def key() -> str:
        return f"k{rng.randrange(150)}"

    chosen: Commands = rng.choice(
        [
            [("SET", key(), rng.random()), ("SET", key(), "goes", "PX", rng.randrange(1, 30))],
            [("DEL", key(), key()), ("UNLINK", key())],
            [("RENAME", key(), key()), ("RENAME", key(), key()), ("RENAMENX", key(), key())],
            [("RPUSH", key(), *range(rng.randrange(1, 9))), ("LPOP", key()), ("LMOVE", key(), key(), "LEFT", "RIGHT")],
            [("HSET", key(), "a", rng.random(), "b", 1), ("HDEL", key(), "a"), ("HINCRBY", key(), "n", 1)],
            [("HSET", "wide", f"f{rng.randrange(1_800)}", "x"), ("HDEL", "wide", f"f{rng.randrange(1_800)}")],
            [("SADD", key(), *range(rng.randrange(1, 9))), ("SPOP", key()), ("SMOVE", key(), key(), 3)],
            [("ZADD", key(), rng.random(), "a"), ("ZPOPMIN", key()), ("ZUNIONSTORE", key(), 2, key(), key())],
            [
                ("MULTI",),
                ("SET", key(), "in"),
                ("DEL", key()),
                ("SELECT", rng.choice([0, 3])),
                ("INCR", key()),
                ("EXEC",),
            ],
            [("EVAL", _SCRIPT, 2, key(), key(), rng.randrange(9))],
            [("MOVE", key(), rng.choice([0, 3])), ("COPY", key(), key(), "DB", rng.choice([0, 3]), "REPLACE")],
            [("PEXPIRE", key(), rng.randrange(1, 50)), ("PEXPIREAT", key(), FAR_MS), ("PERSIST", key())],
            [("XADD", "events", "*", "n", rng.random()), ("XTRIM", "events", "MAXLEN", "~", 200)],
            [("XGROUP", "CREATE", "events", "g", "0", "MKSTREAM"), ("XDEL", "events", "1-1")],
            [("XREADGROUP", "GROUP", "g", f"c{rng.randrange(3)}", "COUNT", 3, "STREAMS", "events", ">")],
            [("XAUTOCLAIM", "events", "g", "c1", 0, "0", "COUNT", 2)],
            [("SORT", key(), "ALPHA", "STORE", key()), ("GETDEL", key()), ("SETRANGE", key(), 3, "abc")],
            [("SELECT", rng.choice([0, 3]))],
        ]
    )
    return chosen


@contextmanager
def writers(server: RedisServer, seed: int, count: int = 3) -> Iterator[None]:
    """Write at random from several connections for as long as the block runs."""
    ended, errors = threading.Event(), list[BaseException]()

    def write(connection: Connection, rng: random.Random) -> None:
        try:
            # enough that no look finds the server at rest; at full speed the server's work would be all there is
            while not ended.wait(0.005):
                commands = [words for _ in range(10) for words in some_commands(rng)]
                replies = connection.ask(b"".join(packed(*words) for words in commands), len(commands))
                wrong = {str(r).split(" ")[0] for r in replies if isinstance(r, hiredis.ReplyError)}
                assert wrong <= {"WRONGTYPE", "ERR", "NOGROUP", "BUSYGROUP"}, wrong
        except BaseException as error:
            errors.append(error)

    connections = [server.connection() for _ in range(count)]
    threads = [
        threading.Thread(target=write, args=(each, random.Random(seed * 10 + n))) for n, each in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for each in connections:
            each.close()
    assert not errors, errors


@pytest.mark.parametrize(
    ("redis_program", "seed"), [("7.0", 0), ("7.0", 1), ("8.2", 2), ("8.2", 3)], indirect=["redis_program"]
)
def test_a_chain_made_while_others_write_is_what_is_there(live: RedisServer, seed: int) -> None:
    source = RedisSource(url=live.url, databases=[0, 3], part_size_bytes=100_000)
    chain = KeptChain(source)
    assert len(chain.parts) > 3
    with writers(live, seed):
        chain = KeptChain(source)
        by_history = [chain.incremental() for _ in range(5)]
    by_history.append(chain.incremental())
    settle(live, chain)
    assert chain.rows() == all_rows(source)
    # on a slow machine more may be written meanwhile than is worth to be read
    assert any(by_history)


def goes_soon(live: RedisServer, db: int) -> bool:
    return any(0 < live("PTTL", key, db=db) < 1_000 for key in live("KEYS", "*", db=db))


def settle(live: RedisServer, chain: KeptChain) -> None:
    """Wait until every key that was to go by itself has gone, and take that."""
    for db in (0, 3):
        # a key that has expired is not listed, but is there until the server has removed it
        while live("DBSIZE", db=db) > len(live("KEYS", "*", db=db)) or goes_soon(live, db):
            time.sleep(0.02)
    assert chain.incremental()


def test_a_chain_of_backups_made_while_others_write_is_restored(live: RedisServer, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RedisSource(url=live.url, databases=[0, 3], part_size_bytes=100_000, allow_empty=True))
    with writers(live, 7):
        make_backup(plan, BackupType.FULL)
        for _ in range(3):
            assert make_backup(plan, BackupType.INCREMENTAL).backup_type is BackupType.INCREMENTAL
    settle(live, KeptChain(plan.sources["cache"]))
    make_backup(plan, BackupType.INCREMENTAL)
    other = RedisServer(tmp_path / "other", program=live.program)
    try:
        make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, to=other.url))
        assert (other.digest(), other.groups()) == (live.digest(), live.groups())
    finally:
        other.kill()
