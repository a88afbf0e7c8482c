"""Every command that writes is seen in a server's history: an incremental then is what reading everything gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Reply
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import RedisServer
from tests.blocks.sources.redis.write_commands import ABOUT_NO_KEYS, EVERYTHING, fill, samples, writing


@pytest.fixture
def live(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "live", program=redis_program)
    server("SET", "elsewhere", "x", db=3)
    yield server
    server.kill()


def test_a_sample_of_every_command_that_writes_is_seen(live: RedisServer) -> None:
    commands = writing(live)
    fill(live, commands)
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    for command, words in samples(commands):
        before = _look(live, command)
        live(*words)
        # PFDEBUG changes how a key is kept, and not what it is
        assert _look(live, command) != before or command == "pfdebug", f"the sample of {command} does nothing"
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    # all that was touched was read, and little else
    assert 0 < chain.read_rows < 4 * len(commands)


def _look(live: RedisServer, command: str) -> tuple[Reply, Reply]:
    if not command.startswith("x"):
        return live.digest(), None
    return live.digest(), live("XINFO", "STREAM", f"x:{command}", "FULL")


@pytest.mark.parametrize("command", sorted(EVERYTHING))
def test_after_a_command_that_changes_everything_everything_is_read(live: RedisServer, command: str) -> None:
    live.many([("SET", f"k{n}", n) for n in range(50)])
    live.many([("SET", f"k{n}", -n) for n in range(50)], db=3)
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    live(command, *(["0", "3"] if command == "swapdb" else []))
    live("SET", "after", "x")
    assert not chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    live("SET", "after", "y")
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_functions_touch_no_keys(live: RedisServer) -> None:
    assert writing(live) >= ABOUT_NO_KEYS
    live("SET", "k", "v")
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    code = "#!lua name=lib\nredis.register_function('f', function(keys) return redis.call('INCR', keys[1]) end)"
    live("FUNCTION", "LOAD", code)
    live("FUNCTION", "RESTORE", live("FUNCTION", "DUMP"), "REPLACE")
    live("FUNCTION", "DELETE", "lib")
    live("FUNCTION", "FLUSH")
    live("SCRIPT", "LOAD", "return 1")
    live("PUBLISH", "channel", "x")
    assert chain.incremental()
    assert chain.read_rows == 0
    live("FUNCTION", "LOAD", code)
    live("FCALL", "f", 1, "counted")
    live("EVAL", "redis.call('SET', 'by a script', 1); redis.call('DEL', 'k')", 0)
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_what_goes_to_another_server_and_comes_back_is_seen(live: RedisServer, tmp_path: Path) -> None:
    other = RedisServer(tmp_path / "other", program=live.program)
    live.many([("SET", "goes", "x"), ("SET", "goes too", "y"), ("SET", "stays", "z"), ("RPUSH", "l", "a")])
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    try:
        live("MIGRATE", "127.0.0.1", other.port, "goes", 0, 5000)
        live("MIGRATE", "127.0.0.1", other.port, "", 0, 5000, "KEYS", "goes too", "l")
        live("RESTORE", "stays", 0, other("DUMP", "l"), "REPLACE")
        live("RESTORE-ASKING", "new", 0, other("DUMP", "goes"))
    finally:
        other.kill()
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_a_command_in_a_transaction_and_one_that_waited_are_seen(live: RedisServer) -> None:
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    waiting = live.connection()
    waiting.send(b"*3\r\n$5\r\nBLPOP\r\n$5\r\nqueue\r\n$1\r\n0\r\n")
    with_transaction = live.connection()
    for words in (("MULTI",), ("SET", "a", 1), ("SELECT", 3), ("SET", "b", 2), ("EXEC",)):
        with_transaction.call(*words)
    live("RPUSH", "queue", "one", "two")
    assert waiting.replies(1) == [[b"queue", b"one"]]
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    assert {row["key"] for row in chain.rows()} == {b"a", b"b", b"queue", b"elsewhere"}


def test_a_cached_count_of_a_hyperloglog_is_seen(live: RedisServer) -> None:
    live.many([("PFADD", "hll", *map(str, range(5_000)))])
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    live("PFCOUNT", "hll")
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)
