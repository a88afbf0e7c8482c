"""Where state objects and files of state are, what is there, and which keys a plan covers."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import RestoreRefused
from blocks.host.leftovers import owned_name
from blocks.rows.selection import Selection
from blocks.sources.mapping import MappingSource
from blocks.sources.mapping.view import STATE
from blocks.sources.target import RestoreScope
from tests.blocks.sources.mapping import shop
from tests.blocks.sources.mapping.kit import EXACT, MERGE, Shelf, keys_of, read
from tests.blocks.sources.mapping.shop import Bag, Store

SHOP = shop.__name__


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(shop, name)


def scope_of(rows: pa.Table, mode: Any = EXACT, patterns: tuple[str, ...] = ("*",), **fields: Any) -> RestoreScope:
    fields = {"in_place": False, "plan": "p", **fields}
    definition = {"patterns": list(patterns), "types": []}
    return RestoreScope(definition, ((STATE, rows.num_rows),), mode, Selection(), rows.nbytes, **fields)


def put(source: MappingSource, rows: pa.Table, to: str | None, scope: RestoreScope) -> list[str]:
    target = source.target(scope, to)
    try:
        target.preflight()
        target.apply(STATE, rows)
        target.commit()
    finally:
        target.abort()
    return list(target.notes)


# -- one place or two


def test_two_import_paths_of_one_object_are_one_place(shelf: Shelf) -> None:
    store, other = Store(), Store()
    source = shelf.source(store)
    assert source.location().same(source.location(shelf.put(store)))
    assert not source.location().same(source.location(shelf.put(other)))
    missing = MappingSource(object=f"{SHOP}:missing")
    assert missing.location().same(missing.location(f"{SHOP}:missing"))
    assert not missing.location().same(source.location())


def test_methods_of_one_object_are_told_apart(shelf: Shelf) -> None:
    class Makers:
        def first(self) -> Store:
            return Store()

        def second(self) -> Store:
            return Store()

    path = shelf.put(Makers())
    source = MappingSource(object=f"{path}.first")
    assert source.location().same(source.location(f"{path}.first"))
    assert not source.location().same(source.location(f"{path}.second"))


def test_a_file_is_the_same_in_any_spelling(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, path = shelf.source(Store(a=1)), tmp_path / "a b.db"
    put(source, read(source), str(path), scope_of(read(source)))
    (tmp_path / "link").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for spelled in (
        "a b.db",
        "./a b.db",
        "link",
        f"file://{tmp_path}/a%20b.db",
        f"{tmp_path}/../{tmp_path.name}/a b.db",
    ):
        assert source.location(spelled).same(source.location(str(path))), spelled
    assert keys_of(source.at(f"file://{tmp_path}/a%20b.db")) == ["a"]
    assert not source.location("other.db").same(source.location(str(path)))
    assert f"{path}-journal" in map(str, source.location(str(path)).paths)


def test_the_live_object_under_another_path_is_refused_as_another_place(shelf: Shelf) -> None:
    store = Store(a=1)
    source = shelf.source(store)
    with pytest.raises(RestoreRefused, match="is the live state"):
        put(source, read(source), shelf.put(lambda: store), scope_of(read(source)))


# -- what is there


def test_what_is_at_a_place_is_told_with_counts(shelf: Shelf, tmp_path: Path) -> None:
    source = shelf.source(Store(a=1, b=2))
    rows = read(source)

    def at(to: str) -> str | None:
        return source.target(scope_of(rows), to).occupied()

    assert at(shelf.put(Store())) is None
    assert at(shelf.put(Store(x=1))) == "a state object with 1 keys"
    path = tmp_path / "state.db"
    assert at(str(path)) is None
    put(source, rows, str(path), scope_of(rows))
    assert at(str(path)) == "a file of state with 2 keys"
    (tmp_path / "text").write_text("precious")
    assert at(str(tmp_path / "text")) == "a file that is no file of state"
    assert at(str(tmp_path)) == "a folder"


def make_text(path: Path) -> None:
    path.write_text("precious" * 100)


def make_empty(path: Path) -> None:
    path.touch()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def make_others_state(path: Path) -> None:
    make_database(
        path, "CREATE TABLE state (key TEXT, value TEXT, more TEXT)", "INSERT INTO state VALUES ('a', 'b', 'c')"
    )


def make_state_and_more(path: Path) -> None:
    ours = "CREATE TABLE state (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)"
    make_database(path, ours, "CREATE TABLE money (a)")


def make_marked(path: Path) -> None:
    ours = "CREATE TABLE state (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)"
    make_database(path, ours, "PRAGMA application_id = 77")


STRANGERS = [make_text, make_empty, make_fifo, make_dangling, make_others_state, make_state_and_more, make_marked]


@pytest.mark.parametrize("make", STRANGERS)
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_strangers_file_is_refused_even_where_overwriting_was_asked_for(
    shelf: Shelf, tmp_path: Path, make: Any, mode: Any
) -> None:
    source, path = shelf.source(Store(a=1)), tmp_path / "theirs"
    make(path)
    content = path.read_bytes() if path.is_file() else None
    with pytest.raises(RestoreRefused, match="is no file of state"):
        put(source, read(source), str(path), scope_of(read(source), mode, overwrite=True))
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]
    assert content is None or path.read_bytes() == content


def test_looking_at_a_file_drops_no_lock_of_this_process(shelf: Shelf, tmp_path: Path) -> None:
    """Closing a file drops all locks of the process on it, whichever descriptor set them."""
    import fcntl

    path, source = tmp_path / "theirs", shelf.source(Store(a=1))
    path.write_text("precious")
    with path.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        target = source.target(scope_of(read(source)), str(path))
        assert target.occupied()
        with pytest.raises(RestoreRefused):
            target.preflight()
        child = f"import fcntl\nfcntl.lockf(open({str(path)!r}, 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        tried = subprocess.run([sys.executable, "-c", child], capture_output=True, check=False)
        assert b"BlockingIOError" in tried.stderr


def test_a_locked_or_read_only_file_is_refused_in_the_preflight(shelf: Shelf, tmp_path: Path) -> None:
    source, path = shelf.source(Store(a=1)), tmp_path / "state.db"
    rows = read(source)
    put(source, rows, str(path), scope_of(rows))
    with closing(sqlite3.connect(path, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        with pytest.raises(RestoreRefused, match="locked"):
            source.target(scope_of(rows), str(path)).preflight()
        held.execute("INSERT INTO state VALUES ('mine', '1')")
        held.execute("COMMIT")  # the lock was there all the time
    with pytest.raises(RestoreRefused, match="no such folder"):
        source.target(scope_of(rows), str(tmp_path / "missing" / "x")).preflight()


def test_a_file_that_appears_meanwhile_is_not_replaced(shelf: Shelf, tmp_path: Path) -> None:
    source, path = shelf.source(Store(a=1)), tmp_path / "state.db"
    target = source.target(scope_of(read(source)), str(path))
    target.preflight()
    target.apply(STATE, read(source))
    path.write_text("precious")
    with pytest.raises(RestoreRefused):
        target.commit()
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_what_is_overwritten_at_another_place_is_kept_aside(shelf: Shelf, tmp_path: Path, mode: Any) -> None:
    path, before = tmp_path / "state.db", shelf.source(Store(a="old", gone="old"))
    old = read(before)
    assert put(before, old, str(path), scope_of(old)) == []
    source = shelf.source(Store(a="new"))
    notes = put(source, read(source), str(path), scope_of(read(source), mode, overwrite=True))
    (kept,) = re.findall(r"kept in (.*)\.$", notes[0])
    assert read(source.at(kept)).sort_by("key") == old.sort_by("key")
    assert keys_of(source.at(str(path))) == (["a"] if mode is EXACT else ["a", "gone"])
    assert Path(kept).stat().st_mode & 0o777 == 0o600


def test_no_room_is_told_before_anything_is_written(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shelf.source(Store(a=1))
    scope = RestoreScope({"patterns": ["*"], "types": []}, ((STATE, 1),), EXACT, Selection(), 1 << 60)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(RestoreRefused, match=f"{tmp_path}, has"):
        source.target(scope).preflight()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(RestoreRefused, match="missing"):
        source.target(scope_of(read(source), in_place=True)).preflight()
    target = source.target(scope_of(read(source), in_place=True))
    with pytest.raises(RestoreRefused, match="temporary folder"):
        target.apply(STATE, read(source))


def test_a_folder_that_a_killed_restore_left_is_removed_and_others_are_not(shelf: Shelf, tmp_path: Path) -> None:
    source, path = shelf.source(Store(a=1)), tmp_path / "state.db"
    program = "from blocks.host.leftovers import owned_name; print(owned_name('.lastgood-state-', 'p'))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    alive, foreign = owned_name(".lastgood-state-", "p"), ".lastgood-state-of-mine"
    for name in (ended, alive, foreign):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.db").touch()
    put(source, read(source), str(path), scope_of(read(source)))
    assert {entry.name for entry in tmp_path.iterdir()} == {alive, foreign, "state.db"}


# -- which keys a plan covers


def covered(source: MappingSource, *keys: str) -> list[str]:
    mask = source.covered(STATE, pa.table({"key": list(keys)}))
    return list(keys) if mask is None else [key for key, yes in zip(keys, mask.to_pylist(), strict=True) if yes]


def test_patterns_cover_what_they_match_whether_it_is_there_or_not(shelf: Shelf) -> None:
    assert covered(shelf.source(Store(), patterns=["a:*", "*"]), "a:1", "b:1") == ["a:1", "b:1"]
    for there in ({}, {"a:1": 1, "b:1": 1}, {"b:1": 1}):
        source = shelf.source(Store(**there), patterns=["a:*", "c"])
        assert covered(source, "a:1", "a:2", "b:1", "c") == ["a:1", "a:2", "c"]


class Prefixes(Store):
    """Patterns are prefixes."""

    def get_keys_by_pattern(self, pattern: str) -> list[str]:
        return [key for key in self.values if key.startswith(pattern)]


def test_an_object_with_patterns_of_its_own_is_asked(shelf: Shelf) -> None:
    source = shelf.source(Prefixes(**{"a:1": 1, "b:1": 1}), patterns=["a:"])
    assert covered(source, "a:1", "a:2", "b:1", "b:2") == ["a:1", "a:2", "b:2"]  # 2 is not known


def test_keys_of_which_nobody_can_tell_are_restored_under_the_same_patterns_only(shelf: Shelf) -> None:
    rows = pa.table({"key": ["a:2"], "value": ["1"]})
    store = Prefixes(**{"a:1": 1})
    source = shelf.source(store, patterns=["a:"])
    with pytest.raises(RestoreRefused, match="is not known"):
        put(source, rows, None, scope_of(rows, MERGE, ("",), in_place=True))
    put(source, rows, None, scope_of(rows, MERGE, ("a:",), in_place=True))
    assert store.values == {"a:1": 1, "a:2": 1}


def test_an_object_that_is_away_does_not_keep_globs_from_meaning_something() -> None:
    source = MappingSource(object=f"{SHOP}:missing", patterns=["a:*"])
    assert covered(source, "a:1", "b:1") == ["a:1"]


def test_deleting_needs_both_patterns(shelf: Shelf) -> None:
    for now, then in ((["a:*"], ("*",)), (["*"], ("a:*",))):
        store = Store(**{"a:1": 0, "a:2": 0, "b:1": 0})
        rows = pa.table({"key": ["a:1"], "value": ["1"]})
        put(shelf.source(store, patterns=now), rows, None, scope_of(rows, EXACT, then, in_place=True))
        assert store.values == {"a:1": 1, "b:1": 0}


def test_bags_without_deletion_are_merged_into(shelf: Shelf) -> None:
    bag = Bag(b=1)
    source = shelf.source(bag)
    put(source, pa.table({"key": ["a"], "value": ["1"]}), None, scope_of(read(source), MERGE, in_place=True))
    assert bag.values == {"a": 1, "b": 1}
