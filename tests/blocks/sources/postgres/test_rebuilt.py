"""One object that cannot be rebuilt does not hold a backup hostage."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.target import NotRebuilt
from tests.blocks.sources.postgres.hand import State, restore, source_of, state_of, write
from tests.postgres_server import PostgresServer

WORKS = (
    "CREATE TABLE limits (id int PRIMARY KEY, most int)",
    "INSERT INTO limits VALUES (1, 10)",
    "CREATE FUNCTION within(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 <= max(most) FROM public.limits'",
    "CREATE TABLE a_checked (id int PRIMARY KEY, n int, CONSTRAINT few CHECK (within(n)))",
    "COMMENT ON CONSTRAINT few ON a_checked IS 'not many'",
    "INSERT INTO a_checked VALUES (1, 5)",
    "CREATE DOMAIN positive AS int",
    "CREATE TABLE counted (id int PRIMARY KEY, n positive)",
    "INSERT INTO counted VALUES (1, -1)",
    "ALTER DOMAIN positive ADD CONSTRAINT above CHECK (VALUE > 0) NOT VALID",
    "CREATE FUNCTION rate() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN most FROM limits; END'",
    "CREATE TABLE rated (id int PRIMARY KEY, n int GENERATED ALWAYS AS (id * rate()) STORED)",
    "INSERT INTO rated VALUES (1), (2)",
    "CREATE MATERIALIZED VIEW rates AS SELECT rate() AS n",
    "CREATE FUNCTION times(int) RETURNS int LANGUAGE plpgsql IMMUTABLE"
    " AS 'BEGIN RETURN $1 * max(most) FROM limits; END'",
    "CREATE INDEX by_rate ON counted (times(id))",
    "CREATE TABLE folded (id int PRIMARY KEY, c regclass)",
    "INSERT INTO folded SELECT g, 'limits' FROM generate_series(1, 99) g",
    "CREATE INDEX by_fold ON folded (id) WHERE id > rate()",
    "CREATE DOMAIN calls AS regproc",
    "CREATE TABLE loads (id int PRIMARY KEY, f regproc, d calls, fs regproc[], o regoper)",
    "INSERT INTO loads VALUES (1, 'within', 'rate', '{rate,NULL,-}', '0')",
    "CREATE FUNCTION within(text) RETURNS bool LANGUAGE sql AS 'SELECT true'",
    "CREATE FUNCTION \"odd(name)\"() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "INSERT INTO loads VALUES (2, 'within(text)'::regprocedure, 'abs(int)'::regprocedure,"
    " ARRAY['within(text)', 'substr(text,int)', 'rate()', '-', NULL, '\"odd(name)\"()']::regprocedure[],"
    " '+(int,int)'::regoperator),"
    " (3, '\"odd(name)\"', '12345', '{\"\\\"odd(name)\\\"\"}', '<->(point,point)'::regoperator),"
    " (4, '-', NULL, NULL, '0')",
)
CALLS = (
    "SELECT id, f::regprocedure::text, d::regprocedure::text, fs::regprocedure[]::text, o::regoperator::text"
    " FROM loads ORDER BY id"
)
FAILS = (
    "CREATE TABLE parents (id int PRIMARY KEY)",
    "CREATE TABLE orphans (id int PRIMARY KEY, parent int CONSTRAINT kin REFERENCES parents)",
    "SET session_replication_role = replica; INSERT INTO orphans VALUES (1, 99)",
    "CREATE TABLE divisors (n int); INSERT INTO divisors VALUES (1)",
    "CREATE MATERIALIZED VIEW quotients AS SELECT 1 / n AS q FROM divisors",
    "CREATE INDEX by_quotient ON quotients (q)",
    "INSERT INTO divisors VALUES (0)",
)
LEFT_OUT = {"foreign key kin of public.orphans", "materialised view public.quotients"}
COUNTS = "SELECT (SELECT count(*) FROM orphans), (SELECT count(*) FROM divisors), (SELECT count(*) FROM rated)"
FOREIGN_KEY = "SELECT convalidated FROM pg_constraint WHERE conname = 'kin'"


def answer(server: PostgresServer, database: str, query: str) -> Any:
    with server.connect(database) as session:
        return session.execute(query.encode()).fetchall()


def rebuild(server: PostgresServer, state: State, database: str, **more: Any) -> list[NotRebuilt]:
    """Restore to another database; return what was left out."""
    names = more.pop("names", None)
    target = source_of(server, "books").target(state.scope(names, in_place=False, **more), server.dsn(database))
    try:
        target.preflight()
        write(target, state, names)
    finally:
        target.abort()
    return list(target.not_rebuilt)


@pytest.fixture
def broken(server: PostgresServer) -> State:
    server.create("books", *WORKS, *FAILS)
    return state_of(source_of(server, "books"))


def test_what_needs_other_rows_or_a_search_path_is_rebuilt(server: PostgresServer) -> None:
    server.create("books", *WORKS)
    state = state_of(source_of(server, "books"))
    assert rebuild(server, state, "elsewhere") == []
    assert server.dump("elsewhere") == server.dump("books")
    calls = answer(server, "books", CALLS)
    assert calls[1][1:] == (
        "within(text)",
        "abs(integer)",
        '{within(text),"substr(text,integer)",rate(),-,NULL,"\\"odd(name)\\"()"}',
        "+(integer,integer)",
    )
    assert answer(server, "elsewhere", CALLS) == calls
    assert state_of(source_of(server, "elsewhere")).rows["public.loads"] == state.rows["public.loads"]
    restore(source_of(server, "books"), state)
    assert answer(server, "books", CALLS) == calls
    assert server.dump("books") == server.dump("elsewhere")
    server.run("books", "CREATE TABLE other (id int)")  # so that all of it is built again
    restore(source_of(server, "books"), state)
    assert server.dump("books") == server.dump("elsewhere")
    assert rebuild(server, state, "narrowed", names=["public.a_checked", "public.limits", "public.rated"]) == []
    assert answer(server, "narrowed", "SELECT n FROM rated ORDER BY id") == [(10,), (20,)]


def test_all_else_comes_back(server: PostgresServer, broken: State) -> None:
    assert "foreign key kin cannot be restored" in " ".join(broken.warnings)
    with pytest.raises(RestoreRefused, match=r"foreign key kin of public.orphans cannot be rebuilt") as refused:
        source_of(server, "books").target(broken.scope(in_place=False), server.dsn("going_on")).preflight()
    assert "--keep-going" in (refused.value.hint or "")
    del broken.definition["orphaned"]  # as in backups of tables that are too large to be looked at
    with pytest.raises(RestoreRefused, match=r"cannot be rebuilt in .*going_on") as refused:
        rebuild(server, broken, "going_on")
    assert "--keep-going" in (refused.value.hint or "")
    assert any(name in str(refused.value) for name in LEFT_OUT)
    assert answer(server, "postgres", "SELECT FROM pg_database WHERE datname = 'going_on'") == []
    left_out = rebuild(server, broken, "going_on", keep_going=True)
    assert {one.name for one in left_out} == LEFT_OUT
    assert answer(server, "going_on", COUNTS) == [(1, 2, 2)]
    assert answer(server, "going_on", FOREIGN_KEY) == [(False,)]
    server.run("going_on", "INSERT INTO parents VALUES (99)", "DELETE FROM divisors WHERE n = 0")
    server.run("going_on", *(one.statement for one in left_out))
    assert answer(server, "going_on", FOREIGN_KEY) == [(True,)]
    assert answer(server, "going_on", "SELECT q FROM quotients") == [(1,)]


@pytest.mark.parametrize("rebuilt", [False, True])
def test_all_else_comes_back_in_place(server: PostgresServer, broken: State, rebuilt: bool) -> None:
    source = source_of(server, "books")
    server.run("books", "DELETE FROM rated")
    if rebuilt:
        server.run("books", "CREATE TABLE other (id int)")
        del broken.definition["orphaned"]
    before = server.dump("books")
    with pytest.raises(RestoreRefused, match=r"kin of public\.orphans|public\.quotients"):
        restore(source, broken)
    assert server.dump("books") == before
    left_out = restore(source, broken, keep_going=True).target.not_rebuilt  # type: ignore[attr-defined]
    assert {one.name for one in left_out} == LEFT_OUT
    assert answer(server, "books", COUNTS) == [(1, 2, 2)]
    assert answer(server, "books", FOREIGN_KEY) == [(False,)]


def test_a_table_that_cannot_be_made_or_filled_holds_no_other_hostage(server: PostgresServer) -> None:
    server.create(
        "books",
        "CREATE EXTENSION citext",
        "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1)",
        "CREATE FUNCTION one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1 / $1; END'",
        "CREATE TABLE filled (id int PRIMARY KEY, n int GENERATED ALWAYS AS (one(id)) STORED)",
        "INSERT INTO filled VALUES (1)",
        "CREATE TABLE twice (id int); INSERT INTO twice VALUES (1), (2)",
        "CREATE TABLE made (id serial PRIMARY KEY, t citext); INSERT INTO made VALUES (1, 'a')",
        "CREATE INDEX by_text ON made (t); CREATE VIEW seen AS SELECT t FROM made; GRANT SELECT ON made TO PUBLIC",
        "CREATE TABLE refers (id int PRIMARY KEY, made int CONSTRAINT to_made REFERENCES made)",
        "INSERT INTO refers VALUES (1, 1)",
    )
    server.run(
        "books",
        "CREATE OR REPLACE FUNCTION one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN nowhere.f(); END'",
    )
    source = source_of(server, "books")
    state = state_of(source)
    state.definition["before"] = str(state.definition["before"]).replace("EXISTS citext", "EXISTS not_installed")
    state.definition["after"] = str(state.definition["after"]) + (
        "\n--\n-- Name: twice u; Type: CONSTRAINT; Schema: public; Owner: x\n--\n\n"
        "ALTER TABLE ONLY public.twice ADD CONSTRAINT u UNIQUE (nothing);\n"
    )
    with pytest.raises(RestoreRefused, match="extension not_installed is not installed"):
        rebuild(server, state, "unfilled")
    tables = ["public.kept", "public.filled", "public.twice", "public.made", "public.refers"]
    for names, name in ((None, "unfilled"), (tables, "unfilled_in_part"), (None, "books")):
        if name == "books":
            found = restore(source, state, keep_going=True).target.not_rebuilt  # type: ignore[attr-defined]
        else:
            found = rebuild(server, state, name, names=names, keep_going=True)
        left_out = {one.name: one.statement for one in found}
        assert {
            "extension not_installed",
            "table public.made",
            "rows of table public.made",
            "rows of table public.filled",
            "constraint u of public.twice",
            "index by_text of public.made",
            "foreign key to_made of public.refers",
            *(("view public.seen",) if names is None else ()),
        } <= left_out.keys()
        assert "CREATE TABLE public.made (" in left_out["table public.made"]
        counts = "SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM twice), (SELECT count(*) FROM refers)"
        assert answer(server, name, counts) == [(1, 2, 1)]
