"""All of Redis there and back: the oracle is Redis's own digest of a whole dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.kit import RedisServer, fill_gallery, no_children, prepare, read_all, write_all


@pytest.fixture(scope="module")
def live(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("live"), program=redis_program)
    fill_gallery(server)
    yield server
    server.kill()


@pytest.fixture
def other(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other", program=redis_program)
    yield server
    server.kill()


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("part_size_bytes", [20_000, 64 * 1024 * 1024])
def test_all_types_in_several_databases_come_back_as_they_were(
    live: RedisServer, other: RedisServer, redis_program: str, consistent: bool, part_size_bytes: int
) -> None:
    settings = {"consistent": consistent, "part_size_bytes": part_size_bytes, "server_program": redis_program}
    source = RedisSource(url=live.url, **settings)  # type: ignore[arg-type]
    backup = read_all(source)
    assert set(backup.specs) == {"db0", "db3", "db9"}
    assert (len(backup.rows["db0"]) > 3) == (part_size_bytes == 20_000)
    other("SET", "old", "x")
    other("SET", "old", "x", db=5)
    write_all(backup, prepare(backup, source, other.url))
    assert other.digest() == live.digest()
    assert other.groups() == live.groups()
    assert no_children()
