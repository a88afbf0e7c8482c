"""A restore writes and deletes what both the plan and the backup cover, and drops nothing that no backup holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupType
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

SHOP = (
    "CREATE SCHEMA more; CREATE TABLE more.notes (id serial PRIMARY KEY, v text)",
    "CREATE TABLE parent (id serial PRIMARY KEY, v text)",
    "CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent, v text)",
    "INSERT INTO parent (v) VALUES ('a'), ('b'); INSERT INTO child (parent, v) VALUES (1, 'x'), (2, 'y')",
    "INSERT INTO more.notes (v) VALUES ('n')",
    "CREATE MATERIALIZED VIEW more.counted AS SELECT count(*) AS n FROM more.notes",
    "SELECT lo_from_bytea(70001, 'large')",
)
NEWER = (
    "INSERT INTO parent (v) VALUES ('newer'); UPDATE parent SET v = 'changed' WHERE id = 1",
    "INSERT INTO child (parent, v) VALUES (1, 'newer'); DELETE FROM child WHERE id = 1",
    "INSERT INTO more.notes (v) VALUES ('newer')",
    "SELECT lo_from_bytea(70002, 'newer'); SELECT lo_put(70001, 0, 'LARGE')",
)


@pytest.fixture
def shop(server: PostgresServer) -> PostgresServer:
    server.create("shop", *SHOP)
    return server


def answer(server: PostgresServer, query: str) -> Any:
    with server.connect("shop") as session:
        return session.execute(query.encode()).fetchall()


NOT_NOTES = "SELECT (SELECT count(*) FROM more.notes), (SELECT last_value FROM more.notes_id_seq)"
LARGE = "SELECT loid::int8, data FROM pg_largeobject ORDER BY 1"
PARENTS = "SELECT id, v FROM parent ORDER BY id"
CHILDREN = "SELECT id, v FROM child ORDER BY id"


@pytest.mark.parametrize(
    "fields",
    [{"exclude": ["more.*"]}, {"schemas": ["public"]}, {"tables": ["public.*"]}],
    ids=["exclude", "schemas", "tables"],
)
@pytest.mark.parametrize("other_definitions", [False, True])
def test_what_the_plan_has_left_out_since_a_full_is_not_touched(
    shop: PostgresServer, fields: dict[str, Any], other_definitions: bool
) -> None:
    whole = state_of(source_of(shop, "shop"))
    shop.run("shop", *NEWER)
    if other_definitions:
        shop.run("shop", "CREATE TABLE made_since (id int); INSERT INTO made_since VALUES (1)")
        shop.run("shop", "CREATE TABLE more.made_since (id int); INSERT INTO more.made_since VALUES (1)")
    notes, large = answer(shop, NOT_NOTES), answer(shop, LARGE)
    counted = answer(shop, "SELECT n FROM more.counted")
    source = source_of(shop, "shop", **fields)
    assert not source.covers(whole.specs["more.notes"])
    assert not source.covers(whole.specs["large_objects"])
    assert source.covers(whole.specs["public.parent"])
    said = restore(source, whole).said
    assert any("stays as it is" in sentence for sentence in said)
    assert answer(shop, PARENTS) == [(1, "a"), (2, "b")]
    assert answer(shop, CHILDREN) == [(1, "x"), (2, "y")]
    assert answer(shop, "SELECT last_value FROM parent_id_seq") == [(2,)]
    assert (answer(shop, NOT_NOTES), answer(shop, LARGE)) == (notes, large)
    assert answer(shop, "SELECT n FROM more.counted") == counted
    if other_definitions:
        assert answer(shop, "SELECT * FROM made_since UNION ALL SELECT * FROM more.made_since") == [(1,), (1,)]


def test_a_flow_restores_a_full_after_a_table_was_left_out(server: PostgresServer, tmp_path: Path) -> None:
    server.create("shop", *SHOP)
    books = Books(server, tmp_path, "shop")
    books.back_up(BackupType.FULL)
    server.run("shop", *NEWER)
    narrowed = books.source.model_copy(update={"exclude": ["more.notes"]})
    books.plan.sources["books"] = narrowed
    books.restore()
    assert answer(server, "SELECT v FROM more.notes ORDER BY id") == [("n",), ("newer",)]
    assert answer(server, PARENTS) == [(1, "a"), (2, "b")]


def test_what_the_backup_did_not_cover_is_not_deleted_where_the_plan_covers_it_now(shop: PostgresServer) -> None:
    narrow = state_of(source_of(shop, "shop", tables=["public.child"]))
    shop.run("shop", *NEWER, "CREATE TABLE made_since (id int); INSERT INTO made_since VALUES (1)")
    notes, large, parents = answer(shop, NOT_NOTES), answer(shop, LARGE), answer(shop, PARENTS)
    restore(source_of(shop, "shop"), narrow)
    assert answer(shop, CHILDREN) == [(1, "x"), (2, "y")]
    assert (answer(shop, NOT_NOTES), answer(shop, LARGE), answer(shop, PARENTS)) == (notes, large, parents)
    assert answer(shop, "SELECT * FROM made_since") == [(1,)]


def test_a_foreign_key_to_a_table_that_is_left_out_stops_a_restore_that_would_break_it(shop: PostgresServer) -> None:
    whole = state_of(source_of(shop, "shop"))
    shop.run("shop", "DELETE FROM child; DELETE FROM parent WHERE id = 2; INSERT INTO child VALUES (9, 1, 'newer')")
    before = shop.dump("shop")
    with pytest.raises(RestoreRefused, match="foreign key"):
        restore(source_of(shop, "shop", exclude=["public.parent"]), whole)
    assert shop.dump("shop") == before


def test_a_partition_that_is_left_out_keeps_its_rows(server: PostgresServer) -> None:
    server.create(
        "shop",
        "CREATE TABLE m (at int PRIMARY KEY, v text) PARTITION BY RANGE (at)",
        "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); CREATE TABLE m2 PARTITION OF m DEFAULT",
        "CREATE TABLE base (id int PRIMARY KEY); CREATE TABLE derived (w int) INHERITS (base)",
        "INSERT INTO m VALUES (1, 'a'), (20, 'b'); INSERT INTO base VALUES (1); INSERT INTO derived VALUES (1, 2)",
    )
    whole = state_of(source_of(server, "shop"))
    server.run("shop", "INSERT INTO m VALUES (2, 'newer'), (21, 'newer')", "UPDATE base SET id = id + 1")
    restore(source_of(server, "shop", exclude=["public.m2", "public.derived"]), whole)
    assert answer(server, "SELECT v FROM m ORDER BY at") == [("a",), ("b",), ("newer",)]
    assert answer(server, "SELECT id FROM ONLY base UNION ALL SELECT id FROM derived") == [(1,), (2,)]


CONFIGURED = (
    "CREATE EXTENSION hstore; CREATE TABLE job (id int PRIMARY KEY, what text); CREATE TABLE lookup (id int)",
    "ALTER EXTENSION hstore ADD TABLE job; ALTER EXTENSION hstore ADD TABLE lookup",
    "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
)
REGISTERED = (
    "SET allow_system_table_mods = on",
    "UPDATE pg_extension SET extconfig = ARRAY['job'::regclass::oid], extcondition = ARRAY['WHERE id > 10']"
    " WHERE extname = 'hstore'",
)


@pytest.fixture
def extended(server: PostgresServer) -> Iterator[PostgresServer]:
    server.create("shop", *CONFIGURED)
    with server.connect("shop") as session:
        for statement in REGISTERED:
            session.execute(statement)
    yield server
    server.run("postgres", "DROP DATABASE shop WITH (FORCE)")


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("INSERT INTO job VALUES (11, 'a job of the user')", r"job.*hstore"),
        ("INSERT INTO lookup VALUES (1)", r"lookup.*hstore"),
    ],
)
def test_rows_in_tables_of_extensions_are_never_dropped(extended: PostgresServer, rows: str, named: str) -> None:
    whole = state_of(source_of(extended, "shop"))
    extended.run("shop", rows, "CREATE TABLE made_since (id int)")
    before = (
        extended.dump("shop"),
        answer(extended, "SELECT count(*) FROM job"),
        answer(extended, "SELECT * FROM lookup"),
    )
    target = source_of(extended, "shop").target(whole.scope())
    with pytest.raises(RestoreRefused, match=named):
        target.preflight()
    # the same definitions: only rows are written, and what belongs to the extension stays
    extended.run("shop", "DROP TABLE made_since; DELETE FROM t")
    restore(source_of(extended, "shop"), whole)
    extended.run("shop", "CREATE TABLE made_since (id int)")
    after = (
        extended.dump("shop"),
        answer(extended, "SELECT count(*) FROM job"),
        answer(extended, "SELECT * FROM lookup"),
    )
    assert after == before


def test_rows_that_an_extension_brings_itself_do_not_stop_a_restore(extended: PostgresServer) -> None:
    whole = state_of(source_of(extended, "shop"))
    extended.run(
        "shop", "INSERT INTO job VALUES (1, 'one that the extension makes')", "CREATE TABLE made_since (id int)"
    )
    source_of(extended, "shop").target(whole.scope()).preflight()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE SUBSCRIPTION followed CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)", "followed"),
        ("BEGIN; INSERT INTO parent (v) VALUES ('p'); PREPARE TRANSACTION 'underway'", "underway"),
        ("UPDATE child SET v = 'z'; CREATE UNIQUE INDEX CONCURRENTLY broken ON child (v)", "broken"),
    ],
)
def test_what_no_backup_holds_stops_a_restore_that_would_drop_it(
    shop: PostgresServer, statement: str, named: str
) -> None:
    whole = state_of(source_of(shop, "shop"))
    shop.run("shop", "CREATE TABLE made_since (id int)")
    with shop.connect("shop") as session:
        for one in statement.split("; "):
            try:
                session.execute(one.encode())
            except Exception:
                assert named == "broken"
    try:
        with pytest.raises(RestoreRefused, match=named):
            source_of(shop, "shop").target(whole.scope()).preflight()
    finally:
        if named == "underway":
            shop.run("shop", "ROLLBACK PREPARED 'underway'")
        if named == "followed":
            shop.run("shop", "ALTER SUBSCRIPTION followed SET (slot_name = NONE); DROP SUBSCRIPTION followed")


def test_casts_and_default_privileges_come_back_as_they_were(server: PostgresServer) -> None:
    server.run("postgres", "DO $$BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    make = "CREATE CAST (bytea AS text) WITHOUT FUNCTION; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader"
    server.create("shop", make, "CREATE TABLE t (id int)")
    before = server.dump("shop")
    whole = state_of(source_of(server, "shop"))
    server.run(
        "shop", "CREATE TABLE made_since (id int); ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
    )
    restore(source_of(server, "shop"), whole, mode=RestoreMode.EXACT)
    assert server.dump("shop") == before
    server.run("postgres", "DROP DATABASE shop")
