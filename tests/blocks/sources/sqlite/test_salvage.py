"""Damaged databases: what can still be read is kept, what cannot is listed and moved aside, never overwritten."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from blocks.sources.view import Unread
from tests.blocks.sources.sqlite.kit import Backup, InPlace, ask, back_up, build, dump, run, salvaged, source_of
from tests.blocks.sources.sqlite.test_restore import asides
from tests.forked import NOBODY, forked

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
COUNT = 3000
TABLES = f"""
PRAGMA page_size = 4096;
CREATE TABLE good (id INTEGER PRIMARY KEY, v);
CREATE TABLE big (id INTEGER PRIMARY KEY, v TEXT);
CREATE INDEX big_v ON big (v);
CREATE TABLE keyed (k TEXT, n, v, PRIMARY KEY (k, n)) WITHOUT ROWID;
CREATE TABLE plain (k TEXT PRIMARY KEY, v);
CREATE TABLE wide (id INTEGER PRIMARY KEY, v BLOB);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT})
INSERT INTO big SELECT i * 2, printf('%0100d', i) FROM n;
INSERT INTO good SELECT id, 'good' FROM big; INSERT INTO keyed SELECT v, id, v FROM big;
INSERT INTO plain SELECT v, id FROM big; INSERT INTO wide SELECT id, randomblob(9000) FROM big LIMIT 20;
INSERT INTO counted (v) SELECT id FROM big LIMIT 5;
"""


@pytest.fixture(params=[True, False], ids=["wal", "rollback journal"])
def shop(request, tmp_path) -> Path:
    return build(tmp_path / "shop.db", TABLES, wal=request.param)


def pages_of(path: Path, name: str, kind: str) -> list[int]:
    """Numbers of the pages of a b-tree: `leaf`, `internal` or `overflow`."""
    asked = f"SELECT pageno FROM dbstat WHERE name = '{name}' AND pagetype = '{kind}' ORDER BY path"
    found = subprocess.run(["sqlite3", "-readonly", path, asked], capture_output=True, check=True, text=True)
    return [int(line) for line in found.stdout.split()]


def spoil(path: Path, *pages: int, by: bytes = b"\xa5") -> None:
    data = bytearray(path.read_bytes())
    for page in pages:
        data[(page - 1) * 4096 : page * 4096] = by * (4096 // len(by))
    path.write_bytes(data)


def ids(backup: Backup | None, table: str) -> set[object]:
    assert backup is not None
    return {row[next(iter(row))] for part in backup.of(table) for row in part.to_pylist()}


@pytest.mark.parametrize("by", [b"\xa5", b"\0", bytes(range(256))])
@pytest.mark.parametrize("part_size_bytes", [64 << 20, 20_000])
def test_rows_around_a_damaged_page_are_kept(shop, by, part_size_bytes):
    everything = back_up(source_of(shop))
    leaves = pages_of(shop, "big", "leaf")
    spoil(shop, leaves[3], leaves[4], leaves[20], by=by)
    source = source_of(shop, part_size_bytes=part_size_bytes)
    backup, unread = salvaged(source)
    kept, all_ids = ids(backup, "big"), ids(everything, "big")
    per_page = COUNT // len(leaves) + 5
    assert kept < all_ids
    assert len(all_ids - kept) <= 3 * per_page
    assert {each.collection for each in unread} == {"big"}
    assert all("cannot be read" in each.reason for each in unread)
    for table in ("good", "keyed", "plain", "wide", "counted"):
        assert ids(backup, table) == ids(everything, table)


@pytest.mark.parametrize("which", [0, -1])
def test_rows_before_and_after_a_damaged_end_are_kept(shop, which):
    leaves = pages_of(shop, "big", "leaf")
    spoil(shop, leaves[which])
    backup, unread = salvaged(source_of(shop))
    assert len(ids(backup, "big")) > COUNT * 0.9
    assert [each.collection for each in unread] == ["big"]


def test_a_row_with_a_damaged_value_is_named_by_its_key(shop):
    at = int(ask(shop, "SELECT id FROM wide LIMIT 1 OFFSET 7")[0][0])
    pages = pages_of(shop, "wide", "overflow")
    # the first page of a chain names the next one
    spoil(shop, pages[14], by=b"\xff")
    backup, unread = salvaged(source_of(shop))
    assert len(ids(backup, "wide")) == 19
    assert [(each.collection, each.key) for each in unread] == [("wide", str(at))]


def test_rows_before_and_after_the_damage_of_a_table_without_rowids_are_kept(shop):
    leaves = pages_of(shop, "keyed", "leaf")
    spoil(shop, leaves[len(leaves) // 2])
    backup, unread = salvaged(source_of(shop))
    assert COUNT * 0.9 < len(ids(backup, "keyed")) < COUNT
    assert [each.collection for each in unread] == ["keyed"]


@pytest.mark.parametrize("index", ["big_v", "sqlite_autoindex_plain_1"])
def test_a_damaged_index_costs_no_row(shop, index):
    everything = back_up(source_of(shop))
    leaves = pages_of(shop, index, "leaf")
    spoil(shop, leaves[0], leaves[len(leaves) // 2])
    backup, unread = salvaged(source_of(shop))
    assert unread == []
    for table in ("good", "big", "keyed", "plain", "wide"):
        assert ids(backup, table) == ids(everything, table)


def test_a_table_without_a_readable_root_is_listed(shop):
    (root,) = ask(shop, "SELECT rootpage FROM sqlite_schema WHERE name = 'big'")[0]
    spoil(shop, int(str(root)))
    backup, unread = salvaged(source_of(shop))
    assert ids(backup, "big") == set()
    assert {each.collection for each in unread} == {"big"}
    assert len(ids(backup, "good")) == COUNT


def test_a_database_that_was_cut_short_is_read_as_far_as_it_goes(shop):
    data = shop.read_bytes()
    shop.write_bytes(data[: len(data) // 2])
    backup, unread = salvaged(source_of(shop))
    assert len(ids(backup, "good")) > 0
    assert unread
    assert all(each.collection for each in unread)


def test_damaged_counters_are_listed(shop):
    (root,) = ask(shop, "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_sequence'")[0]
    spoil(shop, int(str(root)))
    backup, unread = salvaged(source_of(shop))
    assert len(ids(backup, "counted")) == 5
    assert [each.collection for each in unread] == [None]


@pytest.mark.parametrize("damage", ["schema", "header", "encrypted", "text"])
def test_what_cannot_be_opened_at_all_is_listed_as_a_whole(shop, damage):
    data = shop.read_bytes()
    bad = {
        "schema": data[:100] + b"\xa5" * 3996 + data[4096:],
        "header": b"\0" * 100 + data[100:],
        "encrypted": bytes(b ^ 0x5A for b in data),
        "text": b"just a letter\n" * 500,
    }[damage]
    shop.write_bytes(bad)
    backup, unread = salvaged(source_of(shop))
    assert backup is None or not backup.parts
    assert [each.collection for each in unread] == [None]


def spoiled(shop: Path, damage: str) -> bytes:
    data = shop.read_bytes()
    if damage == "leaf":
        spoil(shop, pages_of(shop, "big", "leaf")[5])
    elif damage == "root":
        spoil(shop, int(str(ask(shop, "SELECT rootpage FROM sqlite_schema WHERE name = 'big'")[0][0])))
    elif damage == "index":
        spoil(shop, *pages_of(shop, "big_v", "leaf")[::3], *pages_of(shop, "big_v", "internal"))
    elif damage == "truncated":
        shop.write_bytes(data[: len(data) // 2])
    elif damage == "schema":
        shop.write_bytes(data[:100] + b"\xa5" * 3996 + data[4096:])
    elif damage == "header":
        shop.write_bytes(b"\0" * 100 + data[100:])
    else:
        shop.write_bytes(bytes(b ^ 0x5A for b in data))
    return shop.read_bytes()


DAMAGE = ["leaf", "root", "index", "truncated", "schema", "header", "encrypted"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_kept_aside_to_the_byte_and_restored(shop, damage):
    backup, before = back_up(source_of(shop)), dump(shop)
    run(shop, "DELETE FROM good WHERE id > 100")
    bad = spoiled(shop, damage)
    os.chmod(shop, 0o640)
    restore = InPlace(source_of(shop), backup).run()
    assert dump(shop) == before
    assert oct(shop.stat().st_mode & 0o777) == "0o640"
    (aside,) = asides(shop)
    assert aside.read_bytes() == bad
    assert any(str(aside) in note for note in restore.target.notes)
    assert restore.target.changed
    if damage not in ("schema", "header", "encrypted"):
        assert restore.emergency is not None
        assert len(ids(restore.emergency, "good")) == 50
    assert ask(shop, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_aborted_restore_leaves_a_damaged_database_at_its_place(shop, damage):
    backup = back_up(source_of(shop))
    bad = spoiled(shop, damage)
    restore = InPlace(source_of(shop), backup)
    restore.prepare()
    restore.write()
    restore.target.abort()
    restore.target.abort()
    assert not restore.target.changed
    assert shop.read_bytes() == bad
    assert not [p for p in shop.parent.iterdir() if "lastgood" in p.name]


def test_tables_beside_a_damaged_one_are_restored_where_they_are(shop):
    backup = back_up(source_of(shop))
    run(shop, "DELETE FROM good WHERE id > 100")
    inode = shop.stat().st_ino
    spoiled(shop, "leaf")
    restore = InPlace(source_of(shop), backup, EXACT, Selection(("app/good",))).run()
    assert restore.unread
    assert shop.stat().st_ino == inode
    assert len(ask(shop, "SELECT * FROM good")) == COUNT
    assert asides(shop) == []


@pytest.mark.parametrize(
    ("mode", "selection"),
    [(EXACT, Selection(("app/big",))), (MERGE, Selection()), (EXACT, Selection(("app/b*",), ("1*",)))],
)
def test_a_damaged_table_is_never_overwritten_in_part(shop, mode, selection):
    backup = back_up(source_of(shop))
    bad = spoiled(shop, "leaf")
    restore = InPlace(source_of(shop), backup, mode, selection)
    with pytest.raises(RestoreRefused, match="big"):
        restore.run()
    assert shop.read_bytes() == bad


def test_a_row_that_cannot_be_read_stops_only_a_restore_of_its_key(shop):
    at = ask(shop, "SELECT id FROM wide LIMIT 1 OFFSET 7")[0][0]
    backup = back_up(source_of(shop))
    spoil(shop, pages_of(shop, "wide", "overflow")[14], by=b"\xff")
    InPlace(source_of(shop), backup, EXACT, Selection(("app/wide",), ("2",))).run()
    with pytest.raises(RestoreRefused, match="wide"):
        InPlace(source_of(shop), backup, EXACT, Selection(("app/wide",), (str(at),))).run()


def test_a_healthy_database_is_not_moved_because_a_table_cannot_be_kept(shop):
    backup = back_up(source_of(shop))
    run(shop, "CREATE TABLE hidden (rowid, _rowid_, oid)")
    before = dump(shop)
    restore = InPlace(source_of(shop), backup)
    with pytest.raises(RestoreRefused, match="hidden"):
        restore.run()
    assert dump(shop) == before
    assert asides(shop) == []


def test_nothing_is_kept_aside_where_nothing_is(tmp_path):
    backup = back_up(source_of(build(tmp_path / "a.db", TABLES)))
    place = tmp_path / "b.db"
    target = source_of(place).target(backup.scope())
    assert target.keep_aside([Unread("there is no database")]) == ()
    InPlace(source_of(place), backup).run()
    assert dump(place) == dump(tmp_path / "a.db")


def test_who_has_the_moved_file_open_is_told(shop):
    backup = back_up(source_of(shop))
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN');"
        "c.execute('SELECT * FROM good').fetchone(); print('open', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(shop)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        user.stdout.readline()
        spoiled(shop, "leaf")
        restore = InPlace(source_of(shop), backup).run()
        assert any(f"process {user.pid}" in note for note in restore.target.notes)
        user.kill()
    assert dump(shop)
    assert ask(shop, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("damage", ["header", "encrypted"])
def test_another_place_is_left_alone_where_it_is_no_database(shop, tmp_path, damage):
    backup = back_up(source_of(shop))
    other = build(tmp_path / "other.db", TABLES)
    bad = spoiled(other, damage)
    for overwrite in (True, False):
        for mode in (EXACT, MERGE):
            scope = backup.scope(mode)
            object.__setattr__(scope, "in_place", False)
            object.__setattr__(scope, "overwrite", overwrite)
            with pytest.raises(RestoreRefused, match="left as it is"):
                source_of(shop).target(scope, to=str(other))
    assert other.read_bytes() == bad


def test_a_file_that_its_owner_may_not_read_is_moved_aside(tmp_path):
    folder = Path("/tmp") / f"lastgood-test-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    try:
        path = build(folder / "shop.db", TABLES, wal=False)
        build(folder / "good.db", TABLES, wal=False)
        if os.geteuid() == 0:
            for name in (folder, path, folder / "good.db"):
                os.chown(name, 65534, 65534)
        bad = path.read_bytes()
        path.chmod(0)

        def restored() -> None:
            tempfile.tempdir = str(folder)
            backup = back_up(source_of(folder / "good.db"))
            # what is imported late, is imported while that can be read
            InPlace(source_of(folder / "warm.db"), backup).run()
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            restore = InPlace(source_of(path), backup).run()
            assert restore.unread
            assert restore.unread[0].collection is None
            print(*restore.target.notes)

        notes = forked(restored)
        (aside,) = asides(path)
        assert str(aside) in notes
        assert aside.read_bytes() == bad
        assert dump(path) == dump(folder / "good.db")
    finally:
        for name in folder.iterdir():
            name.unlink()
        folder.rmdir()


def test_a_connection_that_is_open_sees_an_error_and_not_the_new_database(shop):
    backup = back_up(source_of(shop))
    keeper = sqlite3.connect(shop, isolation_level=None)
    keeper.execute("SELECT * FROM good").fetchone()
    spoiled(shop, "header")
    InPlace(source_of(shop), backup).run()
    run(shop, "INSERT INTO good (v) VALUES ('new')")
    with suppress(sqlite3.DatabaseError):
        keeper.execute("INSERT INTO good (v) VALUES ('into the moved file')")
    keeper.close()
    assert ask(shop, "SELECT v FROM good WHERE v != 'good'") == [("new",)]
    assert ask(shop, "PRAGMA integrity_check") == [("ok",)]


def test_a_table_whose_rows_are_not_in_their_order_is_not_measured_for_ever(tmp_path):
    tables = ("a (id INTEGER PRIMARY KEY, v)", "b (id INTEGER PRIMARY KEY, v)", "c (x)")
    path = build(tmp_path / "a.db", ";".join(f"CREATE TABLE {table}" for table in tables), wal=False)
    run(path, "INSERT INTO a VALUES (1, 'old'); INSERT INTO b VALUES (1, 'old')")
    run(path, "UPDATE a SET v = 'NEWEST'; UPDATE b SET v = 'NEWEST'; INSERT INTO a VALUES (7, 'n')")
    run(path, "INSERT INTO b VALUES (7, 'n'); CREATE TABLE later (x); INSERT INTO later VALUES (1)")
    run(path, "INSERT INTO c VALUES (5)")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
    with source_of(path).salvage() as view:
        for spec in view.collections():
            assert view.partition(spec)
