# ruff: noqa: E501  rows of attempts are read as rows
"""Ordinary accidents around a restore: full disks, lost rights, kills, writers, damage."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.faults.campaign_attempts import attempt, expect
from tests.faults.campaign_world import World

REFUSED = 10
FAILED = (2, 3, 4, 5, REFUSED, 11)


def disk(where: str, size: str, inodes: int = 0) -> Callable[[World], object]:
    """Put a small disk at a place, with what is there."""

    @contextmanager
    def around(world: World) -> Iterator[None]:
        place = world.path(where)
        place.mkdir(parents=True, exist_ok=True)
        away = world.folder.parent / "away"
        subprocess.run(["cp", "-a", place, away], check=True)
        options = f"size={size}" + (f",nr_inodes={inodes}" if inodes else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
        try:
            subprocess.run(["cp", "-a", f"{away}/.", place], check=True)
            yield
        finally:
            subprocess.run(["umount", "-l", place], check=True)

    return around


def fill(folder: Path, leave: int = 0) -> None:
    with open(folder / "filler", "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass
    size = (folder / "filler").stat().st_size
    os.truncate(folder / "filler", max(0, size - leave))


def _grow(world: World) -> None:
    """Make a backup of a larger state, which then shrinks."""
    for number in range(8):
        (world.path("tree") / f"big{number}").write_bytes(os.urandom(60_000))
    world.sql(
        "state/app.db",
        "CREATE TABLE big (id INTEGER PRIMARY KEY, data BLOB)",
        *[f"INSERT INTO big VALUES ({n}, randomblob(60000))" for n in range(6)],
    )
    world.must("backup", "--type", "full", "--tag", "big")
    for number in range(8):
        world.write(f"tree/big{number}", f"small {number}")
    world.sql("state/app.db", "DELETE FROM big", "INSERT INTO big VALUES (1, 'small')", "VACUUM")
    world.backups += 1


for _where in ("tree", "state", "tmp", "repo"):
    for _leave in (0, 8192, 65536, 200_000, 500_000):

        @attempt(f"restore with {_leave} bytes left at {_where}", disk(_where, "4m"))
        def _(world: World, where: str = _where, leave: int = _leave) -> list[str]:
            _grow(world)
            fill(world.path(where), leave)
            world.before = world.facts()
            done = world.run("restore", "latest", "--yes")
            (world.path(where) / "filler").unlink(missing_ok=True)
            world.before = {one for one in world.before if not one[0].endswith("filler")}
            return expect(done, 0, *FAILED)


@attempt("undo with no byte left at the tree", disk("tree", "4m"))
def _(world: World) -> list[str]:
    _grow(world)
    before = world.facts()
    world.must("restore", "latest", "--yes")
    fill(world.path("tree"))
    done = world.run("undo", "--yes")
    world.path("tree/filler").unlink(missing_ok=True)
    world.before = before
    return expect(done, 0, *FAILED)


for _inodes in (22, 24, 26, 30):

    @attempt(f"restore with few names left at the tree ({_inodes})", disk("tree", "4m", _inodes))
    def _(world: World) -> list[str]:
        return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


@attempt("TMPDIR is missing", lambda w: w.path("tmp").rmdir())
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


@attempt("TMPDIR is a file", lambda w: w.path("tmp").rmdir() or (w.write("tmp", "") and None))
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


@attempt("TMPDIR is within the tree", lambda w: w.path("tree/tmp").mkdir())
def _(world: World) -> list[str]:
    world.variables["TMPDIR"] = str(world.path("tree/tmp"))
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


@contextmanager
def _read_only(world: World) -> Iterator[None]:
    tree = world.path("tree")
    subprocess.run(["mount", "--bind", tree, tree], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", tree], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", tree], check=True)


@attempt("the tree is mounted read-only", _read_only)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), *FAILED)


@contextmanager
def _mounted_within(world: World) -> Iterator[None]:
    world.path("tree/sub/mnt").mkdir()
    with disk("tree/sub/mnt", "1m")(world):  # type: ignore[attr-defined]
        world.write("tree/sub/mnt/precious.txt", "on another disk")
        yield


@attempt("another disk is mounted in the tree", _mounted_within)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


@contextmanager
def _immutable(world: World) -> Iterator[None]:
    done = subprocess.run(["chattr", "+i", world.path("tree/a.txt")], capture_output=True)
    try:
        yield
    finally:
        if done.returncode == 0:
            subprocess.run(["chattr", "-i", world.path("tree/a.txt")], check=True)


@attempt("a file is immutable", _immutable)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


def _nobody(world: World) -> None:
    subprocess.run(["chown", "-R", "65534:65534", world.folder], check=True)
    world.as_user = 65534


def _mode(name: str, mode: int) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        _nobody(world)
        world.path(name).chmod(mode)

    return prepare


for _name, _bits in (("tree/a.txt", 0), ("tree/new", 0), ("tree/new/n.txt", 0), ("tree/sub", 0), ("tree/sub", 0o555), ("tree", 0o555), ("tree", 0), ("state/app.db", 0), ("state/app.db", 0o444),
                     ("state", 0o555), ("state", 0), ("repo", 0o555), ("repo/backups", 0), ("key", 0), ("plan.yaml", 0), ("home", 0), ("tmp", 0), ("tree/b.txt", 0o200)):  # fmt: skip

    @attempt(f"{_name} has mode {_bits:o}, and no root restores", _mode(_name, _bits), repository=False)
    def _(world: World, name: str = _name) -> list[str]:
        done = world.run("restore", "FUL", "--yes")
        if world.path(name).exists():
            world.path(name).chmod(0o755 if world.path(name).is_dir() else 0o644)
        return expect(done, 0, *FAILED, 7)


@attempt(
    "files of root in the tree, and no root restores",
    lambda w: _nobody(w) or os.chown(w.path("tree/new/n.txt"), 0, 0) or os.chown(w.path("tree/new"), 0, 0),
)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


def _replaced(name: str, make: Callable[[Path, World], object]) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        path = world.path(name)
        subprocess.run(["rm", "-rf", path], check=True)
        make(path, world)

    return prepare


def _link_to(target: str) -> Callable[[Path, World], object]:
    return lambda path, world: path.symlink_to(world.path(target))


for _what, _prepare in {
    "a file became a folder with files": _replaced("tree/a.txt", lambda p, w: w.write("tree/a.txt/inside.txt", "inside")),
    "a folder became a file": _replaced("tree/sub", lambda p, w: p.write_text("a file now")),
    "a folder became a link to a stranger's": _replaced("tree/sub", _link_to("stranger")),
    "a folder became a link to the repository": _replaced("tree/sub", _link_to("repo")),
    "a file became a link to the key": _replaced("tree/a.txt", _link_to("key")),
    "a file became a link to a stranger's file": _replaced("tree/a.txt", _link_to("stranger/thesis.txt")),
    "a file became a hard link to a stranger's file": _replaced("tree/a.txt", lambda p, w: p.hardlink_to(w.path("stranger/thesis.txt"))),
    "a file became a hard link to the key": _replaced("tree/a.txt", lambda p, w: p.hardlink_to(w.path("key"))),
    "a file became a FIFO": _replaced("tree/a.txt", lambda p, w: os.mkfifo(p)),
    "the tree became a link to a stranger's folder": _replaced("tree", _link_to("stranger")),
    "the tree became a file": _replaced("tree", lambda p, w: p.write_text("a file now")),
    "the tree is gone": _replaced("tree", lambda p, w: None),
    "the tree is empty": _replaced("tree", lambda p, w: p.mkdir()),
    "the database became a link to a stranger's": _replaced("state/app.db", _link_to("state/other.db")),
    "the database became a link to a file": _replaced("state/app.db", _link_to("stranger/thesis.txt")),
    "the database became a hard link to a stranger's": _replaced("state/app.db", lambda p, w: p.hardlink_to(w.path("state/other.db"))),
    "the database became a text file": _replaced("state/app.db", lambda p, w: p.write_text("a letter, not a database")),
    "the database became a long text file": _replaced("state/app.db", lambda p, w: p.write_text("a letter, not a database" * 1000)),
    "the database became a folder": _replaced("state/app.db", lambda p, w: w.write("state/app.db/x.txt", "x")),
    "the database is gone": _replaced("state/app.db", lambda p, w: None),
    "the database is empty": _replaced("state/app.db", lambda p, w: p.write_text("")),
    "the database's folder is gone": _replaced("state", lambda p, w: None),
}.items():  # fmt: skip
    for _words in (
        ("FUL",),
        ("FUL", "--mode", "merge"),
        (
            "FUL",
            "--collection",
            "ledger/accounts",
            "--collection",
            "tree/*",
            "--key",
            "1",
            "--key",
            "a.txt",
            "--key",
            "sub/c.txt",
        ),
    ):

        @attempt(f"{_what}; restore {' '.join(_words)}", _prepare)
        def _(world: World, words: tuple[str, ...] = _words) -> list[str]:
            return expect(world.run("restore", *words, "--yes"), 0, 6, *FAILED)


def _damaged(offset: int, length: int = 200) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        world.sql("state/app.db", "PRAGMA journal_mode = delete", "VACUUM")
        with open(world.path("state/app.db"), "r+b") as file:
            file.seek(offset)
            file.write(b"\xa5" * length)

    return prepare


for _page in range(5):

    @attempt(
        f"page {_page + 1} of the database is damaged; restore FUL", _damaged(_page * 4096 + (100 if _page == 0 else 0))
    )
    def _(world: World) -> list[str]:
        return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


@attempt("the header of the database is damaged; restore FUL", _damaged(0, 16))
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--yes"), 0, *FAILED)


for _mode_of_journal in ("delete", "wal"):
    for _verb in ("restore", "undo"):

        @attempt(f"a writer to the database ({_mode_of_journal}) during {_verb}")
        def _(world: World, journal: str = _mode_of_journal, verb: str = _verb) -> list[str]:
            world.sql("state/app.db", f"PRAGMA journal_mode = {journal}")
            if verb == "undo":
                world.must("restore", "FUL", "--yes")
            acknowledged: list[int] = []
            stop = threading.Event()

            def write() -> None:
                number = 100
                with closing(sqlite3.connect(world.path("state/app.db"), isolation_level=None, timeout=20)) as db:
                    while not stop.is_set():
                        with suppress(sqlite3.Error):
                            db.execute("INSERT INTO orders VALUES (?, ?)", (f"w{number}", number))
                            acknowledged.append(number)
                            number += 1
                        time.sleep(0.003)

            thread = threading.Thread(target=write)
            thread.start()
            words = ("FUL", "--yes") if verb == "restore" else ("--yes",)
            done = world.run(verb, *words)
            stop.set()
            thread.join()
            world.before |= {("state/app.db", "row", "orders", repr((f"w{n}", n))) for n in acknowledged}
            world.before = {
                one for one in world.before if one[1] == "row" and one[2] == "orders" and "w" in one[3]
            } or world.before
            return expect(done, 0, *FAILED) + writers_rows(world, acknowledged)


def writers_rows(world: World, acknowledged: list[int]) -> list[str]:
    """Return which rows are neither in the database now nor in an emergency backup; nothing is undone."""
    held = {one[3] for one in world.facts() if one[1] == "row"}
    for number, one in enumerate(one for one in world.listed() if one.startswith("EME")):
        world.run("restore", one, "--to", f"held-{number}", "--yes")
    held |= {one[3] for one in world.facts() if one[1] == "row"}
    gone = [n for n in acknowledged if repr((f"w{n}", n)) not in held]
    return [f"{len(gone)} of {len(acknowledged)} acknowledged rows are nowhere"] * bool(gone)


@attempt("a writer to the tree during restore")
def _(world: World) -> list[str]:
    stop, written = threading.Event(), list[str]()

    def write() -> None:
        number = 0
        while not stop.is_set():
            with suppress(OSError):
                name = f"tree/w{number}.txt"
                world.path(name).write_text(f"written {number}")
                written.append(f"written {number}")
                number += 1
            time.sleep(0.004)

    thread = threading.Thread(target=write)
    thread.start()
    done = world.run("restore", "FUL", "--yes")
    stop.set()
    thread.join()

    def held() -> set[str]:
        return {one[2] for one in world.facts() if one[1] == "file"}

    there = held()
    for number, one in enumerate(one for one in world.listed() if one.startswith("EME")):
        world.run("restore", one, "--to", f"held-{number}", "--yes")
    there |= held()
    gone = [one for one in written if hashlib.sha256(one.encode()).hexdigest() not in there]
    return expect(done, 0, *FAILED) + [f"{len(gone)} of {len(written)} files are nowhere"] * bool(gone)


for _signal in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    for _verb in ("restore", "undo"):
        for _number in range(8):

            @attempt(f"{_signal.name} during {_verb}, try {_number + 1}")
            def _(world: World, number: signal.Signals = _signal, verb: str = _verb, n: int = _number) -> list[str]:
                if verb == "undo":
                    world.must("restore", "FUL", "--yes")
                    world.before = world.facts()
                started = time.monotonic()
                world.run("restore", "FUL", "--mode", "preview")
                seconds = time.monotonic() - started
                process = world.start(verb, *(("FUL",) if verb == "restore" else ()), "--yes")
                time.sleep(seconds * (0.8 + random.random()))
                process.send_signal(number)
                done = world.ended(process, verb, "killed")
                return ["exit code 1"] * (done.code == 1)


@attempt("two restores at once")
def _(world: World) -> list[str]:
    both = [world.start("restore", "FUL", "--yes"), world.start("restore", "INC", "--yes")]
    codes = [world.ended(one, "restore", "beside").code for one in both]
    undone = [world.run("undo", "--yes").code for _ in codes]
    return [] if {*codes, *undone} <= {0, 5, REFUSED} else [f"{codes} {undone}"]


@attempt("undo during restore")
def _(world: World) -> list[str]:
    both = [world.start("restore", "FUL", "--yes"), world.start("undo", "--yes")]
    codes = [world.ended(one, "restore", "beside").code for one in both]
    return [] if set(codes) <= {0, 5, 6, REFUSED} else [f"{codes}"]


@attempt("restore while a backup runs")
def _(world: World) -> list[str]:
    full = world.newest("FUL")
    both = [world.start("backup", "--type", "full"), world.start("restore", full, "--yes")]
    codes = [world.ended(one, "restore", "beside").code for one in both]
    return [] if set(codes) <= {0, 5, REFUSED} else [f"{codes}"]


@attempt("undo three times")
def _(world: World) -> list[str]:
    first = world.facts()
    world.must("restore", "FUL", "--yes")
    second = world.facts()
    complaints = []
    for expected in (first, second, first):
        world.must("undo", "--yes")
        now = world.facts()
        complaints += [f"an undo differs: {sorted(expected ^ now)[:4]}"] * (expected != now)
    return complaints


for _between in (
    ("backup", "--type", "full"),
    ("backup",),
    ("retention",),
    ("verify", "latest", "--deep"),
    ("check", "--repair"),
    ("backup", "--type", "emergency"),
):

    @attempt(
        f"undo after {' '.join(_between)}",
        lambda w: w.edit("encryption:", "retention: {full: 1d, incremental: 1d, emergency: 1d}\nencryption:"),
    )
    def _(world: World, between: tuple[str, ...] = _between) -> list[str]:
        first = world.facts()
        world.must("restore", "FUL", "--yes")
        world.must(*between)
        world.must("undo", "--yes")
        return [f"an undo differs: {sorted(first ^ world.facts())[:4]}"] * (first != world.facts())


@attempt("restore of an emergency backup by its id")
def _(world: World) -> list[str]:
    first = world.facts()
    world.must("restore", "FUL", "--yes")
    world.must("restore", world.newest("EME"), "--yes")
    return [f"differs: {sorted(first ^ world.facts())[:4]}"] * (first != world.facts())


@attempt("restore of a narrow emergency backup by its id, exactly")
def _(world: World) -> list[str]:
    first = world.facts()
    world.must("restore", "FUL", "--collection", "ledger/accounts", "--key", "1", "--yes")
    world.must("restore", world.newest("EME"), "--yes")
    return [f"differs: {sorted(first ^ world.facts())[:4]}"] * (first != world.facts())


@attempt("undo of a restore of one key leaves newer rows alone")
def _(world: World) -> list[str]:
    first = world.facts()
    world.must("restore", "FUL", "--collection", "ledger/accounts", "--key", "1", "--yes")
    world.sql("state/app.db", "INSERT INTO accounts VALUES (500, 'after')")
    world.write("tree/after.txt", "after")
    world.must("undo", "--yes")
    after = {("state/app.db", "row", "accounts", "(500, 'after')")}
    gone = (first | after) - world.facts()
    return [f"gone: {gone}"] * bool(gone)


@attempt("half of the repository is moved away; check --repair, retention, restore", repository=False)
def _(world: World) -> list[str]:
    away = world.path("away")
    away.mkdir()
    objects = sorted(
        one for one in world.path("repo/backups").rglob("*") if one.is_file() and "manifest" not in one.name
    )
    moved = objects[: len(objects) // 2 + 1]
    for number, one in enumerate(moved):
        one.rename(away / str(number))
    world.run("check", "--repair")
    world.run("retention")
    world.run("restore", "FUL", "--yes")
    for number, one in enumerate(moved):
        (away / str(number)).rename(one)
    return expect(world.run("check", "--read-data"), 0) + expect(world.run("restore", "FUL", "--yes"), 0, REFUSED)


@attempt("the repository is not mounted (an empty folder); every command", repository=False)
def _(world: World) -> list[str]:
    world.path("repo").rename(world.path("away"))
    world.path("repo").mkdir()
    complaints = []
    for words in (
        ("backup",),
        ("restore", "FUL", "--yes"),
        ("undo", "--yes"),
        ("retention",),
        ("check", "--repair"),
        ("verify",),
        ("list",),
    ):
        complaints += expect(world.run(*words), 2, 4, 6)
    if list(world.path("repo").iterdir()):
        complaints.append("something was written where the disk is not mounted")
    world.path("repo").rmdir()
    world.path("away").rename(world.path("repo"))
    return complaints


@attempt(
    "the newest full is damaged; verify, retention, restore",
    lambda w: w.edit("encryption:", "retention: {full: 1d, incremental: 1d}\nencryption:"),
    repository=False,
)
def _(world: World) -> list[str]:
    full = world.listed()[0]
    world.must("backup", "--type", "full")
    newest = world.newest("FUL")
    for one in world.path(f"repo/backups/shop/{newest}").rglob("*"):
        if one.is_file() and "manifest" not in one.name and one.stat().st_size > 300:
            data = bytearray(one.read_bytes())
            data[len(data) // 2] ^= 255
            one.chmod(0o644)
            one.write_bytes(data)
    verified = world.run("verify", newest)
    world.must("retention")
    kept = full in world.listed()
    return (
        expect(verified, 8)
        + ([] if kept else ["the only good full was removed"])
        + expect(world.run("restore", newest, "--yes"), 8, REFUSED)
    )
