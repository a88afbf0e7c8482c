"""What would stop a restore of files half way is refused before; attributes that are lost give nobody more rights."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import Partial, RestoreRefused
from blocks.host.leftovers import owned_name
from blocks.sources.files import renames
from blocks.sources.files.leavings import KeptAside, Moved, settle
from blocks.sources.files.reading.stats import granted_mode
from blocks.sources.files.rows import TREE
from blocks.sources.files.tree import REPLACED_PREFIX
from blocks.sources.target import RestoreMode
from tests.blocks.sources.files.kit import InPlace, back_up, look, restore, source_of
from tests.forked import as_nobody, forked

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE

USER_OBJECT, USER, GROUP_OBJECT, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def mounted(tree: Path) -> Iterator[Path]:
    """A tree with a file system of its own in its folder `d`."""
    run("mount", "-t", "tmpfs", "none", str(tree / "d"))
    (tree / "d" / "on it").write_text("mounted")
    yield tree
    run("umount", str(tree / "d"))


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "file"])
def test_a_mount_point_in_a_tree_is_refused_before_anything_is_deleted(tree: Path, kind: str) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "surplus").write_text("surplus")
    (tree.parent / "other").mkdir()
    at = tree / ("a" if kind == "file" else "d")
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "none", str(at))
    else:
        (tree.parent / "file").write_text("x")
        run("mount", "--bind", str(tree.parent / ("file" if kind == "file" else "other")), str(at))
    try:
        target = InPlace(source, backup).target
        with pytest.raises(RestoreRefused, match="is a mount point"):
            target.preflight()
        for mode in (EXACT, MERGE):
            with pytest.raises(RestoreRefused, match="is a mount point"):
                restore(source, backup, mode=mode)
        assert (tree / "surplus").exists()
        InPlace(source, backup, MERGE, ("d/*",) if kind == "file" else ("a",)).run()
    finally:
        run("umount", str(at))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_tree_that_is_a_bind_mount_itself_is_restored_or_refused_before_anything_is_changed(
    tree: Path, read_only: bool
) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    before = look(tree)
    (tree / "a").write_text("newer")
    (tree / "surplus").write_text("surplus")
    run("mount", "--bind", str(tree), str(tree))
    try:
        if read_only:
            run("mount", "-o", "remount,ro,bind", str(tree))
            with pytest.raises(RestoreRefused):
                InPlace(source, backup).target.preflight()
        else:
            InPlace(source, backup).run()
            assert look(tree) == before
    finally:
        run("umount", str(tree))


def test_a_mount_point_is_left_alone_where_the_source_says_so(mounted: Path) -> None:
    source = source_of(mounted, one_file_system=True)
    _, backup = back_up(source)
    (mounted / "a").write_text("newer")
    InPlace(source, backup).run()
    assert (mounted / "d" / "on it").read_text() == "mounted"
    assert (mounted / "a").read_text() == "a"


def test_a_mount_point_that_a_backup_kept_empty_is_not_emptied_since(mounted: Path) -> None:
    narrow = source_of(mounted, one_file_system=True)
    with narrow.view() as view:
        backup = [view.read(TREE, piece, None).rows for piece in view.partition(TREE)]
        definition = dict(view.definition)
    InPlace(source_of(mounted), backup, EXACT, ("a",), definition).run()
    assert (mounted / "d" / "on it").read_text() == "mounted"


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("name", ["a", "d", "surplus"])
def test_flags_that_forbid_a_change_are_refused_before(tree: Path, flag: str, name: str) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "surplus").write_text("surplus")
    (tree / "other").write_text("surplus")
    run("chattr", f"+{flag}", str(tree / name))
    try:
        before = look(tree)
        with pytest.raises(RestoreRefused, match=rf"^{name} in .* is (immutable|append-only)"):
            InPlace(source, backup).target.preflight()
        with pytest.raises(RestoreRefused, match=r"is (immutable|append-only)"):
            restore(source, backup)
        if name != "surplus":
            with pytest.raises(RestoreRefused, match=r"is (immutable|append-only)"):
                restore(source, backup, mode=MERGE)
        assert look(tree) == before
    finally:
        run("chattr", f"-{flag}", str(tree / name))


def test_a_read_only_file_system_is_refused_and_named(tmp_path: Path) -> None:
    run("mount", "-t", "tmpfs", "none", str(tmp_path))
    try:
        (tmp_path / "tree").mkdir()
        source = source_of(tmp_path / "tree")
        _, backup = back_up(source)
        run("mount", "-o", "remount,ro", str(tmp_path))
        for place in (None, tmp_path / "copy"):
            with pytest.raises(RestoreRefused, match=r"read-only|cannot be written to"):
                restore(source, backup, place)
    finally:
        run("umount", str(tmp_path))


def test_room_for_names_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in range(60):
        (tmp_path / "tree" / str(name)).write_text("x")
    source = source_of(tmp_path / "tree")
    _, backup = back_up(source)
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "nr_inodes=20", "none", str(place))
    try:
        with pytest.raises(RestoreRefused, match=r"makes at least 60 files and folders, .* \(inodes\)"):
            restore(source, backup, place / "copy")
    finally:
        run("umount", str(place))


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder of an ordinary user."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


def test_an_owner_restores_into_a_root_and_beside_folders_that_forbid_writing(nobodys: Path) -> None:
    tree = nobodys / "tree"

    def restored() -> None:
        tree.mkdir()
        (tree / "file").write_text("old")
        tree.chmod(0o555)
        nobodys.chmod(0o555)
        _, backup = back_up(source_of(tree))
        (tree / "file").write_text("new")
        before = os.stat(tree)
        InPlace(source_of(tree), backup).run()
        after = os.stat(tree)
        print((tree / "file").read_text(), os.listdir(tree), oct(after.st_mode), end=" ")
        print(after.st_mtime_ns == before.st_mtime_ns, oct(nobodys.stat().st_mode))

    told = as_nobody(restored)
    assert told == "old ['file'] 0o40555 True 0o40555\n"


@pytest.mark.parametrize(("mode", "owner"), [(0o755, 0), (0o1777, 0)])
def test_folders_of_others_that_forbid_a_change_are_refused_before(nobodys: Path, mode: int, owner: int) -> None:
    (nobodys / "tree" / "shut").mkdir(parents=True)
    (nobodys / "tree" / "shut" / "file").write_text("x")
    os.chown(nobodys / "tree", 65534, 65534)
    (nobodys / "tree" / "shut").chmod(mode)

    def refused() -> None:
        _, backup = back_up(source_of(nobodys / "tree"))
        try:
            InPlace(source_of(nobodys / "tree"), backup).target.preflight()
        except RestoreRefused as error:
            print(error.message)

    told = as_nobody(refused)
    assert "shut" in told
    assert "by this user" in told


def access_list(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANY = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("entries", "restored"),
    [
        ([(USER_OBJECT, 6, ANY), (USER, 6, 1000), (GROUP_OBJECT, 0, ANY), (MASK, 6, ANY), (OTHER, 0, ANY)], 0o600),
        ([(USER_OBJECT, 6, ANY), (USER, 6, 1000), (GROUP_OBJECT, 4, ANY), (MASK, 6, ANY), (OTHER, 4, ANY)], 0o644),
        ([(USER_OBJECT, 7, ANY), (USER, 0, 1000), (GROUP_OBJECT, 5, ANY), (MASK, 7, ANY), (OTHER, 5, ANY)], 0o700),
        ([(USER_OBJECT, 7, ANY), (GROUP_OBJECT, 5, ANY), (GROUP, 4, 1000), (MASK, 7, ANY), (OTHER, 5, ANY)], 0o754),
        ([(USER_OBJECT, 6, ANY), (GROUP_OBJECT, 6, ANY), (GROUP, 7, 1000), (MASK, 4, ANY), (OTHER, 0, ANY)], 0o640),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_a_mode_without_its_access_list_gives_nobody_more(
    tmp_path: Path, entries: list[tuple[int, int, int]], restored: int, folder: bool
) -> None:
    place = tmp_path / "tree" / "listed"
    place.mkdir(parents=True) if folder else (tmp_path / "tree").mkdir()
    if not folder:
        place.write_text("x")
    os.setxattr(place, "system.posix_acl_access", access_list(*entries))
    before = look(tmp_path / "tree")
    assert granted_mode(place.stat().st_mode, access_list(*entries)) & 0o7777 == restored
    source = source_of(tmp_path / "tree")
    _, tables = back_up(source)
    [row] = [row for row in tables[0].to_pylist() if row["path"] == b"listed" and row["offset"] == -1]
    assert row["mode"] == restored
    # who cannot give the list back, an earlier version say, gives nobody more
    old = [without_attributes(table) for table in tables]
    restore(source, old, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy" / "listed").stat().st_mode) == restored
    restore(source, tables, tmp_path / "copy")
    assert look(tmp_path / "copy") == before
    assert InPlace(source, tables).run() == ()
    assert look(tmp_path / "tree") == before


def without_attributes(table: pa.Table) -> pa.Table:
    column = table.schema.get_field_index("xattrs")
    return table.set_column(column, table.schema.field(column), pa.nulls(table.num_rows, pa.large_binary()))


def test_each_kind_of_attribute_that_is_lost_is_counted_in_a_warning(tree: Path) -> None:
    os.setxattr(tree / "d" / "b", "user.comment", b"x")
    os.setxattr(tree / "a", "security.SMACK64", b"x")
    os.setxattr(tree / "d" / "b", "security.somebodys", b"x")
    os.link(tree / "l", tree / "again", follow_symlinks=False)
    with source_of(tree).view() as view:
        told = sorted(view.warnings)
    assert [sentence.split(",")[0] for sentence in told] == [
        "1 entries have extended attributes of kinds that are not kept",
        "1 entries have security labels",
        "2 symbolic links have further names (hard links); each comes back as a link of its own",
    ]


def test_bits_of_an_owner_do_not_come_back_for_another_one(nobodys: Path) -> None:
    (nobodys / "tree").mkdir()
    wanted = {
        "setuid": (0o4755, 0, 65534),
        "setgid": (0o2750, 65534, 0),
        "both": (0o6711, 65534, 65534),
        "group": (0o640, 65534, 0),
        "denied": (0o604, 0, 0),
    }
    for name, (mode, uid, gid) in wanted.items():
        (nobodys / "tree" / name).write_text(name)
        os.chown(nobodys / "tree" / name, uid, gid)
        (nobodys / "tree" / name).chmod(mode)
    _, tables = back_up(source_of(nobodys / "tree"))

    def restored() -> None:
        restore(source_of(nobodys / "tree"), tables, nobodys / "copy")
        copied = sorted((nobodys / "copy").iterdir())
        print({path.name: oct(path.stat().st_mode & 0o7777) for path in copied})

    told = as_nobody(restored)
    assert told.strip() == str(
        {"both": "0o6711", "denied": "0o600", "group": "0o600", "setgid": "0o700", "setuid": "0o755"}
    )


def test_what_dead_processes_staged_is_removed_and_what_live_ones_do_is_not(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    dead = forked(lambda: print(owned_name(".lastgood-restore-", "trading"))).strip()
    alive = owned_name(".lastgood-restore-", "trading")
    for place in (tree, tree.parent):
        for name in (dead, alive, ".lastgood-restore-somebodys"):
            (place / name).mkdir()
            (place / name / "0").write_text("decrypted")
    before = look(tree)
    with source.view():
        pass
    for place in (tree, tree.parent):
        assert sorted(name for name in os.listdir(place) if name.startswith(".")) == sorted(
            [alive, ".lastgood-restore-somebodys"]
        )
    assert look(tree)[b"."] == before[b"."]
    shutil.copytree(tree / alive, tree.parent / dead)
    InPlace(source, backup).target.begin()
    assert not (tree.parent / dead).exists()


def test_entries_swap_where_the_file_system_cannot_exchange_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("staged", "there", "new"):
        (tmp_path / name).write_text(name)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert renames._in_steps(b"staged", fd, b"there", fd)
        assert (tmp_path / "there").read_text() == "staged"
        assert (tmp_path / "staged").read_text() == "there"
        assert not renames._in_steps(b"new", fd, b"nothing", fd)
        with pytest.raises(FileNotFoundError):
            renames._in_steps(b"missing", fd, b"there", fd)
        assert (tmp_path / "there").read_text() == "staged"
    finally:
        os.close(fd)


def test_a_restore_that_fails_in_the_middle_keeps_what_it_replaced_and_can_be_taken_back(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "a").write_text("newer")
    (tree / "surplus").write_text("surplus")
    before = look(tree)
    restoring = InPlace(source, backup)
    restoring.make_ready()
    restoring.target.check_unwritten()
    (tree / "d").rename(tree / "e")
    (tree / "d").write_text("somebody's")
    with pytest.raises(Partial):
        restoring.target.commit()
    assert restoring.target.changed
    restoring.target.abort()
    restoring.target.abort()
    assert [name for name in os.listdir(tree.parent) if name.startswith(".lastgood")] == []
    (tree / "d").unlink()
    InPlace(source, restoring.emergency, EXACT, (), restoring.definition).run()
    assert look(tree) == before


def test_what_made_room_when_a_restore_was_killed_is_kept(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/" + REPLACED_PREFIX + b"dead"
    os.mkdir(folder)
    staged, there = Path(os.fsdecode(folder)) / "0", Path(os.fsdecode(folder)) / os.fsdecode(renames.in_between(b"0"))
    staged.write_text("from the backup")
    there.write_text("nobody else has this")
    kept = KeptAside(os.fsencode(tmp_path), os.fsencode(tmp_path / "tree"), "trading")
    settle(folder, [Moved(0, b"x", staged.stat().st_ino, None)], kept, all_known=False, why="was replaced")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["nobody else has this"]
