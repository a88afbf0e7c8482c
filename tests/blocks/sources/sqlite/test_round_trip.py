"""What was backed up comes back: compared by the `.dump` of sqlite3's own shell."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.blocks.sources.sqlite.kit import ask, back_up, build, dump, order, run, source_of


@pytest.mark.parametrize("wal", [True, False])
@pytest.mark.parametrize("part_size_bytes", [1, 60, 1 << 26])
def test_the_gallery_comes_back_with_the_same_dump(tmp_path, wal, part_size_bytes):
    original = build(tmp_path / "it's 100% odd?#.db", wal=wal)
    backup = back_up(source_of(original, part_size_bytes=part_size_bytes))
    restored = tmp_path / "restored.db"
    backup.restore(source_of(restored))
    assert dump(restored) == dump(original)
    assert order(restored) == order(original)
    for pragma in ("user_version", "application_id", "page_size", "journal_mode"):
        assert ask(restored, f"PRAGMA {pragma}") == ask(original, f"PRAGMA {pragma}")
    assert ask(restored, "SELECT rowid FROM search WHERE search MATCH 'lazy'") == [(5,)]
    assert ask(restored, "SELECT title FROM notes WHERE notes MATCH 'beta' ORDER BY rowid") == [("one",), ("two",)]
    assert ask(restored, "SELECT id FROM boxes WHERE x0 > 1") == [(2,)]
    assert oct(restored.stat().st_mode & 0o777) == "0o600"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_second_backup_of_the_restored_database_is_the_same(tmp_path):
    first = back_up(source_of(build(tmp_path / "a.db")))
    first.restore(source_of(tmp_path / "b.db"))
    second = back_up(source_of(tmp_path / "b.db"))
    assert first.definition == second.definition
    assert [(s.fingerprint, p) for s, p in first.parts] == [(s.fingerprint, p) for s, p in second.parts]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
def test_encoding_and_vacuum_mode_are_kept(tmp_path, encoding, auto_vacuum):
    script = f"""
    PRAGMA encoding = '{encoding}'; PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA page_size = 1024;
    CREATE TABLE t (k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('ä𝄞', 1.5), ('b', 'ß'), ('', x'00');
    """
    original, restored = build(tmp_path / "a.db", script, wal=False), tmp_path / "b.db"
    back_up(source_of(original)).restore(source_of(restored))
    assert dump(restored) == dump(original)
    for pragma in ("encoding", "auto_vacuum", "page_size"):
        assert ask(restored, f"PRAGMA {pragma}") == ask(original, f"PRAGMA {pragma}")


def test_storage_classes_become_arrow_types(tmp_path):
    backup = back_up(source_of(build(tmp_path / "a.db")))
    (plain,) = backup.of("plain")
    assert [field.type for field in plain.schema] == [pa.int64(), pa.large_string(), pa.float64(), pa.int64()]
    assert pa.types.is_null(backup.of("nothing")[0].schema.field("a").type)


def test_a_blob_of_50_mb_makes_its_own_part_and_comes_back(tmp_path):
    script = """
    CREATE TABLE t (id INTEGER PRIMARY KEY, b);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
    INSERT INTO t SELECT i, CASE i WHEN 250 THEN randomblob(50000000) ELSE 'small' END FROM n;
    """
    original, restored = build(tmp_path / "a.db", script), tmp_path / "b.db"
    backup = back_up(source_of(original, part_size_bytes=1 << 22))
    assert [part.num_rows for part in backup.parts[0][1]] == [249, 1, 250]
    backup.restore(source_of(restored))
    query = f"ATTACH '{original}' AS o; SELECT count(*) FROM main.t r JOIN o.t USING (id) WHERE r.b IS o.t.b"
    connection = sqlite3.connect(restored)
    connection.execute(query.split(";")[0])
    assert connection.execute(query.split(";")[1]).fetchone() == (500,)
    connection.close()


def test_text_that_is_not_utf8_is_read_in_the_middle_of_a_large_table(tmp_path):
    script = """
    CREATE TABLE t (v TEXT, k TEXT PRIMARY KEY) WITHOUT ROWID;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
    INSERT INTO t SELECT CASE i WHEN 7000 THEN CAST(x'ff' AS TEXT) ELSE 'text ' || i END,
        CASE i % 3000 WHEN 0 THEN CAST(x'fe' AS TEXT) || i ELSE 'k' || i END FROM n;
    """
    original, restored = build(tmp_path / "a.db", script), tmp_path / "b.db"
    backup = back_up(source_of(original, part_size_bytes=20_000))
    assert sum(part.num_rows for part in backup.of("t")) == 9000
    backup.restore(source_of(restored))
    assert dump(restored) == dump(original)


def test_a_table_of_many_columns(tmp_path):
    columns = ", ".join(f"c{i}" for i in range(1990))
    original = build(tmp_path / "a.db", f"CREATE TABLE t ({columns}); INSERT INTO t (c5, c1989) VALUES (1, 'x');")
    back_up(source_of(original)).restore(source_of(tmp_path / "b.db"))
    assert dump(tmp_path / "b.db") == dump(original)


def test_dropped_counters_and_no_tables_at_all(tmp_path):
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE t; PRAGMA user_version = 3;"
    original = build(tmp_path / "a.db", script)
    backup = back_up(source_of(original))
    assert backup.warnings == (f"No table of {original} is backed up.",)
    backup.restore(source_of(tmp_path / "b.db"))
    assert order(tmp_path / "b.db") == order(original)
    assert ask(tmp_path / "b.db", "PRAGMA user_version") == [(3,)]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda name: not name.lower().startswith("sqlite_") and name.lower() not in ("oid", "rowid", "_rowid_")
)
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.binary(max_size=12),
    st.binary(max_size=6).map(bytearray),
)


@st.composite
def tables(draw):
    columns = draw(st.lists(names, min_size=1, max_size=4, unique_by=str.lower))
    kinds = [draw(st.sampled_from(["", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC"])) for _ in columns]
    keys = draw(st.integers(0, len(columns)))
    without_rowid = keys > 0 and draw(st.booleans())
    rows = draw(st.lists(st.tuples(*[values for _ in columns]), max_size=30))
    return columns, kinds, keys, without_rowid, rows


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), part_size_bytes=st.integers(1, 400), deleted=st.integers(2, 5))
def test_any_table_comes_back(table, part_size_bytes, deleted):
    columns, kinds, keys, without_rowid, rows = table
    quoted = ['"' + name.replace('"', '""') + '"' for name in columns]
    parts = [f"{name} {kind}" for name, kind in zip(quoted, kinds, strict=True)]
    if keys:
        parts.append(f"PRIMARY KEY ({', '.join(quoted[:keys])})")
    with tempfile.TemporaryDirectory() as folder:
        original, restored = Path(folder, "a.db"), Path(folder, "b.db")
        connection = sqlite3.connect(original, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"CREATE TABLE t ({', '.join(parts)}) {'WITHOUT ROWID' if without_rowid else ''}")
        connection.execute("BEGIN")
        for row in rows:
            marks = ["CAST(? AS TEXT)" if isinstance(value, bytearray) else "?" for value in row]
            with contextlib.suppress(sqlite3.IntegrityError):  # an INTEGER PRIMARY KEY takes nothing else
                connection.execute(f"INSERT OR IGNORE INTO t VALUES ({', '.join(marks)})", row)
        if not without_rowid:
            connection.execute(f"DELETE FROM t WHERE rowid % {deleted} = 0")
        connection.execute("COMMIT")
        connection.close()
        backup = back_up(source_of(original, part_size_bytes=part_size_bytes))
        backup.restore(source_of(restored))
        assert dump(restored) == dump(original)
        run(restored, "DELETE FROM t")
        backup.restore(source_of(restored))
        assert dump(restored) == dump(original)
