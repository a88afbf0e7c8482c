"""What a place does not take of a database holds nothing else back: tables, indexes and rows of an edited schema."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.target import Examining, KeepsGoing, RestoreMode, Target
from tests.blocks.sources.sqlite.kit import Backup, ask, back_up, build, run, source_of

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE

NEWER = """
CREATE TABLE kept (id INTEGER PRIMARY KEY, v);
INSERT INTO kept VALUES (1, 'a'), (2, 'b');
CREATE TABLE newer (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO newer VALUES (1, 'x'), (2, 'y');
CREATE INDEX by_v ON newer (v);
CREATE TRIGGER on_newer AFTER INSERT ON newer BEGIN INSERT INTO kept VALUES (new.id + 100, 'no'); END;
CREATE TABLE child (id INTEGER PRIMARY KEY, of INT REFERENCES newer);
INSERT INTO child VALUES (1, 1);
CREATE VIEW both AS SELECT kept.v FROM kept JOIN newer USING (id);
ANALYZE;
"""

EDITED = """
CREATE TABLE kept (id INTEGER PRIMARY KEY, v);
INSERT INTO kept VALUES (1, 'a'), (2, 'b');
CREATE TABLE filled (id INTEGER PRIMARY KEY, v);
INSERT INTO filled VALUES (1, 'one'), (2, NULL), (3, 'three'), (4, NULL), (5, 'five');
CREATE TABLE loose (v, w);
INSERT INTO loose VALUES (1, 1), (NULL, 2), (1, 1), (3, 3);
CREATE TABLE doubled (id INTEGER PRIMARY KEY, v);
INSERT INTO doubled VALUES (1, 'same'), (2, 'same'), (3, 'other');
CREATE INDEX once ON doubled (v);
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = 'CREATE TABLE filled (id INTEGER PRIMARY KEY, v NOT NULL)' WHERE name = 'filled';
UPDATE sqlite_schema SET sql = 'CREATE TABLE loose (v NOT NULL, w)' WHERE name = 'loose';
UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX once ON doubled (v)' WHERE name = 'once';
PRAGMA writable_schema = RESET;
"""

PLACES = ["new", "live", "damaged"]


def place_of(path: Path, place: str) -> Path:
    if place == "live":
        build(path, "CREATE TABLE mine (a); INSERT INTO mine VALUES (1)")
    if place == "damaged":
        path.write_bytes(b"no database" * 100)
    return path


def restore(backup: Backup, path: Path, mode: RestoreMode = EXACT, keep_going: bool = True) -> tuple[Target, int]:
    """Restore; return also how many rows were reported."""
    scope = replace(backup.scope(mode), keep_going=keep_going)
    target = source_of(path).target(scope)
    try:
        target.preflight()
        rows = backup.apply(target, scope)
        target.commit()
    finally:
        target.abort()
    return target, rows


def left_out(target: Target) -> dict[str, str]:
    assert isinstance(target, KeepsGoing)
    return {left.name: left.reason for left in target.not_rebuilt}


@pytest.fixture
def newer(tmp_path: Path) -> Backup:
    """A backup of a table that only a later SQLite makes."""
    backup = back_up(source_of(build(tmp_path / "newer.db", NEWER)))
    for thing in backup.definition["objects"]:  # type: ignore[union-attr]
        if thing["name"] == "newer":  # type: ignore[index,call-overload]
            thing["sql"] += " FROM_A_LATER_VERSION"  # type: ignore[index,call-overload,operator]
    return backup


@pytest.mark.parametrize("place", PLACES)
def test_a_table_that_cannot_be_created_is_left_out_with_its_rows(tmp_path: Path, newer: Backup, place: str) -> None:
    path = place_of(tmp_path / "place.db", place)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(RestoreRefused, match="Table 'newer' cannot be rebuilt here") as refused:
        restore(newer, path, keep_going=False)
    assert "--keep-going" in refused.value.hint
    assert (path.read_bytes() if path.exists() else None) == before
    target, rows = restore(newer, path)
    assert list(left_out(target)) == ["table 'newer'"]
    assert rows == 3
    assert ask(path, "SELECT * FROM kept") == [(1, "a"), (2, "b")]
    assert ask(path, "SELECT * FROM child") == [(1, 1)]
    names = {name for (name,) in ask(path, "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")}
    assert names == {"kept", "child", "both"}
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_such_a_table_is_left_out_of_a_merge_too(tmp_path: Path, newer: Backup) -> None:
    path = build(tmp_path / "place.db", "CREATE TABLE kept (id INTEGER PRIMARY KEY, v); INSERT INTO kept VALUES (7, 7)")
    target, rows = restore(newer, path, MERGE)
    assert list(left_out(target)) == ["table 'newer'"]
    assert rows == 3
    assert ask(path, "SELECT * FROM kept") == [(1, "a"), (2, "b"), (7, 7)]


@pytest.mark.parametrize("place", PLACES)
def test_rows_and_indexes_that_an_edited_schema_contradicts(tmp_path: Path, place: str) -> None:
    backup = back_up(source_of(build(tmp_path / "edited.db", EDITED)))
    path = place_of(tmp_path / "place.db", place)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(RestoreRefused, match=r"table '\w+' does not take all of its rows: NOT NULL") as refused:
        restore(backup, path, keep_going=False)
    assert "--keep-going" in refused.value.hint
    assert (path.read_bytes() if path.exists() else None) == before
    target, rows = restore(backup, path)
    assert left_out(target) == {
        "2 rows of table 'filled'": "NOT NULL constraint failed: filled.v (the keys 2, 4)",
        "1 row of table 'loose'": "NOT NULL constraint failed: loose.v (the key 2)",
        "index 'once' of table 'doubled'": "UNIQUE constraint failed: doubled.v",
    }
    assert rows == 2 + 3 + 3 + 3
    assert ask(path, "SELECT id FROM filled") == [(1,), (3,), (5,)]
    assert ask(path, "SELECT rowid, v FROM loose") == [(1, 1), (3, 1), (4, 3)]
    assert ask(path, "SELECT id FROM doubled") == [(1,), (2,), (3,)]
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    run(path, "UPDATE doubled SET v = 'mended' WHERE id = 2")
    for left in target.not_rebuilt:  # type: ignore[attr-defined]
        if left.statement:
            run(path, left.statement)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_live_table_keeps_the_rows_that_restored_ones_could_not_replace(tmp_path: Path, mode: RestoreMode) -> None:
    backup = back_up(source_of(build(tmp_path / "edited.db", EDITED)))
    tables = (
        "CREATE TABLE filled (id INTEGER PRIMARY KEY, v NOT NULL); INSERT INTO filled VALUES (2, 'live'), (9, 'x');"
    )
    tables += "CREATE TABLE loose (v NOT NULL, w); CREATE TABLE doubled (id INTEGER PRIMARY KEY, v UNIQUE);"
    tables += "CREATE TABLE other (a); INSERT INTO doubled VALUES (7, 'same')"
    path = build(tmp_path / "place.db", tables)
    backup.parts = [(spec, parts) for spec, parts in backup.parts if spec.name != "kept"]  # so that it is no rewrite
    with pytest.raises(RestoreRefused, match=r"breaks a rule of the table|does not take all"):
        restore(backup, path, mode, keep_going=False)
    target, rows = restore(backup, path, mode)
    names = left_out(target)
    assert "2 rows of table 'filled'" in names
    assert "1 row of table 'loose'" in names
    if mode is MERGE:
        assert ask(path, "SELECT * FROM filled") == [(1, "one"), (2, "live"), (3, "three"), (5, "five"), (9, "x")]
        assert "2 rows of table 'doubled'" in names
        assert ask(path, "SELECT * FROM doubled") == [(3, "other"), (7, "same")]
        assert rows == 3 + 3 + 1
    else:
        assert ask(path, "SELECT id FROM filled") == [(1,), (3,), (5,)]
        assert ask(path, "SELECT id FROM doubled") == [(1,), (3,)]
        assert rows == 3 + 3 + 2
    assert ask(path, "SELECT v, w FROM loose ORDER BY w") == [(1, 1), (1, 1), (3, 3)]


def test_many_rows_that_break_a_rule_are_counted_and_some_are_named(tmp_path: Path) -> None:
    path = build(
        tmp_path / "edited.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        "INSERT INTO t SELECT i, iif(i % 3, i, NULL) FROM n;"
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (id INTEGER PRIMARY KEY, v NOT NULL)' WHERE name = 't';",
    )
    target, rows = restore(back_up(source_of(path)), tmp_path / "place.db")
    assert left_out(target) == {
        "1,000 rows of table 't'": "NOT NULL constraint failed: t.v (the keys 3, 6, 9, 12, 15 and 995 more)"
    }
    assert rows == 2000
    assert ask(tmp_path / "place.db", "SELECT count(*), count(v) FROM t") == [(2000, 2000)]


def test_what_breaks_a_rule_of_its_own_is_odd_and_what_is_damaged_is_damage(tmp_path: Path) -> None:
    path = build(
        tmp_path / "a.db",
        "CREATE TABLE t (v CHECK (v > 0)); CREATE TABLE c (of REFERENCES p); CREATE TABLE p (id INTEGER PRIMARY KEY);"
        "PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES (-1); INSERT INTO c VALUES (9);",
    )
    target, _ = restore(back_up(source_of(path)), tmp_path / "place.db", keep_going=False)
    assert isinstance(target, Examining)
    assert target.examination.damage == ()
    assert target.examination.oddities == (
        "1 row of table 't' breaks a CHECK constraint.",
        "1 row of table 'c' refers to a row of 'p' that is not there (foreign key of of).",
    )
    assert list(target.notes)[:2] == list(target.examination.oddities)


def test_a_key_that_only_the_application_sorts_is_unique_by_its_bytes(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.create_collation("theirs", lambda a, b: (a > b) - (a < b))
    connection.executescript(
        "CREATE TABLE t (k TEXT COLLATE theirs PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('A', 2);"
    )
    connection.close()
    target, rows = restore(back_up(source_of(tmp_path / "a.db")), tmp_path / "place.db")
    assert list(left_out(target)) == ["primary key or UNIQUE of table 't'"]
    assert rows == 2


@pytest.mark.parametrize(("mode", "expected"), [(0o755, 0o600), (0o770, 0o600), (0o2770, 0o660), (0o2755, 0o600)])
def test_a_database_that_was_missing_belongs_to_those_who_make_files_beside_it(
    tmp_path: Path, mode: int, expected: int
) -> None:
    backup = back_up(source_of(build(tmp_path / "a.db", "CREATE TABLE t (v); INSERT INTO t VALUES (1)")))
    folder = tmp_path / "folder"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    folder.chmod(mode)
    owner = folder.stat()
    target, _ = restore(backup, folder / "live.db", keep_going=False)
    made = (folder / "live.db").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (owner.st_uid, owner.st_gid, expected)
    [note] = target.notes
    assert f"belongs to user {owner.st_uid} and group {owner.st_gid} now, with mode {expected:04o}" in note
    scope = replace(backup.scope(), in_place=False)
    elsewhere = source_of(folder / "live.db").target(scope, str(folder / "copy.db"))
    backup.apply(elsewhere, scope)
    elsewhere.commit()
    copy = (folder / "copy.db").stat()
    assert (copy.st_uid, copy.st_mode & 0o7777, list(elsewhere.notes)) == (os.geteuid(), 0o600, [])
