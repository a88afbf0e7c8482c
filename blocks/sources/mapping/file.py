"""A file that stands in for a state object: restores to another place, and scratch restores, are written to it.

It is an SQLite database with one table, `state(key, value)`, whose values are in the canonical text.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from blocks.errors import Partial, PlaceUnfit, RestoreRefused, SourceUnavailable
from blocks.host.folders import sync_folder
from blocks.host.leftovers import is_full, owned_name, remove_left_behind
from blocks.sources.mapping import inspection
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import encode

_BESIDE = ".lastgood-state-"
"""How the folders are named in which a new file is built, beside its place."""
_WAIT_SECONDS = 30


class StateFile:
    """Offers what a state object offers; every key matches every pattern, since it holds what was restored.

    Args:
        path: Where it is, or will be.
        connection: Open, in a transaction where it is written to.
        types: Enums and dataclasses that values may name.
    """

    batch_keys = 500

    def __init__(self, path: Path, connection: sqlite3.Connection, types: Types) -> None:
        self._path, self._connection, self._types, self._lock = path, connection, types, Lock()

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List all keys."""
        with self._lock:
            return [key for (key,) in self._connection.execute("SELECT key FROM state")]

    def read(self, keys: Sequence[str], keep: Callable[[str, object], None]) -> list[str]:
        """Read values one after another; return the keys that are not there."""
        missing = []
        for key in keys:
            with self._lock:
                row = self._connection.execute("SELECT value FROM state WHERE key = ?", [key]).fetchone()
            if row is None:
                missing.append(key)
            else:
                keep(key, decode(row[0], key, self._types))
        return missing

    def write(self, values: dict[str, object]) -> None:
        """Set values; nothing is there before the one commit at the end.

        Raises:
            SourceUnavailable: Fewer rows were written than given.
        """
        rows = [(key, encode(value, key, self._types)) for key, value in values.items()]
        with self._lock:
            written = self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows).rowcount
        if written != len(rows):
            raise SourceUnavailable(f"{self._path} took {written} of {len(rows)} keys")

    def delete(self, keys: Sequence[str]) -> list[str]:
        """Delete keys; no file refuses any."""
        with self._lock:
            self._connection.executemany("DELETE FROM state WHERE key = ?", [[key] for key in keys])
        return []

    def keep_copy(self) -> Path:
        """Copy the file, as it was before this transaction, to a name beside it that holds the time."""
        moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        kept = self._path.with_name(f"{self._path.name}.before-{moment}")
        with (
            _built_beside(kept, "") as made,
            closing(sqlite3.connect(self._path)) as old,
            closing(sqlite3.connect(made)) as new,
        ):
            old.backup(new)
        return kept


def keys_in_file(path: Path, writing: bool = False) -> int | None:
    """Count the keys of a file of state without holding or dropping any lock of this process; None: no file is there.

    Raises:
        SourceUnavailable: It is something else, or cannot be used.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise SourceUnavailable(f"{path} is no file of state: it is no regular file")
    program = [sys.executable, "-I", "-S", inspection.__file__, str(path), "writing" if writing else "reading"]
    try:
        needed = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        answer = subprocess.run(program, capture_output=True, timeout=_WAIT_SECONDS, check=True, env=needed)  # noqa: S603
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise SourceUnavailable(f"{path} could not be looked into: {exc}") from exc
    if not found["ours"]:
        raise SourceUnavailable(f"{path} is no file of state: {found['why']}")
    return int(found["keys"])


def occupied_file(path: Path) -> str | None:
    """Say what is at a place for a file of state; None where nothing is, or no key."""
    try:
        keys = keys_in_file(path)
    except SourceUnavailable:
        return "a folder" if path.is_dir() else "a file that is no file of state"
    return f"a file of state with {keys} keys" if keys else None


def check_file(path: Path) -> None:
    """Check that a file of state can be written at a place; only what killed processes left beside it is removed.

    Raises:
        RestoreRefused: It cannot.
    """
    hint = "Name a file in a folder that is there, or an import path (package.module:attribute)."
    if not path.parent.is_dir():
        raise RestoreRefused(f"no file of state can be written at {path}: there is no such folder", hint=hint)
    for place in {path.parent, path} if path.exists() else {path.parent}:
        if not os.access(place, os.W_OK):
            raise PlaceUnfit(f"no file of state can be written at {path}: {place} is not writable", hint=hint)
    remove_left_behind(path.parent, _BESIDE)
    try:
        keys_in_file(path, writing=True)
    except SourceUnavailable as exc:
        raise RestoreRefused(exc.message, hint="Restore to another file.") from exc


@contextmanager
def open_file(path: Path, types: Types) -> Iterator[StateFile]:
    """Open such a file; what is read is of one moment.

    Raises:
        SourceUnavailable: There is no such file, or it is something else.
    """
    if keys_in_file(path) is None:
        raise SourceUnavailable(f"there is no file of state at {path}")
    try:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
            connection.execute("BEGIN")
            yield StateFile(path, connection, types)
    except sqlite3.Error as exc:
        raise SourceUnavailable(f"{path} cannot be used as a file of state: {exc}") from exc


@contextmanager
def write_file(path: Path, types: Types, plan: str) -> Iterator[StateFile]:
    """Open such a file for writing; one transaction spans the whole, and is committed at the end.

    Where none is there, it is built beside its place and appears at the end.

    Raises:
        RestoreRefused: It cannot be written; nothing was changed.
        Partial: It is there, and may not be durable.
    """
    try:
        if keys_in_file(path) is not None:
            with _transaction(path) as connection:
                yield StateFile(path, connection, types)
            return
        with _built_beside(path, plan) as made, _transaction(made) as connection:
            connection.execute(inspection.SCHEMA)
            yield StateFile(path, connection, types)
    except (sqlite3.Error, OSError) as exc:
        full = is_full(exc) if isinstance(exc, OSError) else getattr(exc, "sqlite_errorname", "") == "SQLITE_FULL"
        kind = PlaceUnfit if full else RestoreRefused
        raise kind(f"{path} cannot be used as a file of state: {exc}", hint="Restore to another file.") from exc


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")


@contextmanager
def _built_beside(path: Path, plan: str) -> Iterator[Path]:
    """Give a private path for a new file, which is moved to its place at the end, never over another one."""
    remove_left_behind(path.parent, _BESIDE)
    folder = path.parent / owned_name(_BESIDE, plan)
    folder.mkdir(mode=0o700)
    try:
        made = folder / "state.db"
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield made
        _put_in_place(made, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(made: Path, path: Path) -> None:
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise
        made.rename(path)
    try:
        sync_folder(path.parent)
    except OSError as exc:
        raise Partial(
            f"{path} is restored, but may not outlive a power cut: {exc.strerror or exc}",
            hint="Look at the disk and at the system's log, then restore again: the same comes out.",
        ) from exc
