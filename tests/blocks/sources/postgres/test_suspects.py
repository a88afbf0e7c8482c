"""What may not be rebuilt from a backup is said when the backup is made, and the backup is made all the same."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.sources.postgres.read import suspects, trials
from tests.blocks.sources.postgres.hand import source_of
from tests.postgres_server import PostgresServer


def said(server: PostgresServer, **fields: Any) -> list[str]:
    with source_of(server, "suspected", **fields).view() as view:
        return list(view.warnings)


def test_orphans_lost_extensions_and_other_collations_are_named(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create(
        "suspected",
        'CREATE SCHEMA "a b"',
        'CREATE TABLE "a b"."up" (x text, y int, PRIMARY KEY (x, y))',
        'INSERT INTO "a b"."up" VALUES (\'x\', 1)',
        'CREATE TABLE down (id int PRIMARY KEY, y bigint, x text COLLATE "C", CONSTRAINT "its up" FOREIGN KEY (x, y)'
        ' REFERENCES "a b"."up" (x, y))',
        "CREATE TABLE parts (id int PRIMARY KEY, of int CONSTRAINT whole REFERENCES down) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        "INSERT INTO down VALUES (1, 1, 'x'), (2, NULL, 'nobody'), (3, 9, NULL)",
        "INSERT INTO parts VALUES (1, 1), (2, NULL)",
        "CREATE TABLE reads (id int PRIMARY KEY, of int); INSERT INTO reads VALUES (1, 99)",
        "ALTER TABLE reads ADD CONSTRAINT unproved FOREIGN KEY (of) REFERENCES down NOT VALID",
        # an immutable function that cannot even be planned with is passed over
        "CREATE FUNCTION lost() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
        "CREATE TABLE odd (id int PRIMARY KEY, of int REFERENCES down)",
        "CREATE INDEX ON odd (id) WHERE id > lost()",
        "CREATE EXTENSION pg_trgm",
    )
    assert said(server) == []
    server.run(
        "suspected",
        "SET session_replication_role = replica; INSERT INTO parts VALUES (3, 99); INSERT INTO down VALUES (4, 9, 'x')",
        "UPDATE pg_extension SET extname = 'gone' WHERE extname = 'pg_trgm'",
        "UPDATE pg_collation SET collversion = '0' WHERE collname = 'de-x-icu'",
        'CREATE TABLE sorted (t text COLLATE "de-x-icu")',
        "CREATE OR REPLACE FUNCTION lost() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN nowhere.f(); END'",
    )
    found = said(server)
    assert len(found) == 4
    assert "Extensions of" in found[0]
    assert "(gone)" in found[0]
    assert '(pg_catalog."de-x-icu")' in found[1]
    assert "Rows of public.parts in" in "".join(found[2:])
    assert "foreign key whole" in "".join(found[2:])
    assert "foreign key its up" in "".join(found[2:])
    (narrowed,) = said(server, exclude=["public.parts*", "public.down"])
    assert narrowed == found[1], "what is not in the backup was said"
    monkeypatch.setattr(suspects, "ORPHANS_LOOKED_FOR_BYTES", 8192)
    assert len(said(server)) == 2, "tables of more than the bound were looked at"


COMPUTED = (
    "CREATE TABLE numbers (id int PRIMARY KEY, n int)",
    "INSERT INTO numbers SELECT g, g FROM generate_series(1, 2000) g",
    "CREATE TABLE extra (id int PRIMARY KEY, m int); INSERT INTO extra VALUES (1, 2)",
    "CREATE FUNCTION settled(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 10 / $1; END'",
    "CREATE FUNCTION most() RETURNS int LANGUAGE sql STABLE AS 'SELECT max(m) FROM public.extra'",
    "CREATE FUNCTION by_path() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN count(*) FROM numbers; END'",
    "CREATE SCHEMA hidden; CREATE TABLE hidden.things (n int)",
    "CREATE FUNCTION by_session() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN count(*) FROM things; END'",
    "CREATE SEQUENCE counter",
    "CREATE TABLE made (id int PRIMARY KEY, half int GENERATED ALWAYS AS (settled(id)) STORED)",
    "INSERT INTO made VALUES (5)",
    "CREATE MATERIALIZED VIEW quotients AS SELECT id, 100 / n AS q FROM numbers",
    "CREATE VIEW lent AS SELECT settled(n) AS s FROM numbers WHERE id < 3",
    "CREATE MATERIALIZED VIEW over AS SELECT count(*) AS many, sum(s) AS s FROM lent",
    "CREATE MATERIALIZED VIEW mosts AS SELECT id, most() AS m FROM numbers",
    "CREATE MATERIALIZED VIEW paths AS SELECT by_path() AS n",
    "SET search_path = hidden; CREATE MATERIALIZED VIEW public.sessions AS SELECT public.by_session() AS n",
    "RESET search_path",
    "CREATE MATERIALIZED VIEW drawn AS SELECT nextval('counter') AS n",
    "CREATE MATERIALIZED VIEW below AS SELECT 1 AS n",
    'CREATE MATERIALIZED VIEW "o%d" ("a b", "c") AS SELECT n, n FROM below',
    "CREATE MATERIALIZED VIEW unfilled AS SELECT 1 / n AS q FROM numbers WITH NO DATA",
)
BROKEN = (
    "UPDATE numbers SET n = 0 WHERE id = 1900",
    "CREATE OR REPLACE FUNCTION settled(int) RETURNS int LANGUAGE plpgsql IMMUTABLE"
    " AS 'BEGIN RAISE ''no more of %'', $1; END'",
    "ALTER TABLE extra RENAME m TO o",
    "REFRESH MATERIALIZED VIEW below WITH NO DATA",
)


def unfit(server: PostgresServer, **fields: Any) -> dict[str, str]:
    """Return what cannot be computed again, with what the server says of it."""
    found = {}
    for sentence in said(server, **fields):
        name, known, rest = sentence.partition(" in suspected")
        if known and " now (" in rest:
            found[name] = rest.partition(" now (")[2].partition("): ")[0]
    return found


def test_what_cannot_be_computed_again_is_named_with_what_the_server_says(server: PostgresServer) -> None:
    server.create("suspected", *COMPUTED)
    path = 'relation "things" does not exist (in PL/pgSQL function public.by_session() line 1 at RETURN)'
    assert unfit(server) == {"Materialised view public.sessions": path}
    server.run("suspected", *BROKEN)
    found = unfit(server)
    raised = "no more of 1 (in PL/pgSQL function public.settled(integer) line 1 at RAISE)"
    assert found.pop("Materialised view public.mosts").startswith('column "m" does not exist')
    assert found == {
        "Materialised view public.quotients": "division by zero",
        "Materialised view public.over": raised,
        "Materialised view public.sessions": path,
        "Materialised view public.o%d": 'materialized view "below" has not been populated',
        "Generated columns of public.made": raised.replace("of 1", "of 5"),
    }
    assert unfit(server, schemas=["hidden"]) == {}, "what is not in the backup was said"
    assert unfit(server, exclude=["public.numbers"]) == {
        "Generated columns of public.made": raised.replace("of 1", "of 5")
    }


def test_what_takes_long_is_not_waited_for(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.create(
        "suspected",
        "CREATE TABLE pauses (seconds int); INSERT INTO pauses VALUES (0)",
        "CREATE MATERIALIZED VIEW sleeps AS SELECT 1 / seconds AS q FROM pauses, pg_sleep(seconds) WHERE seconds > 0",
        "UPDATE pauses SET seconds = 36000",
        "CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1)",
        "CREATE MATERIALIZED VIEW quotients AS SELECT 1 / n AS q FROM numbers ORDER BY 1",
        "UPDATE numbers SET n = 0",
    )
    monkeypatch.setattr(trials, "TRIED_SECONDS", 0.5)
    assert "Materialised view public.sleeps" not in unfit(server)
    monkeypatch.setattr(trials, "TRIED_SECONDS", 60)
    monkeypatch.setattr(trials, "COST_TRIED", 1)
    assert unfit(server) == {}, "what costs more than the bound was run"


def test_code_of_others_is_not_run_and_what_they_may_not_read_is_named(server: PostgresServer) -> None:
    server.create(
        "suspected",
        "CREATE ROLE author LOGIN; GRANT CREATE ON SCHEMA public TO author",
        "CREATE TABLE secret (id int PRIMARY KEY, n int); GRANT SELECT ON secret TO author",
        "CREATE TABLE partly (id int PRIMARY KEY, n int); GRANT SELECT (n) ON partly TO author",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "SET ROLE author",
        "CREATE FUNCTION own() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "CREATE TABLE made (id int PRIMARY KEY, one int GENERATED ALWAYS AS (id / id) STORED)",
        "CREATE MATERIALIZED VIEW reads AS SELECT count(*) FROM secret",
        "CREATE MATERIALIZED VIEW columns AS SELECT n FROM partly",
        "CREATE MATERIALIZED VIEW calls AS SELECT f()",
        "CREATE MATERIALIZED VIEW runs AS SELECT own()",
        "CREATE OR REPLACE FUNCTION own() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''it was run''; END'",
        "RESET ROLE",
    )
    assert unfit(server) == {}
    server.run("suspected", "REVOKE SELECT ON secret FROM author; REVOKE ALL ON FUNCTION f() FROM PUBLIC")
    assert unfit(server) == {"Materialised view public.reads": "its owner may not read public.secret"}
    server.run("suspected", "GRANT SELECT ON partly, secret TO author")
    own = unfit(server, dsn={"user": "author"})
    assert own.pop("Materialised view public.runs").startswith("it was run")
    assert own == {"Materialised view public.calls": "permission denied for function f"}


def test_a_denial_to_the_role_of_the_backup_says_nothing_of_a_view_of_a_superuser(server: PostgresServer) -> None:
    server.create(
        "suspected",
        "CREATE ROLE reader LOGIN IN ROLE pg_read_all_data",
        "CREATE TABLE numbers (id int PRIMARY KEY, n int); INSERT INTO numbers VALUES (1, 1)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'; REVOKE ALL ON FUNCTION f() FROM PUBLIC",
        "CREATE MATERIALIZED VIEW calls AS SELECT f()",
        "CREATE MATERIALIZED VIEW quotients AS SELECT 1 / n AS q FROM numbers",
        "UPDATE numbers SET n = 0",
    )
    assert unfit(server, dsn={"user": "reader"}) == {"Materialised view public.quotients": "division by zero"}
