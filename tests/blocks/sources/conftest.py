"""Servers and trees that the sources are tested on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from blocks.sources.postgres.read.view import PostgresView
from tests.blocks.sources.redis.kit import RedisServer
from tests.blocks.sources.redis.newer import newer_redis
from tests.postgres_server import PostgresServer, postgres_server
from tests.postgres_versions import RELEASES, programs


@pytest.fixture(scope="session")
def _running() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture(scope="module")
def server(_running: PostgresServer) -> Iterator[PostgresServer]:
    """One PostgreSQL server for the tests that leave it running; each file of tests finds it empty."""
    yield _running
    _running.empty()


@pytest.fixture(scope="session")
def _running_versions(_logical: PostgresServer) -> Iterator[Callable[[int], PostgresServer]]:
    """Give a server of a version, of the installed one for 0, and start it where there is none yet."""
    running = {0: _logical}
    with ExitStack() as opened:

        def of(version: int) -> PostgresServer:
            if version not in running:
                running[version] = opened.enter_context(postgres_server(programs(version), wal_level="logical"))
            return running[version]

        yield of


@pytest.fixture(scope="module")
def server_of_version(
    _running_versions: Callable[[int], PostgresServer],
) -> Iterator[Callable[[int], PostgresServer]]:
    """Give a server of a version; each file of tests finds it empty."""
    used = dict[int, PostgresServer]()

    def of(version: int) -> PostgresServer:
        used[version] = _running_versions(version)
        return used[version]

    yield of
    for running in used.values():
        running.empty()


@pytest.fixture(params=[0, *sorted(release.version for release in RELEASES)])
def any_server(request: pytest.FixtureRequest, server_of_version: Callable[[int], PostgresServer]) -> PostgresServer:
    """A PostgreSQL server of each version: the one that is installed, and the others."""
    return server_of_version(request.param)


@pytest.fixture(scope="session")
def _logical() -> Iterator[PostgresServer]:
    with postgres_server(wal_level="logical") as running:
        yield running


@pytest.fixture(scope="module")
def logical(_logical: PostgresServer) -> Iterator[PostgresServer]:
    """One PostgreSQL server whose changes replication slots report; each file of tests finds it empty."""
    yield _logical
    _logical.empty()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Collect the tables whose changes a slot reported."""
    names: set[str] = set()
    read = PostgresView._read_changed

    def noted(self: PostgresView, table: Any, *args: Any) -> Any:
        reading = read(self, table, *args)
        if reading is not None and not reading.warnings:
            names.add(table.shape.table)
        return reading

    monkeypatch.setattr(PostgresView, "_read_changed", noted)
    return names


REDIS_VERSIONS = ("7.0", "8.2")


@pytest.fixture(scope="session", params=REDIS_VERSIONS)
def redis_program(request: pytest.FixtureRequest) -> str:
    """Each of the versions of Redis that the tests know; of what is marked `one_redis` each case has one of them."""
    return "redis-server" if request.param == "7.0" else newer_redis()


@pytest.fixture
def live(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """An empty Redis of each version."""
    server = RedisServer(tmp_path / "live", program=redis_program)
    yield server
    server.kill()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree: two files, a folder, a link."""
    folder = tmp_path / "tree"
    (folder / "d").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / "d" / "b").write_text("b")
    os.symlink("a", folder / "l")
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the tree, which nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "b").write_text("untouched")
    return folder
