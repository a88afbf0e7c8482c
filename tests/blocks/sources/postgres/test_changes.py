"""Incrementals hold what changed, all of it, by any writer and whenever it was committed."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blocks.records import BackupType
from blocks.rows.index import PartIndex
from blocks.sources.postgres.read.row_versions import may_have_changed
from blocks.sources.postgres.read.xmin_tracking import OLDEST_AGE, Token, written_since
from flows.pipeline.chain import Chain
from tests.blocks.sources.postgres.kit import Books, changes, read_rows
from tests.postgres_server import PostgresServer

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, v text);
INSERT INTO orders SELECT g, 'v' || g FROM generate_series(1, 400) g;
CREATE TABLE quotes (symbol text COLLATE "C" PRIMARY KEY, v int);
INSERT INTO quotes SELECT 'S' || g, g FROM generate_series(1, 100) g;
"""


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("changes", TABLES)
    return Books(server, tmp_path, "changes", part_size_bytes=1500)


@pytest.fixture(scope="module")
def session(server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with server.connect("postgres") as session:
        yield session


def test_an_incremental_asks_for_changed_rows_only(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.back_up(FULL)
    books.run(
        "UPDATE orders SET v = 'new' WHERE id = 7; DELETE FROM orders WHERE id = 9",
        "INSERT INTO orders VALUES (500, 'x')",
    )
    queries = read_rows(monkeypatch)
    assert changes(books.back_up()) == {"orders": (2, 1)}
    assert queries
    assert all("xmin" in query or "ctid = ANY" in query for query in queries)
    books.assert_restores()


def test_keys_are_read_only_of_parts_that_lost_a_row(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.back_up(FULL)
    queries = read_rows(monkeypatch)
    books.run("UPDATE orders SET v = 'new' WHERE id = 7; INSERT INTO orders VALUES (500, 'x'), (-1, 'y')")
    assert changes(books.back_up()) == {"orders": (3, 0)}
    assert not [query for query in queries if "xmin, ctid" in query]
    books.run("DELETE FROM orders WHERE id = 9; INSERT INTO orders VALUES (501, 'as many as before')")
    assert changes(books.back_up()) == {"orders": (1, 1)}
    assert len([query for query in queries if "xmin, ctid" in query]) == 1
    books.assert_restores()


def test_a_row_that_gave_way_to_another_in_the_same_part_is_gone(books: Books) -> None:
    books.back_up(FULL)
    books.run("DELETE FROM orders WHERE id = 9; INSERT INTO orders VALUES (0, 'as many as before')")
    assert changes(books.back_up()) == {"orders": (1, 1)}
    books.run("UPDATE orders SET id = -5 WHERE id = 10")
    assert changes(books.back_up()) == {"orders": (1, 1)}
    books.assert_restores()


def test_a_part_without_changes_costs_no_look_at_its_index(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.back_up(FULL)
    books.run("UPDATE orders SET v = 'new' WHERE id = 7")
    looked: list[str] = []
    index = Chain.index

    def recorded(self: Chain, collection: str, part: int, rows: int | None = None) -> PartIndex:
        looked.append(f"{collection}#{part}")
        return index(self, collection, part, rows)

    monkeypatch.setattr(Chain, "index", recorded)
    made = books.back_up()
    assert changes(made) == {"orders": (1, 0)}
    assert sum(len(c.parts) for c in made.collections) > 5
    assert looked == ["books/public.orders#0"]


@pytest.mark.parametrize("old_server", [False, True])
@given(
    st.integers(3, 2**33),
    st.integers(1, 2**31 - 20_000_000),
    st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_the_server_counts_as_rows_are_judged_here(
    session: psycopg.Connection[Any], old_server: bool, oldest: int, ahead: int, ago: list[int]
) -> None:
    """The condition on ages, with the arithmetic that the server does, agrees with what is done with rows."""
    upcoming = oldest + ahead + (2**31 if old_server else 0)
    oldest = upcoming - ahead
    assume(oldest % 2**32 > 2)  # these are no numbers of transactions
    written = [(upcoming - min(n, upcoming - 3)) % 2**32 for n in ago] + [2]
    values = ", ".join(f"({number}::int8, '(0,{n})'::tid)" for n, number in enumerate(written, 1))
    query = written_since(f"(VALUES {values}) rows (xmin, ctid)", oldest, upcoming)
    # what age() does with a number, for a server that has come to `upcoming`
    distance = f"(({upcoming} - {{}}) % 4294967296 + 6442450944) % 4294967296 - 2147483648"
    age = f"(CASE WHEN {{0}} < 3 THEN 2147483647 ELSE {distance.format('{0}')} END)"
    query = re.sub(r"pg_catalog\.age\('(\d+)'::pg_catalog\.xid\)", lambda m: age.format(m[1]), query)
    query = query.replace("pg_catalog.age(xmin)", age.format("xmin"))
    row = session.execute(query.encode()).fetchone()
    column = pa.chunked_array([pa.array([n.to_bytes(4, "big") for n in written], pa.binary())])
    judged = may_have_changed(column, oldest, upcoming).tolist()
    places = [f"(0,{n})" for n, changed in enumerate(judged, 1) if changed]
    assert row == (len(written), len(places), "{" + ",".join(f'"{place}"' for place in places) + "}")


def test_nothing_is_read_where_no_transaction_has_ended(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.back_up(FULL)
    queries = read_rows(monkeypatch)
    assert changes(books.back_up()) == {}
    assert queries == []


def test_a_transaction_that_commits_after_the_backup_is_in_the_next_one(books: Books) -> None:
    with psycopg.connect(books.server.dsn("changes")) as slow:
        slow.execute("UPDATE orders SET v = 'long' WHERE id = 3")
        slow.execute("SAVEPOINT deep; UPDATE orders SET v = 'sub' WHERE id = 4; RELEASE deep")
        books.run("UPDATE orders SET v = 'short' WHERE id = 5")
        books.back_up(FULL)
        books.run("UPDATE orders SET v = 'later' WHERE id = 6")
        assert changes(books.back_up()) == {"orders": (1, 0)}
        slow.commit()
    assert changes(books.back_up()) == {"orders": (2, 0)}
    books.assert_restores()


def test_a_prepared_transaction_is_in_the_backup_after_its_commit(books: Books) -> None:
    with books.server.connect("changes") as session:
        session.execute("BEGIN; DELETE FROM orders WHERE id = 1; INSERT INTO orders VALUES (0, 'prepared')")
        session.execute("PREPARE TRANSACTION 'lastgood'")
    books.back_up(FULL)
    books.run("SELECT txid_current()", "COMMIT PREPARED 'lastgood'")
    assert changes(books.back_up()) == {"orders": (1, 1)}
    books.assert_restores()


DONE: list[tuple[tuple[str, ...], dict[str, tuple[int, int]]]] = [
    (("VACUUM (FREEZE) orders",), {}),
    (("UPDATE orders SET v = 'f' WHERE id = 2", "VACUUM (FREEZE) orders"), {"orders": (1, 0)}),
    (("UPDATE orders SET id = 1002 WHERE id = 2",), {"orders": (1, 1)}),
    (("UPDATE quotes SET symbol = 'A' || symbol WHERE v = 7",), {"quotes": (1, 1)}),
    (("TRUNCATE quotes",), {"quotes": (0, 100)}),
    (("TRUNCATE quotes", "INSERT INTO quotes VALUES ('S1', 1)"), {"quotes": (0, 99)}),
    (("CREATE TABLE n (LIKE quotes INCLUDING ALL)", "INSERT INTO n SELECT symbol, v * 2 FROM quotes",
      "DROP TABLE quotes", "ALTER TABLE n RENAME TO quotes"), {"quotes": (100, 0)}),
    (("ALTER TABLE orders DROP COLUMN v", "ALTER TABLE orders ADD COLUMN v text DEFAULT 'same'"), {"orders": (400, 0)}),
    (("SELECT count(*) FROM (SELECT FROM orders FOR UPDATE) l",), {}),
    (("CLUSTER orders USING orders_pkey",), {}),
    (("BEGIN; UPDATE orders SET v = 'gone'; ROLLBACK",), {}),
]  # fmt: skip


def test_what_changed_is_found(books: Books) -> None:
    """Each in a schema of its own, and all in one incremental: a table that was not touched shows nothing."""

    def run(n: int, *statements: str) -> None:
        with books.server.connect("changes", options=f"-c search_path=s{n}") as session:
            for statement in statements:
                session.execute(statement.encode())

    for n in range(len(DONE)):
        books.run(f"CREATE SCHEMA s{n}")
        run(n, TABLES)
    books.back_up(FULL)
    for n, (statements, _) in enumerate(DONE):
        run(n, *statements)
    made = books.back_up()
    assert made.backup_type is INCREMENTAL
    found = changes(made)
    for n, (statements, expected) in enumerate(DONE):
        own = {name.partition(".")[2]: counts for name, counts in found.items() if name.startswith(f"s{n}.")}
        assert own == expected, statements
    assert not found.keys() & {"orders", "quotes"}
    books.assert_restores()


def test_partitions_that_are_attached_or_detached_keep_their_rows(books: Books) -> None:
    books.run(
        "CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (10); CREATE TABLE high (LIKE whole INCLUDING ALL)",
        "INSERT INTO low VALUES (1), (2); INSERT INTO high VALUES (11)",
    )
    books.back_up(FULL)
    books.run(
        "ALTER TABLE whole DETACH PARTITION low; ALTER TABLE whole ATTACH PARTITION high FOR VALUES FROM (10) TO (20)"
    )
    books.run("INSERT INTO low VALUES (3)")
    assert changes(books.back_up()) == {"low": (1, 0)}
    books.assert_restores()


def test_two_tables_that_swap_their_names_are_read_as_a_whole(books: Books) -> None:
    books.run("CREATE TABLE orders_b (LIKE orders INCLUDING ALL); INSERT INTO orders_b SELECT id, 'b' FROM orders")
    books.back_up(FULL)
    books.run("ALTER TABLE orders RENAME TO t; ALTER TABLE orders_b RENAME TO orders; ALTER TABLE t RENAME TO orders_b")
    assert changes(books.back_up()) == {"orders": (400, 0), "orders_b": (400, 0)}
    books.assert_restores()


def test_a_renamed_label_of_an_enum_is_noticed(books: Books) -> None:
    books.run("CREATE TYPE side AS ENUM ('buy', 'sell'); CREATE TABLE t (id int PRIMARY KEY, s side)")
    books.run("INSERT INTO t VALUES (1, 'buy'), (2, 'sell')")
    books.back_up(FULL)
    books.run("ALTER TYPE side RENAME VALUE 'buy' TO 'bid'")
    assert changes(books.back_up()) == {"t": (1, 0)}
    books.assert_restores()


def test_a_server_that_started_again_is_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = PostgresServer()
    try:
        server.start()
        server.create("changes", TABLES)
        books = Books(server, tmp_path, "changes")
        books.back_up(FULL)
        books.run("CHECKPOINT")  # commits here do not wait for the log
        server.kill()
        server.start()
        books.run("UPDATE orders SET v = 'new' WHERE id = 7")
        queries = read_rows(monkeypatch)
        assert changes(books.back_up()) == {"orders": (1, 0)}
        assert not any("xmin" in query for query in queries)
    finally:
        server.stop()


def written(*xids: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([(xid % 2**32).to_bytes(4, "big") for xid in xids], pa.binary())])


@given(
    st.integers(3, 2**40),
    st.lists(st.integers(0, OLDEST_AGE), min_size=1),
    st.lists(st.integers(0, 2**40)),
)
def test_no_row_that_is_newer_than_a_snapshot_is_taken_for_older(start: int, ahead: list[int], old: list[int]) -> None:
    """Numbers wrap around every 2³² transactions; rows frozen long ago may look newer, never the reverse."""
    newer = [start + step for step in ahead]
    older = [xid for xid in old if 3 <= xid < start]
    upcoming = max(newer) + 1
    changed = may_have_changed(written(*newer, *older), start, upcoming).tolist()
    assert all(changed[: len(newer)])
    for xid, may in zip(older, changed[len(newer) :], strict=True):
        # within half of the numbers the answer is exact
        assert not may or upcoming - xid >= 2**32


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 900),
        ({"server": ("other", "1")}, None),
        ({"definition": "other"}, None),
        ({"tables": {"t": "other file"}}, None),
        ({"tables": {}}, None),
        ({"snapshot": f"{900 + OLDEST_AGE}:{900 + OLDEST_AGE}:"}, 900),
        ({"snapshot": f"{901 + OLDEST_AGE}:{901 + OLDEST_AGE}:"}, None),
        ({"snapshot": "800:800:"}, None),
    ],
)
def test_a_token_is_only_trusted_on_the_same_history(change: dict[str, Any], expected: int | None) -> None:
    before = Token(("system", "1"), "900:950:900,901", "definition", "other", {"t": "file"})
    now = replace(before, snapshot="1000:1000:")
    assert replace(now, **change).since(Token.parse(before.to_text()), "t") == expected
    assert now.since(Token.parse("nonsense"), "t") is None
    assert now.since(Token.parse(None), "t") is None


class Writer(threading.Thread):
    """Writes at random, in short and long transactions, some with savepoints, some prepared, some rolled back."""

    def __init__(self, books: Books, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self._books, self._random, self._stopped, self._seed = books, random.Random(seed), stop, seed
        self.error: BaseException | None = None
        self.done = 0

    def run(self) -> None:
        try:
            with self._books.server.connect(self._books.database) as session:
                while not self._stopped.is_set() or self.done < 3:
                    self._transaction(session)
                    self.done += 1
        except BaseException as error:
            self.error = error

    def _transaction(self, session: psycopg.Connection[Any]) -> None:
        r, name = self._random, f"'w{self._seed}_{self.done}'"
        session.execute("BEGIN")
        try:
            for _ in range(r.choice((1, 3, 30))):
                if r.random() < 0.3:
                    session.execute("SAVEPOINT s")
                    self._write(session)
                    session.execute(r.choice(("RELEASE s", "ROLLBACK TO s")))
                else:
                    self._write(session)
            if r.random() < 0.2:
                session.execute(f"PREPARE TRANSACTION {name}")
                session.execute(r.choice(("COMMIT PREPARED ", "ROLLBACK PREPARED ")) + name)
            else:
                session.execute(r.choice(("COMMIT", "COMMIT", "ROLLBACK")))
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
            session.execute("ROLLBACK")

    def _write(self, session: psycopg.Connection[Any]) -> None:
        r = self._random
        key, other = r.randrange(500), r.randrange(500)
        session.execute(
            r.choice((
                "UPDATE orders SET v = v || 'x' WHERE id = %(k)s",
                "DELETE FROM orders WHERE id = %(k)s",
                "INSERT INTO orders VALUES (%(k)s, 'i') ON CONFLICT (id) DO UPDATE SET v = 'c'",
                "UPDATE orders SET id = %(o)s WHERE id = %(k)s AND NOT EXISTS (SELECT FROM orders WHERE id = %(o)s)",
                "UPDATE quotes SET v = v + 1 WHERE v = %(k)s",
                "INSERT INTO keyless SELECT %(k)s / 50",
                "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = %(k)s / 50)",
            )),
            {"k": key, "o": other},
        )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.share(3)
def test_incrementals_under_concurrent_writers_equal_a_full_scan(books: Books, tmp_path: Path, seed: int) -> None:
    books.run("CREATE TABLE keyless (a int)")
    books.back_up(FULL)
    stop = threading.Event()
    writers = [Writer(books, seed * 100 + n, stop) for n in range(4)]
    for writer in writers:
        writer.start()
    tracked: list[int] = []
    try:
        for _ in range(5):
            made = books.back_up()
            assert made.backup_type is INCREMENTAL
            tracked.append(made.upserts)
            books.run("VACUUM (FREEZE) orders")
            # a differential reads everything; compared with the chain at the same moment it would store nothing, but
            # writers go on: so the next incremental is a full scan half of the time only
            if len(tracked) % 2:
                books.back_up(BackupType.DIFFERENTIAL)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [writer.error for writer in writers] == [None] * len(writers)
    assert sum(tracked) > 0
    books.back_up()
    last = books.back_up()
    assert changes(last) == {}
    books.assert_restores()
