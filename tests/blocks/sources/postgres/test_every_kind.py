# ruff: noqa: E501  statements of SQL are not broken where a value would change by it
"""An exact restore in place is exact about one object of every kind that pg_dump knows, in the backup and in the way."""

from __future__ import annotations

import pytest
from psycopg import sql

from blocks.errors import RestoreRefused
from blocks.sources.postgres.schema.contents import contents
from blocks.sources.postgres.schema.entries import split
from blocks.sources.postgres.schema.live import is_empty, what_is_there
from blocks.sources.postgres.schema.system_privileges import changed_system_privileges
from blocks.sources.postgres.write.strategies import RestoreMethod
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.postgres_server import PostgresServer

PLAIN = ("CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1), (2)",)

EVERY_KIND = r"""
CREATE SCHEMA "S s"; GRANT USAGE ON SCHEMA "S s" TO reader; COMMENT ON SCHEMA "S s" IS 's';
CREATE TABLE made (id serial PRIMARY KEY, a int DEFAULT 3 CHECK (a > 0), b int UNIQUE, up int REFERENCES made);
ALTER TABLE made ADD CONSTRAINT unproved CHECK (b > 5) NOT VALID;
INSERT INTO made (a, b) VALUES (1, 7); GRANT SELECT ON made TO reader; GRANT UPDATE (a) ON made TO PUBLIC;
CREATE INDEX on_it ON made (a); ALTER TABLE made CLUSTER ON on_it; CREATE STATISTICS "S s".of_it ON a, b FROM made;
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE PROCEDURE go() LANGUAGE sql AS 'SELECT 1';
CREATE TRIGGER acts AFTER INSERT ON made FOR EACH ROW EXECUTE FUNCTION act(); CREATE RULE quiet AS ON UPDATE TO made DO INSTEAD NOTHING;
ALTER TABLE made ENABLE ALWAYS RULE quiet; ALTER TABLE made ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON made USING (id > 1);
COMMENT ON POLICY own ON made IS 'p'; COMMENT ON RULE quiet ON made IS 'r'; COMMENT ON TRIGGER acts ON made IS 't';
CREATE TABLE "S s".split (id int, v int) PARTITION BY RANGE (id); CREATE TABLE split_1 PARTITION OF "S s".split DEFAULT;
CREATE INDEX ON "S s".split (v); CREATE TABLE heir (c int) INHERITS (made); CREATE SEQUENCE counts START 7; SELECT nextval('counts');
CREATE VIEW seen AS SELECT id FROM made; CREATE MATERIALIZED VIEW kept AS SELECT id FROM made;
CREATE TYPE shell; CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE pair AS (x int, y mood); CREATE DOMAIN low AS int CHECK (VALUE < 9);
CREATE TYPE span AS RANGE (SUBTYPE = float8);
CREATE TYPE own; CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal STRICT IMMUTABLE AS 'int4in';
CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'int4out';
CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = int4); CREATE CAST (own AS int) WITHOUT FUNCTION;
CREATE CAST (bytea AS text) WITHOUT FUNCTION AS ASSIGNMENT; COMMENT ON CAST (bytea AS text) IS 'c'; CREATE CAST (bigint AS bool) WITH INOUT;
CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int); CREATE FUNCTION alike(int, int) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = alike); CREATE OPERATOR FAMILY family USING btree;
CREATE OPERATOR CLASS class FOR TYPE int USING btree FAMILY family AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
CREATE ACCESS METHOD "A m" TYPE INDEX HANDLER bthandler; CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD "A m" IS 'm'; CREATE TABLE heaped (id int) USING heap_too;
CREATE COLLATION plainly FROM "C"; CREATE CONVERSION converts FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH CONFIGURATION found (COPY = simple); CREATE TEXT SEARCH DICTIONARY words (TEMPLATE = simple);
CREATE TEXT SEARCH PARSER parses (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE shape (LEXIZE = dsimple_lexize);
CREATE FUNCTION handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE TRUSTED LANGUAGE "L l" HANDLER handler; GRANT USAGE ON LANGUAGE "L l" TO reader; COMMENT ON LANGUAGE "L l" IS 'l';
CREATE TRANSFORM FOR int4 LANGUAGE "L l" (FROM SQL WITH FUNCTION pg_catalog.prsd_lextype(internal));
CREATE FOREIGN DATA WRAPPER "F w" OPTIONS (a 'b'); GRANT USAGE ON FOREIGN DATA WRAPPER "F w" TO reader; CREATE SERVER "E s" FOREIGN DATA WRAPPER "F w";
CREATE USER MAPPING FOR reader SERVER "E s" OPTIONS (user 'u'); CREATE FOREIGN TABLE far (a int) SERVER "E s";
CREATE PUBLICATION "P p" FOR TABLE made; CREATE PUBLICATION entire FOR ALL TABLES; COMMENT ON PUBLICATION entire IS 'u';
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no definitions now''; END';
CREATE EVENT TRIGGER "W w" ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'CREATE TABLE') EXECUTE FUNCTION watch(); COMMENT ON EVENT TRIGGER "W w" IS 'w';
CREATE EXTENSION citext; COMMENT ON EXTENSION citext IS 'x'; CREATE EXTENSION hstore SCHEMA "S s";
SELECT lo_from_bytea(70001, 'large'); GRANT SELECT ON LARGE OBJECT 70001 TO reader; COMMENT ON LARGE OBJECT 70001 IS 'o';
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE reader GRANT ALL ON SCHEMAS TO PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT UPDATE ON SEQUENCES TO reader;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC; GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO reader;
GRANT SELECT ON pg_catalog.pg_authid TO reader WITH GRANT OPTION; GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO PUBLIC;
REVOKE SELECT ON pg_catalog.pg_settings FROM PUBLIC; REVOKE SELECT (subname) ON pg_catalog.pg_subscription FROM PUBLIC;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; REVOKE USAGE ON TYPE pg_catalog.int4 FROM PUBLIC; GRANT CREATE ON SCHEMA pg_catalog TO reader;
GRANT CREATE ON SCHEMA public TO reader; COMMENT ON SCHEMA public IS 'mine';
"""
SINCE_15 = 'CREATE PUBLICATION whole_schema FOR TABLES IN SCHEMA "S s"'

TYPES = {
    *(
        "ACCESS METHOD",
        "ACL",
        "AGGREGATE",
        "CAST",
        "CHECK CONSTRAINT",
        "COLLATION",
        "COMMENT",
        "CONSTRAINT",
        "CONVERSION",
    ),
    *("DEFAULT", "DEFAULT ACL", "DOMAIN", "EVENT TRIGGER", "EXTENSION", "FK CONSTRAINT", "FOREIGN DATA WRAPPER"),
    *(
        "FOREIGN TABLE",
        "FUNCTION",
        "INDEX",
        "INDEX ATTACH",
        "LARGE OBJECTS",
        "MATERIALIZED VIEW",
        "MATERIALIZED VIEW DATA",
    ),
    *("OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "POLICY", "PROCEDURAL LANGUAGE", "PROCEDURE", "PUBLICATION"),
    *("PUBLICATION TABLE", "ROW SECURITY", "RULE", "SCHEMA", "SEQUENCE", "SEQUENCE OWNED BY", "SERVER", "SHELL TYPE"),
    *(
        "STATISTICS",
        "TABLE",
        "TABLE ATTACH",
        "TEXT SEARCH CONFIGURATION",
        "TEXT SEARCH DICTIONARY",
        "TEXT SEARCH PARSER",
    ),
    *("TEXT SEARCH TEMPLATE", "TRANSFORM", "TRIGGER", "TYPE", "USER MAPPING", "VIEW"),
}
"""All but subscriptions, which are refused, and security labels, for which a server needs a module that gives them."""


def everything(server: PostgresServer) -> tuple[str, ...]:
    server.run("postgres", "DO $$BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    return (EVERY_KIND, SINCE_15) if server.programs.version >= 15 else (EVERY_KIND,)


@pytest.mark.share(3)
def test_one_of_every_kind_comes_back_and_goes(any_server: PostgresServer) -> None:
    server, kinds = any_server, everything(any_server)
    source = source_of(server, "kinds", lock_timeout_seconds=10)
    server.create("kinds", *PLAIN)
    plain, plain_text = state_of(source), server.dump("kinds")
    server.run("kinds", *kinds)
    full, full_text = state_of(source), server.dump("kinds")
    found = {entry.type for part in ("before", "after") for entry in split(str(full.definition[part]))[1]}
    assert found >= TYPES
    restore(source, plain)
    assert server.dump("kinds") == plain_text
    restore(source, full)
    assert server.dump("kinds") == full_text
    server.run("postgres", "DROP DATABASE kinds")


ALONE = {
    "cast": "CREATE CAST (bytea AS text) WITHOUT FUNCTION",
    "default acl": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
    "default acl of a schema": "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader",
    "access method": "CREATE ACCESS METHOD m TYPE INDEX HANDLER bthandler",
    "foreign-data wrapper": "CREATE FOREIGN DATA WRAPPER w",
    "publication": "CREATE PUBLICATION p FOR ALL TABLES",
    "collation": 'CREATE COLLATION public.c FROM "C"',
    "text search configuration": "CREATE TEXT SEARCH CONFIGURATION public.c (COPY = simple)",
    "conversion": "CREATE CONVERSION public.c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "operator family": "CREATE OPERATOR FAMILY public.f USING btree",
    "large object": "SELECT lo_create(70002)",
}


@pytest.mark.parametrize("kind", ALONE)
def test_a_database_with_one_object_is_not_empty_and_names_it(server: PostgresServer, kind: str) -> None:
    everything(server)
    server.create("alone")
    with server.connect("alone") as session:
        assert is_empty(session)
        session.execute(sql.SQL(ALONE[kind]))  # type: ignore[arg-type]
        assert not is_empty(session)
        assert contents(session)[0].type == kind.partition(" of a ")[0]
        assert kind.partition(" of a ")[0] in str(what_is_there(session)) or kind == "large object"
    server.run("postgres", "DROP DATABASE alone")


@pytest.mark.parametrize(
    "emptied", ["DROP TABLE secret", "DROP TABLE secret; DROP SCHEMA public; CREATE SCHEMA public"]
)
def test_tables_of_an_emptied_database_come_back_granted_to_nobody_else(server: PostgresServer, emptied: str) -> None:
    everything(server)
    server.create("kinds", "CREATE TABLE secret (id int PRIMARY KEY)")
    source, text = source_of(server, "kinds"), server.dump("kinds")
    whole = state_of(source)
    server.run("kinds", emptied, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader")
    server.run("kinds", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO reader")
    restore(source, whole)
    assert server.dump("kinds") == text


def test_privileges_on_functions_of_the_server_are_taken_back_in_an_empty_database(server: PostgresServer) -> None:
    everything(server)
    server.create("kinds", "CREATE TABLE secret (id int PRIMARY KEY)")
    source, text = source_of(server, "kinds"), server.dump("kinds")
    whole = state_of(source)
    server.run("kinds", "DROP TABLE secret", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO reader")
    assert restore(source, whole).target._found.way is RestoreMethod.BUILD  # type: ignore[attr-defined]
    assert server.dump("kinds") == text


def test_a_language_that_a_user_made_anew_comes_back(server: PostgresServer) -> None:
    anew = ("DROP EXTENSION plpgsql", "CREATE EXTENSION plpgsql; COMMENT ON EXTENSION plpgsql IS 'mine'")
    server.create("kinds", *PLAIN, *anew)
    source, text = source_of(server, "kinds"), server.dump("kinds")
    whole = state_of(source)
    server.create("kinds", *PLAIN, "CREATE TABLE other (id int)")
    restore(source, whole)
    assert server.dump("kinds") == text
    # where it is gone, and where it is anew
    for left in ("DROP EXTENSION plpgsql", "SELECT 1"):
        server.create("kinds", *PLAIN, "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
        without = state_of(source)
        server.create("kinds", *PLAIN, "DROP EXTENSION plpgsql", "CREATE EXTENSION plpgsql", left)
        restore(source, without)
        server.run("kinds", "DO $$BEGIN ASSERT f() = 1; END$$")


def test_what_a_role_may_not_take_back_is_named_before_anything_is_written(server: PostgresServer) -> None:
    everything(server)
    server.create("kinds", *PLAIN)
    whole = state_of(source_of(server, "kinds"))
    server.run("postgres", "ALTER DATABASE kinds OWNER TO reader")
    server.run("kinds", "ALTER TABLE plain OWNER TO reader; ALTER TABLE plain ADD COLUMN more int")
    server.run("kinds", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader", ALONE["cast"])
    server.run("kinds", ALONE["access method"], "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC")
    source = source_of(server, "kinds", dsn={"user": "reader"})
    with pytest.raises(RestoreRefused) as refused:
        source.target(whole.scope(mode=RestoreMode.EXACT)).preflight()
    for named in ("cast (bytea AS text)", "access method m", "default privileges of role postgres", "pg_sleep"):
        assert named in refused.value.message
    server.run("postgres", "DROP DATABASE kinds")


def test_an_untouched_database_has_nothing_to_take_back(any_server: PostgresServer) -> None:
    any_server.create("kinds")
    with any_server.connect("kinds") as session:
        assert is_empty(session)
        assert changed_system_privileges(session) == []
    any_server.run("postgres", "DROP DATABASE kinds")


def test_a_definition_that_the_server_refuses_is_not_said_of_a_table(server: PostgresServer) -> None:
    """pg_dump writes a language whose handler is PostgreSQL's own in a way that no server takes."""
    server.create("kinds", *PLAIN, "CREATE LANGUAGE mine HANDLER plpgsql_call_handler")
    whole, text = state_of(source_of(server, "kinds")), server.dump("kinds")
    server.run("kinds", "CREATE TABLE other (id int)")
    changed = server.dump("kinds")
    with pytest.raises(RestoreRefused) as refused:
        restore(source_of(server, "kinds"), whole)
    assert "mine" in refused.value.message
    assert "plain" not in refused.value.message
    assert "extension" in refused.value.hint
    assert server.dump("kinds") == changed != text
    server.run("postgres", "DROP DATABASE kinds")
