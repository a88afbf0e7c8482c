"""What a restore may touch: only what the plan covers now and the backup covered then."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import GALLERY, InPlace, ask, back_up, build, dump, order, run, source_of
from tests.blocks.sources.sqlite.test_restore import SHOP

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
OWN = """
CREATE TABLE cache (k PRIMARY KEY, v); INSERT INTO cache VALUES ('a', 1);
CREATE INDEX cache_v ON cache (v); CREATE VIEW cached AS SELECT * FROM cache;
CREATE TRIGGER cache_ai AFTER INSERT ON cache BEGIN INSERT INTO journal VALUES ('cached ' || new.k); END;
"""


@pytest.fixture(params=[True, False], ids=["wal", "rollback journal"])
def shop(request, tmp_path) -> Path:
    return build(tmp_path / "shop.db", SHOP + OWN, wal=request.param)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("fields", [{"exclude": ["c*", "people"]}, {"tables": ["items", "notes", "tags", "journal"]}])
def test_a_table_that_was_left_out_since_is_neither_written_nor_deleted(shop, mode, fields):
    backup = back_up(source_of(shop))
    run(
        shop,
        "INSERT INTO cache VALUES ('b', 2); DELETE FROM cache WHERE k = 'a'; UPDATE people SET name = 'later';"
        "DELETE FROM items; CREATE INDEX cache_k ON cache (k, v); CREATE TABLE crumbs (a);"
        "CREATE VIEW cover AS SELECT 1;",
    )
    kept = [row for row in order(shop) if str(row[2]).startswith(("c", "people"))]
    restore = InPlace(source_of(shop, **fields), backup, mode).run()
    assert ask(shop, "SELECT * FROM cache") == [("b", 2)]
    assert ask(shop, "SELECT DISTINCT name FROM people") == [("later",)]
    assert len(ask(shop, "SELECT * FROM items")) == 3
    assert [row for row in order(shop) if str(row[2]).startswith(("c", "people"))] == kept
    assert restore.target.changed
    run(shop, "INSERT INTO cache VALUES ('c', 3)")
    assert ("cached c",) in ask(shop, "SELECT * FROM journal")


def test_a_table_that_was_left_out_since_is_not_created(shop):
    backup = back_up(source_of(shop))
    run(shop, "DROP TABLE cache; DROP VIEW cached")
    InPlace(source_of(shop, exclude=["cache"]), backup).run()
    assert ask(shop, "SELECT name FROM sqlite_schema WHERE name = 'cache'") == []


def test_a_table_that_only_the_plan_of_now_covers_is_not_deleted(shop):
    backup = back_up(source_of(shop, exclude=["cache"]))
    run(shop, "CREATE TABLE later (a); INSERT INTO later VALUES (1); INSERT INTO cache VALUES ('b', 2)")
    run(shop, "DELETE FROM items")
    InPlace(source_of(shop), backup).run()
    assert ask(shop, "SELECT * FROM later") == [(1,)]
    assert len(ask(shop, "SELECT * FROM cache")) == 2
    assert len(ask(shop, "SELECT * FROM items")) == 3


def test_a_table_that_came_later_goes_where_both_cover_it(shop):
    backup = back_up(source_of(shop))
    run(shop, "CREATE TABLE later (a); CREATE VIRTUAL TABLE words USING fts5(w); INSERT INTO words VALUES ('x y');")
    source = source_of(shop, exclude=["cache"])
    restore = InPlace(source, backup)
    restore.run()
    assert any("'later'" in said for said in restore.said)
    assert ask(shop, "SELECT name FROM sqlite_schema WHERE name LIKE 'words%' OR name = 'later'") == []
    assert ask(shop, "PRAGMA integrity_check") == [("ok",)]
    restore.undo()
    assert ask(shop, "SELECT w FROM words WHERE words MATCH 'y'") == [("x y",)]


def test_what_only_a_merge_or_a_selection_restores_deletes_no_later_table(shop):
    backup = back_up(source_of(shop))
    run(shop, "CREATE TABLE later (a)")
    for mode, selection in ((MERGE, Selection()), (EXACT, Selection(("app/items",))), (EXACT, Selection((), ("a*",)))):
        InPlace(source_of(shop), backup, mode, selection).run()
        assert ask(shop, "SELECT name FROM sqlite_schema WHERE name = 'later'") == [("later",)]


def test_a_virtual_table_that_was_left_out_keeps_its_shadow_tables(tmp_path):
    path = build(tmp_path / "a.db", GALLERY)
    backup = back_up(source_of(path))
    source = source_of(path, exclude=["notes", "boxes"])
    covered = {spec.name for spec, _ in backup.parts if source.covers(spec)}
    assert not {name for name in covered if name.startswith(("notes_", "boxes_"))}
    assert "search_data" in covered
    run(path, "INSERT INTO notes VALUES ('three', 'delta'); DELETE FROM boxes; DELETE FROM plain;")
    InPlace(source, backup).run()
    assert len(ask(path, "SELECT * FROM notes WHERE notes MATCH 'delta'")) == 1
    assert ask(path, "SELECT * FROM boxes") == []
    assert len(ask(path, "SELECT * FROM plain")) == 5


def test_a_table_that_only_looks_like_a_shadow_table_is_covered_by_its_own_name(tmp_path):
    path = build(tmp_path / "a.db", "CREATE TABLE app_config (k, v); CREATE TABLE app (a);")
    ((config, _), _) = back_up(source_of(path)).parts
    assert source_of(path, exclude=["app"]).covers(config)
    assert not source_of(path, exclude=["app_*"]).covers(config)
    notes = back_up(source_of(build(tmp_path / "b.db", GALLERY))).parts
    gone = source_of(tmp_path / "gone.db", exclude=["notes"])
    assert [spec.name for spec, _ in notes if spec.name.startswith("notes_") and gone.covers(spec)] == []


def test_another_place_gets_all_of_the_backup_whatever_the_plan_leaves_out(shop, tmp_path):
    backup = back_up(source_of(shop))
    source = source_of(shop, exclude=["people"])
    scope = replace(backup.scope(), in_place=False)
    target = source.target(scope, to=str(tmp_path / "copy.db"))
    target.preflight()
    backup.apply(target, scope)
    target.commit()
    assert dump(tmp_path / "copy.db") == dump(shop)


def test_a_table_whose_name_differs_in_case_is_named_and_not_written_to(shop):
    backup = back_up(source_of(shop))
    run(shop, "ALTER TABLE items RENAME TO moved; ALTER TABLE moved RENAME TO Items; DELETE FROM Items;")
    before = dump(shop)
    with pytest.raises(RestoreRefused, match="Items"):
        InPlace(source_of(shop), backup, MERGE).run()
    assert dump(shop) == before


def test_a_view_in_the_place_of_a_table_is_refused(shop):
    backup = back_up(source_of(shop))
    run(shop, "DROP TABLE notes; CREATE VIEW notes AS SELECT 'x' AS line")
    before = dump(shop)
    for mode, selection in ((MERGE, Selection()), (EXACT, Selection(("app/notes",)))):
        with pytest.raises(RestoreRefused, match="'notes'"):
            InPlace(source_of(shop), backup, mode, selection).run()
        assert dump(shop) == before


CLAUSES = {
    "ignore": "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT IGNORE)",
    "replace": "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT REPLACE)",
    "rollback": "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT ROLLBACK)",
    "fail": "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE ON CONFLICT FAIL)",
}


@pytest.mark.parametrize("clause", CLAUSES)
@pytest.mark.parametrize("selection", [Selection(), Selection(("app/t",), ("1",))])
def test_a_conflict_clause_of_a_table_lets_no_row_vanish(tmp_path, clause, selection):
    path = build(tmp_path / "a.db", f"{CLAUSES[clause]}; INSERT INTO t VALUES (1, 'a'), (2, 'b');")
    backup = back_up(source_of(path))
    run(path, "DELETE FROM t; INSERT INTO t VALUES (3, 'a')")
    before = dump(path)
    with pytest.raises(RestoreRefused, match="'t'"):
        InPlace(source_of(path), backup, MERGE, selection).run()
    assert dump(path) == before


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("place", ["live", "new"])
def test_rows_that_vanish_stop_the_restore(tmp_path, mode, place):
    """Whatever takes them: here somebody deletes within our own transaction."""
    path = build(tmp_path / "a.db", SHOP)
    backup = back_up(source_of(path))
    at = path if place == "live" else tmp_path / "b.db"
    before = dump(path)
    restore = InPlace(source_of(at), backup, mode)
    restore.prepare()
    restore.write()
    connection = restore.target._connection  # type: ignore[attr-defined]
    assert isinstance(connection, sqlite3.Connection)
    connection.execute("DELETE FROM tags WHERE n = 'x1'")
    with pytest.raises(RestoreRefused, match="'tags' would hold 2 rows where it must hold 3"):
        restore.target.commit()
    restore.target.abort()
    assert dump(path) == before
    assert not restore.target.changed
    assert place == "live" or not at.exists()


def test_removed_records_are_counted_and_their_triggers_stay_silent(tmp_path):
    path = build(tmp_path / "a.db", SHOP)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM items WHERE id = 1")
    scope = backup.scope(MERGE, Selection(("app/notes",)))
    target = source_of(path).target(scope)
    items = next(spec for spec, _ in backup.parts if spec.name == "items")
    assert target.remove(items, backup.of("items")[0].slice(0, 2)) == 1
    assert target.remove(items, backup.of("items")[0].slice(0, 2)) == 0
    target.commit()
    assert ask(path, "SELECT name FROM items") == [("three",)]
    assert ("-2",) not in ask(path, "SELECT * FROM journal")
    run(path, "DELETE FROM items")
    assert ("-3",) in ask(path, "SELECT * FROM journal"), "triggers are back"
