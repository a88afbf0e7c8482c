"""Locks: those of other connections of this process stay, and a restore holds its own until the end."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from blocks.errors import LastgoodError, RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import InPlace, ask, back_up, build, dump, run, salvaged, source_of
from tests.blocks.sources.sqlite.test_restore import SHOP
from tests.blocks.sources.sqlite.test_view import old

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
TRY = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"


def locked_for_others(path: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", TRY, path], capture_output=True, check=False)
    return b"database is locked" in done.stderr


@pytest.fixture(params=[True, False], ids=["wal", "rollback journal"])
def shop(request, tmp_path) -> Path:
    return build(tmp_path / "shop.db", SHOP, wal=request.param)


def a_backup(shop: Path) -> None:
    with source_of(shop).view() as view:
        assert view.token is None or view.token
    back_up(source_of(shop))


def a_quiet_backup(shop: Path) -> None:
    old(shop)
    a_backup(shop)


def a_salvage(shop: Path) -> None:
    assert salvaged(source_of(shop))[1] == []


def a_look_at_the_place(shop: Path) -> None:
    source = source_of(shop)
    assert source.location().same(source.location(f"file://{shop}"))
    source.covers(back_up(source).parts[0][0])
    source.target(back_up(source).scope()).occupied()


def a_refused_restore(shop: Path) -> None:
    for mode in (EXACT, MERGE):
        for call in ("preflight", "hold", "commit"):
            target = source_of(shop).target(back_up(source_of(shop)).scope(mode))
            with pytest.raises(RestoreRefused, match="locked"):
                getattr(target, call)()
            target.abort()


def a_restore_to_another_file(shop: Path) -> None:
    backup = back_up(source_of(shop))
    other = source_of(shop.with_name("other.db"))
    backup.restore(other)
    back_up(other)


@pytest.mark.parametrize(
    "does",
    [a_backup, a_quiet_backup, a_salvage, a_look_at_the_place, a_refused_restore, a_restore_to_another_file],
)
def test_a_transaction_of_the_same_process_keeps_its_lock(shop, does: Callable[[Path], None]):
    mine = sqlite3.connect(shop, isolation_level=None)
    mine.execute("BEGIN IMMEDIATE")
    mine.execute("INSERT INTO notes VALUES ('mine')")
    assert locked_for_others(shop)
    does(shop)
    assert locked_for_others(shop)
    mine.execute("COMMIT")
    mine.close()
    assert ("mine",) in ask(shop, "SELECT * FROM notes")


def test_no_file_of_a_database_is_opened_but_by_sqlite(shop):
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            opened.append(os.fsdecode(arguments[0]))

    keeper = sqlite3.connect(shop, isolation_level=None)
    keeper.execute("INSERT INTO notes VALUES ('kept open')")
    sys.addaudithook(watch)
    try:
        a_quiet_backup(shop)
        InPlace(source_of(shop), back_up(source_of(shop))).run()
        InPlace(source_of(shop), back_up(source_of(shop)), MERGE).run()
    finally:
        watching = False
    keeper.close()
    assert not [name for name in opened if Path(name).name.startswith("shop.db")]


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("selection", [Selection(), Selection(("app/items",))])
def test_others_wait_from_before_the_emergency_backup_to_the_end(shop, mode, selection):
    backup = back_up(source_of(shop))
    run(shop, "DELETE FROM items WHERE id = 2")
    restore = InPlace(source_of(shop), backup, mode, selection)
    restore.target.preflight()
    assert not locked_for_others(shop)
    restore.target.hold()
    assert locked_for_others(shop)
    assert len(ask(shop, "SELECT * FROM items")) == 2, "they can still read"
    restore.prepare()
    assert locked_for_others(shop)
    restore.write()
    assert locked_for_others(shop)
    assert not restore.target.changed
    restore.target.commit()
    assert restore.target.changed
    assert not locked_for_others(shop)
    assert len(ask(shop, "SELECT * FROM items")) == 3


def test_an_abort_lets_the_lock_go_and_can_be_repeated(shop):
    backup, before = back_up(source_of(shop)), dump(shop)
    for mode in (EXACT, MERGE):
        restore = InPlace(source_of(shop), backup, mode)
        restore.prepare()
        restore.write()
        restore.target.abort()
        restore.target.abort()
        assert not restore.target.changed
        assert not locked_for_others(shop)
        assert dump(shop) == before


def test_a_reader_that_does_not_end_stops_a_restore_at_once_where_it_is_in_the_way(tmp_path):
    """With a rollback journal nothing can be written beside it; rows are not begun to be written then."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    path = build(
        tmp_path / "a.db", f"CREATE TABLE t (v); {many} INSERT INTO t SELECT randomblob(1000) FROM n", wal=False
    )
    backup, before = back_up(source_of(path)), dump(path)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT v FROM t").fetchone()
    for mode in (EXACT, MERGE):
        restore = InPlace(source_of(path), backup, mode)
        with pytest.raises(RestoreRefused, match="locked"):
            restore.run()
        assert not restore.target.changed
        assert dump(path) == before
    reader.close()
    InPlace(source_of(path), backup).run()
    assert dump(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


HOLDER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[int]:
    arguments = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder.pid
        holder.kill()


def test_who_holds_the_lock_is_named(shop):
    backup = back_up(source_of(shop))
    with held_elsewhere(shop) as pid:
        for mode in (EXACT, MERGE):
            for call in ("preflight", "hold"):
                target = source_of(shop).target(backup.scope(mode))
                with pytest.raises(RestoreRefused, match=f"process {pid} \\(python"):
                    getattr(target, call)()


def test_a_write_in_spite_of_the_lock_stops_the_restore(shop):
    """A descriptor that something else in this process closes takes the lock away."""
    if ask(shop, "PRAGMA journal_mode") != [("delete",)]:
        run(shop, "PRAGMA journal_mode = DELETE")
    backup = back_up(source_of(shop))
    restore = InPlace(source_of(shop), backup)
    restore.prepare()
    shop.open("rb").close()
    writing = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM people'); c.commit()"
    subprocess.run([sys.executable, "-c", writing, shop], check=True)
    with pytest.raises(RestoreRefused, match="in spite of its lock"):
        restore.target.check_unwritten()
    restore.target.abort()
    assert ask(shop, "SELECT * FROM people") == []


WRITER = """
import json, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
n = 1000
while True:
    n += 1
    c.execute("INSERT INTO items (id, name) VALUES (?, ?)", (n, f"written {n}"))
    print(n, flush=True)
    time.sleep(0.02)
"""


@contextmanager
def writing(path: Path) -> Iterator[list[int]]:
    acknowledged: list[int] = []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        output = writer.stdout
        acknowledged.append(int(output.readline()))
        reader = threading.Thread(target=lambda: acknowledged.extend(map(int, output)))
        reader.start()
        try:
            yield acknowledged
        finally:
            writer.terminate()
            reader.join()


@pytest.mark.parametrize("selection", [Selection(), Selection(("app/items",)), Selection((), ("*",))])
def test_no_acknowledged_write_vanishes_in_a_restore(shop, selection):
    backup = back_up(source_of(shop))
    source = source_of(shop, busy_timeout_seconds=20, part_size_bytes=500)
    kept: set[object] = set()
    with writing(shop) as acknowledged:
        for _ in range(5):
            restore = InPlace(source, backup, EXACT, selection).run()
            assert restore.emergency is not None
            kept |= {row["id"] for part in restore.emergency.of("items") for row in part.to_pylist()}
    live = {row[0] for row in ask(shop, "SELECT id FROM items")}
    assert set(acknowledged) <= live | kept
    assert ask(shop, "PRAGMA integrity_check") == [("ok",)]


def test_a_database_that_was_made_meanwhile_is_never_replaced(tmp_path):
    backup = back_up(source_of(build(tmp_path / "a.db", SHOP)))
    place = tmp_path / "b.db"
    restore = InPlace(source_of(place), backup)
    restore.prepare()
    restore.write()
    build(place, "CREATE TABLE mine (a); INSERT INTO mine VALUES (1)")
    for call in ("check_unwritten", "commit"):
        with pytest.raises(RestoreRefused, match="nothing was changed"):
            getattr(restore.target, call)()
    restore.target.abort()
    assert not restore.target.changed
    assert ask(place, "SELECT * FROM mine") == [(1,)]
    fresh = source_of(tmp_path / "c.db").target(backup.scope())
    backup.apply(fresh, backup.scope())
    build(tmp_path / "c.db", "CREATE TABLE mine (a);")
    with suppress(LastgoodError):
        fresh.commit()
    fresh.abort()
    assert ask(tmp_path / "c.db", "SELECT name FROM sqlite_schema") == [("mine",)]


def test_what_is_written_to_a_file_that_cannot_be_locked_stops_the_restore(shop):
    backup = back_up(source_of(shop))
    shop.write_bytes(b"\xa5" * 9000)
    restore = InPlace(source_of(shop), backup)
    restore.prepare()
    restore.write()
    shop.write_bytes(b"\xa5" * 9001)
    with pytest.raises(RestoreRefused, match="nothing was changed"):
        restore.target.commit()
    restore.target.abort()
    assert shop.read_bytes() == b"\xa5" * 9001
    assert not [p.name for p in shop.parent.iterdir() if "lastgood" in p.name]
