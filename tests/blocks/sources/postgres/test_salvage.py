"""What cannot be read does not keep the rest out of the backup before a restore, and is moved aside by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from blocks.errors import RestoreRefused, SourceUnavailable, TemporaryFolderFull
from blocks.rows.selection import Selection
from blocks.sources.runs import Spool
from blocks.sources.target import RestoreMode
from blocks.sources.view import Salvaging, Unread
from tests.blocks.sources.postgres.hand import State, restore, seen, source_of, state_of, write
from tests.postgres_server import PostgresServer

TABLES = (
    "CREATE TABLE whole (id serial PRIMARY KEY, v text); INSERT INTO whole (v) VALUES ('a'), ('b')",
    "CREATE TABLE broken (id serial PRIMARY KEY, v text UNIQUE, fill text, CHECK (id > 0))",
    "CREATE INDEX filling ON broken (lower(fill)); CREATE STATISTICS on_both ON id, v FROM broken",
    "INSERT INTO broken (v, fill) SELECT 'v' || g, repeat('x', 500) FROM generate_series(1, 100) g",
    "CREATE TABLE refers (id int PRIMARY KEY, at int REFERENCES broken); INSERT INTO refers VALUES (1, 1)",
    "CREATE TABLE loose (v text); INSERT INTO loose VALUES ('x'), ('x')",
)
PAGE_BYTES = 8192


@pytest.fixture
def damaged() -> Iterator[tuple[PostgresServer, State]]:
    """A server of its own, one of whose tables has a page that its checksum proves wrong."""
    server = PostgresServer()
    server._run("pg_checksums", "--enable", "-N", "-D", str(server.data))
    server.start()
    try:
        server.create("salvaged", *TABLES)
        before = state_of(source_of(server, "salvaged"))
        server.run("salvaged", "INSERT INTO whole (v) VALUES ('newer'); INSERT INTO loose VALUES ('newer')")
        with server.connect("salvaged") as session:
            row = session.execute("SELECT pg_relation_filepath('broken')").fetchone()
        server.shut_down()
        assert row is not None
        with (server.data / str(row[0])).open("r+b") as heap:
            heap.seek(PAGE_BYTES)
            heap.write(bytes(range(256)) * 16)
        server.start()
        yield server, before
    finally:
        server.stop()


def answer(server: PostgresServer, query: str, database: str = "salvaged") -> list[Any]:
    with server.connect(database) as session:
        return session.execute(query.encode()).fetchall()


def test_a_damaged_page_costs_one_table_which_is_renamed(damaged: tuple[PostgresServer, State]) -> None:
    server, before = damaged
    restored = restore(source_of(server, "salvaged"), before)
    (unread,) = restored.emergency.unread
    assert unread.collection == "public.broken"
    assert "invalid page" in unread.reason
    assert restored.emergency.rows["public.broken"].num_rows == 0
    assert [row["v"] for row in restored.emergency.rows["public.whole"].to_pylist()] == ["a", "b", "newer"]
    assert restored.emergency.rows["public.loose"].num_rows == 3
    (note,) = restored.target.notes
    aside = note.split("is now public.")[1].split(";")[0]
    assert any(aside in sentence for sentence in restored.said)
    assert answer(server, "SELECT count(*), max(v) FROM broken") == [(100, "v99")]
    assert answer(server, "SELECT v FROM whole ORDER BY id") == [("a",), ("b",)]
    # the rows of its other pages are still there, and nothing refers to it
    assert answer(server, f"SELECT v FROM {aside} WHERE id = 1") == [("v1",)]
    assert "broken_id_seq" in answer(server, "SELECT pg_get_serial_sequence('broken', 'id')")[0][0]
    server.run("salvaged", f"DROP TABLE {aside}", "DELETE FROM refers; DELETE FROM broken")
    assert state_of(source_of(server, "salvaged")).definition["after"] == before.definition["after"]


def test_a_damaged_page_of_a_database_that_is_replaced_moves_it_aside_as_a_whole(
    damaged: tuple[PostgresServer, State],
) -> None:
    server, before = damaged
    server.run("salvaged", "CREATE TABLE made_since (id int); INSERT INTO made_since VALUES (7)")
    restored = restore(source_of(server, "salvaged"), before)
    (note,) = restored.target.notes
    aside = note.split("is now ")[1].split(",")[0]
    assert answer(server, "SELECT id FROM made_since", aside) == [(7,)]
    assert answer(server, "SELECT count(*) FROM broken") == [(100,)]
    assert restored.target.changed


def test_a_database_that_others_use_is_not_moved_aside(damaged: tuple[PostgresServer, State]) -> None:
    server, before = damaged
    server.run("salvaged", "CREATE TABLE made_since (id int)")
    with (
        server.connect("salvaged", application_name="the shop"),
        pytest.raises(RestoreRefused, match="the shop"),
    ):
        restore(source_of(server, "salvaged"), before)
    assert answer(server, "SELECT count(*) FROM whole") == [(3,)]


@pytest.mark.parametrize(
    "more", [{"mode": RestoreMode.MERGE}, {"selection": Selection(("public.broken",), ("1",))}], ids=["merge", "keys"]
)
def test_a_table_that_keeps_rows_cannot_be_moved_aside(
    damaged: tuple[PostgresServer, State], more: dict[str, Any]
) -> None:
    server, before = damaged
    with pytest.raises(RestoreRefused, match="keeps some of its rows"):
        restore(source_of(server, "salvaged"), before, ["public.broken"], **more)
    assert answer(server, "SELECT v FROM broken WHERE id = 1") == [("v1",)]


def test_a_table_that_a_view_reads_is_not_moved_away_from_it(damaged: tuple[PostgresServer, State]) -> None:
    server, _ = damaged
    server.run("salvaged", "DROP TABLE refers; CREATE VIEW reads AS SELECT id FROM broken")
    with source_of(server, "salvaged").salvage() as view:
        now = seen(view)
    with pytest.raises(RestoreRefused, match=r"view public\.reads"):
        restore(source_of(server, "salvaged"), now, ["public.broken"])


def test_what_is_restored_besides_a_damaged_table_is_restored(damaged: tuple[PostgresServer, State]) -> None:
    server, before = damaged
    assert restore(source_of(server, "salvaged"), before, ["public.whole"]).target.notes == []
    assert answer(server, "SELECT v FROM whole ORDER BY id") == [("a",), ("b",)]


@pytest.fixture
def owner(server: PostgresServer) -> Iterator[PostgresServer]:
    server.run("postgres", "DROP ROLE IF EXISTS owner", "CREATE ROLE owner LOGIN CREATEDB")
    server.create("salvaged", *TABLES, "ALTER DATABASE salvaged OWNER TO owner; ALTER SCHEMA public OWNER TO owner")
    for table in ("whole", "broken", "refers", "loose"):
        server.run("salvaged", f"ALTER TABLE {table} OWNER TO owner")
    yield server
    server.run("salvaged", "DROP OWNED BY owner CASCADE")
    server.run("postgres", "DROP DATABASE salvaged WITH (FORCE)", "DROP ROLE owner")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("REVOKE SELECT ON broken FROM owner", "may not read"),
        ("ALTER TABLE broken ENABLE ROW LEVEL SECURITY; ALTER TABLE broken FORCE ROW LEVEL SECURITY", "row level"),
    ],
)
def test_a_table_that_the_role_may_not_read_does_not_hide_the_others(
    owner: PostgresServer, statement: str, why: str
) -> None:
    owner.run("salvaged", statement)
    source = source_of(owner, "salvaged", dsn={"user": "owner"})
    with pytest.raises(SourceUnavailable), source.view() as view:
        seen(view)
    with source.salvage() as view:
        found = seen(view)
        assert isinstance(view, Salvaging)
    assert [(one.collection, why in one.reason) for one in found.unread] == [("public.broken", True)]
    assert found.rows["public.whole"].num_rows == 2
    assert "public.broken" not in found.specs
    assert found.definition["narrowed"]


def test_a_source_that_cannot_be_read_at_all_is_moved_aside_as_a_whole(server: PostgresServer) -> None:
    server.create("salvaged", *TABLES)
    source = source_of(server, "salvaged")
    before = state_of(source)
    server.run("salvaged", "INSERT INTO whole (v) VALUES ('newer')")
    target = source.target(before.scope())
    target.preflight()
    target.hold()
    (said,) = target.keep_aside([Unread("pg_dump says that it is broken")])
    assert "renamed" in said
    write(target, before)
    aside = target.notes[0].split("is now ")[1].split(",")[0]
    assert answer(server, "SELECT count(*) FROM whole") == [(2,)]
    assert answer(server, "SELECT count(*) FROM whole", aside) == [(3,)]
    target.abort()
    server.run("postgres", f'DROP DATABASE "{aside}"')


def test_part_of_a_source_that_cannot_be_read_at_all_is_not_restored(server: PostgresServer) -> None:
    server.create("salvaged", *TABLES)
    source = source_of(server, "salvaged", exclude=["public.loose"])
    before = state_of(source_of(server, "salvaged"))
    target = source.target(before.scope())
    target.preflight()
    target.hold()
    with pytest.raises(RestoreRefused, match="only a part"):
        target.keep_aside([Unread("pg_dump says that it is broken")])
    target.abort()


def test_a_server_that_goes_away_is_no_table_that_cannot_be_read(server: PostgresServer) -> None:
    server.create("salvaged", *TABLES)
    with source_of(server, "salvaged").salvage() as view:
        spec = next(spec for spec in view.collections() if spec.name == "public.whole")
        server.kill_backends()
        with pytest.raises(SourceUnavailable):
            view.read(spec, view.partition(spec)[0], None)
        assert isinstance(view, Salvaging)
        assert not view.unread


def test_a_full_folder_for_temporary_data_makes_reading_slower_and_loses_no_table(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create(
        "salvaged",
        "CREATE TABLE spread (id uuid PRIMARY KEY, v text)",
        "INSERT INTO spread SELECT md5(g::text)::uuid, repeat('v', 20) FROM generate_series(1, 500) g",
        "ANALYZE spread",
    )
    full = []

    def no_room(self: Spool, *args: Any) -> None:
        full.append(self)
        raise TemporaryFolderFull("what was read cannot be kept")

    monkeypatch.setattr(Spool, "put", no_room)
    with source_of(server, "salvaged").salvage() as view:
        found = seen(view)
    assert full
    assert found.unread == ()
    assert found.rows["public.spread"].num_rows == 500
