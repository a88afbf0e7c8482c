"""Extended attributes, access lists and capabilities come back, on real file systems, or are refused by name."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather

from blocks.errors import CorruptionDetected, RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from blocks.sources.files.dressing import foretold
from blocks.sources.files.reading.xattrs import decode, encode
from blocks.sources.files.rows import TREE
from blocks.sources.files.target import FilesTarget
from blocks.sources.target import RestoreMode, RestoreScope
from tests.blocks.sources.files.kit import (
    InPlace,
    attributes_of,
    back_up,
    follow_up,
    look,
    restore,
    rows_of,
    source_of,
)
from tests.forked import as_nobody

ANY = 0xFFFFFFFF
ACCESS, DEFAULT, CAPABILITY = "system.posix_acl_access", "system.posix_acl_default", "security.capability"
BIND_LOW_PORTS = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def access_list(mask: int = 6, user: int = 1000) -> bytes:
    entries = [(1, 7, ANY), (2, 6, user), (4, 4, ANY), (8, 5, 2000), (16, mask, ANY), (32, 0, ANY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture(params=[None, "/dev/shm"], ids=["disk", "memory"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on a file system that has all that is kept."""
    folder = Path(tempfile.mkdtemp(dir=request.param))
    try:
        for name, value in (
            ("user.a", b"1"),
            ("trusted.a", b"1"),
            (CAPABILITY, BIND_LOW_PORTS),
            (DEFAULT, access_list()),
        ):
            os.setxattr(folder, name, value)
            os.removexattr(folder, name)
    except OSError as exc:
        raise RuntimeError(f"these tests need root, and file systems with all attributes at {folder}") from exc
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def dressed(place: Path) -> Path:
    """A tree whose entries have attributes of all kinds."""
    tree = place / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    for name in ("plain", "users", "listed", "capable", "d/inside", "d/e/deep"):
        (tree / name).write_text(name)
    (tree / "link").symlink_to("users")
    os.setxattr(tree / "users", "user.empty", b"")
    os.setxattr(tree / "users", "user.bytes", bytes(range(256)))
    os.setxattr(tree / "users", b"user.caf\xe9", b"a name that is no text")
    os.setxattr(tree / "users", "trusted.note", b"t" * 1000)
    os.setxattr(tree / "link", "trusted.of the link", b"itself", follow_symlinks=False)
    (tree / "listed").chmod(0o640)
    os.setxattr(tree / "listed", ACCESS, access_list())
    os.setxattr(tree / "listed", "user.too", b"x")
    os.chown(tree / "capable", 1000, 2000)
    (tree / "capable").chmod(0o2755)
    os.setxattr(tree / "capable", CAPABILITY, BIND_LOW_PORTS)
    os.setxattr(tree / "d", DEFAULT, access_list())
    os.setxattr(tree / "d", ACCESS, access_list(5))
    os.setxattr(tree / "d" / "e", "user.folder", b"x")
    (tree / "d" / "e").chmod(0o500)
    os.setxattr(tree, "user.root", b"x")
    for path in (*tree.rglob("*"), tree):
        os.utime(path, ns=(1, 1_700_000_000_000_000_001), follow_symlinks=False)
    return tree


def names_of(tree: Path) -> dict[str, set[str]]:
    return {str(path.relative_to(tree)): set(attributes_of(path)) for path in (tree, *tree.rglob("*"))}


def test_attributes_of_all_kinds_come_back_with_and_without_content(dressed: Path, place: Path) -> None:
    assert names_of(dressed)["listed"] == {ACCESS, "user.too"}
    assert names_of(dressed)["d"] == {ACCESS, DEFAULT}
    source = source_of(dressed)
    _, backup = back_up(source)
    with source.view() as view:
        assert view.warnings == ()
    restore(source, backup, place / "copy")
    assert look(place / "copy") == look(dressed)


def test_a_folder_that_hands_its_list_on_changes_nothing_of_what_is_restored_beside_or_in_it(
    dressed: Path, place: Path
) -> None:
    os.setxattr(place, DEFAULT, access_list(7, 3000))
    source = source_of(dressed)
    _, backup = back_up(source)
    restore(source, backup, place / "copy")
    assert look(place / "copy") == look(dressed)
    os.setxattr(dressed, DEFAULT, access_list(7, 3000))
    shutil.rmtree(dressed / "d")
    (dressed / "d").mkdir()
    (dressed / "plain").unlink()
    InPlace(source, backup).run()
    assert look(dressed) == look(place / "copy")


@pytest.mark.parametrize("mode", [RestoreMode.EXACT, RestoreMode.MERGE])
def test_a_restore_in_place_brings_back_what_was_changed_and_takes_what_was_added(
    dressed: Path, place: Path, mode: RestoreMode
) -> None:
    shutil.copytree(dressed, place / "before", symlinks=True)
    source = source_of(dressed)
    before, (_, backup) = look(dressed), back_up(source)
    os.setxattr(dressed / "plain", "user.added", b"x")
    os.setxattr(dressed / "plain", ACCESS, access_list())
    os.removexattr(dressed / "users", "user.empty")
    os.setxattr(dressed / "users", "user.bytes", b"other")
    os.removexattr(dressed / "capable", CAPABILITY)
    os.removexattr(dressed / "d", DEFAULT)
    os.setxattr(dressed / "d", ACCESS, access_list(7, 4000))
    os.setxattr(dressed / "d" / "e", "user.added", b"x")
    os.setxattr(dressed / "d" / "e", DEFAULT, access_list())
    os.setxattr(dressed / "link", "trusted.of the link", b"other", follow_symlinks=False)
    os.removexattr(dressed, "user.root")
    changed = look(dressed)
    restoring = InPlace(source, backup, mode)
    assert restoring.run() == ()
    assert look(dressed) == before
    InPlace(source, restoring.emergency, mode).run()
    assert look(dressed) == changed


def test_an_incremental_sees_each_change_of_attributes_alone(dressed: Path, place: Path) -> None:
    bounds, backup = back_up(source_of(dressed))
    source = source_of(dressed)
    backup, _ = follow_up(source, bounds, backup)
    assert source._watch.opened == []
    os.setxattr(dressed / "plain", "user.new", b"x")
    os.removexattr(dressed / "listed", ACCESS)
    os.setxattr(dressed / "capable", CAPABILITY, struct.pack("<IIIII", 0x02000001, 1 << 11, 0, 0, 0))
    os.setxattr(dressed / "d", DEFAULT, access_list(4))
    os.removexattr(dressed / "link", "trusted.of the link", follow_symlinks=False)
    source = source_of(dressed)
    backup, _ = follow_up(source, bounds, backup)
    assert sorted(source._watch.opened) == [b"capable", b"listed", b"plain"]
    restore(source, backup, place / "copy")
    assert look(place / "copy") == look(dressed)


def test_an_attribute_that_changes_while_its_file_is_read_is_never_torn_from_it(dressed: Path, place: Path) -> None:
    def step(path: bytes) -> None:
        if path == b"users":
            os.setxattr(dressed / "users", "user.empty", b"%d" % len(source._watch.opened))

    source = source_of(dressed, step, on_change="skip")
    with source.view() as view:
        warnings = view.read(TREE, view.partition(TREE)[0], None).warnings
    assert warnings == ("users kept changing and is not in this backup",)


def test_attributes_of_a_folder_written_since_stop_a_restore_in_place(dressed: Path) -> None:
    source = source_of(dressed)
    _, backup = back_up(source)
    restoring = InPlace(source, backup)
    restoring.make_ready()
    os.setxattr(dressed / "d" / "e", "user.folder", b"y")
    with pytest.raises(RestoreRefused, match="d/e got other attributes"):
        restoring.target.check_unwritten()
    restoring.target.abort()
    assert os.getxattr(dressed / "d" / "e", "user.folder") == b"y"


@pytest.fixture
def bare(place: Path) -> Iterator[Path]:
    """A folder on a file system without any attributes."""
    folder = place / "bare"
    folder.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", str(folder)], check=True)
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(folder, "user.a", b"1")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def restore_to(source: FilesSource, backup: list[pa.Table], to: Path, *, keep_going: bool) -> FilesTarget:
    """Restore where nobody knows how much room there is."""
    scope = RestoreScope({}, ((TREE, 1),), RestoreMode.EXACT, Selection(), 0, keep_going=keep_going)
    target = source.target(scope, str(to))
    try:
        target.preflight()
        for table in backup:
            target.apply(TREE, table)
        target.commit()
    finally:
        target.abort()
    return target


def test_a_file_system_without_attributes_is_refused_before_anything_is_changed(dressed: Path, bare: Path) -> None:
    source = source_of(dressed)
    _, backup = back_up(source)
    (bare / "copy").mkdir()
    (bare / "copy" / "plain").write_text("before")
    before = (bare / "copy" / "plain").stat()
    with pytest.raises(RestoreRefused, match=r"attribute user\.bytes of users") as caught:
        restore_to(source, backup, bare / "copy", keep_going=False)
    assert "attribute user.folder of d/e" in caught.value.message
    assert "--keep-going" in caught.value.hint
    assert os.listdir(bare) == ["copy"]
    assert (bare / "copy" / "plain").stat() == before
    target = restore_to(source, backup, bare / "copy", keep_going=True)
    left = {one.name: one.reason for one in target.not_rebuilt}
    assert left["attribute user.too of listed"] == "Operation not supported"
    assert left["attribute system.posix_acl_access of d, listed"] == "Operation not supported"
    assert "attribute user.root of the tree's root" in left
    # where its list is lost, nobody may do more
    assert (bare / "copy" / "listed").stat().st_mode & 0o777 == 0o740
    assert {path: one[4] for path, one in look(bare / "copy").items()} == {
        p: one[4] for p, one in look(dressed).items()
    }


def test_who_has_not_the_right_is_told_before_and_can_leave_it_out(dressed: Path) -> None:
    dressed.parent.chmod(0o755)
    root = dressed.parent
    for path in (dressed, *dressed.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.setxattr(dressed / "capable", CAPABILITY, BIND_LOW_PORTS)
    _, tables = back_up(source_of(dressed))
    before = look(dressed)
    feather.write_feather(tables[0], str(root / "rows"), compression="uncompressed")
    (root / "mine").mkdir()
    os.chown(root / "mine", 65534, 65534)

    def restored() -> None:
        rows = [feather.read_table(str(root / "rows"))]
        with pytest.raises(RestoreRefused) as refused:
            restore(source_of(root / "tree"), rows, root / "mine" / "copy")
        print(refused.value.message)
        print(os.listdir(root / "mine"))
        target = restore(source_of(root / "tree"), rows, root / "mine" / "copy", keep_going=True)
        print(sorted(one.name for one in target.not_rebuilt), target.notes)

    told = as_nobody(restored).splitlines()
    assert "attribute security.capability of capable: Operation not permitted" in told[0]
    assert told[1:] == [
        "[]",
        "['attribute security.capability of capable', 'attribute trusted.note of users', "
        "'attribute trusted.of the link of link'] []",
    ]
    after = look(root / "mine" / "copy")
    for path, one in before.items():
        kept = {name: value for name, value in one[5].items() if not name.startswith(("trusted.", "security."))}
        assert after[path] == (*one[:5], kept, one[6])


def test_what_takes_root_is_told_to_others_before_anything_is_tried(dressed: Path) -> None:
    dressed.parent.chmod(0o755)
    with source_of(dressed).view() as view:
        definition = view.definition
    assert definition == {
        "attributes": [CAPABILITY, ACCESS, DEFAULT, "trusted.", "user."],
    }
    place = os.fsencode(dressed.parent)
    assert foretold(place, definition) == []
    told = as_nobody(lambda: print(foretold(place, definition)))
    assert "(security.capability: takes root, trusted.*: takes root)" in told


def test_who_gets_no_owner_back_gets_no_rights_by_a_list(dressed: Path) -> None:
    dressed.parent.chmod(0o755)
    root = dressed.parent
    for path in ("users", "link"):
        shutil.rmtree(dressed / path) if (dressed / path).is_dir() else (dressed / path).unlink()
    (dressed / "capable").unlink()
    _, tables = back_up(source_of(dressed))
    feather.write_feather(tables[0], str(root / "rows"), compression="uncompressed")
    (root / "mine").mkdir()
    os.chown(root / "mine", 65534, 65534)

    def restored() -> None:
        rows = [feather.read_table(str(root / "rows"))]
        target = restore(source_of(root / "tree"), rows, root / "mine" / "copy")
        print(target.not_rebuilt, *target.notes)

    told = as_nobody(restored)
    assert told.startswith("[] 7 entries did not get back their owner, group, access list")
    after = {path: set(one[5]) for path, one in look(root / "mine" / "copy").items()}
    assert after == {
        b".": {"user.root"},
        b"plain": set(),
        b"listed": {"user.too"},
        b"d": set(),
        b"d/inside": set(),
        b"d/e": {"user.folder"},
        b"d/e/deep": set(),
    }


def test_a_backup_of_an_earlier_version_leaves_the_attributes_of_folders_alone(dressed: Path) -> None:
    source = source_of(dressed)
    _, backup = back_up(source)
    old = replace(TREE, columns=tuple(column for column in TREE.columns if column[0] != "xattrs"))
    restoring = InPlace(source, [table.drop_columns(["xattrs"]) for table in backup])
    restoring.make_ready()
    restoring.target.abort()
    target = source.target(restoring.scope)
    for table in backup:
        target.apply(old, table.drop_columns(["xattrs"]))
    target.commit()
    assert names_of(dressed)["d/e"] == {"user.folder"}
    assert names_of(dressed)["."] == {"user.root"}
    assert names_of(dressed)["users"] == set()


def test_what_is_written_down_is_read_again_and_nothing_else_is() -> None:
    some = {b"user.b": b"\0", b"user.a": b"", b"trusted.x": b"y" * 300}
    assert decode(encode(some)) == some
    assert encode({}) is None
    assert encode({b"user.a": b"v"}) == b"\0\0\0\6user.a\0\0\0\1v"


@pytest.mark.parametrize(
    "written",
    [
        b"\0\0\0\6user.",
        b"\0\0",
        b"\0\0\0\6user.a",
        b"\0\0\0\6user.b\0\0\0\0\0\0\0\6user.a\0\0\0\0",
        b"\0\0\0\6user.a\0\0\0\0\0\0\0\6user.a\0\0\0\0",
        b"\0\0\0\7user.a\0\0\0\0\0",
        b"\0\0\0\x10security.selinux\0\0\0\0",
        b"\xff\xff\xff\xff",
    ],
)
def test_attributes_that_no_backup_holds_are_refused_before_anything_is_changed(tree: Path, written: bytes) -> None:
    before = look(tree)
    rows = rows_of({"path": b"a", "kind": "file", "xattrs": written})
    with pytest.raises(CorruptionDetected, match="the extended attributes of a are none"):
        restore(source_of(tree), [rows])
    assert look(tree) == before


def test_a_proof_compares_all_that_its_place_takes(dressed: Path) -> None:
    source = source_of(dressed)
    _, [rows] = back_up(source)
    assert pa.concat_tables([source.by_meaning(TREE, rows)]).column("xattrs") == rows.column("xattrs")
