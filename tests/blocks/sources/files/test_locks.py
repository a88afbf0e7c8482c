"""Reading and restoring files breaks no lock of the process that does it, and tears no database."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from blocks.sources.files.readers import Readers
from blocks.sources.files.rows import TREE
from blocks.sources.files.view import Watch
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.blocks.sources.files.kit import MIB, back_up, known, restore, source_of

_TRY_TO_WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("free")
"""

_MOVE_MONEY = """
import random, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
print("ready", flush=True)
while True:
    amount, (giver, taker) = random.randrange(100), random.sample(range(3000), 2)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE accounts SET money = money - ? WHERE id = ?", (amount, giver))
    connection.execute("UPDATE accounts SET money = money + ? WHERE id = ?", (amount, taker))
    connection.execute("COMMIT")
"""


def others_see(database: Path) -> str:
    """What another process is told that wants to write."""
    command = [sys.executable, "-c", _TRY_TO_WRITE, str(database)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def made(database: Path, journal: str) -> Path:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INTEGER, note)")
        connection.executemany("INSERT INTO accounts VALUES (?, 1000, ?)", ((i, "x" * 300) for i in range(3000)))
    return database


@contextmanager
def locked(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE accounts SET money = 0 WHERE id = 1")
        assert others_see(database) == "database is locked"
        yield connection
        assert others_see(database) == "database is locked"
        connection.execute("ROLLBACK")
    assert others_see(database) == "free"


def everything_of(source: FilesSource) -> None:
    """Read a tree in every way there is."""
    bounds, tables = back_up(source)
    with source.view() as view:
        assert view.needs_repartition(TREE, bounds) is not None
        for piece, rows in zip(bounds, tables, strict=True):
            view.read(TREE, piece, known(rows))
    with source.salvage() as view:
        for piece in view.partition(TREE):
            view.read(TREE, piece, None)


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("part_size_bytes", [MIB, 64 * MIB])
def test_a_backup_of_a_folder_keeps_the_locks_of_a_database_that_this_process_has_open(
    tmp_path: Path, journal: str, part_size_bytes: int
) -> None:
    database = made(tmp_path / "app.db", journal)
    with locked(database):
        everything_of(source_of(tmp_path, part_size_bytes=part_size_bytes))


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("mode", [RestoreMode.MERGE, RestoreMode.EXACT])
def test_a_restore_keeps_the_locks_of_a_database_and_refuses_to_replace_it(
    tmp_path: Path, journal: str, mode: RestoreMode
) -> None:
    database = made(tmp_path / "app.db", journal)
    (tmp_path / "file").write_text("file")
    source = source_of(tmp_path)
    with locked(database):
        _, tables = back_up(source)
        with pytest.raises(RestoreRefused, match=r"app.db in .* is an SQLite database in use"):
            restore(source, tables, mode=mode)
        assert others_see(database) == "database is locked"
        (tmp_path / "file").write_text("spoiled")
        restore(source, tables, mode=mode, keys=("file",))
        assert (tmp_path / "file").read_text() == "file"


def test_a_database_that_is_only_open_is_not_replaced_and_who_has_it_open_is_named(tmp_path: Path) -> None:
    database = made(tmp_path / "app.db", "delete")
    source = source_of(tmp_path)
    _, tables = back_up(source)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT count(*) FROM accounts").fetchall()
        with pytest.raises(RestoreRefused, match=rf"process {os.getpid()}\) has it open"):
            restore(source, tables)
        with pytest.raises(RestoreRefused, match=r"app.db .* in use"):
            restore(source, tables, mode=RestoreMode.MERGE, keys=("app.db",))
    restore(source, tables)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT sum(money) FROM accounts").fetchone() == (3_000_000,)


def test_a_new_database_is_not_deleted_while_it_is_open_and_may_be_restored_elsewhere(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    empty = source_of(tree)
    _, tables = back_up(empty)
    made(tree / "new.db", "wal")
    with closing(sqlite3.connect(tree / "new.db")) as connection:
        connection.execute("UPDATE accounts SET money = 1")
        with pytest.raises(RestoreRefused, match=r"new.db .* in use"):
            restore(empty, tables)
        _, full = back_up(empty)
        restore(empty, full, tree.parent / "copy")


def test_a_folder_and_a_database_in_it_are_backed_up_together_under_a_writer(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    database = made(state / "app.db", "wal")
    owned = [database, *(state / f"app.db{end}" for end in ("-wal", "-shm", "-journal"))]
    plan = BackupPlan(
        name="bank",
        sources={
            "ledger": SQLiteSource(path=str(database), part_size_bytes=100_000),
            "tree": FilesSource(url=str(state)).around(owned, []),
        },
        repository=BackupRepository(url=str(tmp_path / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    writer = subprocess.Popen([sys.executable, "-c", _MOVE_MONEY, str(database)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        backups = [make_backup(plan, BackupType.FULL).backup_id for _ in range(3)]
    finally:
        writer.kill()
        writer.communicate()
    for number, backup in enumerate(backups):
        make_restore(plan, RestoreRequest(backup, mode=RestoreMode.EXACT, to=str(tmp_path / str(number))))
        (restored,) = (tmp_path / str(number) / "ledger").iterdir()
        with closing(sqlite3.connect(restored)) as connection:
            assert connection.execute("SELECT sum(money) FROM accounts").fetchone() == (3_000_000,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert list((tmp_path / str(number) / "tree" / "tree").iterdir()) == []


def test_threads_read_at_once_and_nothing_of_the_readers_is_left(tmp_path: Path) -> None:
    for name in range(20):
        (tmp_path / str(name)).write_bytes(bytes([name + 1]) * 300_000)
    source = source_of(tmp_path, part_size_bytes=MIB)
    with source.view() as view:
        bounds = view.partition(TREE)
        readings = {}
        threads = [
            threading.Thread(target=lambda n=n, piece=piece: readings.update({n: view.read(TREE, piece, None)}))
            for n, piece in enumerate(bounds)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(children()) > 0
    assert sum(reading.rows.num_rows for reading in readings.values()) == 41
    assert children() == []


def children() -> list[int]:
    """Processes that this one started to read files."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    numbers = [int(number) for file in found for number in file.read_text().split()]
    return [number for number in numbers if b"reading.child" in Path(f"/proc/{number}/cmdline").read_bytes()]


def test_a_reader_that_dies_is_an_error_and_the_next_one_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    source = source_of(tmp_path, step=lambda path: [os.kill(child, signal.SIGKILL) for child in children()])
    with source.view() as view, pytest.raises(SourceUnavailable, match="process that reads files ended"):
        view.read(TREE, view.partition(TREE)[0], None)
    back_up(source_of(tmp_path))


def test_a_reader_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(SourceUnavailable, match="cannot be started: No such file"):
        back_up(source_of(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    (tmp_path / "python3").symlink_to("/bin/true")
    with pytest.raises(SourceUnavailable, match="cannot be started: it did not answer"):
        back_up(source_of(tmp_path))


def test_readers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    program = (
        "import os, sys\n"
        "from blocks.sources.files.readers import Readers\n"
        "from blocks.sources.files.reading.channel import Watch\n"
        "readers = Readers(os.open(sys.argv[1], os.O_RDONLY), Watch())\n"
        "readers.head(b'file', 3)\n"
        "print(readers._all[0]._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        watched = os.pidfd_open(number)
        parent.kill()
        parent.wait()
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import select, sys; print(len(select.select([int(sys.argv[1])], [], [], 60)[0]))",
            str(watched),
        ],
        pass_fds=(watched,),
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(watched)
    assert ended.stdout.strip() == "1"


def test_a_reader_works_in_a_thread_of_a_process_with_other_children_and_ignored_signals(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        fd = os.open(tmp_path, os.O_RDONLY)
        heads = []
        with Readers(fd, Watch()) as readers:
            thread = threading.Thread(target=lambda: heads.append(readers.head(b"file", 4)))
            thread.start()
            thread.join()
        os.close(fd)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert heads == [b"cont"]
