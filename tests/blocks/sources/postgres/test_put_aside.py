"""What acts on statements is put aside while rows are written, and is as it was afterwards."""

from __future__ import annotations

import pytest

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.postgres_server import PostgresServer

WATCHED = (
    "CREATE TABLE log (what text)",
    "CREATE TABLE kept (id serial PRIMARY KEY, v text); INSERT INTO kept (v) VALUES ('a'), ('b')",
    "CREATE TABLE child (id int PRIMARY KEY, kept int REFERENCES kept); INSERT INTO child VALUES (1, 1)",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM kept",
)
LOGS = (
    "CREATE FUNCTION acts() RETURNS event_trigger LANGUAGE plpgsql AS"
    " 'BEGIN INSERT INTO public.log VALUES (tg_tag); END'"
)
FORBIDS = "CREATE FUNCTION acts() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not now''; END'"
GRANTS = (
    "CREATE FUNCTION acts() RETURNS event_trigger LANGUAGE plpgsql AS"
    " 'BEGIN GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC; END'"
)
STATES = ("ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA", "DISABLE")


@pytest.mark.parametrize(
    ("acts", "event"), [(LOGS, "ddl_command_end"), (LOGS, "sql_drop"), (FORBIDS, "ddl_command_start")]
)
@pytest.mark.share(2)
def test_event_triggers_do_not_act_on_a_restore(server: PostgresServer, acts: str, event: str) -> None:
    server.create("watched", *WATCHED, acts, f"CREATE EVENT TRIGGER acts ON {event} EXECUTE FUNCTION acts()")
    source = source_of(server, "watched")
    for state in STATES:
        server.run("watched", f"ALTER EVENT TRIGGER acts {state}; TRUNCATE log")
        text, whole = server.dump("watched"), state_of(source)
        for mode in (RestoreMode.EXACT, RestoreMode.MERGE):
            server.run("watched", "DELETE FROM child; DELETE FROM kept")
            restore(source, whole, mode=mode)
            assert server.dump("watched") == text, (state, mode)
    server.run("postgres", "DROP DATABASE watched")


def test_a_missing_table_is_made_as_it_was_though_an_event_trigger_gives_tables_away(server: PostgresServer) -> None:
    server.create("watched", *WATCHED, GRANTS)
    server.run(
        "watched", "CREATE EVENT TRIGGER acts ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION acts()"
    )
    source, text = source_of(server, "watched"), server.dump("watched")
    whole = state_of(source)
    server.run("watched", "DROP TABLE child")
    restore(source, whole, ["public.child"], selection=Selection(("public.child",)))
    assert server.dump("watched") == text
    server.run("postgres", "DROP DATABASE watched")


def test_rows_that_stand_in_each_others_way_until_the_end_come_back(server: PostgresServer) -> None:
    server.create(
        "watched",
        "CREATE TABLE t (id int PRIMARY KEY, at int, note text, UNIQUE (at) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO t SELECT g, g, repeat('x', 100) FROM generate_series(1, 40) g",
        "CREATE FUNCTION acts() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER acts BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION acts()",
    )
    source, text = source_of(server, "watched"), server.dump("watched")
    whole = state_of(source)
    server.run("watched", "UPDATE t SET at = 41 - at")
    one, other = whole.rows["public.t"].slice(0, 20), whole.rows["public.t"].slice(20)
    target = source.target(whole.scope(mode=RestoreMode.MERGE))
    try:
        target.preflight()
        target.hold()
        target.begin()
        for rows in (one, other):
            target.apply(whole.specs["public.t"], rows)
        target.commit()
    finally:
        target.abort()
    assert server.dump("watched") == text
    server.run("postgres", "DROP DATABASE watched")


SPLIT = (
    "CREATE TABLE split (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
    "CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE split_2 PARTITION OF split DEFAULT",
    "INSERT INTO split VALUES (1, 'x'), (20, 'y')",
    "CREATE FUNCTION acts() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := ''changed''; RETURN NEW; END'",
    "CREATE TRIGGER acts BEFORE INSERT ON split FOR EACH ROW EXECUTE FUNCTION acts()",
    "ALTER TABLE split_2 ENABLE ALWAYS TRIGGER acts",
)


def test_triggers_that_partitions_have_of_their_table_change_no_row(any_server: PostgresServer) -> None:
    server = any_server
    server.create("watched", *SPLIT)
    source, text = source_of(server, "watched"), server.dump("watched")
    whole = state_of(source)
    for mode in (RestoreMode.EXACT, RestoreMode.MERGE):
        server.run("watched", "DELETE FROM split")
        restore(source, whole, mode=mode)
        assert server.dump("watched") == text, mode
    if server.programs.version < 15:  # whose clones of triggers only a superuser can switch off
        server.run("postgres", "DO $$BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
        server.run("watched", *(f"ALTER TABLE {name} OWNER TO reader" for name in ("split", "split_1", "split_2")))
        whole = state_of(source)
        mine = source_of(server, "watched", dsn={"user": "reader"})
        for mode in (RestoreMode.EXACT, RestoreMode.MERGE):
            with pytest.raises(RestoreRefused, match=r"superuser.*split_1"):
                mine.target(whole.scope(mode=mode)).preflight()
    server.run("postgres", "DROP DATABASE watched")
