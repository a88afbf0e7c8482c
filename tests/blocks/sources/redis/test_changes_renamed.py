"""Servers that call commands otherwise (`rename-command`): what a command is counts, not what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.clients import writers
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Word
from blocks.sources.redis.place import parse_place
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import RedisServer

_CODE = "#!lua name=lib\nredis.register_function('f', function(keys) return redis.call('INCR', 'by f') end)"

Renamed = Callable[..., RedisServer]


@pytest.fixture
def renamed(redis_program: str, tmp_path: Path) -> Iterator[Renamed]:
    """Starts a server that calls commands otherwise."""
    servers = []

    def start(*names: tuple[str, str]) -> RedisServer:
        words = [word for one, other in names for word in ("--rename-command", one, other)]
        servers.append(server := RedisServer(tmp_path / f"live{len(servers)}", *words, program=redis_program))
        for number in (0, 3):
            server.many([("SETRANGE", f"k{n}", 0, n) for n in range(50)], db=number)
        server.many([("HSET", "h", "f", 1), ("RPUSH", "l", 2, 1), ("XADD", "x", "1-1", "a", "b")])
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([("MOVE", "XMOVE")], ("XMOVE", "h", 3)),
        ([("COPY", "XCOPY")], ("XCOPY", "h", "new", "DB", 3)),
        ([("COPY", "XCOPY")], ("xcopy", "h", "k7", "DB", 3, "REPLACE")),
        ([("MOVE", "XMOVE"), ("COPY", "MOVE")], ("MOVE", "h", "new", "DB", 3)),
        ([("GET", "XGET"), ("MOVE", "GET")], ("GET", "h", 3)),
        ([("FUNCTION", "F"), ("APPEND", "FUNCTION")], ("FUNCTION", "k1", "x")),
        ([("SCRIPT", "S"), ("MOVE", "SCRIPT")], ("SCRIPT", "h", 3)),
        ([("SORT", "XSORT")], ("XSORT", "l", "STORE", "sorted")),
        ([("XGROUP", "XGRP")], ("XGRP", "CREATE", "x", "grp", 0)),
        ([("FLUSHALL", "DROP")], ("DROP",)),
        ([("SWAPDB", "TURN")], ("TURN", 0, 3)),
        ([("SWAPDB", "X"), ("FLUSHDB", "SWAPDB")], ("SWAPDB",)),
    ],
)
def test_a_command_under_another_name_is_seen(
    renamed: Renamed, names: list[tuple[str, str]], words: tuple[Word, ...]
) -> None:
    live = renamed(*names)
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    before = chain.rows()
    live(*words)
    chain.incremental()
    assert chain.rows() == all_rows(chain.source) != before


def test_of_a_renamed_command_only_its_keys_are_read(renamed: Renamed) -> None:
    live = renamed(("COPY", "XCOPY"), ("XGROUP", "XGRP"), ("APPEND", "ADD"), ("FUNCTION", "F"))
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    live("XCOPY", "h", "new", "DB", 3)
    live("XGRP", "CREATE", "x", "grp", 0)
    live("ADD", "k1", "x")
    live("F", "LOAD", _CODE)
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    assert 0 < chain.read_rows < 10


def test_what_scripts_under_another_name_did_is_seen(renamed: Renamed) -> None:
    live = renamed(("EVAL", "RUN"), ("FCALL", "CALL"), ("FUNCTION", "F"))
    live("F", "LOAD", _CODE)
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    live("CALL", "f", 1, "counted")
    live("RUN", "redis.call('SET', 'by a script', 1); redis.call('DEL', 'k1')", 0)
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_where_a_server_does_not_say_what_commands_are_all_keys_are_read(renamed: Renamed) -> None:
    live = renamed(("COMMAND", ""))
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    live("COPY", "h", "new", "DB", 3)
    assert not chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_what_the_server_writes_itself_under_a_name_that_clients_do_not_know_reads_all_keys(renamed: Renamed) -> None:
    live = renamed(("SET", "PUT"))
    chain = KeptChain(RedisSource(url=live.url, databases=[0, 3]))
    live("SETEX", "k1", 100_000, "x")  # it goes to replicas as SET
    chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_clients_that_write_under_another_name_are_named(renamed: Renamed) -> None:
    live = renamed(("APPEND", "ADD"), ("XGROUP", "XGRP"))
    one, other, reader = live.connection(), live.connection(), live.connection()
    one.call("ADD", "k1", "x")
    other.call("XGRP", "CREATE", "x", "grp", 0)
    reader.call("GET", "k1")
    source = RedisSource(url=live.url)
    with source._server(parse_place(source.url)) as server:
        assert isinstance(server, Server)
        said = writers(server)
    assert said.count("127.0.0.1:") == 3  # the last of what filled it is an XADD
    assert "APPEND" in said
    assert "XGROUP" in said
