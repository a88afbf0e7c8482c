"""What others write while a restore goes on is in the backup before it, or live, or stops the restore."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from blocks.errors import RestoreRefused
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import Restored, State, restore, source_of, state_of
from tests.postgres_server import PostgresServer

TABLES = (
    "CREATE TABLE parent (id serial PRIMARY KEY, v text)",
    "CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent, v text)",
    "INSERT INTO parent (v) SELECT 'p' FROM generate_series(1, 20)",
    "INSERT INTO child (parent, v) SELECT g, 'c' FROM generate_series(1, 20) g",
    "SELECT lo_from_bytea(80001, 'large')",
)


@pytest.fixture
def live(server: PostgresServer) -> PostgresServer:
    server.create("held", *TABLES)
    return server


class Writer(threading.Thread):
    """Writes rows in transactions, and remembers those that the server acknowledged."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn, self._ends = dsn, threading.Event()
        self.acknowledged: list[int] = []
        self.wrote = threading.Semaphore(0)

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            while not self._ends.wait(0.02):
                with session.transaction():
                    row = session.execute("INSERT INTO parent (v) VALUES ('w') RETURNING id").fetchone()
                    assert row is not None
                    session.execute("INSERT INTO child (parent, v) VALUES (%s, 'w')", row)
                self.acknowledged.append(row[0])
                self.wrote.release()

    def stop(self) -> None:
        self._ends.set()
        self.join()


@contextmanager
def writer(server: PostgresServer) -> Iterator[Writer]:
    running = Writer(server.dsn("held"))
    running.start()
    try:
        for _ in range(5):
            assert running.wrote.acquire(timeout=30)
        yield running
    finally:
        running.stop()


def ids(server: PostgresServer) -> set[int]:
    with server.connect("held") as session:
        return {int(str(n)) for (n,) in session.execute("SELECT id FROM parent WHERE v = 'w'")}


def emergency_ids(restored: Restored) -> set[int]:
    rows = restored.emergency.rows["public.parent"].to_pylist()
    return {row["id"] for row in rows if row["v"] == "w"}


@pytest.mark.parametrize("other_definitions", [False, True], ids=["rows", "replaced"])
def test_no_acknowledged_row_falls_between_the_backup_before_and_the_restore(
    live: PostgresServer, other_definitions: bool
) -> None:
    before = state_of(source_of(live, "held"))
    if other_definitions:
        live.run("held", "CREATE TABLE made_since (id int)")
    with writer(live) as running:
        restored = restore(source_of(live, "held"), before)
        if not other_definitions:  # a table that was recreated is another one, and the writer's next row an error
            assert running.wrote.acquire(timeout=30)
    acknowledged = set(running.acknowledged)
    assert len(acknowledged) >= 5
    missing = acknowledged - emergency_ids(restored) - ids(live)
    assert missing == set()


def test_a_reader_and_pg_dump_go_on_while_tables_are_held(live: PostgresServer) -> None:
    before = state_of(source_of(live, "held"))

    def read() -> None:
        with live.connect("held", options="-c lock_timeout=100") as session:
            assert session.execute("SELECT count(*) FROM child").fetchone() == (20,)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.execute("INSERT INTO parent (v) VALUES ('x')")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.execute("SELECT nextval('parent_id_seq')")
            assert session.execute("SELECT lo_get(80001)").fetchone() == (b"large",)
        assert live.dump("held")

    restore(source_of(live, "held"), before, meanwhile=read)


def test_others_can_write_to_tables_that_a_restore_leaves_alone(live: PostgresServer) -> None:
    live.run("held", "CREATE TABLE beside (id serial)")
    before = state_of(source_of(live, "held"))
    put = "SET lock_timeout = 100; INSERT INTO beside DEFAULT VALUES"
    restore(source_of(live, "held"), before, ["public.child"], meanwhile=lambda: live.run("held", put))
    with live.connect("held") as session:
        assert session.execute("SELECT count(*) FROM beside").fetchone() == (1,)


def test_who_holds_a_table_is_named_and_nothing_is_changed(live: PostgresServer) -> None:
    before = state_of(source_of(live, "held"))
    with live.connect("held", application_name="slow job") as session, session.transaction():
        session.execute("INSERT INTO child (parent, v) VALUES (1, 'slow')")
        with pytest.raises(RestoreRefused, match="slow job"):
            restore(source_of(live, "held", lock_timeout_seconds=1), before)
    with live.connect("held") as session:
        assert session.execute("SELECT count(*) FROM child").fetchone() == (21,)


def test_a_transaction_that_needs_a_held_table_is_not_ended_for_it(live: PostgresServer) -> None:
    """Both would wait for each other: the restore lets go, and the other one goes on."""
    before = state_of(source_of(live, "held"))
    holds, done = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def other() -> None:
        try:
            with live.connect("held") as session, session.transaction():
                session.execute("INSERT INTO parent (v) VALUES ('w')")
                holds.set()
                with live.connect("postgres") as watch:
                    query = "SELECT 1 FROM pg_locks WHERE NOT granted"
                    while not watch.execute(query).fetchone():
                        pass
                session.execute("INSERT INTO child (parent, v) VALUES (1, 'w')")
        except BaseException as exc:
            failed.append(exc)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert holds.wait(30)
    restored = restore(source_of(live, "held", lock_timeout_seconds=20), before)
    thread.join()
    assert failed == []
    assert len(emergency_ids(restored)) == 1


def test_a_table_that_others_make_meanwhile_stops_a_restore_that_would_drop_it(live: PostgresServer) -> None:
    before = state_of(source_of(live, "held"))
    live.run("held", "CREATE TABLE made_since (id int)")
    made = "CREATE TABLE overnight (id int); INSERT INTO overnight VALUES (1)"
    with pytest.raises(RestoreRefused, match="overnight"):
        restore(source_of(live, "held"), before, meanwhile=lambda: live.run("held", made))
    with live.connect("held") as session:
        assert session.execute("SELECT id FROM overnight").fetchone() == (1,)
        assert session.execute("SELECT count(*) FROM made_since").fetchone() == (0,)


def test_a_function_that_others_change_meanwhile_stops_a_restore_that_would_drop_it(live: PostgresServer) -> None:
    before = state_of(source_of(live, "held"))
    live.run("held", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    changed = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'"
    with pytest.raises(RestoreRefused, match=r"function public\.f"):
        restore(source_of(live, "held"), before, meanwhile=lambda: live.run("held", changed))


@pytest.mark.parametrize("written", ["SELECT lo_put(80001, 0, 'newer')", "SELECT lo_create(80002)"])
def test_a_large_object_that_is_written_meanwhile_stops_the_restore(live: PostgresServer, written: str) -> None:
    before = state_of(source_of(live, "held"))
    restore(source_of(live, "held"), before)
    with pytest.raises(RestoreRefused, match="large object"):
        restore(source_of(live, "held"), before, meanwhile=lambda: live.run("held", written))
    assert state_of(source_of(live, "held")).rows["public.parent"].num_rows == 20


def test_a_role_that_cannot_lock_large_objects_sees_that_they_are_written(live: PostgresServer) -> None:
    live.run("postgres", "DROP ROLE IF EXISTS owner", "CREATE ROLE owner LOGIN")
    live.run("postgres", "GRANT pg_read_all_data TO owner")
    live.run("held", "DROP TABLE child, parent; ALTER LARGE OBJECT 80001 OWNER TO owner")
    source = source_of(live, "held", dsn={"user": "owner"})
    try:
        before = state_of(source)
        restore(source, before, mode=RestoreMode.MERGE)
        put = "SELECT lo_put(80001, 0, 'newer')"
        with pytest.raises(RestoreRefused, match="large objects"):
            restore(source, before, mode=RestoreMode.MERGE, meanwhile=lambda: live.run("held", put))
    finally:
        live.run("held", "DROP OWNED BY owner")
        live.run("postgres", "REVOKE pg_read_all_data FROM owner", "DROP ROLE owner")


def test_a_view_of_another_database_is_no_backup_of_what_is_overwritten(live: PostgresServer) -> None:
    live.create("elsewhere", *TABLES)
    before: State = state_of(source_of(live, "held"))
    target = source_of(live, "held").target(before.scope())
    target.preflight()
    target.hold()
    with source_of(live, "elsewhere").salvage() as view, pytest.raises(RestoreRefused, match="held at"):
        target.guard(view)
    target.abort()
    target.abort()
