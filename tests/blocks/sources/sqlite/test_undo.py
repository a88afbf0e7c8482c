"""A restore in place, then the restore of what was kept before it: the database is as it was, by its own dump."""

from __future__ import annotations

import pytest

from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import GALLERY, InPlace, ask, back_up, build, dump, order, run, source_of
from tests.blocks.sources.sqlite.test_restore import SHOP

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE

LATER = """
INSERT INTO items (name, price) VALUES ('later', 7), ('last', 8); DELETE FROM items WHERE id = 2;
UPDATE items SET price = 99 WHERE id = 3; DELETE FROM notes; INSERT INTO notes VALUES ('new');
UPDATE people SET name = 'renamed' WHERE name = 'Ann'; INSERT INTO people VALUES ('zoe@example.org', 'Zoe');
DELETE FROM tags WHERE b = 2; INSERT INTO tags VALUES ('n', 9, 'new'); DELETE FROM journal WHERE what = '+1';
"""
REMADE = """
DROP VIEW cheap; DROP TABLE notes; CREATE TABLE fresh (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO fresh (v) VALUES ('a'); ALTER TABLE people ADD COLUMN age; CREATE INDEX by_name ON items (name, price);
DROP TRIGGER items_ai; CREATE VIEW dear AS SELECT * FROM items; PRAGMA user_version = 12; ANALYZE;
"""
NARROW = {
    "everything, exact": (EXACT, Selection()),
    "everything, merged": (MERGE, Selection()),
    "one table": (EXACT, Selection(("app/items",))),
    "two tables, merged": (MERGE, Selection(("app/items", "app/tags"))),
    "by key": (EXACT, Selection(("app/people", "app/tags"), ("a*", "x:*", "n:*"))),
    "by key, merged": (MERGE, Selection(("app/people",), ("a*",))),
}


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
@pytest.mark.parametrize("narrow", NARROW)
def test_what_a_restore_overwrote_comes_back_exactly(tmp_path, narrow, wal):
    mode, selection = NARROW[narrow]
    path = build(tmp_path / "shop.db", SHOP, wal=wal)
    backup, first = back_up(source_of(path)), dump(path)
    run(path, LATER)
    before, names = dump(path), order(path)
    restored = InPlace(source_of(path), backup, mode, selection).run()
    assert dump(path) != before
    if mode is EXACT and selection.everything:
        assert dump(path) == first
    undone = restored.undo()
    assert dump(path) == before
    assert order(path) == names
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    again = undone.undo()
    assert again.target.changed


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
def test_a_schema_that_was_changed_comes_back_exactly(tmp_path, wal):
    path = build(tmp_path / "shop.db", SHOP, wal=wal)
    backup, first = back_up(source_of(path)), dump(path)
    run(path, REMADE)
    before, names = dump(path), order(path)
    restored = InPlace(source_of(path), backup).run()
    assert dump(path) == first
    assert ask(path, "PRAGMA user_version") == [(0,)]
    restored.undo()
    assert (dump(path), order(path)) == (before, names)
    assert ask(path, "PRAGMA user_version") == [(12,)]


def test_counters_of_a_database_that_had_none_go_again(tmp_path):
    path = build(tmp_path / "a.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1);")
    plain = dump(path)
    backup = back_up(source_of(path))
    run(path, "CREATE TABLE c (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO c VALUES (7);")
    counted = dump(path)
    restored = InPlace(source_of(path), backup).run()
    assert dump(path) == plain
    restored.undo()
    assert dump(path) == counted


def test_a_table_that_a_narrowed_restore_created_is_dropped_with_all_that_is_its_own(tmp_path):
    path = build(tmp_path / "shop.db", SHOP)
    backup = back_up(source_of(path))
    run(path, "DROP TABLE items; DROP TABLE notes; DELETE FROM sqlite_sequence")
    before = dump(path)
    for mode in (EXACT, MERGE):
        restored = InPlace(source_of(path), backup, mode, Selection(("app/items",))).run()
        assert len(ask(path, "SELECT * FROM items")) == 3
        restored.undo()
        assert dump(path) == before


def test_a_created_table_that_others_have_written_to_since_stays_in_an_undone_merge(tmp_path):
    path = build(tmp_path / "shop.db", SHOP)
    backup = back_up(source_of(path))
    run(path, "DROP TABLE notes")
    restored = InPlace(source_of(path), backup, MERGE, Selection(("app/notes",))).run()
    run(path, "INSERT INTO notes VALUES ('mine')")
    undone = restored.undo()
    assert ask(path, "SELECT * FROM notes") == [("mine",)]
    assert any("'notes' stays" in note for note in undone.target.notes)


def test_the_gallery_of_odd_tables_comes_back_exactly(tmp_path):
    path = build(tmp_path / "a.db", GALLERY)
    backup, first = back_up(source_of(path)), dump(path)
    run(
        path,
        "DELETE FROM docs; INSERT INTO notes VALUES ('three', 'gamma'); DROP TABLE boxes; DELETE FROM composite;"
        "INSERT INTO counted (v) VALUES ('d'); UPDATE mixed SET w = NULL; DROP VIEW seen; PRAGMA application_id = 1;",
    )
    before, names = dump(path), order(path)
    restored = InPlace(source_of(path), backup).run()
    assert dump(path) == first
    restored.undo()
    assert (dump(path), order(path)) == (before, names)
    assert ask(path, "SELECT title FROM notes WHERE notes MATCH 'gamma' ORDER BY rowid") == [("two",), ("three",)]


def test_a_backup_of_some_tables_or_keys_never_removes_the_others(tmp_path):
    path = build(tmp_path / "shop.db", SHOP)
    backup = back_up(source_of(path))
    backup.parts = [(spec, parts) for spec, parts in backup.parts if spec.name == "items"]
    run(path, "INSERT INTO notes VALUES ('third'); DELETE FROM items")
    InPlace(source_of(path), backup).run()
    assert len(ask(path, "SELECT * FROM items")) == 3
    assert len(ask(path, "SELECT * FROM notes")) == 3
    assert len(ask(path, "SELECT * FROM people")) == 2


def test_keys_that_only_the_index_distinguishes_are_left_alone_where_another_one_is_selected(tmp_path):
    table = "CREATE TABLE t (k TEXT COLLATE NOCASE, v, PRIMARY KEY (k COLLATE BINARY)) WITHOUT ROWID"
    path = build(tmp_path / "a.db", f"{table}; INSERT INTO t VALUES ('ann', 1), ('Ann', 2)")
    backup = back_up(source_of(path))
    run(path, "UPDATE t SET v = v + 10")
    for mode in (EXACT, MERGE):
        restored = InPlace(source_of(path), backup, mode, Selection(("app/t",), ("ann",))).run()
        assert ask(path, "SELECT v FROM t ORDER BY v") == [(1,), (12,)]
        restored.undo()
        assert ask(path, "SELECT v FROM t ORDER BY v") == [(11,), (12,)]
