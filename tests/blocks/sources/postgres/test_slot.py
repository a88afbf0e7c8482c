# ruff: noqa: E501  statements of SQL are not broken
"""With a replication slot incrementals read what was written, and hold what a full scan would find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.records import BackupMetadata, BackupType
from blocks.rows.index import PartIndex
from blocks.sources.postgres import slot_log
from blocks.sources.postgres.cdc import changed_rows
from blocks.sources.postgres.cdc.slot_position import SlotPosition
from blocks.sources.postgres.read.view import PostgresView
from blocks.sources.postgres.read.xmin_tracking import Token
from blocks.sources.postgres.schema.tables import Table
from flows.check import check_repository
from flows.cli.render import held_log
from flows.pipeline.attempt import BackupAttempt, BackupPart
from tests.blocks.sources.postgres.kit import Books, changes, read_rows
from tests.postgres_server import PostgresServer

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL
SLOT = "lastgood_books"

DEFINITIONS = {
    "orders": "CREATE TABLE orders (id int PRIMARY KEY, v text);"
              " INSERT INTO orders SELECT g, 'v' || g FROM generate_series(1, 400) g",
    "quotes": """CREATE TABLE quotes (symbol text COLLATE "C" PRIMARY KEY, v int);"""
              " INSERT INTO quotes SELECT 'S' || g, g FROM generate_series(1, 100) g",
    "spread": "CREATE TABLE spread (id int, at int, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);"
              " CREATE TABLE low PARTITION OF spread FOR VALUES FROM (0) TO (30);"
              " CREATE TABLE high PARTITION OF spread FOR VALUES FROM (30) TO (1000);"
              " INSERT INTO spread SELECT g, g, 's' FROM generate_series(1, 60) g",
    "keyless": "CREATE TABLE keyless (a int, b text); INSERT INTO keyless SELECT g % 4, 'k' FROM generate_series(1, 12) g",
    "unlogged": "CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, v int); INSERT INTO unlogged VALUES (1, 1), (2, 2)",
}  # fmt: skip
TABLES = "; ".join(DEFINITIONS.values())


@pytest.fixture
def books(logical: PostgresServer, tmp_path: Path) -> Iterator[Books]:
    logical.create("slots", TABLES)
    yield (made := Books(logical, tmp_path, "slots", part_size_bytes=1500, slot=SLOT))
    drop(made)


def drop(books: Books) -> None:
    books.run(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{SLOT}'")


def follow(books: Books) -> None:
    """Make the slot and a base whose position is known."""
    books.back_up(FULL)
    books.run("INSERT INTO orders VALUES (-99, 'first')")
    assert position(books.back_up()) is not None


def position(made: BackupMetadata) -> int | None:
    captured = SlotPosition.of(Token.parse(made.sources[0].token))
    assert captured
    return captured.position


def prove(books: Books) -> BackupMetadata:
    """A snapshot reads everything, and no other backup depends on it."""
    made, whole = books.back_up(), books.back_up(BackupType.SNAPSHOT)
    assert books.differences(made, whole) == {}
    return made


def scanned(queries: list[str], table: str) -> list[str]:
    """Which queries looked at rows of a table by anything but their keys."""
    return [q for q in queries if f'"{table}"' in q and "ctid = ANY ('{}'" not in q and "EXISTS" not in q]


def test_an_incremental_reads_only_what_was_written(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(books)
    books.run(
        "UPDATE orders SET v = 'new' WHERE id = 7; DELETE FROM orders WHERE id = 9",
        "INSERT INTO orders VALUES (500, 'x'); UPDATE orders SET id = -5 WHERE id = 10",
        "DELETE FROM orders WHERE id = 11; INSERT INTO orders VALUES (11, 'again')",
        "UPDATE spread SET at = 40 WHERE id = 1; UPDATE spread SET v = 'new' WHERE id = 2",
    )
    queries = read_rows(monkeypatch)
    made = prove(books)
    assert made.sources[0].warnings == ()
    assert changes(made) == {"orders": (4, 2), "low": (1, 1), "high": (1, 0)}
    for table in ("orders", "quotes", "low", "high"):
        assert scanned(queries[: queries.index(next(q for q in queries if '"keyless"' in q))], table) == []
    books.assert_restores()


def test_the_base_is_asked_only_where_keys_came_or_went(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(books)
    asked, base_index = set[int](), BackupAttempt.base_index

    def recorded(self: BackupAttempt, part: BackupPart) -> PartIndex:
        if part.collection_name == "books/public.orders":
            asked.add(part.number)
        return base_index(self, part)

    monkeypatch.setattr(BackupAttempt, "base_index", recorded)
    books.run("UPDATE orders SET v = v || '!' WHERE id IN (1, 100, 300)", "UPDATE orders SET v = v WHERE id = 2")
    books.run("UPDATE quotes SET v = -v WHERE symbol = 'S7'")
    made = books.back_up()
    # one row is stored though it is as it was: to find that out would cost more
    assert changes(made) == {"orders": (4, 0), "quotes": (1, 0)}
    assert asked == set()
    books.run("UPDATE orders SET v = 'a' WHERE id = 1; UPDATE orders SET v = v WHERE id > 390")
    books.run("INSERT INTO orders VALUES (999, 'x'); DELETE FROM orders WHERE id = 100")
    books.run("UPDATE orders SET v = 'b' WHERE id IN (1, 395, 999)")
    made = books.back_up()
    orders = next(c for c in made.collections if c.name == "books/public.orders")
    assert (orders.rows, orders.upserts, orders.tombstones) == (401, 3, 1)
    # row 1 is in the first part, 100 in the second, and all others are in the last
    assert [part.number for part in orders.parts if part.segment] == [0, 1, len(orders.parts) - 1]
    assert asked == {1, len(orders.parts) - 1}
    books.run("UPDATE orders SET v = v; UPDATE orders SET v = 'c' WHERE id = 50")
    assert changes(prove(books)) == {"orders": (1, 0)}
    assert asked == {part.number for part in orders.parts}
    books.assert_restores()


def test_a_database_that_rests_is_not_asked_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(books)
    before = books.back_up()
    queries = read_rows(monkeypatch)
    made = books.back_up()
    assert changes(made) == {}
    assert [q for q in queries if '"orders"' in q and "'{}'" not in q] == []
    # an unlogged table lets no two tokens be equal, but without it they are
    assert made.sources[0].token != before.sources[0].token
    books.run("DROP TABLE unlogged, keyless")
    books.back_up(FULL)
    queries.clear()
    first, second = books.back_up(), books.back_up()
    assert first.sources[0].token == second.sources[0].token
    assert queries == []


def test_rows_are_found_by_the_index(books: Books) -> None:
    # where parts are small their sizes are measured by looking at all rows
    books.plan.sources["books"] = books.source.model_copy(update={"part_size_bytes": 2**26})
    books.run("CREATE TABLE large (id int PRIMARY KEY, v text)")
    books.run("INSERT INTO large SELECT g, 'v' FROM generate_series(1, 20000) g")
    books.run("ANALYZE large")
    follow(books)
    books.run("UPDATE large SET v = 'new' WHERE id % 1000 = 7", "DELETE FROM large WHERE id = 8")
    query = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'large'"
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'slots' AND pid <> pg_backend_pid()"

    def counted(session: psycopg.Connection[tuple[object, ...]]) -> tuple[object, ...] | None:
        # a session has counted all that it read when it has ended
        while session.execute(others).fetchone() != (0,):
            session.execute("SELECT pg_sleep(0.02)")
        return session.execute(query).fetchone()

    with books.server.connect("slots") as session:
        before = counted(session)
        assert changes(books.back_up()) == {"large": (20, 1)}
        after = counted(session)
    assert before
    assert after
    assert after[0] == before[0]
    assert int(str(after[1])) - int(str(before[1])) < 100
    prove(books)


HOSTILE = "it''s" + "\ntable public.orders: DELETE: id[integer]:5\n"

CASES = {
    "odd values": [
        f"UPDATE orders SET v = '{HOSTILE}' WHERE id = 3",
        "UPDATE orders SET v = NULL WHERE id = 4; UPDATE orders SET v = '' WHERE id = 5",
        r"INSERT INTO quotes VALUES ('\', 1), ('''', 2), (E'\n', 3), ('', 4), ('é😀', 5), ('a\"b{},', 6), ('null', 7)",
    ],
    "text before the key": [f"INSERT INTO texts VALUES ('{HOSTILE}', 3, NULL), (NULL, 4, 'x'), ('', 5, '''')",
                            "UPDATE texts SET id = 9 WHERE id = 1", "DELETE FROM texts WHERE id = 2"],
    "large values before the key": ["UPDATE texts SET more = 'y' WHERE id = 1"],
    "truncated": ["TRUNCATE orders, quotes", "INSERT INTO orders VALUES (1, 'x')"],
    "rolled back": ["BEGIN; DELETE FROM orders; ROLLBACK", "UPDATE orders SET v = 'kept' WHERE id = 1"],
    "subtransactions": ["BEGIN; SAVEPOINT a; UPDATE orders SET v = 'a' WHERE id = 1; SAVEPOINT b;"
                        " DELETE FROM orders WHERE id = 2; ROLLBACK TO b; DELETE FROM orders WHERE id = 3; COMMIT"],
    "prepared": ["BEGIN; UPDATE orders SET v = 'p' WHERE id = 1; DELETE FROM orders WHERE id = 2;"
                 " PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"],
    "renamed there and back": ["ALTER TABLE orders RENAME TO away", "UPDATE away SET v = 'n' WHERE id = 1",
                               "DELETE FROM away WHERE id = 2", "ALTER TABLE away RENAME TO orders"],
    "swapped": ["ALTER TABLE orders RENAME TO o; ALTER TABLE twins RENAME TO orders; ALTER TABLE o RENAME TO twins",
                "UPDATE orders SET v = 'n' WHERE id = 1; DELETE FROM twins WHERE id = 2"],
    "swapped and back": [
        "ALTER TABLE orders RENAME TO o; ALTER TABLE twins RENAME TO orders; ALTER TABLE o RENAME TO twins",
        "UPDATE orders SET v = 'n' WHERE id = 1; DELETE FROM twins WHERE id = 2",
        "ALTER TABLE orders RENAME TO o; ALTER TABLE twins RENAME TO orders; ALTER TABLE o RENAME TO twins",
    ],
    "schema renamed there and back": ["ALTER SCHEMA other RENAME TO gone", "UPDATE gone.orders SET v = 'n'",
                                      "ALTER SCHEMA gone RENAME TO other"],
    "schemas swapped and back": [
        "ALTER SCHEMA other RENAME TO x; ALTER SCHEMA another RENAME TO other; ALTER SCHEMA x RENAME TO another",
        "UPDATE other.orders SET v = 'n' WHERE id = 1; DELETE FROM another.orders WHERE id = 2",
        "ALTER SCHEMA other RENAME TO x; ALTER SCHEMA another RENAME TO other; ALTER SCHEMA x RENAME TO another",
    ],
    "columns swapped and back": [
        "ALTER TABLE pairs RENAME a TO x; ALTER TABLE pairs RENAME b TO a; ALTER TABLE pairs RENAME x TO b",
        "UPDATE pairs SET c = 9; DELETE FROM pairs WHERE a = 20",
        "ALTER TABLE pairs RENAME a TO x; ALTER TABLE pairs RENAME b TO a; ALTER TABLE pairs RENAME x TO b",
    ],
    "key recreated": ["ALTER TABLE orders DROP CONSTRAINT orders_pkey",
                      "UPDATE orders SET id = 1000 WHERE id = 1; UPDATE orders SET v = 'n' WHERE id = 3",
                      "ALTER TABLE orders ADD PRIMARY KEY (id)"],
    "identity nothing for a while": ["ALTER TABLE orders REPLICA IDENTITY NOTHING", "UPDATE orders SET id = 1000 WHERE id = 1",
                                     "DELETE FROM orders WHERE id = 2", "ALTER TABLE orders REPLICA IDENTITY DEFAULT"],
    "other identities": ["UPDATE fully SET v = 'n' WHERE id = 1; UPDATE fully SET id = 7 WHERE id = 2",
                         "UPDATE nothing SET id = 7 WHERE id = 1; DELETE FROM nothing WHERE id = 2",
                         "UPDATE indexed SET id = 7 WHERE id = 1; DELETE FROM indexed WHERE id = 2"],
    "unlogged and keyless": ["UPDATE unlogged SET v = 9; DELETE FROM keyless WHERE a = 1"],
    "logged again": ["ALTER TABLE orders SET UNLOGGED", "UPDATE orders SET v = 'u' WHERE id = 5",
                     "ALTER TABLE orders SET LOGGED"],
    "partition put aside": ["ALTER TABLE spread DETACH PARTITION low", "UPDATE low SET v = 'n' WHERE id = 5",
                            "ALTER TABLE spread ATTACH PARTITION low FOR VALUES FROM (0) TO (30)",
                            "UPDATE spread SET at = 50 WHERE id = 4"],
    "generated and dropped columns": ["UPDATE odd SET t = 'new' WHERE id = 1; DELETE FROM odd WHERE id = 2",
                                      "INSERT INTO odd (t, id) VALUES ('x', 3)"],
    "deferrable key": ["UPDATE deferred SET id = id + 1", "DELETE FROM deferred WHERE id = 3"],
    "rewritten": ["VACUUM FULL orders", "UPDATE orders SET v = 'n' WHERE id = 1", "CLUSTER orders USING orders_pkey"],
    "vacuumed": ["UPDATE orders SET v = 'n' WHERE id < 9; DELETE FROM orders WHERE id = 10", "VACUUM FREEZE orders",
                 "ANALYZE", "REINDEX TABLE orders"],
    "labels swapped and back": [
        "ALTER TYPE side RENAME VALUE 'a' TO 'x'; ALTER TYPE side RENAME VALUE 'b' TO 'a'; ALTER TYPE side RENAME VALUE 'x' TO 'b'",
        "UPDATE sided SET v = 9 WHERE s = 'a'",
        "ALTER TYPE side RENAME VALUE 'a' TO 'x'; ALTER TYPE side RENAME VALUE 'b' TO 'a'; ALTER TYPE side RENAME VALUE 'x' TO 'b'",
    ],
    "copied": ["COPY orders FROM PROGRAM 'printf \"901\\tcopied\\n902\\tnew\\n\"'"],
    "upserted": ["INSERT INTO orders VALUES (1, 'u'), (903, 'i') ON CONFLICT (id) DO UPDATE SET v = excluded.v"],
    "many": ["UPDATE orders SET v = v || 'x'", "DELETE FROM quotes"],
    "came and went": ["INSERT INTO orders VALUES (950, 'x'); DELETE FROM orders WHERE id = 950"],
    "async": ["SET synchronous_commit = off; UPDATE orders SET v = 'late' WHERE id = 1"],
    "large objects": ["SELECT lo_put(7001, 0, 'x')", "SELECT lo_from_bytea(7002, 'y')"],
}  # fmt: skip

MORE = {
    "texts": "CREATE TABLE texts (before text, id int PRIMARY KEY, more text); INSERT INTO texts"
             " SELECT (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n), g, 'x' FROM generate_series(1, 2) g",
    "twins": "CREATE TABLE twins (id int PRIMARY KEY, v text); INSERT INTO twins SELECT g, 'twin' FROM generate_series(1, 9) g",
    "pairs": "CREATE TABLE pairs (a int, b int, c int, PRIMARY KEY (b, a));"
             " INSERT INTO pairs SELECT g, 10 * g, 0 FROM generate_series(1, 5) g",
    "fully": "CREATE TABLE fully (id int PRIMARY KEY, v text); INSERT INTO fully VALUES (1, 'a'), (2, 'b');"
             " ALTER TABLE fully REPLICA IDENTITY FULL",
    "nothing": "CREATE TABLE nothing (id int PRIMARY KEY, v text); INSERT INTO nothing VALUES (1, 'a'), (2, 'b');"
               " ALTER TABLE nothing REPLICA IDENTITY NOTHING",
    "indexed": "CREATE TABLE indexed (id int PRIMARY KEY, v text, n int NOT NULL UNIQUE);"
               " INSERT INTO indexed VALUES (1, 'a', 1), (2, 'b', 2);"
               " ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_n_key",
    "odd": "CREATE TABLE odd (gone int, t text, up text GENERATED ALWAYS AS (upper(t)) STORED, \"Key\" int, id int PRIMARY KEY);"
           " ALTER TABLE odd DROP COLUMN gone; INSERT INTO odd (t, \"Key\", id) VALUES ('a', 1, 1), ('b', 2, 2)",
    "deferred": "CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED); INSERT INTO deferred VALUES (1), (2)",
    "sided": "CREATE TYPE side AS ENUM ('a', 'b'); CREATE TABLE sided (s side PRIMARY KEY, v int);"
             " INSERT INTO sided VALUES ('a', 1), ('b', 2)",
}  # fmt: skip
ONCE = "; ".join(
    f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.orders (id int PRIMARY KEY, v text);"
    f" INSERT INTO {schema}.orders SELECT g, 'twin' FROM generate_series(1, 9) g"
    for schema in ("other", "another")
)
"""What one case of a database can use: two schemas, and a large object."""
NEVER_TOLD = {"deferred", "fully", "indexed", "keyless", "nothing", "unlogged"}
"""Tables whose keys no slot reports."""
UNTOLD = {
    "truncated": {"orders", "quotes"},
    "renamed there and back": {"orders"},
    "swapped and back": {"orders", "twins"},
    "columns swapped and back": {"pairs"},
    "key recreated": {"orders"},
    "identity nothing for a while": {"orders"},
    "logged again": {"orders"},
    "partition put aside": {"low"},
    "labels swapped and back": {"sided"},
}
"""By case, the tables that are looked through because of what was done."""
ALONE = ("swapped", "rewritten")
"""What makes a backup a full one, or lets all tables be looked through, and so would hide what others do."""
_OTHERS = [case for case in CASES if case not in ALONE]
SHARES = [*((case,) for case in ALONE), *(tuple(_OTHERS[n::3]) for n in range(3))]


def definitions(case: str) -> list[str]:
    """Write what makes the tables that a case names, and those that are written after each."""
    words = set(re.findall(r"\w+", " ".join(CASES[case]))) | {"orders", "quotes"}
    return [text for name, text in (DEFINITIONS | MORE).items() if name in words]


@pytest.mark.parametrize("cases", SHARES, ids=[*ALONE, "one", "another", "third"])
@pytest.mark.share(2)
def test_whatever_was_done_is_found(books: Books, cases: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several cases share a database and its backups, each has a schema of its own."""
    told, untold = set[tuple[str, str]](), set[tuple[str, str]]()
    read = PostgresView._read_changed

    def noted(self: PostgresView, table: Table, *args: Any) -> Any:
        reading = read(self, table, *args)
        (untold if reading is None else told).add((table.shape.schema, table.shape.table))
        return reading

    def run(case: str, *statements: str) -> None:
        with books.server.connect("slots", options=f"-c search_path={_schema(case)}") as session:
            for statement in statements:
                session.execute(statement.encode())

    # what is committed without waiting for the log has to be the last
    cases = tuple(sorted(cases, key=lambda case: case == "async"))
    books.run(ONCE, "SELECT lo_from_bytea(7001, 'seven')", *(f"CREATE SCHEMA {_schema(case)}" for case in cases))
    for case in cases:
        run(case, *definitions(case))
    follow(books)
    monkeypatch.setattr(PostgresView, "_read_changed", noted)
    for case in cases:
        for statement in CASES[case]:
            run(case, statement)
    prove(books)
    for case in cases:
        run(case, "UPDATE orders SET v = 'after' WHERE id = 6", "INSERT INTO quotes VALUES ('after', 1)")
        if case not in ALONE:
            names = {table for schema, table in untold if schema == _schema(case)}
            assert names - NEVER_TOLD == UNTOLD.get(case, set()), case
            assert {table for schema, table in told if schema == _schema(case)} | UNTOLD.get(case, set()), case
    books.back_up()
    books.assert_restores()


def _schema(case: str) -> str:
    return case.replace(" ", "_")


KEYS = {
    "int2": ["1", "-3", "32767"],
    "int4": ["1", "-3", "77"],
    "int8": ["1", "-3", "9223372036854775807"],
    "numeric": ["1.0", "NaN", "-0.001"],
    "numeric(10,2)": ["1", "2.5", "-7"],
    "float8": ["1.5", "NaN", "-Infinity"],
    "text": ["a", "", "it's \\ \"x\"\n\ttable public.\"int2\": DELETE: k[smallint]:1"],
    'text COLLATE "en-US-x-icu"': ["a", "B", "é"],
    "text COLLATE blind": ["a", "b", "É"],
    "varchar(5)": ["a", " b ", "é"],
    "char(4)": ["a", "bc", ""],
    "name": ["a", "b", "x.y"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
             "12345678-1234-1234-1234-123456789abc"],
    "date": ["2020-01-01", "infinity", "4713-01-01 BC"],
    "timestamptz": ["2020-01-01 00:00:00.000001+00", "infinity", "0044-03-15 12:00:00 BC"],
    "timestamp(3)": ["2020-01-01 00:00:00.001", "-infinity", "0044-03-15 12:00:00 BC"],
    "time": ["24:00", "00:00", "12:00:00.5"],
    "interval": ["1 day", "-1 mon 3 days", "00:00:01.5"],
    "bytea": ["\\x00ff", "\\x", "\\x5c27"],
    "bool": ["true", "false"],
    "inet": ["10.0.0.1/8", "::1", "1.2.3.4"],
    "bit(3)": ["101", "000", "111"],
    "bit varying": ["1", "0", "11"],
    '"char"': ["a", "b", "'"],
    "side": ["a", "b", "it's"],
    '"Odd schema"."a kind"': ["a b", "b"],
    "posint": ["1", "2", "3"],
    "code": ["a", "b", "'"],
    "citext": ["Alpha", "beta", "GAMMA"],
    "int[]": ["{1,2}", "{}", "{NULL}"],
    "side[]": ["{a}", "{}", "{b,NULL}"],
    "pair": ["(1,x)", "(,)", '(2,"a b")'],
    "int4range": ["[1,5)", "empty", "(,)"],
    "oid": ["1", "4294967295", "7"],
    "pg_lsn": ["0/1", "FF/FF", "0/0"],
    "jsonb": ['{"a": "it\'s"}', "1.0", "null"],
}  # fmt: skip

TYPES = r"""
CREATE EXTENSION citext; CREATE SCHEMA "Odd schema";
CREATE TYPE "Odd schema"."a kind" AS ENUM ('a b', 'b');
CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TYPE side AS ENUM ('a', 'b', 'it''s'); CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN posint AS int CHECK (VALUE > 0); CREATE DOMAIN code AS varchar(5) COLLATE "C" CHECK (VALUE <> '');
"""


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("size", [400, 100_000])
@pytest.mark.share(2)
def test_keys_of_every_type(logical: PostgresServer, tmp_path: Path, size: int) -> None:
    statements = [TYPES]
    for n, (kind, values) in enumerate(KEYS.items()):
        statements.append(f'CREATE TABLE "T {n}" (v text, k {kind} PRIMARY KEY)')
        statements.append(f'CREATE TABLE "D {n}" (b text, k {kind}, a int, PRIMARY KEY (k, a))')
        for m, value in enumerate(values[:-1]):
            statements.append(f"INSERT INTO \"T {n}\" VALUES ('v', {quoted(value)})")
            statements.append(f"INSERT INTO \"D {n}\" VALUES (repeat('x', 300), {quoted(value)}, {m})")
    logical.create("slots", ";".join(statements))
    books = Books(logical, tmp_path, "slots", part_size_bytes=size, slot=SLOT)
    try:
        books.back_up(FULL)
        books.run('CREATE TABLE IF NOT EXISTS public."T 0" ()')
        books.run("SELECT txid_current()")
        books.back_up()
        writes = list[str]()
        for n, (kind, values) in enumerate(KEYS.items()):
            first, *_, last = (f"{quoted(value)}::{kind.partition(' COLLATE')[0]}" for value in values)
            writes += [f"UPDATE \"T {n}\" SET v = 'new' WHERE k = {first}", f'DELETE FROM "D {n}" WHERE k = {first}']
            writes += [f"INSERT INTO \"T {n}\" VALUES ('i', {last}) ON CONFLICT DO NOTHING"]
            writes += [f'UPDATE "D {n}" SET k = {first}, a = 7', f'INSERT INTO "D {n}" VALUES (NULL, {last}, 1)']
        books.run(*writes)
        made = prove(books)
        assert made.sources[0].warnings == ()
        counts = changes(made)
        assert all(counts.get(f"T {n}") for n in range(len(KEYS))), counts
        books.run(*(f"DELETE FROM \"T {n}\" WHERE v = 'i'" for n in range(len(KEYS))))
        books.back_up()
        books.assert_restores()
    finally:
        drop(books)


@pytest.mark.parametrize("size", [300, 100_000])
def test_a_key_that_is_spelt_in_another_way_is_another(logical: PostgresServer, tmp_path: Path, size: int) -> None:
    logical.create(
        "slots", "CREATE EXTENSION citext",
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE n (k numeric PRIMARY KEY); INSERT INTO n SELECT g FROM generate_series(1, 30) g",
        "CREATE TABLE c (k citext PRIMARY KEY, v text); INSERT INTO c "
        "SELECT 'a' || g, repeat('x', 90) FROM generate_series(1, 30) g",
        "CREATE TABLE f (k float8 PRIMARY KEY); INSERT INTO f VALUES (0), (1)",
        "CREATE TABLE b (k text COLLATE blind, a numeric, PRIMARY KEY (k, a)); INSERT INTO b VALUES ('a', 1), ('b', 2)",
    )  # fmt: skip
    books = Books(logical, tmp_path, "slots", part_size_bytes=size, slot=SLOT)
    try:
        books.back_up(FULL)
        books.run("SELECT txid_current()")
        books.back_up()
        books.run("UPDATE n SET k = k + 0.0 WHERE k IN (3, 5)", "UPDATE c SET k = upper(k) WHERE k IN ('a3', 'a9')",
                  "UPDATE f SET k = '-0' WHERE k = 0", "UPDATE b SET k = upper(k), a = a + 0.00",
                  "UPDATE n SET k = 5.00 WHERE k = 5",
                  "DELETE FROM c WHERE k = 'a3'; INSERT INTO c VALUES ('a3', '')")  # fmt: skip
        made = prove(books)
        assert changes(made)["n"] == (2, 2)
        books.assert_restores()
    finally:
        drop(books)


@pytest.mark.parametrize("size", [1, 7])
def test_many_keys_are_read_in_slices(books: Books, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(changed_rows, "SLICE_KEYS", size)
    books.run("CREATE TABLE n (k numeric PRIMARY KEY); INSERT INTO n SELECT g FROM generate_series(1, 300) g")
    follow(books)
    books.run("UPDATE orders SET v = 'x' WHERE id % 3 = 0; DELETE FROM orders WHERE id % 5 = 0")
    books.run("UPDATE spread SET v = 'y', at = at + 1; DELETE FROM spread WHERE id % 4 = 0")
    books.run("UPDATE n SET k = k + 0.0 WHERE k < 40; DELETE FROM n WHERE k = 7")
    books.back_up()
    books.assert_restores()


def test_how_much_log_the_slot_holds_back_is_in_the_backup_and_in_a_check_and_warned_of_where_it_is_much(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(books)
    books.run("INSERT INTO orders SELECT g, repeat('x', 1000) FROM generate_series(1000, 2000) g")
    made = books.back_up()
    match made.sources[0].definition["slot"]:
        case {"name": str(name), "held_bytes": int(held), "limit_bytes": None}:
            assert (name, held > 1_000_000) == (SLOT, True)
        case other:
            raise AssertionError(other)
    assert not any("holds back" in warning for warning in made.sources[0].warnings)
    said = held_log(made.sources[0])
    assert said
    assert f"replication slot {SLOT} held back" in said
    assert any(f"{SLOT} of slots" in note and "holds back" in note for note in check_repository(books.plan).notes)
    monkeypatch.setattr(slot_log, "WARN_BYTES", 1000)
    assert any("holds back" in warning for warning in books.back_up().sources[0].warnings)
