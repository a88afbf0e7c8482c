"""Restores in place that are killed, interrupted or run out of room, each in a process forked from one that is warm."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from blocks.errors import LastgoodError
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import Backup, InPlace, ask, back_up, build, dump, run, source_of

TABLES = """
CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, price REAL);
CREATE TABLE notes (line TEXT);
CREATE INDEX by_price ON items (price);
CREATE TRIGGER items_ai AFTER INSERT ON items BEGIN INSERT INTO notes VALUES ('+' || new.id); END;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
INSERT INTO items (name, price) SELECT printf('%0200d', i), i FROM n;
"""
LATER = "DELETE FROM items WHERE id % 3 = 0; UPDATE items SET price = -price; CREATE TABLE later (a);"
FILES = frozenset({"rename", "link", "unlink", "fsync", "open", "chmod", "chown", "remove"})
STATEMENTS = frozenset({"execute", "executemany", "close", "backup", "connect"})

SCENARIOS: dict[str, tuple[bool, RestoreMode, Selection]] = {
    "wal": (True, RestoreMode.EXACT, Selection()),
    "rollback journal": (False, RestoreMode.EXACT, Selection()),
    "merge": (True, RestoreMode.MERGE, Selection()),
    "one table": (False, RestoreMode.EXACT, Selection(("app/items",))),
    "no header": (True, RestoreMode.EXACT, Selection()),
    "a bad page": (False, RestoreMode.EXACT, Selection()),
    "nothing there": (True, RestoreMode.EXACT, Selection()),
}


class Scene:
    """A live database with something to lose, and two backups: the one to restore and the one before it."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self.wal, self.mode, self.selection = SCENARIOS[scenario]
        self.model, self.path = folder / "model.db", folder / "live" / "shop.db"
        build(self.model, TABLES, wal=self.wal)
        self.backup, self.first = back_up(source_of(self.model)), dump(self.model)
        run(self.model, LATER)
        self.emergency, self.before = back_up(source_of(self.model)), dump(self.model)
        self.data = self.model.read_bytes()
        self.damaged = True
        if scenario == "no header":
            self.data = b"\0" * 100 + self.data[100:]
        elif scenario == "a bad page":
            self.data = self.data[: 4096 * 12] + b"\xa5" * 4096 + self.data[4096 * 13 :]
        elif scenario == "nothing there":
            self.data = b""
        else:
            self.damaged = False
        self.reset()
        self.restore().run()
        self.after = dump(self.path)

    def reset(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.path.parent.mkdir()
        if self.data:
            self.path.write_bytes(self.data)

    def restore(self) -> InPlace:
        return InPlace(source_of(self.path), self.backup, self.mode, self.selection)

    def exactly(self, backup: Backup) -> None:
        InPlace(source_of(self.path), backup).run()

    def as_before(self) -> bool:
        if self.damaged:
            return (self.path.read_bytes() if self.path.exists() else b"") == self.data
        return dump(self.path) == self.before

    def kept_aside(self) -> bool:
        found = self.path.parent.glob(f"{self.path.name}.lastgood-aside-*")
        return any(p.read_bytes() == self.data for p in found)

    def check(self, *, changed: bool | None) -> None:
        """Old, new, or something in between that can be restored exactly; and nothing lost."""
        old, new = self.as_before(), False
        if not old or self.path.exists():
            new = not (self.damaged and old) and self.path.exists() and dump(self.path) == self.after
        assert changed is not True or new or self.kept_aside(), "it says changed, and is not"
        assert changed is not False or old, "it says nothing was changed, and was"
        assert old or new or self.kept_aside(), "what was there is lost"
        assert old or not (self.damaged and self.data) or self.kept_aside()
        if not old and not new:
            self.exactly(self.backup)
            assert dump(self.path) == self.first
        self.exactly(self.emergency)
        assert dump(self.path) == self.before
        assert ask(self.path, "PRAGMA integrity_check") == [("ok",)]
        left = [p.name for p in self.path.parent.iterdir() if p.name.startswith(".")]
        assert not left, left


def at_step(step: int, happen: Callable[[], None], names: frozenset[str]) -> Callable[[FrameType, str, object], None]:
    """Make a profiler that lets something happen before or after the n-th of some calls into the system."""
    seen = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        if event == "call" and frame.f_code.co_name == "abort":
            sys.setprofile(None)
        elif event in ("c_call", "c_return") and getattr(argument, "__name__", "") in names:
            seen += 1
            if seen == step:
                sys.setprofile(None)
                happen()

    return profile


def killed(scene: Scene, step: int, names: frozenset[str]) -> bool:
    """Kill a restore at a step; False where it came to its end before."""
    pid = os.fork()
    if pid == 0:
        sys.setprofile(at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL), names))
        scene.restore().run()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0, status
    scene.check(changed=None)
    return os.WIFSIGNALED(status)


def interrupted(scene: Scene, step: int, names: frozenset[str]) -> bool:
    """Press Ctrl-C at a step; False where the restore came to its end before."""

    def press() -> None:
        raise KeyboardInterrupt

    restore = scene.restore()
    try:
        sys.setprofile(at_step(step, press, names))
        restore.run()
    except KeyboardInterrupt:
        ended = False
    else:
        ended = True
    finally:
        sys.setprofile(None)
    gc.collect()  # an interrupted `close` leaves a connection to whoever collects its frame
    scene.check(changed=restore.target.changed)
    return not ended


def out_of_room(scene: Scene, size_bytes: int) -> bool:
    """Let no file grow beyond a size; False where the restore succeeded."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
        restore = scene.restore()
        try:
            restore.run()
        except LastgoodError:
            os._exit(1 + restore.target.changed)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status), status
    scene.check(changed={0: True, 1: False, 2: True}[os.WEXITSTATUS(status)])
    return os.WEXITSTATUS(status) != 0


def try_all(folder: Path, scenario: str, accident: str, stride: int) -> int:
    """Let an accident happen at one step after the other; return how many were tried.

    It changes its process: it is called in a child.

    Args:
        folder: Where the databases are.
        scenario: One of `SCENARIOS`.
        accident: "kill", "interrupt" or "room".
        stride: How many statements lie between two that are tried; each call that renames, links or syncs a file is.

    Raises:
        AssertionError: Something was lost.
    """
    scene = Scene(folder, scenario)
    # what is there by now is not looked through after each interrupt, nor copied into each child
    gc.collect()
    gc.freeze()
    tried = 0
    if accident == "room":
        for size_bytes in range(0, 2_000_000, 40_000):
            scene.reset()
            tried += 1
            if not out_of_room(scene, size_bytes):
                return tried
        raise AssertionError("there was never enough room")
    happens = {"kill": killed, "interrupt": interrupted}[accident]
    for names, wide in ((FILES, 1), (STATEMENTS, stride)):
        step = 1
        while scene.reset() or happens(scene, step, names):
            step += wide
            tried += 1
    return tried
