"""A disk that fails when what was restored is in place: that is told as what it is, and never as an error of Python."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blocks.errors import Partial, SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from blocks.sources.mapping import MappingSource
from blocks.sources.redis import RedisSource
from blocks.sources.source import StateSource
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode, RestoreScope
from tests.blocks.sources.mapping.shop import Store
from tests.blocks.sources.redis.kit import RedisServer


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Callable[[str], StateSource]]:
    server = RedisServer(tmp_path / "redis")

    def make(kind: str) -> StateSource:
        if kind == "files":
            (tmp_path / "tree").mkdir()
            (tmp_path / "tree" / "a").write_text("content")
            return FilesSource(url=str(tmp_path / "tree"))
        if kind == "sqlite":
            with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
                connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
            return SQLiteSource(path=str(tmp_path / "a.db"))
        if kind == "redis":
            server.many([("SET", "a", 1)])
            return RedisSource(url=server.url)
        return MappingSource(object="tests.blocks.sources.test_disk_errors:STATE")

    yield make
    server.kill()


STATE = Store(a=1)


def fail_for(monkeypatch: pytest.MonkeyPatch, name: str, fails: Callable[..., bool]) -> None:
    real = getattr(os, name)

    def failing(*args: object, **more: object) -> object:
        if fails(*args):
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **more)

    monkeypatch.setattr(os, name, failing)


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("kind", ["files", "sqlite", "redis", "mapping"])
def test_a_folder_that_cannot_be_made_durable_leaves_a_restore_that_is_said_to_be_there(
    sources: Callable[[str], StateSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = sources(kind)
    (tmp_path / "there").mkdir()
    place = str(tmp_path / "there" / {"redis": "x.rdb", "mapping": "x.db"}.get(kind, "x"))
    with source.view() as view:
        parts = [(s, [view.read(s, b, None).rows for b in view.partition(s)]) for s in view.collections()]
        totals = tuple((spec, sum(rows.num_rows for rows in found)) for spec, found in parts)
        scope = RestoreScope(view.definition, totals, RestoreMode.EXACT, Selection(), 100, in_place=False)
    target = source.target(scope, place)
    target.preflight()
    for spec, found in parts:
        for rows in found:
            target.apply(spec, rows)
    fail_for(monkeypatch, "fsync", is_folder)
    with pytest.raises(Partial, match=r"[Ii]nput/output error") as caught:
        target.commit()
    assert caught.value.hint
    assert target.changed
    monkeypatch.undo()
    target.abort()
    with source.at(place).view() as view:
        assert sum(view.read(s, b, None).rows.num_rows for s in view.collections() for b in view.partition(s)) >= 1


def test_a_database_that_cannot_be_begun_is_no_error_of_python(
    sources: Callable[[str], StateSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources("sqlite")
    with source.view() as view:
        (spec,) = view.collections()
        rows = view.read(spec, view.partition(spec)[0], None).rows
        scope = RestoreScope(view.definition, ((spec, 1),), RestoreMode.EXACT, Selection(), 100, in_place=False)
    target = source.target(scope, str(tmp_path / "new.db"))
    target.preflight()
    fail_for(monkeypatch, "open", lambda path, *more: "new.db" in str(path))
    with pytest.raises(SourceUnavailable, match="Input/output error"):
        target.apply(spec, rows)
    assert not target.changed
