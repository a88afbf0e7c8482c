"""What stands against a restore is said before anything is written, also by a preview."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import State, restore, source_of, state_of
from tests.postgres_server import PostgresServer

TABLES = (
    "CREATE TABLE plain (id int PRIMARY KEY, v text); INSERT INTO plain VALUES (1, 'a')",
    "CREATE TABLE parent (id serial PRIMARY KEY); INSERT INTO parent VALUES (1)",
    "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent); INSERT INTO child VALUES (1, 1)",
)


@pytest.fixture
def live(server: PostgresServer) -> Iterator[tuple[PostgresServer, State]]:
    server.run("postgres", "DROP ROLE IF EXISTS limited", "CREATE ROLE limited LOGIN")
    server.run("postgres", "GRANT pg_read_all_data TO limited")
    server.create("checked", *TABLES)
    yield server, state_of(source_of(server, "checked"))
    server.run("checked", "DROP OWNED BY limited CASCADE")
    server.run("postgres", "ALTER ROLE limited RESET ALL", "REVOKE pg_read_all_data FROM limited", "DROP ROLE limited")


def refused(server: PostgresServer, state: State, match: str, names: list[str] | None = None, **more: Any) -> None:
    """The restore is refused by the preflight alone, and nothing is changed."""
    before = server.dump("checked")
    user = more.pop("user", "limited")
    source = source_of(server, "checked", dsn={"user": user})
    with pytest.raises(RestoreRefused, match=match):
        source.target(state.scope(names, **more)).preflight()
    assert server.dump("checked") == before


def test_a_role_without_privileges_on_rows_is_told_which_it_lacks(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    refused(server, state, "truncate .*plain", ["public.plain"])
    server.run("checked", "GRANT ALL ON plain TO limited")
    source = source_of(server, "checked", dsn={"user": "limited"})
    restore(source, state, ["public.plain"])
    server.run("checked", "REVOKE DELETE ON plain FROM limited")
    refused(server, state, "delete .*plain", ["public.plain"], mode=RestoreMode.MERGE)
    one = Selection(("public.plain",), ("1",))
    refused(server, state, "delete .*plain", ["public.plain"], selection=one)


def test_a_role_that_does_not_own_what_is_put_aside_is_told_so(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    server.run("checked", "GRANT ALL ON parent, child TO limited")
    refused(server, state, "does not own .*child", ["public.child"])
    refused(server, state, "does not own sequence .*parent_id_seq", ["public.parent"])
    server.run(
        "checked", "GRANT ALL ON plain TO limited; CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM plain"
    )
    state = state_of(source_of(server, "checked"))
    refused(server, state, "does not own materialised view public.counted", ["public.plain"])


def test_row_level_security_that_hides_rows_is_named(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    server.run("checked", "GRANT ALL ON plain TO limited; ALTER TABLE plain ENABLE ROW LEVEL SECURITY")
    refused(server, state, "row level security of .*plain", ["public.plain"])


def test_a_role_that_may_not_make_a_missing_table_is_told_so(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    server.run("checked", "DROP TABLE plain; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    refused(server, state, "may not create tables in schema public", ["public.plain"])


def test_a_role_that_does_not_own_the_database_cannot_replace_it(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    server.run("checked", "CREATE TABLE made_since (id int); GRANT ALL ON ALL TABLES IN SCHEMA public TO limited")
    refused(server, state, "does not own schema public")


def test_what_definitions_need_of_the_server_is_named(live: tuple[PostgresServer, State]) -> None:
    server, _ = live
    server.run("postgres", "DROP ROLE IF EXISTS passing", "CREATE ROLE passing")
    server.run("checked", "ALTER TABLE plain OWNER TO passing")
    state = state_of(source_of(server, "checked"))
    server.run("checked", "REASSIGN OWNED BY passing TO postgres")
    server.run("postgres", "DROP ROLE passing")
    refused(server, state, "role passing, which owns", user="postgres")
    target = source_of(server, "checked").target(state.scope(), server.dsn("missing"))
    with pytest.raises(RestoreRefused, match="role passing"):
        target.preflight()


def test_a_role_that_may_not_create_databases_is_told_so(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    source = source_of(server, "checked", dsn={"user": "limited"})
    with pytest.raises(RestoreRefused, match="CREATEDB"):
        source.target(state.scope(), server.dsn("missing", user="limited")).preflight()


def test_a_prepared_transaction_that_holds_a_table_is_named(live: tuple[PostgresServer, State]) -> None:
    server, state = live
    with server.connect("checked") as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO plain VALUES (2, 'b')")
        session.execute("PREPARE TRANSACTION 'underway'")
    try:
        refused(server, state, "underway", ["public.plain"], user="postgres")
        restore(source_of(server, "checked"), state, ["public.child"])
    finally:
        server.run("checked", "ROLLBACK PREPARED 'underway'")


def test_a_standby_is_refused() -> None:
    primary = PostgresServer()
    standby = None
    try:
        primary.start()
        primary.create("checked", *TABLES)
        state = state_of(source_of(primary, "checked"))
        standby = PostgresServer(primary=primary)
        standby.start()
        source = source_of(primary, "checked")
        with pytest.raises(RestoreRefused, match="standby"):
            source.target(state.scope(), standby.dsn("checked")).preflight()
        with pytest.raises(RestoreRefused, match="standby"):
            source.target(state.scope(), standby.dsn("missing")).preflight()
    finally:
        if standby is not None:
            standby.stop()
        primary.stop()


@pytest.mark.parametrize("way", ["rows", "definitions", "merge", "a table", "missing", "empty", "over a socket"])
def test_too_little_room_for_the_server_is_refused_by_place_and_sizes(
    live: tuple[PostgresServer, State], way: str
) -> None:
    server, state = live
    if way == "definitions":
        server.run("checked", "CREATE TABLE made_since (id int)")
    if way == "empty":
        server.create("hollow")
    to = {"missing": server.dsn("missing"), "empty": server.dsn("hollow")}.get(way)
    more: dict[str, Any] = {"size_bytes": 1 << 60} | ({"mode": RestoreMode.MERGE} if way == "merge" else {})
    host = {"host": str(server.folder)} if way == "over a socket" else {}
    source = source_of(server, "checked", dsn=host)
    scope = state.scope(["public.plain"] if way == "a table" else None, in_place=to is None, **more)
    before = server.dump("checked")
    with pytest.raises(RestoreRefused, match=f"{server.data} has [0-9,]+ bytes free, .* needs about 1,152,[0-9,]+"):
        source.target(scope, to).preflight()
    assert server.dump("checked") == before


def test_room_is_no_matter_for_a_few_rows_and_for_a_server_elsewhere(
    live: tuple[PostgresServer, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, state = live
    one = state.scope(["public.plain"], selection=Selection(("public.plain",), ("1",)), size_bytes=1 << 60)
    source_of(server, "checked").target(one).preflight()
    monkeypatch.setattr("psycopg.ConnectionInfo.hostaddr", "192.0.2.7")
    assert len(source_of(server, "checked").target(state.scope(size_bytes=1 << 60)).preflight()) == 1
