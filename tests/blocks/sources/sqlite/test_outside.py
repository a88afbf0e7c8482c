"""What an application adds to its connections, and what no connection can build: nothing of it holds rows hostage."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from blocks.errors import RestoreRefused, UnsupportedState
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import ask, back_up, build, salvaged, source_of

ANKI = """
CREATE TABLE tags (tag TEXT NOT NULL COLLATE unicase PRIMARY KEY, usn INT) WITHOUT ROWID;
INSERT INTO tags VALUES ('b', 1), ('A', 2), ('C', 3), ('d', 4);
CREATE TABLE decks (id INTEGER PRIMARY KEY, name TEXT COLLATE unicase, CHECK (shorten(name) != 'bad'));
INSERT INTO decks VALUES (1, 'x'), (2, 'Y'), (3, 'a');
CREATE UNIQUE INDEX by_name ON decks (name);
CREATE INDEX by_short ON decks (shorten(name));
CREATE INDEX by_id ON decks (id) WHERE shorten(name) = 'x';
CREATE INDEX by_bytes ON decks (name COLLATE BINARY);
CREATE TABLE users (name TEXT UNIQUE COLLATE unicase, short AS (shorten(name)), kept AS (shorten(name)) STORED);
INSERT INTO users VALUES ('z'), ('B'), (NULL), ('a');
CREATE INDEX by_virtual ON users (short);
CREATE TABLE orphans (id INTEGER PRIMARY KEY, deck INT REFERENCES decks);
INSERT INTO orphans VALUES (1, 99);
CREATE VIEW broken AS SELECT shorten(gone) FROM no_such_table;
CREATE TRIGGER calls AFTER DELETE ON decks BEGIN INSERT INTO no_such_table VALUES (shorten(old.name)); END;
"""


def application(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_collation("unicase", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
    connection.create_function("shorten", 1, lambda text: text and text[:1], deterministic=True)
    return connection


@pytest.fixture
def collection(tmp_path):
    path = tmp_path / "collection.db"
    connection = application(path)
    connection.executescript(ANKI)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return path


ROWS = ("SELECT * FROM tags ORDER BY tag", "SELECT * FROM decks", "SELECT * FROM users ORDER BY rowid")


@pytest.mark.parametrize("live", [False, True])
def test_all_rows_come_back_and_the_application_can_rebuild_what_is_named(tmp_path, collection, live):
    backup = back_up(source_of(collection, integrity="full"))
    said = " ".join(backup.warnings)
    for name in ("'tags'", "'by_name'", "'by_short'", "'by_id'", "'users'", "'by_virtual'"):
        assert name in said
    assert "by_bytes" not in said
    assert "damaged" not in said
    path = tmp_path / "restored.db"
    if live:
        build(path, "CREATE TABLE mine (a)")
    scope = backup.scope()
    with pytest.raises(RestoreRefused, match="by_short") as refused:
        source_of(path).target(scope).preflight()
    assert "--keep-going" in refused.value.hint
    scope = replace(scope, keep_going=True)
    target = source_of(path).target(scope)
    target.preflight()
    backup.apply(target, scope)
    target.commit()
    assert len(target.not_rebuilt) == 7
    theirs, before = application(path), application(collection)
    for left in target.not_rebuilt:
        theirs.execute(left.statement)
    assert theirs.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for query in (*ROWS, "SELECT * FROM orphans"):
        assert theirs.execute(query).fetchall() == before.execute(query).fetchall()
    schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    assert theirs.execute(schema).fetchall() == before.execute(schema).fetchall()


def test_rows_that_only_the_application_can_write_are_left_alone_in_place(collection):
    backup = back_up(source_of(collection))
    theirs = application(collection)
    theirs.execute("DROP TRIGGER calls")
    theirs.execute("DELETE FROM decks")
    theirs.execute("DELETE FROM orphans")
    scope = replace(backup.scope(RestoreMode.MERGE), keep_going=True)
    target = source_of(collection).target(scope)
    target.preflight()
    backup.apply(target, scope)
    target.commit()
    assert {left.name for left in target.not_rebuilt} == {f"rows of table {n!r}" for n in ("tags", "decks", "users")}
    assert theirs.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert theirs.execute("SELECT * FROM orphans").fetchall() == [(1, 99)]


def test_what_cannot_be_kept_is_skipped_with_a_warning_and_a_count(tmp_path):
    path = build(
        tmp_path / "odd.db",
        "PRAGMA encoding = 'UTF-16le'; CREATE TABLE hidden (rowid, oid, _rowid_); INSERT INTO hidden VALUES (1, 2, 3);"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'good'), (3, 'fine');"
        "INSERT INTO t VALUES (2, CAST(x'00dc' AS TEXT)), (4, CAST(x'00d86100' AS TEXT)), (5, '😀');",
    )
    with pytest.raises(UnsupportedState, match="hidden"):
        back_up(source_of(path))
    source = source_of(path, on_unsupported="skip")
    assert any("'hidden'" in warning for warning in back_up(source).warnings)
    with source.view() as view:
        (spec,) = view.collections()
        (bounds,) = view.partition(spec)
        read = view.read(spec, bounds, None)
    assert read.rows.column("id").to_pylist() == [1, 3, 5]
    assert read.warnings == ("2 rows of table 't' are left out: their text has broken surrogates.",)
    with pytest.raises(UnsupportedState, match="surrogates"):
        back_up(source_of(path, exclude=["hidden"]))
    emergency, unread = salvaged(source_of(path, exclude=["hidden"]))
    assert emergency is not None
    assert emergency.of("t")[0].column("v").to_pylist() == ["good", "fine", "😀"]
    assert [(each.collection, each.key) for each in unread] == [("t", "2"), ("t", "4")]


@pytest.mark.parametrize(("integrity", "finds"), [("quick", True), ("full", True), ("off", False)])
def test_a_b_tree_that_lost_half_of_its_cells_is_backed_up_and_marked(tmp_path, integrity, finds):
    path = build(tmp_path / "a.db", "CREATE TABLE t (v); INSERT INTO t VALUES (1), (2), (3), (4);", wal=False)
    ((root,),) = ask(path, "SELECT rootpage FROM sqlite_schema")
    ((size,),) = ask(path, "PRAGMA page_size")
    data = bytearray(path.read_bytes())
    start = (root - 1) * size
    data[start + 3 : start + 5] = (2).to_bytes(2, "big")
    path.write_bytes(data)
    backup = back_up(source_of(path, integrity=integrity))
    assert sum(part.num_rows for part in backup.of("t")) == 2
    assert any("damaged" in warning for warning in backup.warnings) is finds
