"""What a replication slot cannot report is looked for in all rows, with a warning; nothing is ever missed."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from blocks.errors import SourceUnavailable
from blocks.records import BackupMetadata, BackupType
from blocks.rows.index import PartLookup
from blocks.sources.postgres import PostgresSource
from blocks.sources.postgres.cdc import changed_rows, open_capture, slot_capture
from blocks.sources.postgres.cdc.slot import Slot
from blocks.sources.postgres.read import readers
from flows.pipeline.attempt import BackupAttempt, BackupPart
from flows.pipeline.messages import Stored
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books, changes
from tests.blocks.sources.postgres.test_slot import SLOT, TABLES, drop, follow, position, prove
from tests.postgres_server import PostgresServer, postgres_server

FULL, DIFFERENTIAL = BackupType.FULL, BackupType.DIFFERENTIAL


@pytest.fixture
def books(logical: PostgresServer, tmp_path: Path) -> Iterator[Books]:
    logical.create("edges", TABLES)
    yield (made := Books(logical, tmp_path, "edges", part_size_bytes=1500, slot=SLOT, lock_timeout_seconds=2))
    drop(made)


def warned(made: BackupMetadata) -> str:
    return " ".join(made.sources[0].warnings)


def write(books: Books, n: int = 1) -> None:
    books.run(
        f"UPDATE orders SET v = 'w{n}' WHERE id = {n}; DELETE FROM orders WHERE id = {100 + n}",
        f"INSERT INTO orders VALUES ({1000 + n}, 'new')",
    )


def slots(books: Books) -> list[str]:
    with books.server.connect("postgres") as session:
        return [str(name) for (name,) in session.execute("SELECT slot_name FROM pg_replication_slots")]


def confirmed(books: Books) -> int:
    query = f"SELECT (confirmed_flush_lsn - '0/0')::int8 FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
    with books.server.connect("postgres") as session:
        row = session.execute(query.encode()).fetchone()
        assert row
        return int(str(row[0]))


def test_a_backup_makes_the_slot_and_moves_it(books: Books, told: set[str]) -> None:
    first = books.back_up(FULL)
    assert slots(books) == [SLOT]
    assert position(first) is None
    assert first.sources[0].warnings == ()
    write(books)
    second = books.back_up()
    assert told == set()
    assert position(second) == confirmed(books)
    write(books, 2)
    third = prove(books)
    assert told == {"orders", "quotes", "low", "high"}
    assert changes(third) == {"orders": (2, 1)}
    assert int(str(position(third))) > int(str(position(second)))
    assert "Replication slots" not in warned(third)


def test_who_only_looks_makes_no_slot(books: Books) -> None:
    plain = Books(books.server, books.folder / "plain", "edges")
    plain.back_up(FULL)
    looking = plain.plan.model_copy(update={"sources": books.plan.sources})
    make_verification(looking, "latest")
    with books.source.view() as view:
        list(view.collections())
    assert slots(books) == []


def test_the_slot_moves_with_every_backup_that_can_be_a_base(books: Books, told: set[str]) -> None:
    follow(books)
    for n, kind in enumerate((FULL, DIFFERENTIAL), 3):
        before = confirmed(books)
        write(books, n)
        made = books.back_up(kind)
        assert position(made) == confirmed(books) > before
    write(books, 2)
    prove(books)
    assert "orders" in told


def test_an_emergency_backup_in_between_changes_nothing(books: Books, told: set[str]) -> None:
    follow(books)
    write(books)
    before = confirmed(books)
    books.back_up(BackupType.EMERGENCY)
    assert confirmed(books) == before
    assert changes(prove(books)) == {"orders": (2, 1)}
    assert "orders" in told


def test_a_slot_that_was_not_moved_tells_more_than_needed(
    books: Books, told: set[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follow(books)
    with monkeypatch.context() as patch:

        def fails(self: Slot, session: object, position: int) -> None:
            raise SourceUnavailable("cannot advance")

        patch.setattr(Slot, "advance", fails)
        write(books)
        assert changes(books.back_up()) == {"orders": (2, 1)}
    assert "source books: cannot advance" in caplog.text
    write(books, 2)
    # the row that was updated before is reported again, and stored again; what was inserted and deleted is compared
    assert changes(prove(books)) == {"orders": (3, 1)}
    assert "orders" in told


@pytest.mark.parametrize("size", [1, 5000])
def test_a_row_that_is_told_in_two_spellings_is_read_once(
    logical: PostgresServer, tmp_path: Path, told: set[str], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    logical.create("spelt", "CREATE TABLE n (k numeric PRIMARY KEY, v text)")
    logical.run("spelt", "INSERT INTO n SELECT g, 'v' FROM generate_series(1, 40) g")
    books = Books(logical, tmp_path, "spelt", slot=SLOT)
    monkeypatch.setattr(changed_rows, "SLICE_KEYS", size)
    try:
        books.back_up(FULL)
        books.run("UPDATE n SET v = 'f' WHERE k = 1")
        books.back_up()
        books.run("INSERT INTO n VALUES (50.0, 'i'); UPDATE n SET v = 'x' WHERE k = 5")
        # meanwhile the server does not report what a key was before
        books.run("ALTER TABLE n REPLICA IDENTITY NOTHING")
        books.run("UPDATE n SET k = 50.00 WHERE k = 50; UPDATE n SET k = 5.00 WHERE k = 5")
        books.run("ALTER TABLE n REPLICA IDENTITY DEFAULT")
        with monkeypatch.context() as patch:

            def fails(self: Slot, session: object, position: int) -> None:
                raise SourceUnavailable("cannot advance")

            patch.setattr(Slot, "advance", fails)
            books.back_up()
        books.run("UPDATE n SET v = 'after' WHERE k IN (5, 50)")
        prove(books)
        assert "n" in told
        books.assert_restores()
    finally:
        drop(books)


def test_a_cancelled_query_does_not_cost_the_slot(
    books: Books, told: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(books)
    answer = readers.Reader.answer

    def cancelled(self: readers.Reader, query: str) -> Any:
        if "peek_changes" in query:
            self.run("SET statement_timeout = 1")
            query = query.replace("WHERE data", "WHERE pg_sleep(1) IS NOT NULL AND data")
        return answer(self, query)

    write(books)
    before = confirmed(books)
    with monkeypatch.context() as patch:
        patch.setattr(readers.Reader, "answer", cancelled)
        made = books.back_up()
    assert "canceling statement" in warned(made)
    assert "recreated" not in warned(made)
    assert confirmed(books) == before
    write(books, 2)
    prove(books)


def test_transactions_that_end_after_the_backup_are_found(books: Books, told: set[str]) -> None:
    follow(books)
    with books.server.connect("edges") as long, books.server.connect("edges") as nested:
        long.execute("BEGIN; UPDATE orders SET v = 'long' WHERE id = 50; DELETE FROM orders WHERE id = 51")
        nested.execute("BEGIN; SAVEPOINT a; UPDATE orders SET id = 2000 WHERE id = 52")
        write(books)
        assert changes(prove(books)) == {"orders": (2, 1)}
        write(books, 2)
        long.execute("COMMIT")
        prove(books)
        nested.execute("RELEASE a; COMMIT")
        assert changes(prove(books)) == {"orders": (1, 1)}
    assert "orders" in told
    books.assert_restores()


@contextmanager
def hanging_commit(books: Books, statement: str) -> Iterator[None]:
    """Hold a transaction back whose commit record is written: it waits for a standby that there is not."""

    def commit() -> None:
        with books.server.connect("edges", options="-c synchronous_commit=on") as session:
            session.execute(statement.encode())

    books.server.run("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    thread = threading.Thread(target=commit)
    try:
        with books.server.connect("postgres") as session:
            shown = ""
            while shown != "nobody":
                with books.server.connect("postgres") as fresh:
                    shown = str((fresh.execute("SHOW synchronous_standby_names").fetchone() or ("",))[0])
            thread.start()
            while session.execute(waits).fetchone() == (0,):
                session.execute("SELECT pg_sleep(0.02)")
        yield
    finally:
        books.server.run("postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        thread.join()


def test_a_commit_that_is_logged_but_not_visible_is_found_later(books: Books, told: set[str]) -> None:
    follow(books)
    with hanging_commit(books, "UPDATE orders SET v = 'hung' WHERE id = 50; DELETE FROM orders WHERE id = 51"):
        write(books)
        assert changes(prove(books)) == {"orders": (2, 1)}
        write(books, 2)
        assert changes(prove(books)) == {"orders": (2, 1)}
    assert changes(prove(books)) == {"orders": (1, 1)}
    assert "orders" in told


def test_a_slot_is_not_made_while_a_logged_commit_is_not_visible(books: Books) -> None:
    with hanging_commit(books, "UPDATE orders SET v = 'hung' WHERE id = 50"):
        made = books.back_up(FULL)
        assert slots(books) == []
    assert "The next incremental will look for changes in all rows of edges at 127.0.0.1" in warned(made)
    write(books)
    prove(books)
    assert slots(books) == [SLOT]


def test_a_slot_waits_for_transactions_but_not_for_ever(books: Books) -> None:
    with books.server.connect("edges") as session:
        session.execute("BEGIN; UPDATE orders SET v = 'open' WHERE id = 50")
        made = books.back_up(FULL)
        assert "cannot make replication slot lastgood_books" in warned(made)
        assert slots(books) == []
        session.execute("COMMIT")
    assert warned(prove(books)) == ""


def test_a_slot_that_was_made_anew_is_not_trusted(books: Books, told: set[str]) -> None:
    follow(books)
    write(books)
    drop(books)
    books.run(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')")
    write(books, 2)
    assert changes(prove(books)) == {"orders": (4, 2)}
    assert told == set()
    write(books, 3)
    prove(books)
    assert "orders" in told


def test_a_slot_that_was_dropped_is_made_again(books: Books, told: set[str]) -> None:
    follow(books)
    write(books)
    drop(books)
    made = prove(books)
    assert (changes(made), position(made), slots(books)) == ({"orders": (2, 1)}, None, [SLOT])
    assert told == set()


def test_a_slot_that_was_moved_by_others_is_not_trusted(books: Books, told: set[str]) -> None:
    follow(books)
    write(books)
    books.run("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'x', 'flushes')")
    books.run(f"SELECT pg_logical_slot_get_changes('{SLOT}', NULL, NULL)")
    assert changes(prove(books)) == {"orders": (2, 1)}
    assert told == set()


def test_a_slot_that_is_too_far_behind_is_made_anew(
    books: Books, told: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(books)
    before = confirmed(books)
    with monkeypatch.context() as patch:
        patch.setattr(open_capture, "FAR_BYTES", 10)
        patch.setattr(open_capture, "_DECODING", 2**40)
        write(books)
        made = books.back_up()
    assert "Changes were looked for in all rows of edges at 127.0.0.1" in warned(made)
    assert "behind; it was recreated." in warned(made)
    assert (changes(made), position(made)) == ({"orders": (2, 1)}, None)
    assert confirmed(books) > before
    write(books, 2)
    prove(books)
    assert told == set()
    write(books, 3)
    prove(books)
    assert "orders" in told


@pytest.mark.parametrize("bound", ["MOST_KEYS", "FEW"])
def test_a_table_of_which_much_was_written_is_looked_through(
    books: Books, told: set[str], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    follow(books)
    books.run("ANALYZE", "UPDATE orders SET v = 'x' WHERE id BETWEEN 1 AND 90; DELETE FROM orders WHERE id = 200")
    books.run("UPDATE quotes SET v = 0 WHERE v = 3")
    monkeypatch.setattr(slot_capture, "_ALWAYS_FEW", 5)
    monkeypatch.setattr(slot_capture, bound, 0.1 if bound == "FEW" else 20)
    assert changes(prove(books)) == {"orders": (90, 1), "quotes": (1, 0)}
    assert "orders" not in told
    assert "quotes" in told


def test_a_slot_that_is_in_use_is_left_alone(books: Books, told: set[str]) -> None:
    follow(books)
    write(books)
    receive = [str(books.server.programs.server / "pg_recvlogical"), "--start", "--slot", SLOT, "-f", "/dev/null"]
    active = f"SELECT active FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
    with subprocess.Popen([*receive, "-d", books.server.dsn("edges")]) as receiver:
        with books.server.connect("postgres") as session:
            while session.execute(active.encode()).fetchone() != (True,):
                session.execute("SELECT pg_sleep(0.02)")
        made = books.back_up()
        receiver.terminate()
    assert "is active for PID" in warned(made)
    assert changes(made) == {"orders": (2, 1)}
    assert told == set()
    write(books, 2)
    prove(books)


@pytest.mark.parametrize(
    ("database", "make"),
    [
        ("edges", f"SELECT pg_create_physical_replication_slot('{SLOT}')"),
        ("edges", f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"),
        ("edges", f"SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding', false, true)"),
        ("postgres", f"SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')"),
    ],
)
def test_a_slot_of_others_is_never_touched(books: Books, database: str, make: str) -> None:
    books.server.run(database, make)
    state = f"SELECT * FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
    try:
        with books.server.connect("postgres") as session:
            before = session.execute(state.encode()).fetchone()
            books.back_up(FULL)
            write(books)
            made = prove(books)
            assert session.execute(state.encode()).fetchone() == before
    finally:
        books.server.run(database, f"SELECT pg_drop_replication_slot('{SLOT}')")
    assert "is not one that backups of this database make." in warned(made)
    assert changes(made) == {"orders": (2, 1)}


def test_a_role_that_may_not_replicate_looks_in_all_rows(books: Books) -> None:
    books.run("DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN IN ROLE pg_read_all_data")
    other = Books(books.server, books.folder / "plain", "edges", slot=SLOT)
    dsn = SecretStr(books.server.dsn("edges", user="plain"))
    other.plan.sources["books"] = other.source.model_copy(update={"dsn": dsn})
    other.back_up(FULL)
    write(books)
    made = other.back_up()
    assert "must be superuser or replication role" in warned(made) or "permission denied" in warned(made)
    assert changes(made) == {"orders": (2, 1)}
    books.run("ALTER ROLE plain REPLICATION")
    write(books, 2)
    assert warned(other.back_up()) == ""
    write(books, 3)
    other.back_up()
    write(books, 4)
    assert changes(prove(other)) == {"orders": (2, 1)}


def test_a_server_that_logs_too_little_is_named(server: PostgresServer, tmp_path: Path) -> None:
    server.create("edges", TABLES)
    books = Books(server, tmp_path, "edges", slot=SLOT)
    books.back_up(FULL)
    write(books)
    made = prove(books)
    assert "Changes were looked for in all rows of edges" in warned(made)
    assert "wal_level of edges at 127.0.0.1" in warned(made)
    assert changes(made) == {"orders": (2, 1)}


def test_a_standby_and_a_server_without_a_free_slot_are_named(tmp_path: Path) -> None:
    with postgres_server(wal_level="logical", max_replication_slots="1") as server:
        server.run("postgres", "SELECT pg_create_physical_replication_slot('other')")
        server.create("edges", TABLES)
        books = Books(server, tmp_path / "primary", "edges", slot=SLOT)
        assert "all replication slots are in use" in warned(books.back_up(FULL))
        write(books)
        assert "all replication slots are in use" in warned(prove(books))
        server.run("postgres", "SELECT pg_drop_replication_slot('other')")
        server.run("edges", "DROP TABLE unlogged")  # cannot be read there
        standby = PostgresServer(server.programs, primary=server)
        try:
            standby.start()
            books = Books(standby, tmp_path / "standby", "edges", slot=SLOT)
            assert "a standby keeps no replication slot for backups." in warned(books.back_up(FULL))
            assert warned(books.back_up()).count("a standby keeps no replication slot") == 1
        finally:
            standby.stop()


def test_a_slot_that_the_server_gave_up_is_made_anew(tmp_path: Path) -> None:
    small = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with postgres_server(wal_level="logical", **small) as server:
        server.create("edges", TABLES)
        books = Books(server, tmp_path, "edges", slot=SLOT)
        follow(books)
        write(books)
        for _ in range(4):
            books.run("SELECT pg_logical_emit_message(false, 'x', repeat('x', 20000000))", "SELECT pg_switch_wal()")
            books.run("CHECKPOINT")
        made = prove(books)
        assert "had removed what replication slot lastgood_books needs; it was recreated." in warned(made)
        assert changes(made) == {"orders": (2, 1)}
        for n in (2, 3):
            write(books, n)
            assert warned(prove(books)) == ""


def test_after_a_restart_of_the_server_all_is_read(logical: PostgresServer, tmp_path: Path, told: set[str]) -> None:
    with postgres_server(wal_level="logical") as server:
        server.create("edges", TABLES)
        books = Books(server, tmp_path, "edges", slot=SLOT)
        follow(books)
        write(books)
        server.kill()
        server.start()
        write(books, 2)
        prove(books)
        assert told == set()
        write(books, 3)
        assert changes(prove(books)) == {"orders": (2, 1)}
        assert "orders" in told


def test_two_plans_that_share_a_slot_miss_nothing(books: Books) -> None:
    other = Books(books.server, books.folder / "other", "edges", slot=SLOT)
    follow(books)
    follow_again = other.back_up(FULL)
    assert position(follow_again) is not None
    for n in range(1, 4):
        write(books, n)
        assert changes(prove(books)) == {"orders": (2, 1)}
        prove(other)


def test_the_name_of_a_slot_is_one_that_the_server_takes() -> None:
    with pytest.raises(ValueError, match="slot"):
        PostgresSource(dsn=SecretStr("postgresql:///x"), slot="Not this")


def test_an_old_label_that_nobody_can_ask_for_makes_the_table_be_read(
    books: Books, told: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(books)
    write(books)
    found = slot_capture.SlotCapture._changes

    def spoiled(self: slot_capture.SlotCapture, *args: Any) -> slot_capture.CapturedChanges:
        result = found(self, *args)
        result.keys["public.orders"].replaced.add(("no number",))
        return result

    monkeypatch.setattr(slot_capture.SlotCapture, "_changes", spoiled)
    made = books.back_up()
    assert "Changes of public.orders were looked for in all rows" in warned(made)
    assert changes(made) == {"orders": (2, 1)}
    assert "orders" not in told


def test_sessions_are_closed(books: Books) -> None:
    follow(books)
    write(books)
    books.back_up()
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lastgood' AND state <> 'idle'"
    with psycopg.connect(books.server.dsn("postgres")) as session:
        assert session.execute(count).fetchone() == (0,)


def test_a_slot_that_cannot_be_decoded_is_made_anew(logical: PostgresServer, tmp_path: Path, told: set[str]) -> None:
    logical.run("postgres", "DROP DATABASE IF EXISTS bytes WITH (FORCE)")
    logical.run("postgres", "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0")
    logical.run("bytes", TABLES, "CREATE TABLE junk (id int PRIMARY KEY, v text)")
    books = Books(logical, tmp_path, "bytes", slot=SLOT, exclude=["public.junk"], lock_timeout_seconds=2)
    try:
        follow(books)
        books.run(r"INSERT INTO junk VALUES (1, E'secret\xff')")
        write(books)
        made = prove(books)
        assert "holds cannot be decoded: invalid byte sequence" in warned(made)
        assert "was recreated." in warned(made)
        assert "secret" not in warned(made)
        write(books, 2)
        prove(books)
        assert told == set()
        write(books, 3)
        assert not warned(prove(books))
        assert "orders" in told
    finally:
        drop(books)


def test_many_tables_are_read_by_few_threads(logical: PostgresServer, tmp_path: Path, told: set[str]) -> None:
    tables = "".join(f"CREATE TABLE t{n} (id int PRIMARY KEY); INSERT INTO t{n} VALUES (1);" for n in range(40))
    logical.create("many", TABLES, tables)
    books = Books(logical, tmp_path, "many", slot=SLOT)
    try:
        follow(books)
        books.run("".join(f"INSERT INTO t{n} VALUES (2);" for n in range(40)))
        before = threading.active_count()
        assert changes(prove(books)) == {f"t{n}": (1, 0) for n in range(40)}
        assert {f"t{n}" for n in range(40)} <= told
        assert threading.active_count() <= before
    finally:
        drop(books)


def test_no_part_keeps_the_index_of_the_base(books: Books, told: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    follow(books)
    books.run("UPDATE orders SET id = -id WHERE id BETWEEN 1 AND 60")
    prepared, done = list[str](), list[str]()
    prepare, settle = PartLookup.prepare, BackupAttempt.done

    def recorded(self: PartLookup) -> None:
        prepared.append("")
        prepare(self)

    def settled(self: BackupAttempt, part: BackupPart | None, stored: Sequence[tuple[BackupPart, Stored]]) -> None:
        parts = [one for one, _ in stored]
        done.extend(map(str, parts))
        assert all(one._base is None for one in (*parts, *([part] if part else [])))
        settle(self, part, stored)

    monkeypatch.setattr(PartLookup, "prepare", recorded)
    monkeypatch.setattr(BackupAttempt, "done", settled)
    made = prove(books)
    orders = next(c for c in made.collections if c.name == "books/public.orders")
    assert len(prepared) == len(orders.parts) > 2
    assert sum(part.segment is None for part in orders.parts) > 0
    assert len(done) > len(orders.parts)
    assert "orders" in told
