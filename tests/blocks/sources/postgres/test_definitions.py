"""Definitions come back to the letter, whatever lines of pg_dump's own users have written into them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.sources.postgres.schema.dump import dump_definitions
from blocks.sources.postgres.schema.entries import statements
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.postgres_server import PostgresServer

LINES = (
    *("-- PostgreSQL database dump", "-- PostgreSQL database dump complete", "-- Dumped by pg_dump version 1.0"),
    *("-- Dumped from database version 1.0", "\\restrict abc", "\\unrestrict abc", "\\connect other", "\\."),
    *("CREATE SCHEMA public;", "CREATE SCHEMA IF NOT EXISTS public;", "SET transaction_timeout = 0;"),
    *("SET default_tablespace = evil;", "ALTER TABLE public.t OWNER TO nobody;", "--", "", "CREATE EXTENSION x;"),
    *("REFRESH MATERIALIZED VIEW public.unfilled;", "SELECT pg_catalog.lo_create('70003');", "*/", "/*", "';", '";'),
    "-- Name: t; Type: TABLE; Schema: public; Owner: nobody",
)
TEXT = "\n" + "\n".join(LINES) + "\n"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def objects() -> list[str]:
    """Return statements with these lines in every place where a user can write."""
    name = '"' + "\nCREATE SCHEMA public;\n\\restrict b\n".replace('"', '""') + '"'
    return [
        f"CREATE TABLE t (id int PRIMARY KEY, v text DEFAULT {quoted(TEXT)}, CHECK (v <> {quoted(TEXT)}))",
        "SET check_function_bodies = off",
        f"CREATE FUNCTION body() RETURNS text LANGUAGE plpgsql AS $body${TEXT}$body$",
        "CREATE FUNCTION acts() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE FUNCTION inside() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 'a' ELSE 'b' END;"
        f" SELECT {quoted(TEXT)}::text; END",
        f"CREATE VIEW seen AS SELECT {quoted(TEXT)}::text AS v",
        "CREATE MATERIALIZED VIEW unfilled AS SELECT id FROM t WITH NO DATA",
        "CREATE TRIGGER acts BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION acts()",
        "CREATE TABLE twice (id int); CREATE RULE twice AS ON INSERT TO twice DO INSTEAD"
        f" (INSERT INTO t (id, v) VALUES (NEW.id, {quoted(TEXT)}); DELETE FROM t WHERE v = {quoted(TEXT)})",
        f"CREATE TYPE label AS ENUM ({quoted(chr(10) + 'CREATE SCHEMA public;' + chr(10))})",
        f"CREATE TABLE {name} ({name} int); CREATE INDEX ON {name} ((1)) WHERE {name} > 0",
        f"CREATE POLICY own ON t USING (v = {quoted(TEXT)})",
        *(
            f"COMMENT ON {what} IS {quoted(TEXT)}"
            for what in ("TABLE t", "TRIGGER acts ON t", "INDEX t_pkey", "SCHEMA public", "FUNCTION body()")
        ),
    ]


@pytest.mark.parametrize("fields", [{}, {"schemas": ["public"]}], ids=["whole", "schema"])
def test_lines_that_look_like_those_of_a_dump_come_back(server: PostgresServer, fields: dict[str, list[str]]) -> None:
    server.create("lines", *objects(), "INSERT INTO t VALUES (1, 'x')")
    before = server.dump("lines")
    source = source_of(server, "lines", **fields)
    whole = state_of(source)
    server.run("postgres", "DROP DATABASE IF EXISTS lines_copy")
    restore(source, whole, to=server.dsn("lines_copy"))
    assert server.dump("lines_copy") == before
    server.run("lines", "DELETE FROM t", *([] if fields else ["SELECT lo_create(70003)"]))
    restore(source, whole)
    assert server.dump("lines") == before
    if not fields:
        server.run("lines", "ALTER TABLE t ADD COLUMN more int")
        restore(source, whole)
        assert server.dump("lines") == before
    server.run("postgres", "DROP DATABASE lines", "DROP DATABASE lines_copy")


def test_definitions_of_one_database_are_one_text(server: PostgresServer) -> None:
    """Whatever random words pg_dump writes around them."""
    server.create("lines", *objects())
    version, dsn = server.programs.version, server.dsn("lines")
    one, other = (dump_definitions(dsn, None, (), version, str(server.programs.pg_dump)) for _ in range(2))
    assert one == other
    assert not one.before.startswith("\\restrict")
    assert "\n\\restrict" not in one.before.partition("-- Name: ")[0]
    chosen = dump_definitions(dsn, None, ["--schema=public"], version, str(server.programs.pg_dump))
    assert chosen.before.count("\nCREATE SCHEMA IF NOT EXISTS public;\n\n\nALTER") == 1
    assert chosen.before.count(TEXT) == one.before.count(TEXT) > 0
    server.run("postgres", "DROP DATABASE lines")


written = st.lists(st.sampled_from([*LINES, "'", '"', "$$", "(", ")", ";", "BEGIN ATOMIC", "END", "CASE"])).map(
    "\n".join
)


@given(st.lists(st.tuples(st.sampled_from(["text", "body", "name", "comment"]), written), max_size=6))
def test_statements_end_where_they_end(parts: list[tuple[str, str]]) -> None:
    text, expected = "", []
    for kind, inside in parts:
        if kind == "comment":
            text += "-- " + inside.replace("\n", " ") + "\n"
            continue
        body = {"text": quoted(inside), "name": '"' + inside.replace('"', '""') + 'x"', "body": f"$_${inside}$_$"}[kind]
        expected.append((len(text), f"SELECT ({body}, (1));"))
        text += expected[-1][1] + "\n\n"
    assert list(statements(text)) == expected


def test_what_is_between_the_ends_of_a_body_is_one_statement() -> None:
    atomic = (
        "CREATE FUNCTION f() RETURNS int\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 ELSE 2 END;\n SELECT 2;\nEND;"
    )
    rule = "CREATE RULE r AS ON INSERT TO t DO INSTEAD ( SELECT 1;\n SELECT 2;\n);"
    other = 'SELECT "begin", "END" FROM atomic;'
    assert [one for _, one in statements("\n".join((atomic, rule, other)))] == [atomic, rule, other]
