"""Merges into tables without a primary key: rows are compared as wholes, for SQLite gives rowids to others in time."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import InPlace, ask, back_up, build, dump, run, source_of

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
LETTERS = "CREATE TABLE t (v); INSERT INTO t VALUES ('x'), ('y'), ('z');"


def values(path: Path, table: str = "t") -> list[tuple[object, ...]]:
    return sorted(ask(path, f"SELECT * FROM {table}"), key=repr)


def test_a_row_that_came_under_the_rowid_of_a_deleted_one_stays(tmp_path: Path) -> None:
    path = build(tmp_path / "a.db", LETTERS)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM t WHERE v = 'z'; INSERT INTO t VALUES ('NEW');")
    restored = InPlace(source_of(path), backup, MERGE).run()
    assert values(path) == [("NEW",), ("x",), ("y",), ("z",)]
    assert any("'t' has no primary key" in said for said in restored.said)
    restored.undo()
    assert values(path) == [("NEW",), ("x",), ("y",)]


CHANGES = {
    "updated": ("UPDATE t SET v = 'other' WHERE v = 'y'", ["other", "x", "y", "z"]),
    "all deleted": ("DELETE FROM t", ["x", "y", "z"]),
    "numbered anew": ("DELETE FROM t WHERE v = 'x'; VACUUM", ["x", "y", "z"]),
    "moved": ("UPDATE t SET rowid = rowid + 100", ["x", "y", "z"]),
    "swapped": ("UPDATE t SET rowid = -rowid; UPDATE t SET rowid = 4 + rowid", ["x", "y", "z"]),
    "another of the same": ("INSERT INTO t VALUES ('x')", ["x", "x", "y", "z"]),
    "nothing": ("", ["x", "y", "z"]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
def test_a_merge_adds_what_is_missing_and_takes_nothing(tmp_path: Path, change: str, wal: bool) -> None:
    script, merged = CHANGES[change]
    path = build(tmp_path / "a.db", LETTERS, wal=wal)
    backup = back_up(source_of(path))
    run(path, script)
    before = values(path)
    restored = InPlace(source_of(path), backup, MERGE).run()
    assert values(path) == [(v,) for v in merged]
    again = InPlace(source_of(path), backup, MERGE).run()
    assert values(path) == [(v,) for v in merged], "a second merge finds all of it"
    again.undo()
    restored.undo()
    assert values(path) == before


def test_equal_rows_come_back_as_often_as_they_were_in_all_parts(tmp_path: Path) -> None:
    path = build(tmp_path / "a.db", "CREATE TABLE t (a, b)")
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n % 3, "x" * 50) for n in range(300)])
    connection.close()
    backup = back_up(source_of(path, part_size_bytes=2000))
    assert len(backup.of("t")) > 3
    run(path, "DELETE FROM t WHERE rowid % 4 = 0; INSERT INTO t VALUES (7, NULL), (7, NULL)")
    InPlace(source_of(path), backup, MERGE).run()
    assert ask(path, "SELECT a, count(*) FROM t GROUP BY a") == [(0, 100), (1, 100), (2, 100), (7, 2)]


def test_values_are_told_apart_by_their_storage_classes_and_every_byte(tmp_path: Path) -> None:
    odd = (
        "(1, 'a'), (1.0, 'a'), ('1', 'a'), (x'31', 'a'), (NULL, 'a'), ('', 'A'), (x'', 'a'), "
        "(CAST(x'ff00fe' AS TEXT), 'a'), (x'ff00fe', 'a'), (9e999, 'a'), (0.1, 'a '), (9223372036854775807, 'a')"
    )
    script = "CREATE TABLE t (v, w TEXT COLLATE NOCASE, made AS (w || 'x') STORED);"
    path = build(tmp_path / "a.db", f"{script} INSERT INTO t VALUES {odd};")
    backup, all_of_them = back_up(source_of(path)), values(path, "(SELECT typeof(v), hex(v), w FROM t)")
    InPlace(source_of(path), backup, MERGE).run()
    assert values(path, "(SELECT typeof(v), hex(v), w FROM t)") == all_of_them
    for rowid in range(1, 13):
        run(path, f"DELETE FROM t WHERE rowid = {rowid}; INSERT INTO t (rowid, v) VALUES ({rowid}, 'NEW')")
        InPlace(source_of(path), backup, MERGE).run()
        run(path, "DELETE FROM t WHERE v = 'NEW'")
        assert values(path, "(SELECT typeof(v), hex(v), w FROM t)") == all_of_them


def test_a_table_whose_primary_key_holds_null_is_merged_by_key_where_there_is_one(tmp_path: Path) -> None:
    path = build(
        tmp_path / "a.db",
        "CREATE TABLE t (a TEXT, b INT, v, PRIMARY KEY (a, b));"
        "INSERT INTO t VALUES (NULL, 1, 'x'), (NULL, 1, 'y'), ('k', 1, 'w'), ('k', 2, 'u');",
    )
    backup = back_up(source_of(path))
    run(
        path,
        "DELETE FROM t WHERE v = 'y'; UPDATE t SET v = 'changed' WHERE b = 2; INSERT INTO t VALUES (NULL, 1, 'NEW');",
    )
    before = values(path)
    restored = InPlace(source_of(path), backup, MERGE).run()
    expected = [("k", 1, "w"), ("k", 2, "u"), (None, 1, "NEW"), (None, 1, "x"), (None, 1, "y")]
    assert values(path) == sorted(expected, key=repr)
    restored.undo()
    assert values(path) == before


def test_a_live_row_that_excludes_one_to_be_added_is_named(tmp_path: Path) -> None:
    path = build(tmp_path / "a.db", "CREATE TABLE t (name UNIQUE, v); INSERT INTO t VALUES ('a', 1);")
    backup = back_up(source_of(path))
    run(path, "UPDATE t SET v = 2")
    before = dump(path)
    with pytest.raises(RestoreRefused, match="table 't' and a live one exclude each other"):
        InPlace(source_of(path), backup, MERGE).run()
    assert dump(path) == before


def test_a_row_is_not_replaced_by_its_rowid_in_an_exact_restore_of_some_keys_either(tmp_path: Path) -> None:
    path = build(tmp_path / "a.db", LETTERS)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM t WHERE v = 'z'; INSERT INTO t VALUES ('NEW');")
    before = dump(path)
    with pytest.raises(RestoreRefused, match=r"1 rows of table 't' .* no primary key") as refused:
        InPlace(source_of(path), backup, EXACT, Selection(keys=("[23]",))).run()
    assert "--mode merge" in refused.value.hint
    assert dump(path) == before
    InPlace(source_of(path), backup, MERGE, Selection(keys=("3",))).run()
    assert values(path) == [("NEW",), ("x",), ("y",), ("z",)]


def test_an_exact_restore_of_keys_that_finds_all_of_their_rows_is_made(tmp_path: Path) -> None:
    path = build(
        tmp_path / "a.db", LETTERS + "CREATE TABLE k (id INTEGER PRIMARY KEY, v); INSERT INTO k VALUES (1, 2);"
    )
    backup = back_up(source_of(path))
    run(path, "DELETE FROM t WHERE v = 'y'; UPDATE k SET v = 3; INSERT INTO t (rowid, v) VALUES (77, 'other')")
    InPlace(source_of(path), backup, EXACT, Selection(keys=("?",))).run()
    assert (values(path), values(path, "k")) == ([("other",), ("x",), ("y",), ("z",)], [(1, 2)])
    InPlace(source_of(path), backup, EXACT, Selection(keys=("*",))).run()
    assert values(path) == [("x",), ("y",), ("z",)]


def test_a_row_that_is_gone_comes_back_by_its_rowid_and_the_undo_takes_it_away(tmp_path: Path) -> None:
    path = build(tmp_path / "a.db", LETTERS)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM t WHERE v = 'z'")
    before = dump(path)
    restored = InPlace(source_of(path), backup, EXACT, Selection(keys=("3",))).run()
    assert values(path) == [("x",), ("y",), ("z",)]
    assert restored.emergency is not None
    scope = replace(restored.emergency.scope(EXACT), narrowed={"t": ("3",)}, taken_back=backup.definition, plan="shop")
    undo = InPlace(source_of(path), restored.emergency)
    undo.scope = scope
    undo.target = source_of(path).target(scope)
    undo.emergency = None
    undo.prepare()
    undo.target.commit()
    assert dump(path) == before


@settings(max_examples=40, deadline=None)
@given(
    then=st.lists(st.sampled_from("abc"), max_size=8),
    gone=st.sets(st.integers(1, 8)),
    later=st.lists(st.sampled_from("abcd"), max_size=6),
)
def test_a_merge_leaves_the_larger_number_of_each_row_and_its_undo_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, then: list[str], gone: set[int], later: list[str]
) -> None:
    path = build(tmp_path_factory.mktemp("model") / "a.db", "CREATE TABLE t (v)")
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO t VALUES (?)", then)
    backup = back_up(source_of(path))
    with connection:
        connection.executemany("DELETE FROM t WHERE rowid = ?", [(n,) for n in gone])
        connection.executemany("INSERT INTO t VALUES (?)", later)
    connection.close()
    before = values(path)
    restored = InPlace(source_of(path), backup, MERGE).run()
    live = [v for (v,) in before]
    assert values(path) == [(v,) for v in "abcd" for _ in range(max(then.count(v), live.count(v)))]
    restored.undo()
    assert values(path) == before


# -- foreign keys


FAMILY = """
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INT REFERENCES parent);
INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2);
"""


@pytest.mark.parametrize(
    ("mode", "selection"),
    [
        (MERGE, Selection(("app/child",))),
        (EXACT, Selection(("app/child",))),
        (EXACT, Selection(("app/child",), ("2",))),
        (MERGE, Selection(("app/child",), ("2",))),
    ],
)
def test_a_restored_row_whose_foreign_key_leads_nowhere_is_named(
    tmp_path: Path, mode: RestoreMode, selection: Selection
) -> None:
    path = build(tmp_path / "a.db", FAMILY)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM child WHERE parent = 2; DELETE FROM parent WHERE id = 2")
    restored = InPlace(source_of(path), backup, mode, selection).run()
    assert [note for note in restored.target.notes if "foreign key" in note] == [
        "1 row of table 'child' refers to a row of 'parent' that is not there (foreign key of parent)."
    ]


def test_a_merge_after_which_all_foreign_keys_lead_somewhere_says_nothing(tmp_path: Path) -> None:
    path = build(tmp_path / "a.db", FAMILY)
    backup = back_up(source_of(path))
    run(path, "DELETE FROM child; DELETE FROM parent")
    assert InPlace(source_of(path), backup, MERGE).run().target.notes == []
