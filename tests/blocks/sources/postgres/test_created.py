"""What a restore has made goes when it is taken back; what others have, had before, or have added since stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupType
from blocks.sources.target import RestoreMode
from flows.undo import make_undo
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE

TABLES = (
    "CREATE TABLE parent (id int PRIMARY KEY, v text); INSERT INTO parent VALUES (1, 'a'), (2, 'b')",
    "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent); INSERT INTO child VALUES (1, 1), (2, 2)",
    "CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)",
    "CREATE FUNCTION cascaded() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.other; RETURN NULL; END'",
    "CREATE TRIGGER cascading AFTER DELETE ON parent EXECUTE FUNCTION cascaded()",
)


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("made", *TABLES)
    return Books(server, tmp_path, "made")


def found(books: Books, query: str) -> list[tuple[Any, ...]]:
    with books.server.connect("made") as session:
        return session.execute(query.encode()).fetchall()


@pytest.mark.parametrize(
    "restored",
    [
        {"mode": MERGE},
        {"mode": MERGE, "collections": ("books/public.parent", "books/public.child")},
        {"mode": EXACT, "collections": ("books/public.parent", "books/public.child"), "keys": ("1", "2")},
        {"mode": MERGE, "keys": ("*",)},
    ],
    ids=["merge", "merge of tables", "keys", "merge of keys"],
)
@pytest.mark.share(2)
def test_a_table_that_was_made_stays_with_the_rows_that_others_have_added(
    books: Books, restored: dict[str, Any]
) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child, parent")
    was = books.dump()
    books.restore(**restored)
    books.run("INSERT INTO parent VALUES (3, 'newer'); INSERT INTO child VALUES (3, 3)")
    notes = make_undo(books.plan).notes
    assert found(books, "SELECT * FROM parent") == [(3, "newer")]
    assert found(books, "SELECT * FROM child") == [(3, 3)]
    assert found(books, "SELECT * FROM other") == [(1,)]  # no trigger has fired
    assert any("public.parent stays: it holds rows that others have written" in note for note in notes)
    make_undo(books.plan)
    assert found(books, "SELECT count(*) FROM parent") == [(3,)]
    make_undo(books.plan)
    books.run("DROP TABLE child, parent")
    assert books.dump() == was


@pytest.mark.parametrize("restored", [{"mode": MERGE}, {"mode": EXACT, "keys": ("*",)}], ids=["merge", "keys"])
def test_a_table_that_was_made_goes_where_nobody_has_added_anything(books: Books, restored: dict[str, Any]) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child, parent")
    was = books.dump()
    books.restore(collections=("books/public.*",), **restored)
    make_undo(books.plan)
    assert books.dump() == was


def test_what_was_altered_since_so_that_rows_cannot_be_told_is_left_alone(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child, parent")
    books.restore(mode=MERGE)
    books.run("ALTER TABLE parent ADD COLUMN more int; INSERT INTO parent VALUES (3, 'newer', 1)")
    was = books.dump()
    with pytest.raises(RestoreRefused, match=r"public\.parent .* has other columns"):
        make_undo(books.plan)
    assert books.dump() == was


def test_a_table_that_others_have_built_on_stays_empty(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child, parent")
    books.restore(mode=MERGE)
    books.run("CREATE VIEW seen AS SELECT count(*) AS n FROM parent")
    notes = make_undo(books.plan).notes
    assert any("public.parent stays: other objects depend on it" in note for note in notes)
    assert found(books, "SELECT n FROM seen") == [(0,)]


ODD = (
    'CREATE SCHEMA "Odd (schema)"; CREATE TYPE "Odd (schema)"."Mood" AS ENUM (\'a\')',
    'CREATE TYPE "Odd (schema)"."Pa ir" AS (a int); CREATE DOMAIN "Odd (schema)"."Dom""ain" AS int',
    'CREATE FUNCTION "Odd (schema)"."O(n)e"(a int DEFAULT 1) RETURNS int LANGUAGE sql AS \'SELECT 1\'',
    "CREATE FUNCTION plain() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE counting",
    "CREATE AGGREGATE summing(int) (SFUNC = int4pl, STYPE = int); CREATE TYPE mood AS ENUM ('b')",
    'CREATE COLLATION "Odd (schema)"."Own" (locale = \'C\')',
    'CREATE TABLE built (id int PRIMARY KEY, m "Odd (schema)"."Mood", p "Odd (schema)"."Pa ir", o mood,'
    ' d "Odd (schema)"."Dom""ain" DEFAULT "Odd (schema)"."O(n)e"(), e int DEFAULT plain(),'
    ' f int DEFAULT nextval(\'counting\'), t text COLLATE "Odd (schema)"."Own"); INSERT INTO built (id) VALUES (1)',
)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("fields", [{}, {"tables": ["public.built"]}], ids=["everything", "one table"])
@pytest.mark.share(2)
def test_what_was_there_before_the_restore_stays(
    server: PostgresServer, tmp_path: Path, mode: RestoreMode, fields: dict[str, Any]
) -> None:
    server.create("made", *ODD)
    books = Books(server, tmp_path, "made")
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE built")
    was = books.dump()
    books.plan = books.plan.model_copy(update={"sources": {"books": books.source.model_copy(update=fields)}})
    books.restore(mode=mode, collections=("books/public.built",))
    make_undo(books.plan)
    assert books.dump() == was


def test_what_others_have_made_since_for_a_table_stays_when_that_goes(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child, parent")
    books.restore(mode=MERGE)
    books.run(
        "CREATE FUNCTION theirs() RETURNS int LANGUAGE sql AS 'SELECT 7'; CREATE SEQUENCE numbers",
        "ALTER TABLE parent ALTER v SET DEFAULT theirs()::text || nextval('numbers')",
    )
    make_undo(books.plan)
    assert found(books, "SELECT to_regclass('parent'), theirs(), nextval('numbers')") == [(None, 7, 1)]


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("others", ["", "SELECT lo_from_bytea(80001, 'other')"], ids=["none before", "one before"])
@pytest.mark.share(2)
def test_large_objects_that_a_restore_made_go_and_others_stay(books: Books, mode: RestoreMode, others: str) -> None:
    books.run("SELECT lo_from_bytea(70001, 'large'), lo_create(70002)")
    books.back_up(BackupType.FULL)
    books.run("SELECT lo_unlink(70001), lo_unlink(70002)", *([others] * bool(others)))
    was = books.dump()
    books.restore(mode=mode, collections=("books/large_objects",))
    assert books.dump() != was
    make_undo(books.plan)
    assert books.dump() == was


def test_a_large_object_that_came_since_stays_when_a_merge_is_taken_back(books: Books) -> None:
    books.run("SELECT lo_create(70002)")
    books.back_up(BackupType.FULL)
    books.run("SELECT lo_unlink(70002)")
    books.restore(mode=MERGE)
    books.run("SELECT lo_create(70003)")
    make_undo(books.plan)
    assert found(books, "SELECT oid::int8 FROM pg_largeobject_metadata") == [(70003,)]


@pytest.mark.parametrize("size_bytes", [0, 5, 100_000, 40_000_000])
def test_what_a_merge_elsewhere_replaces_of_large_objects_is_kept_as_others(books: Books, size_bytes: int) -> None:
    books.run("SELECT lo_from_bytea(70001, 'ours')")
    books.back_up(BackupType.FULL)
    there = books.server.create(
        "theirs", f"SELECT lo_from_bytea(70001, convert_to(repeat('x', {size_bytes}), 'UTF8')), lo_create(70002)"
    )
    notes = books.restore(mode=MERGE, collections=("books/large_objects",), to=there).notes
    with books.server.connect("theirs") as session:
        held = session.execute(
            "SELECT oid::int8, length(lo_get(oid)) FROM pg_largeobject_metadata WHERE oid NOT IN (70001, 70002)"
        ).fetchall()
        assert session.execute("SELECT lo_get(70001)").fetchone() == (b"ours",)
    assert [length for _, length in held] == [size_bytes]
    assert any(f"70001 as {held[0][0]}" in note for note in notes)


def test_types_go_with_the_table_that_a_restore_made(server: PostgresServer, tmp_path: Path) -> None:
    server.create("made", *ODD)
    books = Books(server, tmp_path, "made")
    books.back_up(BackupType.FULL)
    books.run(
        'DROP SCHEMA "Odd (schema)" CASCADE; DROP TABLE built; DROP TYPE mood; DROP FUNCTION plain()',
        "DROP SEQUENCE counting",
    )
    was = books.dump()
    books.restore(mode=MERGE, collections=("books/public.built",))
    assert books.dump() != was
    make_undo(books.plan)
    assert books.dump() == was
