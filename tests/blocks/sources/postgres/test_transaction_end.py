"""A server or a process that ends around the commit leaves the old state or the new one, and it is said which."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from blocks.errors import LastgoodError, Partial, SourceUnavailable
from blocks.host.leftovers import owned_name
from blocks.sources.postgres.write.in_place import InPlace
from blocks.sources.postgres.write.scratch import BUILDING
from blocks.sources.target import Target
from tests.blocks.sources.postgres.hand import State, restore, source_of, state_of, write
from tests.postgres_server import PostgresServer

TABLES = (
    "CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) SELECT 'old' FROM generate_series(1, 50)",
    "CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t); INSERT INTO u VALUES (1, 1)",
)
CHANGED = "UPDATE t SET v = 'new'; INSERT INTO t (v) VALUES ('new'); DELETE FROM u"


@pytest.fixture
def own() -> Iterator[tuple[PostgresServer, State]]:
    """A server that keeps what it has committed, also when it is killed."""
    server = PostgresServer(fsync="on", synchronous_commit="on", full_page_writes="on")
    try:
        server.start()
        server.create("ending", *TABLES)
        before = state_of(source_of(server, "ending"))
        # or a server that is killed would skip values of the sequence
        server.run("ending", CHANGED, "CHECKPOINT")
        yield server, before
    finally:
        server.stop()


def prepared(server: PostgresServer, before: State, **more: Any) -> Target:
    target = source_of(server, "ending").target(before.scope(**more))
    target.preflight()
    target.hold()
    with source_of(server, "ending").salvage() as view:
        target.guard(view)
    return target


@pytest.mark.parametrize("replaced", [False, True], ids=["rows", "replaced"])
def test_a_server_that_is_killed_before_the_commit_has_changed_nothing(
    own: tuple[PostgresServer, State], replaced: bool
) -> None:
    server, before = own
    if replaced:
        server.run("ending", "CREATE TABLE made_since (id int)", "CHECKPOINT")
    text = server.dump("ending")
    target = prepared(server, before)
    target.begin()
    for name, rows in before.rows.items():
        target.apply(before.specs[name], rows)
    server.kill()
    with pytest.raises(SourceUnavailable):
        target.commit()
    assert not target.changed
    target.abort()
    target.abort()
    server.start()
    assert server.dump("ending") == text


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("answers", [False, True])
def test_an_answer_that_gets_lost_is_asked_for_again(
    own: tuple[PostgresServer, State], monkeypatch: pytest.MonkeyPatch, committed: bool, answers: bool
) -> None:
    """The session ends in COMMIT; the server knows what became of it, if it is there."""
    server, before = own
    old, execute = server.dump("ending"), psycopg.Connection.execute

    def lossy(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        if query != "COMMIT":
            return execute(self, query, *args, **kwargs)
        if committed:
            execute(self, query)
        if not answers:
            server.kill()
        self.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    target = prepared(server, before)
    expected: Any = None if committed and answers else (SourceUnavailable if answers else Partial)
    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", lossy)
        if expected is None:
            write(target, before)
        else:
            with pytest.raises(expected) as caught:
                write(target, before)
            assert isinstance(caught.value, LastgoodError)
    assert target.changed is (committed or not answers)
    target.abort()
    if not answers:
        server.start()
    assert (server.dump("ending") == old) is not committed


def test_a_commit_is_durable_where_the_server_is_told_to_be_quick() -> None:
    server = PostgresServer(fsync="on", synchronous_commit="off", full_page_writes="on", wal_writer_delay="10000")
    try:
        server.start()
        server.create("ending", *TABLES)
        before, text = state_of(source_of(server, "ending")), server.dump("ending")
        server.run("ending", CHANGED)
        restore(source_of(server, "ending"), before)
        server.kill()
        server.start()
        assert server.dump("ending") == text
    finally:
        server.stop()


def test_a_restore_that_is_given_up_while_it_writes_ends_soon(own: tuple[PostgresServer, State]) -> None:
    """Ctrl-C reaches one thread; the others must not keep the restore from ending."""
    server, before = own
    slow = "SELECT CASE WHEN $1 = ''old'' THEN pg_sleep(600) IS NOT NULL END"
    server.run("ending", f"CREATE FUNCTION slow(text) RETURNS bool LANGUAGE sql IMMUTABLE AS '{slow}'")
    server.run("ending", "CREATE INDEX slowly ON t (slow(v))")
    text = server.dump("ending")
    target = prepared(server, before, names=["public.t"])

    def applying() -> None:
        with pytest.raises(LastgoodError):
            target.apply(before.specs["public.t"], before.rows["public.t"])

    thread = threading.Thread(target=applying)
    thread.start()
    with server.connect("postgres") as watch:
        while not watch.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone():
            assert thread.is_alive()
    target.abort()
    thread.join(60)
    assert not thread.is_alive()
    assert server.dump("ending") == text


@pytest.mark.parametrize("method", ["check_unwritten", "commit", "apply"])
def test_ctrl_c_at_any_step_changes_nothing(
    own: tuple[PostgresServer, State], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    server, before = own
    text = server.dump("ending")

    def interrupted(self: InPlace, *args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(InPlace, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore(source_of(server, "ending"), before)
    assert server.dump("ending") == text
    with server.connect("postgres") as session:
        assert session.execute(
            "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND locktype = 'relation'"
        ).fetchone() == (0,)


def test_a_database_in_the_making_names_its_process_and_its_plan(own: tuple[PostgresServer, State]) -> None:
    server, before = own
    target = source_of(server, "ending").target(before.scope(), server.dsn("missing"))
    target.preflight()
    target.begin()
    target.apply(before.specs["public.t"], before.rows["public.t"])
    query = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname ~ 'building'"
    with server.connect("postgres") as session:
        ((name, comment),) = session.execute(query).fetchall()
    assert str(name).startswith(f"{BUILDING}-")
    assert "Plan: books" in str(comment)
    # another command of this machine leaves it alone, though it looks for what was left
    state_of(source_of(server, "ending"))
    with server.connect("postgres") as session:
        assert session.execute(query).fetchall() == [(name, comment)]
    target.abort()
    with server.connect("postgres") as session:
        assert session.execute(query).fetchall() == []


def test_the_next_look_at_a_server_drops_what_a_killed_run_has_left(own: tuple[PostgresServer, State]) -> None:
    server, _ = own
    parts = owned_name(BUILDING).split("-")
    dead = "-".join([*parts[:2], "4194303", "1", "00000000"])
    server.run("postgres", f'CREATE DATABASE "{dead}"')
    state_of(source_of(server, "ending"))
    with server.connect("postgres") as session:
        assert session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (dead,)).fetchone() is None
