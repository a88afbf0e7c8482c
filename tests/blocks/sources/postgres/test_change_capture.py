"""Every way in which rows can change between two backups, and some that leave no trace in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.records import BackupType
from blocks.sources.postgres.read import open_view as opening
from blocks.sources.postgres.schema.tables import Catalogue
from tests.blocks.sources.postgres.kit import Books, changes
from tests.postgres_server import PostgresServer

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL

TABLES = r"""
CREATE TABLE orders (id int PRIMARY KEY, v text) WITH (fillfactor = 30);
INSERT INTO orders SELECT g, 'v' || g FROM generate_series(1, 200) g;
CREATE TABLE short (id int PRIMARY KEY, v varchar(10));
INSERT INTO short VALUES (1, 'a'), (2, 'b');
CREATE TABLE keyless (a int, b text);
INSERT INTO keyless SELECT g % 5, 'x' FROM generate_series(1, 20) g;
CREATE TABLE parts (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts SELECT g, g % 20, 'p' FROM generate_series(1, 60) g;
CREATE TYPE side AS ENUM ('buy', 'sell');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN code AS text CHECK (VALUE <> '');
CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE sided (s side PRIMARY KEY, v int); INSERT INTO sided VALUES ('buy', 1), ('sell', 2);
CREATE TABLE paired (p pair PRIMARY KEY, v int); INSERT INTO paired VALUES ((1, 'x'), 1), ((2, NULL), 2);
CREATE TABLE coded (c code PRIMARY KEY, v int); INSERT INTO coded VALUES ('a', 1), ('b', 2);
CREATE TABLE blinded (k text COLLATE blind PRIMARY KEY, v int); INSERT INTO blinded SELECT 'Key' || g, g FROM generate_series(1, 90) g;
CREATE TABLE localised (k text COLLATE "en-US-x-icu" PRIMARY KEY); INSERT INTO localised VALUES ('a'), ('B'), ('c');
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, v int); INSERT INTO unlogged VALUES (1, 1), (2, 2);
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM orders;
CREATE SEQUENCE counting;
SELECT lo_from_bytea(7001, 'seven'), lo_from_bytea(7002, decode(repeat('ab', 5000), 'hex'));
"""  # noqa: E501

COPIED = "COPY short FROM PROGRAM 'printf \"1\\tcopied\\n3\\tnew\\n\"' (FREEZE)"


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("tracking", TABLES)
    return Books(server, tmp_path, "tracking", part_size_bytes=1500)


Step = tuple[list[str], dict[str, tuple[int, int]]]

ROWS: list[Step] = [
    (["UPDATE orders SET v = v || n.g FROM generate_series(1, 1) n (g) WHERE id = 7"] * 30 + ["VACUUM orders"],
     {"orders": (1, 0)}),
    (["UPDATE orders SET v = v || 'h' WHERE id < 4", "UPDATE orders SET v = left(v, -1) WHERE id < 4"], {}),
    (["INSERT INTO orders VALUES (5, 'c') ON CONFLICT DO NOTHING"], {}),
    (["BEGIN; DELETE FROM orders WHERE id = 5; INSERT INTO orders VALUES (5, 'v5'); COMMIT"], {}),
    (["INSERT INTO orders VALUES (5, 'c'), (900, 'n') ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v"],
     {"orders": (2, 0)}),
    (["BEGIN; DELETE FROM orders WHERE id = 6; INSERT INTO orders VALUES (6, 'again'); COMMIT"], {"orders": (1, 0)}),
    (["BEGIN; UPDATE orders SET id = -id WHERE id IN (1, 2); UPDATE orders SET id = 3 + id WHERE id < 0; COMMIT"],
     {"orders": (2, 0)}),
    (["BEGIN; SAVEPOINT a; UPDATE orders SET v = 'lost'; ROLLBACK TO a; UPDATE orders SET v = 'kept' WHERE id = 9;"
      " SAVEPOINT b; DELETE FROM orders WHERE id = 10; RELEASE b; COMMIT"], {"orders": (1, 1)}),
    (["VACUUM FULL orders"], {}),
]  # fmt: skip

TABLES_OF_ALL_KINDS: list[Step] = [
    (["BEGIN; TRUNCATE short; " + COPIED + "; COMMIT"], {"short": (2, 1)}),
    (["UPDATE parts SET at = at + 10 WHERE at BETWEEN 4 AND 6"], {"parts_a": (0, 9), "parts_b": (9, 0)}),
    (["UPDATE parts SET at = at + 10 WHERE at < 3", "UPDATE parts SET at = at - 10 WHERE at BETWEEN 10 AND 12"],
     {"parts_a": (9, 0), "parts_b": (0, 9)}),
    (["INSERT INTO keyless VALUES (3, 'x'), (9, 'y')", "DELETE FROM keyless WHERE a = 1"], {"keyless": (2, 4)}),
    (["UPDATE sided SET s = 'sell', v = 7 WHERE v = 2", "DELETE FROM sided WHERE s = 'buy'"], {"sided": (1, 1)}),
    (["UPDATE paired SET p = (2, 'y') WHERE v = 2"], {"paired": (1, 1)}),
    (["UPDATE coded SET c = 'c' WHERE c = 'a'"], {"coded": (1, 1)}),
    (["UPDATE blinded SET k = upper(k) WHERE v = 40", "UPDATE blinded SET v = -1 WHERE k = 'KEY50'"],
     {"blinded": (2, 1)}),
    (["UPDATE localised SET k = 'C' WHERE k = 'c'"], {"localised": (1, 1)}),
]  # fmt: skip

BESIDE_TABLES: list[Step] = [
    (["SELECT nextval('counting')"], {}),
    (["REFRESH MATERIALIZED VIEW total"], {}),
    (["GRANT SELECT ON LARGE OBJECT 7001 TO PUBLIC"], {}),
    (["SELECT lo_put(7002, 3000, 'inside')"], {"large_objects": (1, 0)}),
    (["SELECT lo_unlink(7001), lo_from_bytea(7003, 'new')"], {"large_objects": (1, 1)}),
    (["UPDATE unlogged SET v = 5 WHERE id = 1"], {"unlogged": (1, 0)}),
]  # fmt: skip

LOGGED: list[Step] = [
    (["ALTER TABLE unlogged SET LOGGED", "UPDATE unlogged SET v = 5 WHERE id = 1"], {"unlogged": (1, 0)})
]


@pytest.mark.parametrize(
    "steps", [ROWS, TABLES_OF_ALL_KINDS, BESIDE_TABLES, LOGGED], ids=["rows", "tables", "beside tables", "logged"]
)
@pytest.mark.share(2)
def test_what_was_done_is_in_the_incremental(books: Books, steps: list[Step]) -> None:
    """Each step in an incremental of its own: so many upserts and tombstones, and what they are shows at the end."""
    books.back_up(FULL)
    for statements, expected in steps:
        for statement in statements:
            books.run(statement)
        made = books.back_up()
        assert (made.backup_type, changes(made)) == (INCREMENTAL, expected), statements
    books.assert_restores()


def test_locks_of_rows_are_no_changes(books: Books) -> None:
    with books.server.connect("tracking") as one, books.server.connect("tracking") as other:
        one.execute("BEGIN; SELECT FROM orders WHERE id < 9 FOR SHARE")
        other.execute(
            "BEGIN; SELECT FROM orders WHERE id < 9 FOR KEY SHARE; SELECT FROM orders WHERE id > 9 FOR UPDATE"
        )
        books.back_up(FULL)
        assert changes(books.back_up()) == {}
        one.execute("COMMIT")
        # the number in the row is now that of several transactions, one of which changed it
        one.execute("BEGIN; UPDATE orders SET v = 'locked' WHERE id = 4")
        assert changes(books.back_up()) == {}
        one.execute("COMMIT")
        other.execute("ROLLBACK")
    assert changes(books.back_up()) == {"orders": (1, 0)}
    books.assert_restores()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE orders ADD COLUMN w text DEFAULT 'all'",
        "ALTER TABLE short ALTER COLUMN v TYPE varchar(20)",
        "ALTER TABLE short DROP COLUMN v",
        "CREATE TABLE parts_c PARTITION OF parts FOR VALUES FROM (20) TO (30)",
    ],
)
@pytest.mark.share(2)
def test_another_shape_makes_the_next_backup_a_full_one(books: Books, statement: str) -> None:
    books.back_up(FULL)
    books.run(statement)
    assert books.back_up().backup_type is FULL
    books.assert_restores()


def test_a_column_that_was_dropped_and_made_again_is_read_again(books: Books) -> None:
    books.back_up(FULL)
    books.run("ALTER TABLE short DROP COLUMN v; ALTER TABLE short ADD COLUMN v varchar(10)")
    made = books.back_up()
    assert (made.backup_type, changes(made)) == (INCREMENTAL, {"short": (2, 0)})
    books.assert_restores()


def test_a_label_of_a_type_that_the_plan_leaves_out_is_noticed(server: PostgresServer, tmp_path: Path) -> None:
    """pg_dump does not write down types of other schemas, nor any type for chosen tables."""
    server.create(
        "tracking",
        "CREATE SCHEMA kinds; CREATE TYPE kinds.side AS ENUM ('buy', 'sell'); CREATE TYPE kinds.pair AS (a int, b int)",
        "CREATE TABLE t (id int PRIMARY KEY, s kinds.side[], p kinds.pair)",
        "INSERT INTO t VALUES (1, '{buy}', (1, 2)), (2, '{sell}', NULL)",
    )
    for fields in ({"schemas": ["public"]}, {"tables": ["public.*"]}):
        books = Books(server, tmp_path / next(iter(fields)), "tracking", **fields)
        books.back_up(FULL)
        books.run("ALTER TYPE kinds.side RENAME VALUE 'buy' TO 'bid'")
        assert changes(books.back_up()) == {"t": (1, 0)}
        books.run("ALTER TYPE kinds.pair DROP ATTRIBUTE b", "ALTER TYPE kinds.side RENAME VALUE 'bid' TO 'buy'")
        assert changes(books.back_up()) == {"t": (1, 0)}
        books.run("ALTER TYPE kinds.pair ADD ATTRIBUTE b int")


def test_values_that_name_other_objects_are_read_each_time(server: PostgresServer, tmp_path: Path) -> None:
    server.create("tracking", "CREATE DOMAIN named AS regrole; CREATE TYPE naming AS (a int, b named)")
    server.run("postgres", "DROP ROLE IF EXISTS was, isnt; CREATE ROLE was")
    server.run(
        "tracking",
        "CREATE TABLE t (id int PRIMARY KEY, a named, b regrole[], c naming[], d aclitem)",
        "INSERT INTO t SELECT g FROM generate_series(1, 4) g; UPDATE t SET a = 'was' WHERE id = 1",
        "UPDATE t SET b = '{was}' WHERE id = 2; UPDATE t SET c = ARRAY[(1, 'was')::naming] WHERE id = 3",
        "UPDATE t SET d = makeaclitem('was'::regrole, 10, 'SELECT', false) WHERE id = 4",
    )
    books = Books(server, tmp_path, "tracking")
    books.back_up(FULL)
    server.run("postgres", "ALTER ROLE was RENAME TO isnt")
    assert changes(books.back_up()) == {"t": (4, 0)}
    books.assert_restores()


def test_nothing_moves_while_it_is_read(books: Books) -> None:
    """Rows are fetched by their place, which a rewrite would change; that of large objects, too."""
    with books.source.view(), books.server.connect("tracking") as session:
        session.execute("SET lock_timeout = 50")
        for table in ("orders", "keyless", "parts_a", "pg_catalog.pg_largeobject"):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.execute(f"VACUUM FULL {table}")


def test_tables_that_come_and_go_before_the_snapshot_are_met_with_another_attempt(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, seen = opening.read_tables, []

    def meanwhile(session: Any) -> Catalogue:
        found = look(session)
        seen.append(len(found.tables))
        if len(seen) == 1:
            books.run("DROP TABLE coded")
        elif len(seen) == 2:
            books.run("CREATE TABLE came (id int)")
        return found

    monkeypatch.setattr(opening, "read_tables", meanwhile)
    with books.source.view() as view:
        names = {collection.name for collection in view.collections()}
    assert "public.came" in names
    assert "public.coded" not in names
    # the first look was followed by a lock that failed, the second by a third that found another table
    assert len(seen) == 5


def test_a_chain_goes_on_after_an_older_backup_was_restored(books: Books) -> None:
    first = books.back_up(FULL)
    books.run("UPDATE orders SET v = 'second' WHERE id < 5; DELETE FROM orders WHERE id = 6; TRUNCATE short")
    books.back_up()
    books.restore(first)
    assert changes(books.back_up()) == {"orders": (5, 0), "short": (2, 0)}
    books.assert_restores()
    books.run("UPDATE orders SET v = 'third' WHERE id = 7; INSERT INTO orders VALUES (777, 'x')")
    books.restore(first, keys=("7",), collections=("books/public.orders",))
    assert changes(books.back_up()) == {"orders": (1, 0)}
    books.assert_restores()
