# ruff: noqa: E501  rows of attempts are read as rows
"""A small world for the campaign: live state, strangers beside it, a plan, a repository; and what is lost of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("lastgood")
Fact = tuple[str, ...]
"""One thing that exists: where it is first, then what it is."""

PLAN = """\
name: shop
sources:
  ledger: {type: sqlite, path: ./state/app.db}
  tree: {type: files, url: ./tree}
repository: {url: ./repo}
encryption: {credential: {key_file: ./key}}
"""

_NO_CONTENT = ("folder", "table", "empty")
_NOT_STATE = ("home", "tmp")
_SIDE_FILES = ("-wal", "-shm", "-journal")


@dataclass
class Run:
    """What a command said."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str


@dataclass
class World:
    """A folder with all of it.

    Attributes:
        folder: Where it is.
        runs: What was done.
        servers: Return what else exists, on servers.
    """

    folder: Path
    runs: list[Run] = field(default_factory=list)
    servers: list[Callable[[], set[Fact]]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    as_user: int | None = None
    plan: str = "plan.yaml"
    before: set[Fact] = field(default_factory=set)
    backups: int = 2
    ids: list[str] = field(default_factory=list)
    objects: set[Fact] = field(default_factory=set)

    def environment(self) -> dict[str, str]:
        own = {"HOME": "home", "XDG_STATE_HOME": "home/state", "TMPDIR": "tmp"}
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "LASTGOOD"))}
        return bare | {name: str(self.folder / path) for name, path in own.items()} | self.variables

    def command(self, verb: str, *words: str) -> list[str]:
        verbs = verb.split()
        server = ["--no-server"] if verbs[0] in ("backup", "restore", "undo", "verify", "retention") else []
        user = (
            ["setpriv", f"--reuid={self.as_user}", f"--regid={self.as_user}", "--clear-groups"] if self.as_user else []
        )
        return [*user, str(PROGRAM), *verbs, self.plan, *words, *server]

    def start(self, verb: str, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(verb, *words), cwd=self.folder, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True,
        )  # fmt: skip

    def ended(self, process: subprocess.Popen[str], *words: str) -> Run:
        out, err = process.communicate(timeout=120)
        self.runs.append(Run(words, process.returncode, out, err))
        return self.runs[-1]

    def run(self, verb: str, *words: str) -> Run:
        return self.ended(self.start(verb, *words), verb, *words)

    def must(self, verb: str, *words: str) -> Run:
        done = self.run(verb, *words)
        assert done.code == 0, (done.words, done.code, done.out, done.err)
        return done

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def sql(self, name: str, *statements: str) -> None:
        with closing(sqlite3.connect(self.folder / name, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)

    def edit(self, old: str, new: str) -> None:
        """Edit the plan."""
        text = self.path(self.plan).read_text()
        assert old in text, (old, text)
        self.path(self.plan).write_text(text.replace(old, new))
        self.before = {one for one in self.before if one[0] != self.plan}

    def listed(self) -> list[str]:
        """Return the ids of all backups."""
        done = self.run("list", "--json")
        return [one["id"] for one in json.loads(done.out)["backups"]] if done.out else []

    def newest(self, kind: str) -> str:
        return [one for one in self.listed() if one.startswith(kind)][-1]

    def look(self) -> None:
        """Remember everything that is there, as what must not be lost."""
        self.before = self.facts()
        self.objects = self.stored()

    def stored(self) -> set[Fact]:
        """Return the repository's objects, without what comes and goes."""
        return {one for one in facts_of(self.path("repo")) if not one[0].startswith("locks")}

    def facts(self) -> set[Fact]:
        """Return everything that exists, but the repository's own objects."""
        found = facts_of(self.folder, skip={*_NOT_STATE, "repo"})
        for server in self.servers:
            found |= server()
        return found


def facts_of(folder: Path, skip: frozenset[str] | set[str] = frozenset()) -> set[Fact]:
    """Return all files, links and folders beneath a folder, and of databases their rows."""
    found: set[Fact] = set()
    for here, folders, names in os.walk(folder):
        if Path(here) == folder:
            folders[:] = [one for one in folders if one not in skip]
        where = os.path.relpath(here, folder)
        found.add((where, "folder"))
        for name in names + [one for one in folders if (Path(here) / one).is_symlink()]:
            path = Path(here) / name
            found |= _of_file(path, os.path.normpath(os.path.join(where, name)))
    return found


def _of_file(path: Path, name: str) -> set[Fact]:
    if path.is_symlink():
        return {(name, "link", os.readlink(path))}
    if not path.is_file() or path.name.endswith(_SIDE_FILES):
        return set()
    try:
        data = path.read_bytes()
    except OSError as exc:
        return {(name, "unreadable", str(exc.errno))}
    if data.startswith(b"SQLite format 3\x00"):
        try:
            return _of_database(path, name)
        except sqlite3.Error:
            pass
    if not data:
        return {(name, "empty")}
    return {(name, "file", hashlib.sha256(data).hexdigest())}


def _of_database(path: Path, name: str) -> set[Fact]:
    """Read a copy, so that nothing of the original is touched."""
    with tempfile.TemporaryDirectory() as folder:
        for end in ("", "-wal", "-journal"):
            if (side := path.with_name(path.name + end)).exists():
                shutil.copyfile(side, Path(folder) / f"copy{end}")
        with closing(sqlite3.connect(f"{folder}/copy")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",) or name.startswith("damaged")
            tables = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql NOT NULL").fetchall()
            rows = {
                (name, "row", table, repr(row)) for table, _ in tables for row in db.execute(f'SELECT * FROM "{table}"')
            }
    return rows | {(name, "table", table, sql) for table, sql in tables}


def make_world(folder: Path) -> World:
    """Make state with strangers beside it, a full, an incremental, and newer state that is in no backup."""
    world = World(folder)
    for name in _NOT_STATE:
        world.path(name).mkdir(parents=True)
    world.write("plan.yaml", PLAN)
    world.path("key").write_bytes(_key())
    world.path("key").chmod(0o600)
    world.write("stranger/thesis.txt", "ten years of work")
    world.write("stranger/sub/photo.txt", "the only picture")
    world.path("state").mkdir()
    world.sql("state/other.db", "CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT)",
              "INSERT INTO accounts VALUES (1, 'a stranger'), (77, 'another stranger')",
              "CREATE TABLE letters (id INTEGER PRIMARY KEY, body TEXT)", "INSERT INTO letters VALUES (1, 'dear')")  # fmt: skip
    world.sql("state/app.db", "CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT)",
              "INSERT INTO accounts VALUES (1, 'ann'), (2, 'bob'), (3, 'cyd')",
              "CREATE TABLE orders (id TEXT PRIMARY KEY, amount INTEGER)", "INSERT INTO orders VALUES ('o1', 5), ('o2', 6)")  # fmt: skip
    for name in ("a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt"):
        world.write(f"tree/{name}", f"old {name}")
    world.path("tree/link").symlink_to("a.txt")
    world.must("init")
    world.must("backup", "--type", "full")
    world.sql("state/app.db", "UPDATE accounts SET owner = 'bert' WHERE id = 2", "INSERT INTO orders VALUES ('o3', 7)")
    world.write("tree/b.txt", "middle b")
    world.must("backup")
    world.sql("state/app.db", "UPDATE accounts SET owner = 'anna, newest' WHERE id = 1", "DELETE FROM orders WHERE id = 'o1'",
              "INSERT INTO accounts VALUES (9, 'newcomer')", "CREATE TABLE later (x)", "INSERT INTO later VALUES ('only here')")  # fmt: skip
    world.write("tree/a.txt", "newest a")
    world.write("tree/new/n.txt", "a new file")
    world.path("tree/sub/c.txt").unlink()
    return world


def _key() -> bytes:
    from blocks.crypto.keyring import generate_key_file

    with tempfile.TemporaryDirectory() as folder:
        generate_key_file(Path(folder) / "key")
        return (Path(folder) / "key").read_bytes()


def content(facts: set[Fact]) -> set[Fact]:
    """Return what there is, wherever it is."""
    return {one[1:] for one in facts if one[1] not in _NO_CONTENT}


@dataclass
class Verdict:
    """What came of an attempt."""

    word: str
    lost: list[Fact] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def judge(world: World, repository: bool = True) -> Verdict:
    """Find out whether everything that existed still does, is kept aside, or comes back."""
    complaints = []
    actions = [
        run for run in world.runs if run.words[0] in ("restore", "undo", "retention", "backup", "check", "verify")
    ]
    code = actions[-1].code if actions else None
    if any("Traceback" in run.err or run.code in (1, -6, -11) for run in world.runs):
        complaints.append("a traceback or an unexpected error")
    if repository:
        complaints += _repository_of(world)
    word, lost = _what_is_left(world)
    return Verdict(f"rc {code}; {word}", sorted(lost), complaints)


def _missing(world: World) -> set[Fact]:
    now = world.facts()
    there = content(now)
    return {one for one in world.before - now if one[1] not in _NO_CONTENT and one[1:] not in there}


def _what_is_left(world: World) -> tuple[str, set[Fact]]:
    now = world.facts()
    gone = {one for one in world.before - now if one[1] not in ("table", "empty")}
    if not gone:
        return "nothing lost", set()
    if not _missing(world) and not [one for one in gone if one[1] == "folder"]:
        return "kept aside", set()
    lost = _missing(world)
    undone = world.run("undo", "--yes")
    now = world.facts()
    if undone.code == 0 and not world.before - now:
        return "undo brings all of it back", set()
    lost &= _missing(world)
    if not lost:
        return f"kept aside, or undo brings it back (undo: rc {undone.code})", set()
    rescued = _rescued(world)
    lost = {one for one in lost & _missing(world) if one[1:] not in rescued}
    return f"undo rc {undone.code}; from emergency backups" if not lost else "LOST", lost


def _rescued(world: World) -> set[Fact]:
    """Return what all emergency backups hold, by the plan as it is and as it was."""
    was, found = world.plan, set[Fact]()
    world.write("rescue.yaml", PLAN)
    for plan in (was, "rescue.yaml"):
        world.plan = plan
        for number, one in enumerate(one for one in world.listed() if one.startswith("EME")):
            to = world.folder.parent / f"rescued-{number}-{Path(plan).stem}"
            world.run("restore", one, "--to", str(to), "--overwrite", "--yes")
            found |= content(facts_of(to))
    return found


def _repository_of(world: World) -> list[str]:
    if world.objects <= world.stored():
        return []
    checked, found = world.run("check", "--read-data", "--json"), []
    if checked.out and json.loads(checked.out)["backups"] < world.backups:
        found.append("backups are gone")
    if checked.code:
        found.append(f"check says {checked.code}: {checked.out[-300:]} {checked.err[-300:]}")
    return found
