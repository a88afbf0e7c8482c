"""Restores over live databases: whole, in part, merged, refused, failed; and what a hostile manifest cannot do."""

from __future__ import annotations

import copy
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected, LastgoodError, RestoreRefused
from blocks.rows.selection import Selection
from blocks.rows.variant import encode_variant, variant_field
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import GALLERY, ask, back_up, build, dump, order, run, source_of

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE

SHOP = """
CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, price REAL);
CREATE TABLE people (email TEXT COLLATE NOCASE PRIMARY KEY, name);
CREATE TABLE tags (a, b, n, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE notes (line TEXT);
CREATE TABLE journal (what);
CREATE INDEX by_price ON items (price);
CREATE TRIGGER items_ai AFTER INSERT ON items BEGIN INSERT INTO journal VALUES ('+' || new.id); END;
CREATE TRIGGER items_ad AFTER DELETE ON items BEGIN INSERT INTO journal VALUES ('-' || old.id); END;
CREATE VIEW cheap AS SELECT * FROM items WHERE price < 5;
INSERT INTO items (name, price) VALUES ('one', 1), ('two', 2), ('three', 30);
INSERT INTO people VALUES ('ann@example.org', 'Ann'), ('bob@example.org', 'Bob');
INSERT INTO tags VALUES ('x', 1, 'x1'), ('x', 2, 'x2'), (CAST(x'ff' AS TEXT), 0, 'odd');
INSERT INTO notes VALUES ('first'), ('second');
"""


@pytest.fixture(params=[True, False], ids=["wal", "rollback journal"])
def shop(request, tmp_path) -> Path:
    return build(tmp_path / "shop.db", SHOP, wal=request.param)


def leftovers(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".") and "lastgood" in p.name)


def asides(path: Path) -> list[Path]:
    found = path.parent.glob(f"{path.name}.lastgood-aside-*")
    return [p for p in found if not p.name.endswith(("-wal", "-shm", "-journal"))]


def test_an_exact_restore_replaces_the_live_database_under_an_open_connection(shop):
    backup, before, names = back_up(source_of(shop)), dump(shop), order(shop)
    os.chmod(shop, 0o640)
    inode = shop.stat().st_ino
    reader = sqlite3.connect(shop, isolation_level=None)
    reader.execute("DROP VIEW cheap")
    reader.execute("DELETE FROM items")
    reader.execute("CREATE TABLE extra (a)")
    target = backup.restore(source_of(shop))
    assert reader.execute("SELECT count(*) FROM items").fetchone() == (3,)
    reader.execute("INSERT INTO notes VALUES ('still usable')")
    reader.execute("DELETE FROM notes WHERE line = 'still usable'")
    reader.close()
    assert target.notes == []
    assert dump(shop) == before
    assert order(shop) == names
    assert shop.stat().st_ino == inode
    assert oct(shop.stat().st_mode & 0o777) == "0o640"
    assert leftovers(shop) == []


def test_an_exact_restore_over_a_database_of_another_page_size(tmp_path):
    backup_of = build(tmp_path / "a.db", "PRAGMA page_size = 1024;" + SHOP, wal=False)
    backup = back_up(source_of(backup_of))
    for wal in (True, False):
        live = build(tmp_path / f"live{wal}.db", "PRAGMA page_size = 8192; CREATE TABLE other (a);", wal=wal)
        backup.restore(source_of(live))
        assert dump(live) == dump(backup_of)


def test_wal_mode_comes_back(tmp_path):
    backup = back_up(source_of(build(tmp_path / "a.db", SHOP)))
    live = build(tmp_path / "live.db", "CREATE TABLE other (a);", wal=False)
    backup.restore(source_of(live))
    assert ask(live, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "header"])
def test_a_damaged_database_is_moved_aside_and_replaced(shop, damage):
    backup, before = back_up(source_of(shop)), dump(shop)
    data = shop.read_bytes()
    bad = {"garbage": b"\xa5" * 9000, "truncated": data[:5000], "empty": b"", "header": b"\0" * 100 + data[100:]}[
        damage
    ]
    shop.write_bytes(bad)
    Path(f"{shop}-wal").write_bytes(b"stale")
    os.chmod(shop, 0o644)
    backup.restore(source_of(shop))
    assert dump(shop) == before
    assert oct(shop.stat().st_mode & 0o777) == "0o644"
    aside = asides(shop)
    assert [p.read_bytes() for p in aside] == ([] if damage == "empty" else [bad])
    assert all(Path(f"{p}-wal").read_bytes() == b"stale" for p in aside)
    assert leftovers(shop) == []


def test_stale_files_beside_a_missing_database_do_no_harm(shop):
    backup, before = back_up(source_of(shop)), dump(shop)
    shop.unlink()
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{shop}{suffix}").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\1" * 600)
    backup.restore(source_of(shop))
    assert dump(shop) == before


def test_a_part_of_a_damaged_database_is_refused(shop):
    backup = back_up(source_of(shop))
    shop.write_bytes(b"\xa5" * 9000)
    with pytest.raises(RestoreRefused, match="damaged"):
        backup.restore(source_of(shop), MERGE, Selection(("app/items",)))


def test_one_table_is_restored_to_a_new_file(shop, tmp_path):
    backup = back_up(source_of(shop))
    scope = backup.scope(EXACT, Selection(("app/items",)))
    target = source_of(shop).target(scope, to=str(tmp_path / "new.db"))
    target.preflight()
    assert backup.apply(target, scope) == 3
    target.commit()
    assert ask(
        tmp_path / "new.db", "SELECT name FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite%'"
    ) == [("items",), ("by_price",), ("items_ai",), ("items_ad",)]
    assert len(ask(tmp_path / "new.db", "SELECT * FROM items")) == 3


def test_merge_puts_rows_back_and_leaves_the_rest(shop):
    backup = back_up(source_of(shop))
    run(
        shop,
        """
        DELETE FROM items WHERE id = 1; UPDATE items SET price = 99 WHERE id = 2;
        INSERT INTO items (name, price) VALUES ('four', 4);
        UPDATE people SET email = 'ANN@example.org', name = 'renamed' WHERE name = 'Ann';
        DELETE FROM tags WHERE typeof(n) = 'text' AND n = 'odd'; INSERT INTO tags VALUES ('y', 1, 'y1');
        DELETE FROM journal; DROP TABLE notes; DROP VIEW cheap;
        """,
    )
    schema = order(shop)
    backup.restore(source_of(shop), MERGE)
    assert ask(shop, "SELECT * FROM items") == [(1, "one", 1.0), (2, "two", 2.0), (3, "three", 30.0), (4, "four", 4.0)]
    assert ask(shop, "SELECT * FROM people ORDER BY rowid") == [("ann@example.org", "Ann"), ("bob@example.org", "Bob")]
    assert ask(shop, "SELECT n FROM tags ORDER BY n") == [("odd",), ("x1",), ("x2",), ("y1",)]
    assert ask(shop, "SELECT typeof(a) FROM tags WHERE n = 'odd'") == [("text",)]
    assert ask(shop, "SELECT * FROM notes") == [("first",), ("second",)]
    assert ask(shop, "SELECT * FROM journal ORDER BY rowid") == [("+1",), ("+2",), ("+3",)], "no trigger fired"
    assert ask(shop, "SELECT seq FROM sqlite_sequence WHERE name = 'items'") == [(4,)]
    assert order(shop)[: len(schema)] == schema, "live objects keep their order"
    assert {row[1] for row in order(shop)[len(schema) :]} == {"notes", "cheap"}
    run(shop, "INSERT INTO items (name) VALUES ('five')")
    assert ask(shop, "SELECT what FROM journal ORDER BY rowid DESC LIMIT 1") == [("+5",)], "triggers are back"
    assert ask(shop, "PRAGMA integrity_check") == [("ok",)]


def test_a_merged_row_gives_its_rowid_up_where_another_row_has_it(tmp_path):
    path = build(tmp_path / "a.db", "CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2);")
    backup = back_up(source_of(path))
    run(path, "DELETE FROM t; INSERT INTO t VALUES ('new', 3), ('b', 4);")
    backup.restore(source_of(path), MERGE)
    assert ask(path, "SELECT k, v FROM t ORDER BY k") == [("a", 1), ("b", 2), ("new", 3)]


def test_exact_with_collections_leaves_the_others_alone(shop):
    backup = back_up(source_of(shop))
    items = ask(shop, "SELECT * FROM items")
    run(shop, "INSERT INTO items (name) VALUES ('later'); DELETE FROM items WHERE id = 2; DELETE FROM people;")
    backup.restore(source_of(shop), EXACT, Selection(("app/items",)))
    assert ask(shop, "SELECT * FROM items") == items
    assert ask(shop, "SELECT * FROM people") == []
    assert ask(shop, "SELECT seq FROM sqlite_sequence WHERE name = 'items'") == [(3,)]


def test_exact_with_keys_deletes_only_selected_rows_that_the_backup_lacks(shop):
    run(shop, "INSERT INTO people VALUES ('ada@example.org', 'Ada')")
    backup = back_up(source_of(shop))
    run(
        shop,
        """
        INSERT INTO people VALUES ('anton@example.org', 'selected, not in the backup'), ('zoe@example.org', 'other');
        UPDATE people SET name = 'changed'; INSERT INTO tags VALUES ('x', 77, 'gone'), ('y', 1, 'kept');
        """,
    )
    backup.restore(source_of(shop), EXACT, Selection(("app/people", "app/tags"), ("a*", "x:*")))
    assert ask(shop, "SELECT * FROM people ORDER BY email") == [
        ("ada@example.org", "Ada"),
        ("ann@example.org", "Ann"),
        ("bob@example.org", "changed"),
        ("zoe@example.org", "changed"),
    ]
    assert ask(shop, "SELECT n FROM tags WHERE typeof(a) = 'text' ORDER BY n") == [
        ("kept",),
        ("odd",),
        ("x1",),
        ("x2",),
    ]


def test_a_merge_that_contradicts_live_rows_changes_nothing(shop):
    backup = back_up(source_of(shop))
    run(shop, "DELETE FROM items; INSERT INTO items VALUES (50, 'two', 0);")
    before = dump(shop)
    scope = backup.scope(MERGE)
    target = source_of(shop).target(scope)
    target.preflight()
    with pytest.raises(RestoreRefused, match="'items'"):
        backup.apply(target, scope)
    target.abort()
    assert dump(shop) == before


@pytest.mark.parametrize(
    ("mode", "selection"), [(EXACT, Selection()), (MERGE, Selection()), (EXACT, Selection(("app/items",)))]
)
@pytest.mark.parametrize("applied", [True, False])
def test_an_aborted_restore_leaves_everything_as_it_was(shop, mode, selection, applied):
    backup = back_up(source_of(shop))
    run(shop, "DELETE FROM items WHERE id = 1; DROP TABLE notes")
    before, names = dump(shop), order(shop)
    target = source_of(shop).target(scope := backup.scope(mode, selection))
    target.preflight()
    if applied:
        backup.apply(target, scope)
    target.abort()
    assert dump(shop) == before
    assert order(shop) == names
    assert leftovers(shop) == []


def test_a_live_lock_is_refused_before_and_survived_during_the_commit(shop):
    backup = back_up(source_of(shop))
    for mode in (EXACT, MERGE):
        writer = sqlite3.connect(shop, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        scope = backup.scope(mode)
        with pytest.raises(RestoreRefused, match="locked"):
            source_of(shop).target(scope).preflight()
        target = source_of(shop).target(scope)
        with pytest.raises(RestoreRefused, match="locked"):
            target.commit()
        writer.execute("INSERT INTO notes VALUES ('mine')")
        writer.execute("COMMIT")
        writer.close()
        target.abort()
        assert ("mine",) in ask(shop, "SELECT * FROM notes")
        assert leftovers(shop) == []


def test_a_narrowed_source_never_replaces_the_whole_database(shop):
    source = source_of(shop, exclude=["people"])
    backup = back_up(source)
    run(shop, "DELETE FROM items; UPDATE people SET name = 'later'")
    backup.restore(source, EXACT)
    assert len(ask(shop, "SELECT * FROM items")) == 3
    assert ask(shop, "SELECT DISTINCT name FROM people") == [("later",)]


def test_other_columns_are_refused_with_both_named(shop):
    backup = back_up(source_of(shop))
    run(shop, "ALTER TABLE notes ADD COLUMN stars INTEGER")
    with pytest.raises(RestoreRefused, match=r"live line TEXT, stars INTEGER.*backup line TEXT"):
        source_of(shop).target(backup.scope(MERGE)).preflight()
    source_of(shop).target(backup.scope(MERGE, Selection(("app/items",)))).preflight()


def test_no_folder_no_space_no_file(shop, tmp_path):
    backup = back_up(source_of(shop))
    with pytest.raises(RestoreRefused, match="no folder"):
        source_of(tmp_path / "none" / "x.db").target(backup.scope()).preflight()
    with pytest.raises(RestoreRefused, match="not a file"):
        source_of(tmp_path).target(backup.scope())
    huge = backup.scope()
    object.__setattr__(huge, "size_bytes", 1 << 60)
    for path in (shop, tmp_path / "new.db"):
        with pytest.raises(RestoreRefused, match="bytes free"):
            source_of(path).target(huge).preflight()


def test_full_text_tables_follow_a_merge(tmp_path):
    path = build(tmp_path / "a.db", GALLERY)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM docs WHERE id = 5; INSERT INTO docs VALUES (9, 'a new cat'); DELETE FROM notes;")
    backup.restore(source_of(path), MERGE)
    assert ask(path, "SELECT rowid FROM search WHERE search MATCH 'a' ORDER BY rowid") == [(1,), (5,), (9,)]
    assert len(ask(path, "SELECT * FROM notes WHERE notes MATCH 'beta'")) == 2
    run(path, "DELETE FROM docs WHERE id = 5")
    backup.restore(source_of(path), MERGE, Selection(("app/docs",)))
    assert ask(path, "SELECT rowid FROM search WHERE search MATCH 'lazy'") == [(5,)]
    with pytest.raises(RestoreRefused, match="as a whole"):
        source_of(path).target(backup.scope(MERGE, Selection(("app/notes_data",)))).preflight()


def test_virtual_tables_that_are_gone_come_back_in_a_merge(tmp_path):
    path = build(tmp_path / "a.db", GALLERY)
    backup = back_up(source_of(path))
    run(path, "DROP TABLE notes; DROP TABLE boxes;")
    backup.restore(source_of(path), MERGE)
    assert len(ask(path, "SELECT * FROM notes WHERE notes MATCH 'beta'")) == 2
    assert ask(path, "SELECT id FROM boxes WHERE x0 > 1") == [(2,)]


def test_every_canonical_type_is_accepted(tmp_path):
    path = build(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v);")
    backup = back_up(source_of(path))
    ((spec, _),) = backup.parts
    columns = [
        pa.array([True, None]),
        pa.array([1, None], pa.int64()),
        pa.array([1.5, float("inf")]),
        pa.array(["a\0b", None], pa.large_string()),
        pa.array([b"\0", None], pa.large_binary()),
        pa.array([datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        pa.array([datetime(2026, 1, 2).date(), None], pa.date32()),
        pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        pa.nulls(2),
    ]
    scope = backup.scope()
    target = source_of(tmp_path / "b.db").target(scope)
    fields = [pa.field("v", column.type) for column in columns]
    odd = [1, 2.0, "t", b"b", bytearray(b"\xff"), None]
    fields.append(variant_field("v"))
    columns.append(encode_variant(odd))
    for i, (field, column) in enumerate(zip(fields, columns, strict=True)):
        ids = pa.array(range(i * 10, i * 10 + len(column)))
        target.apply(spec, pa.table([ids, column], pa.schema([pa.field("id", pa.int64()), field])))
    target.commit()
    values = {row[0]: row[1:] for row in ask(tmp_path / "b.db", "SELECT id, typeof(v), CAST(v AS BLOB) FROM t")}
    assert [values[i * 10] for i in range(9)] == [
        ("integer", b"1"),
        ("integer", b"1"),
        ("real", b"1.5"),
        ("text", b"a\0b"),
        ("blob", b"\0"),
        ("text", b"2026-01-02 03:04:05.000006Z"),
        ("text", b"2026-01-02"),
        ("text", b"1.50"),
        ("null", None),
    ]
    assert [values[90 + i][0] for i in range(6)] == ["integer", "real", "text", "blob", "text", "null"]
    assert values[94] == ("text", b"\xff")


HOSTILE = {
    "two statements": ("table", "CREATE TABLE notes (line); DROP TABLE items"),
    "attach": ("table", "ATTACH 'evil.db' AS evil"),
    "pragma": ("view", "PRAGMA writable_schema = ON"),
    "other schema": ("table", "CREATE TABLE temp.notes (line)"),
    "other name": ("table", "CREATE TABLE innocent (line)"),
    "other kind": ("view", "CREATE TABLE notes (line)"),
    "temporary": ("table", "CREATE TEMP TABLE notes (line)"),
    "extension": ("table", "CREATE TABLE notes AS SELECT load_extension('evil')"),
    "incomplete": ("trigger", "CREATE TRIGGER notes AFTER INSERT ON items BEGIN SELECT 1"),
    "nul": ("table", "CREATE TABLE notes\0 (line)"),
    "virtual, two statements": ("table", "CREATE VIRTUAL TABLE notes USING fts5(a); DROP TABLE items"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("live", [True, False])
def test_a_hostile_statement_is_refused_and_nothing_is_written(tmp_path, monkeypatch, kind, live):
    monkeypatch.chdir(tmp_path)
    backup = back_up(source_of(build(tmp_path / "a.db", SHOP)))
    backup.definition = copy.deepcopy(backup.definition)
    thing = next(thing for thing in backup.definition["objects"] if thing["name"] == "notes")
    thing["type"], thing["sql"] = HOSTILE[kind]
    path = tmp_path / "b.db"
    if live:
        build(path, "CREATE TABLE mine (a)")
    files = sorted(tmp_path.iterdir())
    for mode in (EXACT, MERGE):
        target = source_of(path).target(backup.scope(mode))
        with pytest.raises(RestoreRefused):
            target.preflight()
        with pytest.raises(LastgoodError):
            backup.apply(target, backup.scope(mode))
        target.abort()
    assert sorted(tmp_path.iterdir()) == files
    if live:
        assert ask(path, "SELECT name FROM sqlite_schema") == [("mine",)]


def test_parts_are_applied_by_several_threads(tmp_path):
    path = build(tmp_path / "a.db", GALLERY)
    backup = back_up(source_of(path, part_size_bytes=1))
    target = source_of(tmp_path / "b.db").target(backup.scope())
    work = [(spec, part) for spec, parts in backup.parts for part in reversed(parts)]
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(lambda pair: target.apply(*pair), work)) == sum(part.num_rows for _, part in work)
    target.commit()
    assert dump(tmp_path / "b.db") == dump(path)


def test_what_the_original_broke_is_restored_and_noted(tmp_path):
    target = back_up(source_of(build(tmp_path / "a.db"))).restore(source_of(tmp_path / "b.db"))
    assert any("CHECK constraint" in note for note in target.notes)
    assert any("foreign key" in note and "child" in note for note in target.notes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoding", "UTF-8'; ATTACH 'x' AS x"), ("user_version", "1; DROP"), ("page_size", None), ("more", 1)],
)
def test_a_hostile_setting_is_refused(tmp_path, field, value):
    backup = back_up(source_of(build(tmp_path / "a.db", SHOP)))
    backup.definition = {**backup.definition, field: value}
    with pytest.raises(CorruptionDetected):
        source_of(tmp_path / "b.db").target(backup.scope())


def test_places(tmp_path):
    source = source_of(tmp_path / "x.db").at("state/ledger.db")
    assert source.anchored(tmp_path).path == str(tmp_path / "state/ledger.db")
    assert source.at("/elsewhere/x.db").anchored(tmp_path).path == "/elsewhere/x.db"
    assert source.scratch(tmp_path) == str(tmp_path / "ledger.db")
    assert type(source).model_validate(source.model_dump()).path == source.path
