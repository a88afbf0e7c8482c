"""The demo's own Redis and PostgreSQL: found, used, and gone when the demo ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from deployments.demo import programs
from deployments.demo.application import Application
from deployments.demo.guarded import ServerFailed, stop_servers
from deployments.demo.oracle import Oracle, different_entries, different_lines
from deployments.demo.programs import NotAtHand, find_postgres, find_redis
from deployments.demo.servers import Servers, running_redis
from deployments.demo.state import State, live_state
from deployments.demo.trading import Places
from deployments.demo.trading.create import create_application
from deployments.demo.trading.redis import Redis
from tests.conformance.children import Child
from tests.e2e.prefect_support import Prefect


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("servers")) as running:
        running.start()
        assert running.left_out == []
        yield running


@contextmanager
def application(servers: Servers, folder: Path) -> Iterator[tuple[Places, State]]:
    """The application's state as it is created."""
    assert servers.cache is not None
    assert servers.books is not None
    places = Places(folder / "state", servers.cache.socket, servers.books.conninfo)
    create_application(places)
    live = live_state(places, servers)
    yield places, live
    live.destroy()
    with psycopg.connect(servers.books.conninfo, dbname="postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE books")


@pytest.fixture
def state(servers: Servers, tmp_path: Path) -> Iterator[tuple[Places, State]]:
    with application(servers, tmp_path) as made:
        yield made


class Seen:
    """State that changes bit by bit, and what the oracle saw of it last."""

    def __init__(self, places: Places, live: State) -> None:
        self.places, self._live = places, live
        self._last = live.freeze()

    def look(self) -> tuple[Oracle, Oracle]:
        """Look again; return what was there before, and what there is now."""
        before, self._last = self._last, self._live.freeze()
        return before, self._last


@pytest.fixture(scope="module")
def seen(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with application(servers, tmp_path_factory.mktemp("seen")) as made:
        yield Seen(*made)


class Holder:
    """A process that holds servers."""

    def __init__(self, home: Path, note: Path) -> None:
        servers = Servers(home)

        def hold() -> None:
            servers.start()
            assert servers.cache is not None
            assert servers.books is not None
            books = conninfo_to_dict(servers.books.conninfo)["host"]
            note.write_text(f"{servers.cache.socket.parent}\n{books}")

        self._child: Child | None = Child(hold, lambda: None)
        self.folders = [Path(line) for line in note.read_text().splitlines()]
        assert len(self.folders) == 2
        assert all(folder.is_dir() for folder in self.folders)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    process = Holder(tmp_path / "servers", tmp_path / "note")
    yield process
    process.kill()
    wait_for_end(tmp_path / "servers")


def wait_for_end(home: Path) -> None:
    """Wait until no server and no guard holds its lock."""
    locks = list(home.glob("*.lock"))
    assert len(locks) == 2
    for lock in locks:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)


def test_servers_end_when_the_demo_is_killed(holder: Holder, tmp_path: Path) -> None:
    holder.kill()
    wait_for_end(tmp_path / "servers")
    assert not any(folder.exists() for folder in holder.folders)


def test_stop_ends_servers_that_run(holder: Holder, tmp_path: Path) -> None:
    assert stop_servers(tmp_path / "servers")
    assert not any(folder.exists() for folder in holder.folders)
    assert not stop_servers(tmp_path / "servers")


def test_stop_ends_servers_whose_guard_is_gone(holder: Holder, tmp_path: Path) -> None:
    for lock in (tmp_path / "servers").glob("*.lock"):
        os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
    assert all(folder.exists() for folder in holder.folders)
    assert stop_servers(tmp_path / "servers")
    assert not any(folder.exists() for folder in holder.folders)


def test_two_demos_do_not_share_a_folder(holder: Holder, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="another demo"), running_redis(tmp_path / "servers", find_redis()):
        pass


def test_a_server_that_does_not_start_is_left_out_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=7.2.4" || { echo "no memory"; exit 1; }\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(programs, "DEBIANS", tmp_path)
    with Servers(tmp_path / "servers") as servers:
        servers.start()
        assert servers.left_out[0] == "cache (redis does not start: no memory)"
        assert servers.cache is None


@pytest.mark.parametrize(
    ("said", "found"), [("Redis server v=6.2.7 sha=0", None), ("nonsense", None), ("Redis server v=7.0.0", "here")]
)
def test_a_redis_has_to_be_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, found: str | None
) -> None:
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if found is None:
        with pytest.raises(NotAtHand):
            find_redis()
    else:
        assert find_redis() == str(program)


def test_the_newest_complete_postgres_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "DEBIANS", tmp_path)
    with pytest.raises(NotAtHand, match="no PostgreSQL with initdb"):
        find_postgres()
    for version, names in ((9, programs.POSTGRES_PROGRAMS), (15, programs.POSTGRES_PROGRAMS), (16, ("postgres",))):
        for name in names:
            program = tmp_path / str(version) / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}.2'\n")
            program.chmod(0o755)
        if version == 9:
            with pytest.raises(NotAtHand, match="of version 9, 13 is needed"):
                find_postgres()
    assert find_postgres() == tmp_path / "15" / "bin"


def test_the_application_keeps_its_sums_right_in_every_server(state: tuple[Places, State]) -> None:
    places, live = state
    before = live.numbers()
    with Application(places) as application:
        application.trade(20)
        gone = application.tell("purge")
        application.trade(5)
        application.tell("pause")
        assert live.broken() == 0
    assert gone["keys"] > 0
    assert {kind for kind, _ in before - live.numbers()} == {"ledger", "cache", "books"}
    assert {kind for kind, _ in live.numbers() - before} == {"ledger", "cache", "books"}


def test_the_invariants_see_a_copy_that_mixes_two_moments(state: tuple[Places, State]) -> None:
    places, live = state
    assert places.cache is not None
    assert places.books is not None
    with Redis(places.cache) as redis:
        redis("HINCRBY", "account", "cash_cents", 1)
        redis("DEL", "order:3999")
    assert live.broken() == 2
    with psycopg.connect(places.books, autocommit=True) as books:
        books.execute("DELETE FROM journal WHERE fill = 9 AND account = 1")
    assert live.broken() == 3


@pytest.mark.parametrize(
    "change",
    [
        ("SET", "quote:ACME", 1), ("HSET", "limits", "client:5", 1), ("DEL", "account"),
        ("PEXPIREAT", "venues", 10**14), ("ZADD", "book:ACME", "inf", 1),
        ("XGROUP", "CREATECONSUMER", "fills", "settlement", "another"),
    ],
)  # fmt: skip
def test_the_oracle_sees_every_change_of_a_key(seen: Seen, change: tuple[str | int, ...]) -> None:
    assert seen.places.cache is not None
    with Redis(seen.places.cache) as redis:
        redis(*change)
    before, after = (look.cache for look in seen.look())
    assert before is not None
    assert after is not None
    assert len(before) > 1000
    name = str(change[2 if change[0] == "XGROUP" else 1])
    assert set(different_entries(before, after)) - {"(all keys)"} == {name}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE fills SET price = price + 0.0001 WHERE id = 7", "DELETE FROM journal WHERE fill = 9",
        "SELECT nextval('fills_id_seq')", "DROP INDEX fills_by_symbol", "ALTER TABLE fills DISABLE TRIGGER entered",
    ],
)  # fmt: skip
def test_the_oracle_sees_every_change_of_the_books(seen: Seen, change: str) -> None:
    assert seen.places.books is not None
    with psycopg.connect(seen.places.books, autocommit=True) as books:
        books.execute(change)  # type: ignore[call-overload]
    before, after = (look.books for look in seen.look())
    assert before is not None
    assert after is not None
    assert different_lines(before, after)


def test_ctrl_c_ends_the_demo_and_its_servers(prefect: Prefect, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    lastgood = str(Path(sys.executable).parent / "lastgood")
    process = subprocess.Popen(
        # in the background of a script the signal is ignored
        ["env", "--default-signal=INT", lastgood, "demo", "--dir", str(demo)],
        env=os.environ | {"PREFECT_API_URL": prefect.server.api_url, "PREFECT_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert any("full backup" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    wait_for_end(demo / "servers")
    assert not stop_servers(demo / "servers")
