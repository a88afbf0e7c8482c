"""Keys that a module owns: kept as DUMP gives them, and said so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, prepare, read_all, write_all


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("module") / "counter.so"
    code = Path(__file__).with_name("counter.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(code)], check=True)
    return made


@pytest.fixture
def live(tmp_path: Path, module: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "live", "--loadmodule", str(module))
    server.many(
        [("COUNTER.SET", f"c:{n}", n) for n in range(3)] + [("SET", "plain", "x"), ("PEXPIREAT", "c:1", FAR_MS)]
    )
    yield server
    server.kill()


@pytest.mark.parametrize("consistent", [False, True])
def test_keys_of_a_module_come_back_and_are_marked(
    live: RedisServer, tmp_path: Path, module: Path, consistent: bool
) -> None:
    source = RedisSource(url=live.url, consistent=consistent, server_modules=[str(module)])
    backup = read_all(source)
    assert sorted(set(backup.table().column("type").to_pylist())) == ["module:countr-lg", "string"]
    assert backup.warnings == [
        "db0: 3 keys of type countr-lg belong to a module and are kept as DUMP gives them; "
        "they can be restored only where that module is loaded."
    ]
    other = RedisServer(tmp_path / "other", "--loadmodule", str(module))
    write_all(backup, prepare(backup, source, other.url))
    assert other.digest() == live.digest()
    other.kill()


def test_a_moment_with_keys_of_a_module_needs_a_server_program(live: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="no-such-redis"):
        read_all(RedisSource(url=live.url, consistent=True, server_program="no-such-redis"))
    live("DEL", "c:0", "c:1", "c:2")
    assert read_all(RedisSource(url=live.url, consistent=True, server_program="no-such-redis")).keys() == {b"plain"}


def test_a_consistent_incremental_has_keys_of_a_module_that_came_since(live: RedisServer) -> None:
    live("DEL", "c:0", "c:1", "c:2")
    chain = KeptChain(RedisSource(url=live.url, consistent=True, server_program="no-such-redis"))
    live.many([("COUNTER.SET", "c:7", 7), ("SET", "plain", "y"), ("SET", "new", "x")])
    assert chain.incremental()
    assert {row["key"]: row["type"] for row in chain.rows()} == {
        b"c:7": "module:countr-lg",
        b"new": "string",
        b"plain": "string",
    }
    assert chain.rows() == all_rows(RedisSource(url=live.url))


def test_without_the_module_the_key_is_named(live: RedisServer, tmp_path: Path) -> None:
    source = RedisSource(url=live.url)
    backup = read_all(source)
    other = RedisServer(tmp_path / "other")
    with pytest.raises(RestoreRefused, match=r"key b'c:\d' would be refused"):
        write_all(backup, prepare(backup, source, other.url))
    other.kill()
