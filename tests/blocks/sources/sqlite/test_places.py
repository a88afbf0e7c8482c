"""Where a database is, what is at a place already, and what is refused before the first write."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, LastgoodError, RestoreRefused
from blocks.host.leftovers import owned_name
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from tests.blocks.sources.sqlite.kit import Backup, InPlace, ask, back_up, build, dump, run, source_of
from tests.blocks.sources.sqlite.test_restore import SHOP, asides
from tests.forked import NOBODY, forked

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE


@pytest.fixture
def shop(tmp_path) -> Path:
    return build(tmp_path / "shop.db", SHOP)


def elsewhere(
    backup: Backup, mode: RestoreMode = EXACT, *, overwrite: bool = False, selection: Selection | None = None
):
    return replace(backup.scope(mode, selection), in_place=False, overwrite=overwrite)


def test_every_spelling_of_a_place_is_the_same_place(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = source_of(shop)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other.db").symlink_to(shop)
    os.link(shop, tmp_path / "hard.db")
    here = source.location()
    assert here.paths == tuple(Path(f"{os.path.realpath(shop)}{suffix}") for suffix in ("", "-wal", "-shm", "-journal"))
    spellings = ["shop.db", "./x/../shop.db", "link/shop.db", "other.db", "hard.db", f"file://{shop}", f"FILE://{shop}"]
    for to in (*spellings, f"file://localhost{shop}", str(shop)):
        assert here.same(source.location(to)), to
        assert source.location(to).same(here), to
    for to in ("shop2.db", "link/hard2.db", f"file://{tmp_path}/shop%202.db"):
        assert not here.same(source.location(to)), to
    assert source.location(f"file://{tmp_path}/shop%202.db").paths[0].name == "shop 2.db"
    # what holds the write-ahead log of a database holds a part of it
    assert here.same(source.location(f"{shop}-wal"))
    with pytest.raises(ConfigurationError):
        source.location("file://elsewhere/shop.db")


def test_what_a_source_takes_of_a_place_is_said(shop):
    assert source_of(shop).location().part == ""
    assert source_of(shop, tables=["a*", "b"], exclude=["c"]).location().part == "tables a*, b without c"


def test_a_bind_mount_is_the_same_place(shop, tmp_path):
    other = tmp_path / "mounted"
    other.mkdir()
    if subprocess.run(["mount", "--bind", tmp_path, other], check=False, capture_output=True).returncode:
        return  # not allowed here
    try:
        assert source_of(shop).location().same(source_of(other / "shop.db").location())
    finally:
        subprocess.run(["umount", other], check=True)


def test_what_is_at_a_place_is_counted(shop, tmp_path):
    backup = back_up(source_of(shop))

    def occupied(name: str) -> str | None:
        return source_of(shop).target(elsewhere(backup, MERGE), to=str(tmp_path / name)).occupied()

    assert occupied("none.db") is None
    (tmp_path / "empty.db").touch()
    assert occupied("empty.db") is None
    build(tmp_path / "bare.db", "PRAGMA user_version = 5;")
    assert occupied("bare.db") is None
    assert occupied("shop.db") == "a database with 5 tables and 13 rows"
    build(tmp_path / "table.db", "CREATE TABLE t (a)")
    assert occupied("table.db") == "a database with 1 tables and 0 rows"


STRANGERS = {
    "text": b"Dear reader,\n" * 300,
    "short text": b"x",
    "another format": b"PK\x03\x04" + bytes(5000),
    "nearly a database": b"SQLite format 3\0" + bytes(range(256)) * 20,
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_file_that_is_no_database_is_left_alone_at_another_place(shop, tmp_path, stranger, overwrite, mode):
    backup = back_up(source_of(shop))
    place = tmp_path / "theirs"
    place.write_bytes(STRANGERS[stranger])
    with pytest.raises(RestoreRefused, match="left as it is") as caught:
        source_of(shop).target(elsewhere(backup, mode, overwrite=overwrite), to=str(place))
    assert "damaged" not in caught.value.message
    assert place.read_bytes() == STRANGERS[stranger]
    assert asides(place) == []


def test_an_empty_file_becomes_the_database(shop, tmp_path):
    wide = build(tmp_path / "wide.db", "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le';" + SHOP, wal=False)
    backup = back_up(source_of(wide))
    place = tmp_path / "empty.db"
    place.touch()
    inode = place.stat().st_ino
    target = source_of(shop).target(elsewhere(backup), to=str(place))
    target.preflight()
    backup.apply(target, elsewhere(backup))
    target.commit()
    assert dump(place) == dump(wide)
    assert place.stat().st_ino == inode
    assert ask(place, "PRAGMA page_size") == [(1024,)]


@pytest.mark.parametrize("selection", [Selection(), Selection(("app/items",))])
def test_another_database_is_never_emptied_unasked(shop, tmp_path, selection):
    backup = back_up(source_of(shop))
    other = build(tmp_path / "other.db", "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price REAL);")
    run(other, "INSERT INTO items VALUES (77, 'theirs', 7); CREATE TABLE theirs (a)")
    before = dump(other)
    with pytest.raises(RestoreRefused, match="a database with 2 tables and 1 rows"):
        source_of(shop).target(elsewhere(backup, selection=selection), to=str(other)).preflight()
    assert dump(other) == before


@pytest.mark.parametrize("wal", [True, False])
def test_what_is_overwritten_at_another_place_is_kept_aside(shop, tmp_path, wal):
    backup = back_up(source_of(shop))
    other = build(tmp_path / "other.db", "CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1);", wal=wal)
    user = sqlite3.connect(other, isolation_level=None)
    user.execute("INSERT INTO theirs VALUES (2)")
    before = dump(other)
    scope = elsewhere(backup, overwrite=True)
    for ends in ("abort", "commit"):
        target = source_of(shop).target(scope, to=str(other))
        target.preflight()
        backup.apply(target, scope)
        getattr(target, ends)()
        assert len(asides(other)) == (ends == "commit")
    user.execute("INSERT INTO notes VALUES ('still usable')")
    user.close()
    (aside,) = asides(other)
    assert dump(aside) == before
    assert any(str(aside) in note for note in target.notes)
    assert len(ask(other, "SELECT * FROM items")) == 3


def test_what_a_merge_replaces_at_another_place_is_kept_aside(shop, tmp_path):
    backup = back_up(source_of(shop))
    other, apart = (
        tmp_path / "other.db",
        build(tmp_path / "apart.db", "CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1);"),
    )
    shutil.copy(shop, other)
    with closing(sqlite3.connect(other, isolation_level=None)) as user:
        for table in ("items", "notes"):
            user.execute(f"DELETE FROM {table} WHERE rowid > 1")
    before = dump(other)
    for place, kept in ((other, True), (apart, False)):
        scope = elsewhere(backup, MERGE)
        target = source_of(shop).target(scope, to=str(place))
        said = target.preflight()
        backup.apply(target, scope)
        target.commit()
        assert len(asides(place)) == any("copied" in sentence for sentence in said) == kept
    (aside,) = asides(other)
    assert dump(aside) == before
    assert len(ask(other, "SELECT * FROM items")) == 3


def unwritable(path: Path, backup: Backup, mode: RestoreMode, *, match: str) -> None:
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(LastgoodError, match=match):
        source_of(path).target(backup.scope(mode)).preflight()
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.fixture
def small(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB of its own, or a folder where that is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
    )
    assert mounted.returncode == 0 or os.geteuid() != 0, mounted.stderr
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_read_only_file_system_is_refused_before(shop, small, mode):
    backup = back_up(source_of(shop))
    if not os.path.ismount(small):
        return
    path = build(small / "shop.db", SHOP, wal=False)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    unwritable(path, backup, mode, match="mounted read-only")
    unwritable(small / "new.db", backup, mode, match="mounted read-only")


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_too_little_room_is_refused_before_and_named(shop, small, mode, monkeypatch):
    backup = back_up(source_of(shop))
    if not os.path.ismount(small):
        return
    path = build(small / "shop.db", SHOP, wal=False)
    scope = replace(backup.scope(mode), size_bytes=3_000_000)
    with pytest.raises(RestoreRefused, match=f"{small} has .* bytes free"):
        source_of(path).target(scope).preflight()
    monkeypatch.setenv("TMPDIR", str(small))
    scope = replace(backup.scope(mode, Selection(("app/items",))), size_bytes=150_000_000)
    with pytest.raises(RestoreRefused, match=f"temporary data, {small}, has"):
        source_of(shop).target(scope).preflight()


def test_a_temporary_folder_that_is_missing_is_refused_before(shop, monkeypatch, tmp_path):
    backup = back_up(source_of(shop))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    for mode in (EXACT, MERGE):
        for path in (shop, tmp_path / "new.db"):
            with pytest.raises(ConfigurationError, match="gone"):
                source_of(path).target(backup.scope(mode)).preflight()


@pytest.fixture
def flagged() -> Iterator[list[tuple[str, Path]]]:
    """Flags that were set, taken away at the end."""
    made: list[tuple[str, Path]] = []
    yield made
    for flag, path in made:
        subprocess.run(["chattr", f"-{flag}", path], check=True)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize(("flag", "what"), [("i", "file"), ("i", "folder"), ("a", "file"), ("a", "folder")])
def test_immutable_and_append_only_flags_are_refused_before(tmp_path, shop, flagged, mode, flag, what):
    backup = back_up(source_of(shop))
    folder = tmp_path / "flagged"
    folder.mkdir()
    path = build(folder / "shop.db", SHOP, wal=False)
    on = path if what == "file" else folder
    if subprocess.run(["chattr", f"+{flag}", on], check=False, capture_output=True).returncode:
        return  # this file system, or this user, has no flags
    flagged.append((flag, on))
    unwritable(path, backup, mode, match="written|append-only|immutable")


def test_a_damaged_file_that_is_immutable_is_refused_before(shop, flagged):
    backup = back_up(source_of(shop))
    shop.write_bytes(b"\xa5" * 5000)
    if subprocess.run(["chattr", "+i", shop], check=False, capture_output=True).returncode:
        return
    flagged.append(("i", shop))
    unwritable(shop, backup, EXACT, match="immutable")


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o666, 0o555)])
def test_a_file_or_folder_that_this_user_may_not_write_is_refused_before(tmp_path, file_mode, folder_mode):
    folder = Path("/tmp") / f"lastgood-test-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    try:
        path = build(folder / "shop.db", SHOP, wal=False)
        path.chmod(file_mode)
        folder.chmod(folder_mode)

        def refused() -> None:
            backup = back_up(source_of(path))
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            for mode in (EXACT, MERGE):
                with pytest.raises(RestoreRefused):
                    source_of(path).target(backup.scope(mode)).preflight()

        forked(refused)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("needs", ["function in an index", "collation in an index", "function in a generated column"])
def test_what_only_the_application_has_is_refused_before(tmp_path, mode, needs):
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_collation("german", lambda a, b: (a > b) - (a < b))
    connection.create_function("fold", 1, lambda text: str(text).lower(), deterministic=True)
    connection.execute("CREATE TABLE t (a TEXT, id INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO t VALUES ('x', 1)")
    backup = back_up(source_of(path))
    if needs == "function in a generated column":
        connection.execute("DROP TABLE t")
        connection.execute("CREATE TABLE t (a TEXT, b AS (fold(a)) STORED, id INTEGER PRIMARY KEY)")
    else:
        connection.execute(f"CREATE INDEX i ON t ({'fold(a)' if needs.startswith('f') else 'a COLLATE german'})")
    connection.close()
    scope = backup.scope(mode, Selection(("app/t",)))
    with pytest.raises(RestoreRefused, match="cannot be written") as caught:
        source_of(path).target(scope).preflight()
    assert "application" in caught.value.hint


def test_functions_of_the_application_in_triggers_stand_in_nobody_s_way(tmp_path):
    path = build(tmp_path / "a.db", SHOP)
    backup = back_up(source_of(path))
    run(path, "CREATE TRIGGER calls AFTER INSERT ON items BEGIN SELECT only_the_application_has(new.id); END;")
    run(path, "DELETE FROM items WHERE id = 1")
    InPlace(source_of(path), backup, MERGE).run()
    assert len(ask(path, "SELECT * FROM items")) == 3
    assert len(ask(path, "SELECT * FROM sqlite_schema WHERE name = 'calls'")) == 1


def test_an_encoding_that_cannot_be_changed_is_refused_before(tmp_path, shop):
    backup = back_up(source_of(shop))
    other = build(tmp_path / "other.db", "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a);")
    for mode in (EXACT, MERGE):
        unwritable(other, backup, mode, match="encoded in UTF-16le")


def test_a_preview_changes_nothing(shop, tmp_path):
    backup = back_up(source_of(shop))

    def files() -> dict[str, tuple[int, bytes]]:
        found = [p for p in tmp_path.iterdir() if not p.name.endswith("-shm") and p.stat().st_size]
        return {p.name: (p.stat().st_ino, p.read_bytes()) for p in found}

    before = files()
    for mode in (EXACT, MERGE):
        for to in (None, str(tmp_path / "new.db")):
            target = source_of(shop).target(backup.scope(mode), to=to)
            target.preflight()
            target.occupied()
            target.abort()
    assert files() == before


def dead_name(path: Path) -> str:
    code = "import sys; from blocks.host.leftovers import owned_name; print(owned_name(sys.argv[1], 'shop'))"
    done = subprocess.run(
        [sys.executable, "-c", code, f".{path.name}.lastgood-"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("command", ["backup", "salvage", "preview"])
def test_unfinished_databases_of_killed_restores_are_removed_and_no_others(shop, command):
    backup = back_up(source_of(shop))
    dead, live = dead_name(shop), owned_name(f".{shop.name}.lastgood-", "shop")
    names = [
        dead,
        f"{dead}-wal",
        f"{dead}-journal",
        live,
        f".{shop.name}.lastgood-0123abcd",
        "shop.db.lastgood-aside-x",
    ]
    for name in names:
        (shop.parent / name).write_bytes(b"rows")
    said: tuple[str, ...] = ()
    if command == "preview":
        said = source_of(shop).target(backup.scope()).preflight()
    else:
        with source_of(shop).view() if command == "backup" else source_of(shop).salvage():
            pass
    assert [name for name in names if (shop.parent / name).exists()] == names[3:]
    if command == "preview":
        assert [name for name in names[3:5] if any(name in each for each in said)] == names[3:5]
