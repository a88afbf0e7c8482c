"""Looking at a database: one moment, disjoint parts that cover everything, tokens, clear errors."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import JsonValue

from blocks.errors import SourceUnavailable, UnsupportedState
from blocks.sources.sqlite.rows import value_from_json, value_to_json
from tests.blocks.sources.sqlite.kit import ask, back_up, build, run, source_of

NUMBERED = """
CREATE TABLE t (id INTEGER PRIMARY KEY, v);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
INSERT INTO t SELECT i * 3, 'value ' || i FROM n;
"""


def old(path) -> None:
    """Let a database's files look untouched for a minute."""
    for name in (path, f"{path}-wal", f"{path}-journal"):
        if os.path.exists(name):
            found = os.stat(name)
            os.utime(name, ns=(found.st_mtime_ns - 60 * 10**9,) * 2)


def test_a_view_does_not_see_what_is_committed_while_it_is_read(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=3000))
    writer = sqlite3.connect(path, isolation_level=None, timeout=0)
    source = source_of(path, part_size_bytes=2000)
    with source.view() as view:
        (spec,) = view.collections()
        seen = []
        for i, bounds in enumerate(view.partition(spec)):
            writer.execute("DELETE FROM t WHERE id > ? AND id % 2 = 0", (i,))
            writer.execute("INSERT INTO t VALUES (?, 'new')", (i * 3 + 1,))
            writer.execute("UPDATE t SET v = 'changed'")
            seen += view.read(spec, bounds, None).rows.to_pylist()
    writer.close()
    assert seen == [{"id": i * 3, "v": f"value {i}"} for i in range(1, 3001)]


WRITER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
n = 0
while True:
    n += 1
    c.execute("BEGIN IMMEDIATE")
    c.execute("UPDATE left_side SET v = ? WHERE id = ?", (n, n % 50))
    c.execute("UPDATE right_side SET v = ? WHERE id = ?", (n, n % 50))
    c.execute("COMMIT")
    if n == 20: print("running", flush=True)
"""


def test_tables_are_of_one_moment_while_a_process_keeps_writing(tmp_path):
    script = "".join(
        f"CREATE TABLE {side} (id INTEGER PRIMARY KEY, v INTEGER);"
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 49)"
        f" INSERT INTO {side} SELECT i, 0 FROM n;"
        for side in ("left_side", "right_side")
    )
    path = build(tmp_path / "a.db", script)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(10):
            backup = back_up(source_of(path, part_size_bytes=100, busy_timeout_seconds=20))
            left, right = ([row for part in parts for row in part.to_pylist()] for _, parts in backup.parts)
            assert left == right
            assert len(left) == 50
    finally:
        writer.kill()
        writer.communicate()


def test_parts_are_read_by_several_threads(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=5000) + "INSERT INTO t VALUES (7, CAST(x'ff' AS TEXT))")
    with source_of(path, part_size_bytes=4000).view() as view, ThreadPoolExecutor(4) as threads:
        (spec,) = view.collections()
        parts = threads.map(lambda bounds: view.read(spec, bounds, None).rows, view.partition(spec))
        ids = [i for part in parts for i in part.column("id").to_pylist()]
    assert ids == sorted([7, *range(3, 15001, 3)])


KEYED = {
    "rowid with gaps": "CREATE TABLE t (k TEXT, v); DELETE FROM t WHERE rowid % 3 = 0;",
    "alias": "CREATE TABLE t (k INTEGER PRIMARY KEY, v);",
    "text key": "CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID;",
    "descending": "CREATE TABLE t (k, v, PRIMARY KEY (k DESC, v)) WITHOUT ROWID;",
}


@pytest.mark.parametrize("kind", KEYED)
@pytest.mark.parametrize("part_size_bytes", [1, 100, 3000])
def test_parts_are_disjoint_and_hold_every_row_now_and_later(tmp_path, kind, part_size_bytes):
    create, _, then = KEYED[kind].partition(";")
    odd = "(x'ff00', 1), (1.5, 1), (-9e999, 1), (9e999, 1), (CAST(x'ff' AS TEXT), 1), (9223372036854775807, 1)"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
    fill = f"{numbers} INSERT INTO t SELECT i, i FROM n;"
    path = build(
        tmp_path / "a.db",
        f"{create}; {fill} INSERT OR IGNORE INTO t VALUES {'(7, 1)' if kind == 'alias' else odd};{then}",
    )
    source = source_of(path, part_size_bytes=part_size_bytes)

    def rows_with(bounds):
        with source.view() as view:
            (spec,) = view.collections()
            return sum(view.read(spec, each, None).rows.num_rows for each in bounds)

    with source.view() as view:
        bounds = view.partition(view.collections()[0])
    assert bounds[0]["after"] is None
    assert bounds[-1]["upto"] is None
    assert [b["upto"] for b in bounds[:-1]] == [b["after"] for b in bounds[1:]]
    assert rows_with(bounds) == ask(path, "SELECT count(*) FROM t")[0][0]
    more = "(-5, 2), (0, 2), (3000000000, 2), (250, 2)" + (
        "" if kind == "alias" else ", ('', 2), (x'', 2), ('zz', 2), (1e300, 2)"
    )
    run(path, f"INSERT OR IGNORE INTO t VALUES {more}")
    assert rows_with(bounds) == ask(path, "SELECT count(*) FROM t")[0][0]


def test_parts_are_about_as_large_as_asked_for(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=30_000))
    size = 100_000
    with source_of(path, part_size_bytes=size).view() as view:
        (spec,) = view.collections()
        sizes = [view.read(spec, bounds, None).rows.nbytes for bounds in view.partition(spec)]
    assert max(sizes) < size * 1.2
    assert min(sizes[:-1]) > size * 0.5


def test_keys_are_what_tells_rows_apart(tmp_path):
    backup = back_up(source_of(build(tmp_path / "a.db")))
    keys = {spec.name: spec.key for spec, _ in backup.parts}
    assert keys["plain"] == ("id",)
    assert keys["nullkey"] == ("rowid",)
    assert keys["textkey"] == ("k",)
    assert keys["composite"] == ("a", "b")
    assert keys["""odd "name", [select] 'and' ünï"""] == ("_rowid_",)
    columns = {spec.name: [name for name, _ in spec.columns] for spec, _ in backup.parts}
    assert columns["made"] == ["w", "h", "tail", "rowid"]


def test_a_null_that_enters_a_key_changes_the_fingerprint(tmp_path):
    path = build(tmp_path / "a.db", "CREATE TABLE t (k TEXT PRIMARY KEY); INSERT INTO t VALUES ('a');")
    before = back_up(source_of(path)).parts[0][0].fingerprint
    run(path, "INSERT INTO t VALUES (NULL)")
    assert back_up(source_of(path)).parts[0][0].fingerprint != before


def test_the_token_is_equal_until_something_changes(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=10))

    def token(**fields):
        with source_of(path, **fields).view() as view:
            return view.token

    assert token() is None, "files touched just now may be touched again unseen"
    old(path)
    first = token()
    assert first is not None
    assert token() == first
    assert token(tables=["x*"]) != first
    keeper = sqlite3.connect(path, isolation_level=None)
    keeper.execute("UPDATE t SET v = 1 WHERE id = 3")
    assert token() is None
    old(path)
    second = token()
    assert second not in (None, first)
    keeper.execute("PRAGMA wal_checkpoint(RESTART)")
    keeper.execute("UPDATE t SET v = 2 WHERE id = 3")
    old(path)
    assert token() not in (None, first, second)
    keeper.close()


def test_only_chosen_tables_are_backed_up(tmp_path):
    path = build(tmp_path / "a.db")
    backup = back_up(source_of(path, tables=["plain", "notes", "c*"], exclude=["composite"]))
    assert {spec.name for spec, _ in backup.parts if not spec.name.startswith("notes_")} == {
        "plain",
        "counted",
        "child",
    }
    assert sum(spec.name.startswith("notes_") for spec, _ in backup.parts) == 5
    backup.restore(source_of(tmp_path / "b.db"))
    assert ask(tmp_path / "b.db", "SELECT * FROM counted") == [(1, "a"), (2, "b")]


def test_what_cannot_be_created_again_is_a_warning(tmp_path):
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.create_collation("german", lambda a, b: (a > b) - (a < b))
    connection.create_function("fold", 1, str.lower, deterministic=True)
    connection.executescript(
        "CREATE TABLE t (a TEXT); CREATE INDEX i ON t (a COLLATE german); CREATE INDEX j ON t (fold(a));"
    )
    connection.close()
    warnings = back_up(source_of(path)).warnings
    assert len(warnings) == 2
    assert "german" in warnings[0]
    assert "fold" in warnings[1]


def test_columns_that_hide_the_rowid_are_a_clear_error(tmp_path):
    path = build(tmp_path / "a.db", "CREATE TABLE hidden (rowid, _ROWID_, oid);")
    with pytest.raises(UnsupportedState, match="'hidden'"):
        back_up(source_of(path))
    assert back_up(source_of(path, exclude=["hid*"])).parts == []
    path = build(tmp_path / "b.db", "CREATE TABLE fine (rowid, _rowid_, oid INTEGER PRIMARY KEY);")
    assert back_up(source_of(path)).parts[0][0].key == ("oid",)


def test_text_of_utf_16_without_a_utf_8_form_is_a_clear_error(tmp_path):
    path = build(tmp_path / "a.db", "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (v); INSERT INTO t VALUES ('fine');")
    assert back_up(source_of(path)).of("t")[0].num_rows == 1
    run(path, "INSERT INTO t VALUES (CAST(x'00d8' AS TEXT))")
    with pytest.raises(UnsupportedState, match="'t'"):
        back_up(source_of(path))


def test_a_missing_file_is_an_error_and_is_not_created(tmp_path):
    with pytest.raises(SourceUnavailable, match="no database at"):
        back_up(source_of(tmp_path / "a.db"))
    with pytest.raises(SourceUnavailable):
        back_up(source_of(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_an_error(tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(SourceUnavailable, match=r"a\.db") as caught:
        back_up(source_of(path))
    assert "not an SQLite database" in caught.value.hint


def test_a_locked_database_is_an_error(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=10), wal=False)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceUnavailable) as caught:
        back_up(source_of(path, busy_timeout_seconds=0))
    assert "locked" in caught.value.hint
    writer.close()


def test_the_journal_of_a_dead_writer_is_rolled_back_first(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=2000), wal=False)
    dying = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size = 5'); c.execute('BEGIN'); c.execute('UPDATE t SET v = 0'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", dying, path], check=False)
    assert os.path.getsize(f"{path}-journal")
    (part,) = back_up(source_of(path)).of("t")
    assert part.column("v")[0].as_py() == "value 1"


def test_a_view_leaves_the_locks_of_other_connections_alone(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=10), wal=False)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE t SET v = 1")
    back_up(source_of(path))
    tried = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    done = subprocess.run([sys.executable, "-c", tried, path], capture_output=True, check=False)
    assert b"locked" in done.stderr
    writer.close()


@pytest.mark.parametrize(
    "value", [None, 0, -1, 2**63 - 1, -(2**63), 0.1, float("inf"), -0.0, "", "ä", b"", b"\0", bytearray(b"\xff")]
)
def test_values_survive_json(value):
    encoded: JsonValue = json.loads(json.dumps(value_to_json(value)))
    decoded = value_from_json(encoded)
    assert (type(decoded), repr(decoded)) == (type(value), repr(value))


def test_closing_a_view_while_threads_have_used_it(tmp_path):
    path = build(tmp_path / "a.db", NUMBERED.format(count=10))
    with source_of(path).view() as view:
        (spec,) = view.collections()
        thread = threading.Thread(target=lambda: view.read(spec, {"after": None, "upto": None}, None))
        thread.start()
        thread.join()
    run(path, "DROP TABLE t")
