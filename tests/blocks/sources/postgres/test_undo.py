"""State A is backed up, state C is there, A is restored, and what was saved of C before brings C back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.undo import make_undo
from tests.blocks.sources.postgres.hand import State, restore, source_of, state_of
from tests.blocks.sources.postgres.kit import Books, gallery
from tests.postgres_server import PostgresServer

CHANGED = (
    "UPDATE every SET t = 'changed' WHERE id = 2; DELETE FROM every WHERE id = 3; INSERT INTO every (id) VALUES (77)",
    "INSERT INTO parent (name) VALUES ('newer'); DELETE FROM child WHERE id = 2; SELECT nextval('counting')",
    "INSERT INTO keyless VALUES (1, 'x', 1), (8, 'new', 8); DELETE FROM keyless WHERE a IS NULL",
    "INSERT INTO blank DEFAULT VALUES; UPDATE measured SET v = v + 100 WHERE v = 13",
    "SELECT lo_put(50001, 3, 'changed'); SELECT lo_from_bytea(50009, 'new'); SELECT lo_unlink(50002)",
)
OTHER = (
    "CREATE TABLE made_since (id int); INSERT INTO made_since VALUES (1); DROP VIEW seen",
    "ALTER TABLE every ADD COLUMN more int DEFAULT 7; CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 7'",
    "DROP TABLE refers; CREATE TABLE refers (x text PRIMARY KEY); INSERT INTO refers VALUES ('other')",
)


def added(before: State, after: State) -> dict[str, pa.Table]:
    """Return the keys of the rows that only the later state has."""
    found = {}
    for name, rows in after.rows.items():
        key = list(after.specs[name].key)
        known = {json.dumps(row, default=repr) for row in before.rows[name].select(key).to_pylist()}
        keys = rows.select(key)
        gone = [json.dumps(row, default=repr) not in known for row in keys.to_pylist()]
        found[name] = keys.filter(pa.array(gone, pa.bool_()))
    return found


@pytest.fixture
def states(server: PostgresServer) -> tuple[PostgresServer, State]:
    gallery(server, "undone")
    before = state_of(source_of(server, "undone"))
    server.run("undone", *CHANGED)
    return server, before


@pytest.mark.parametrize("other", [False, True], ids=["rows", "definitions"])
def test_an_exact_restore_of_everything_is_taken_back(states: tuple[PostgresServer, State], other: bool) -> None:
    server, before = states
    if other:
        server.run("undone", *OTHER)
    was = server.dump("undone")
    source = source_of(server, "undone")
    emergency = restore(source, before).emergency
    assert server.dump("undone") != was
    restore(source, emergency)
    assert server.dump("undone") == was


@pytest.mark.parametrize(
    "names", [["public.every", "public.audit"], ["public.child"], ["large_objects"], ["public.keyless"]]
)
def test_an_exact_restore_of_some_tables_is_taken_back(states: tuple[PostgresServer, State], names: list[str]) -> None:
    server, before = states
    was = server.dump("undone")
    source = source_of(server, "undone")
    emergency = restore(source, before, names).emergency
    restore(source, emergency, names)
    assert server.dump("undone") == was


def test_a_restore_of_one_key_is_taken_back_and_other_new_rows_stay(states: tuple[PostgresServer, State]) -> None:
    server, before = states
    source = source_of(server, "undone")
    one = Selection(("public.every",), ("2",))
    rows = {"public.every": one.rows(before.rows["public.every"], ("id",))}
    was = server.dump("undone")
    emergency = restore(source, before, ["public.every"], selection=one, rows=rows).emergency
    server.run("undone", "INSERT INTO every (id) VALUES (78)")
    live = {"public.every": one.rows(emergency.rows["public.every"], ("id",))}
    restore(source, emergency, ["public.every"], selection=one, rows=live)
    server.run("undone", "DELETE FROM every WHERE id = 78")
    assert server.dump("undone") == was


def test_a_merge_is_taken_back(states: tuple[PostgresServer, State]) -> None:
    server, before = states
    source = source_of(server, "undone")
    now = state_of(source)
    emergency = restore(source, before, mode=RestoreMode.MERGE).emergency
    after = state_of(source)
    restore(source, emergency, mode=RestoreMode.MERGE, removed=added(now, after))
    back = state_of(source)
    for name, rows in now.rows.items():
        # NaN is equal to nothing but its own text
        assert sorted(map(repr, back.rows[name].to_pylist())) == sorted(map(repr, rows.to_pylist())), name


MADE = (
    "CREATE EXTENSION hstore; CREATE SCHEMA extra; CREATE TYPE extra.mood AS ENUM ('a', 'b')",
    "CREATE FUNCTION extra.one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION extra.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE SEQUENCE extra.free; CREATE DOMAIN extra.posint AS int CHECK (VALUE > 0)",
    "CREATE TABLE stays (id int PRIMARY KEY)",
    "CREATE TABLE extra.made (id serial PRIMARY KEY, m extra.mood, n int DEFAULT extra.one(), h hstore,"
    " p extra.posint, f int DEFAULT nextval('extra.free'), s int REFERENCES stays)",
    "CREATE TRIGGER noted BEFORE INSERT ON extra.made FOR EACH ROW EXECUTE FUNCTION extra.note()",
    "CREATE TABLE split (id int) PARTITION BY RANGE (id); CREATE TABLE split_1 PARTITION OF split DEFAULT",
    "INSERT INTO stays VALUES (1); INSERT INTO extra.made (m, s) VALUES ('a', 1); INSERT INTO split VALUES (3)",
)


def seen_as(restored: State, before: State, names: list[str]) -> State:
    """Return the state before a restore, with the specs of what that has made."""
    return replace(before, specs=before.specs | {name: restored.specs[name] for name in names})


GONE = "DROP TABLE extra.made, split; DROP SCHEMA extra CASCADE; DROP EXTENSION hstore"


def test_tables_that_a_restore_made_are_dropped_with_what_it_made_for_them(server: PostgresServer) -> None:
    server.create("undone", *MADE)
    source = source_of(server, "undone")
    before = state_of(source)
    server.run("undone", GONE)
    was = server.dump("undone")
    names = ["extra.made", "public.split_1"]
    emergency = restore(source, before, names, mode=RestoreMode.MERGE).emergency
    assert server.dump("undone") != was
    restored = seen_as(before, emergency, names)
    gone = {name: before.rows[name] for name in names}
    target = restore(source, restored, [], mode=RestoreMode.MERGE, removed=gone, created=tuple(names)).target
    assert target.notes == []
    assert server.dump("undone") == was


def test_what_others_have_built_on_since_is_not_dropped(server: PostgresServer) -> None:
    server.create("undone", *MADE)
    source = source_of(server, "undone")
    before = state_of(source)
    server.run("undone", GONE)
    emergency = restore(source, before, ["extra.made"], mode=RestoreMode.MERGE).emergency
    server.run("undone", "CREATE TABLE stands_on (m extra.mood)")
    restored, gone = seen_as(before, emergency, ["extra.made"]), {"extra.made": before.rows["extra.made"]}
    target = restore(source, restored, [], mode=RestoreMode.MERGE, removed=gone, created=("extra.made",)).target
    assert any("extra.mood stays" in note for note in target.notes)
    with server.connect("undone") as session:
        assert session.execute("SELECT to_regclass('extra.made'), count(*) FROM stands_on").fetchone() == (None, 0)


def test_rows_of_an_undo_fit_into_what_was_made_since(server: PostgresServer) -> None:
    """An undo of a restore of some tables leaves alone what was made since beside them."""
    server.create("undone", *MADE)
    source = source_of(server, "undone")
    before = state_of(source)
    server.run("undone", "INSERT INTO stays VALUES (2)")
    emergency = restore(source, before, ["public.stays"]).emergency
    server.run("undone", "CREATE TABLE beside (id int); INSERT INTO beside VALUES (1)")
    restore(source, emergency, ["public.stays"])
    with server.connect("undone") as session:
        counts: Any = session.execute("SELECT (SELECT count(*) FROM stays), (SELECT count(*) FROM beside)").fetchone()
    assert counts == (2, 1)


@pytest.mark.parametrize(
    ("statements", "options"),
    [
        (CHANGED, {}),
        ((*CHANGED, *OTHER), {}),
        (CHANGED[:-1], {"mode": RestoreMode.MERGE}),
        (CHANGED, {"collections": ("books/public.child", "books/large_objects")}),
        (CHANGED, {"collections": ("books/public.every",), "keys": ("2", "3")}),
        (
            ("DROP TABLE refers, measured CASCADE; DROP TABLE insensitive",),
            {"collections": ("books/public.insensitive",)},
        ),
    ],
    ids=["rows", "definitions", "merge", "tables", "keys", "made"],
)
@pytest.mark.share(2)
def test_undo_brings_back_what_was_there(
    server: PostgresServer, tmp_path: Path, statements: tuple[str, ...], options: dict[str, Any]
) -> None:
    gallery(server, "undone")
    books = Books(server, tmp_path, "undone")
    books.back_up(BackupType.FULL)
    books.run(*statements)
    was, positions = books.dump(), re.compile(r"SELECT pg_catalog\.setval")
    books.restore(**options)
    there = books.dump()
    assert there != was
    make_undo(books.plan)
    if options.get("mode") is RestoreMode.MERGE:
        # sequences that a merge has moved on stay there: values may have been given out since
        was = [line for line in was if not positions.match(line)]
        assert [line for line in books.dump() if not positions.match(line)] == was
        return
    assert books.dump() == was
    make_undo(books.plan)
    assert books.dump() == there


@pytest.mark.parametrize(("declared", "kept", "live"), [("citext", "ann", "Ann"), ("numeric", "1.0", "1.00")])
def test_a_key_that_is_equal_to_a_selected_one_is_another_record(
    server: PostgresServer, tmp_path: Path, declared: str, kept: str, live: str
) -> None:
    server.create(
        "equal",
        "CREATE EXTENSION citext",
        f"CREATE TABLE t (k {declared} PRIMARY KEY, v text)",
        f"INSERT INTO t VALUES ('{kept}', 'old')",
    )
    books = Books(server, tmp_path, "equal")
    books.back_up(BackupType.FULL)
    books.run(f"UPDATE t SET k = '{live}', v = 'newest'")
    was = books.dump()
    for mode in (RestoreMode.EXACT, RestoreMode.MERGE):
        with pytest.raises(RestoreRefused, match="duplicate key"):
            books.restore(mode=mode, collections=("books/public.t",), keys=(kept,))
        assert books.dump() == was
        books.restore(mode=mode)
        assert books.dump() != was
        make_undo(books.plan)
        assert books.dump() == was
