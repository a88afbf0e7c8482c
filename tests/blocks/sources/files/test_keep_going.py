"""One entry that a place refuses does not hold the rest of a tree hostage, and is named before anything is written."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from blocks.sources.files.rows import TREE
from blocks.sources.files.target import FilesTarget
from blocks.sources.target import KeepsGoing, RestoreMode, RestoreScope
from tests.blocks.sources.files.kit import InPlace, back_up, look, rows_of, source_of
from tests.blocks.sources.files.test_attributes import DEFAULT, access_list
from tests.blocks.sources.files.test_hazards import nobodys
from tests.forked import as_nobody

__all__ = ["nobodys"]

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
LONG = b"x" * 256
LEFT = ["entry d/" + LONG.decode(), "entry " + LONG.decode()]


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def going_on(source: FilesSource, tables: Sequence[pa.Table], to: Path | None, keep_going: bool = True) -> FilesTarget:
    scope = RestoreScope({}, ((TREE, sum(t.num_rows for t in tables)),), EXACT, Selection(), 1, keep_going=keep_going)
    target = source.target(scope, None if to is None else str(to))
    try:
        target.preflight()
        for table in tables:
            target.apply(TREE, table)
        target.commit()
    finally:
        target.abort()
    assert isinstance(target, KeepsGoing)
    return target


class Going(InPlace):
    """A restore in place that keeps going."""

    def __init__(self, source: FilesSource, tables: Sequence[pa.Table], mode: RestoreMode = EXACT) -> None:
        super().__init__(source, tables, mode)
        self.scope = replace(self.scope, keep_going=True)
        self.target = source.target(self.scope)

    @property
    def left_out(self) -> list[str]:
        return [left.name for left in self.target.not_rebuilt]


def odd_names() -> pa.Table:
    file = {"kind": "file", "mode": 0o600}
    return rows_of(
        {"path": b"", "kind": "dir", "mode": 0o755},
        {"path": b"d", "kind": "dir", "mode": 0o755},
        {"path": b"d/" + LONG, "kind": "dir", "mode": 0o755},
        {"path": b"d/" + LONG + b"/below", **file},
        {"path": b"d/good", **file},
        {"path": LONG, **file, "size": 3},
        {"path": LONG, "kind": "data", "offset": 0, "data": b"abc"},
        {"path": "caf\u00e9 ".encode(), "kind": "symlink", "target": b"d", "mode": 0o777},
    )


@pytest.mark.parametrize("there", [True, False])
def test_names_that_the_file_system_does_not_take_are_left_out(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "place"
    if there:
        place.mkdir()
        (place / "d").write_text("was there")
    before = {path.name for path in tmp_path.rglob("*")}
    source = source_of(place)
    with pytest.raises(
        RestoreRefused, match=r"xxx: the file system of .* does not take this name: File name too long"
    ) as no:
        going_on(source, [odd_names()], None, keep_going=False)
    assert "--keep-going" in no.value.hint
    assert {path.name for path in tmp_path.rglob("*")} == before
    target = going_on(source, [odd_names()], None)
    assert [left.name for left in target.not_rebuilt] == LEFT
    assert target.rows_left_out == {"tree": 4}
    assert sorted(os.fsencode(path.relative_to(place)) for path in place.rglob("*")) == sorted(
        [b"d", b"d/good", "caf\u00e9 ".encode()]
    )


def test_nothing_but_refused_entries_is_no_restore_in_part(tmp_path: Path) -> None:
    rows = rows_of({"path": b"", "kind": "dir", "mode": 0o755}, {"path": LONG, "kind": "file", "mode": 0o600})
    with pytest.raises(RestoreRefused, match="nothing can be restored to"):
        going_on(source_of(tmp_path / "place"), [rows], None)
    assert not (tmp_path / "place").exists()


def test_a_folder_in_which_something_must_stay_is_left_as_it_is(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    before = look(tree)
    (tree / "a").unlink()
    (tree / "a").mkdir()
    os.mkfifo(tree / "a" / "pipe")
    (tree / "a" / "new").write_text("stays beside it")
    (tree / "d" / "b").write_text("newer")
    with pytest.raises(RestoreRefused, match=r"a is a file in the backup .* a/\w+ must stay") as refused:
        InPlace(source, backup).run()
    assert "--keep-going" in refused.value.hint
    going = Going(source, backup)
    notes = going.run()
    assert going.left_out == ["entry a"]
    assert not any("the plan leaves them out" in note for note in notes)
    assert sorted(path.name for path in (tree / "a").iterdir()) == ["new", "pipe"]
    now = look(tree)
    assert {path: seen for path, seen in now.items() if not path.startswith(b"a")} | {b"a": before[b"a"]} == before


def test_a_file_in_the_way_of_a_folder_is_left_as_it_is_by_a_merge(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "a").write_text("newer")
    for path in sorted((tree / "d").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (tree / "d").rmdir()
    (tree / "d").write_text("in the way")
    with pytest.raises(RestoreRefused, match="a file is in the way: d"):
        InPlace(source, backup, MERGE).run()
    going = Going(source, backup, MERGE)
    going.run()
    assert going.left_out == ["entry d"]
    assert ((tree / "d").read_text(), (tree / "a").read_text()) == ("in the way", "a")


@pytest.mark.parametrize("name", ["a", "d", "surplus"])
def test_what_flags_forbid_to_change_is_left_as_it_is(tree: Path, name: str) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "surplus").write_text("surplus")
    (tree / "other").write_text("surplus")
    (tree / "e").mkdir()
    for path in (tree / "a", tree / "d" / "b"):
        path.write_text("newer")
    run("chattr", "+i", str(tree / name))
    try:
        going = Going(source, backup)
        told = going.target.preflight()
        assert any(f"{name} will be left out" in sentence for sentence in told)
        going.run()
        assert going.left_out == [f"entry {name}"]
        assert (tree / "a").read_text() == ("newer" if name == "a" else "a")
        assert (tree / "d" / "b").read_text() == ("newer" if name == "d" else "b")
        assert (tree / "surplus").exists() == (name == "surplus")
        assert not (tree / "other").exists()
        assert not (tree / "e").exists()
    finally:
        run("chattr", "-i", str(tree / name))


@pytest.fixture
def mounted(tree: Path) -> Iterator[Path]:
    """A tree with a file system of its own in its folder `d`."""
    run("mount", "-t", "tmpfs", "none", str(tree / "d"))
    (tree / "d" / "on it").write_text("mounted")
    yield tree
    run("umount", str(tree / "d"))


def test_what_is_mounted_in_a_tree_is_backed_up_and_restored_elsewhere_as_plain_folders(
    mounted: Path, tmp_path: Path
) -> None:
    _, backup = back_up(source_of(mounted))
    going_on(source_of(mounted), backup, tmp_path / "copy", keep_going=False)
    assert (tmp_path / "copy" / "d" / "on it").read_text() == "mounted"


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_mount_point_stays_as_it_is_and_all_else_comes_back(mounted: Path, mode: RestoreMode) -> None:
    source = source_of(mounted)
    _, backup = back_up(source)
    for name in ("a", "d/on it", "d/since"):
        (mounted / name).write_text("newer")
    with pytest.raises(RestoreRefused, match=r"^d in .* is a mount point") as refused:
        InPlace(source, backup, mode).run()
    assert "--keep-going" in refused.value.hint
    going = Going(source, backup, mode)
    going.run()
    assert going.left_out == ["entry d"]
    assert os.path.ismount(mounted / "d")
    assert ((mounted / "a").read_text(), (mounted / "d" / "on it").read_text()) == ("a", "newer")
    assert (mounted / "d" / "since").exists()


def test_an_attribute_that_cannot_be_set_is_named_and_the_content_is_there(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "a").chmod(0o751)
    _, backup = back_up(source_of(tree))
    whole = os.chmod

    def chmod(path: bytes | int, mode: int, **more: int) -> None:  # as file systems without modes do
        if mode == 0o751:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        whole(path, mode, **more)

    monkeypatch.setattr(os, "chmod", chmod)
    with pytest.raises(RestoreRefused, match=r"owner, mode or time of a: Operation not permitted$"):
        going_on(source_of(tree), backup, tmp_path / "copy", keep_going=False)
    target = going_on(source_of(tree), backup, tmp_path / "copy")
    assert [left.name for left in target.not_rebuilt] == ["owner, mode or time of a"]
    assert (tmp_path / "copy" / "a").read_text() == "a"
    assert (tmp_path / "copy" / "a").stat().st_mode & 0o777 == 0o600
    assert target.rows_left_out == {"tree": 0}


def test_a_mode_that_a_folder_does_not_take_costs_nothing_but_the_mode(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "d").chmod(0o751)
    os.setxattr(tree / "d", DEFAULT, access_list())
    _, backup = back_up(source_of(tree))
    whole = os.chmod

    def chmod(path: bytes | int, mode: int, **more: int) -> None:
        if mode == 0o751:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        whole(path, mode, **more)

    monkeypatch.setattr(os, "chmod", chmod)
    target = going_on(source_of(tree), backup, tmp_path / "copy")
    assert [left.name for left in target.not_rebuilt] == [
        "owner, mode or time of d",
        "attribute system.posix_acl_default of d",
    ]
    assert (tmp_path / "copy" / "d").stat().st_mode & 0o777 == 0o700
    assert os.listxattr(tmp_path / "copy" / "d") == []
    assert (tmp_path / "copy" / "d" / "b").read_text() == "b"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_is_too_large_for_the_place_is_left_out(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(b"x" * (3 << 20))
    (tree / "hole").write_bytes(b"")
    os.truncate(tree / "hole", 3 << 20)
    _, backup = back_up(source_of(tree))
    with files_of_at_most(2 << 20):
        with pytest.raises(RestoreRefused, match="File too large"):
            going_on(source_of(tree), backup, tmp_path / "copy", keep_going=False)
        target = going_on(source_of(tree), backup, tmp_path / "copy")
    assert [left.name for left in target.not_rebuilt] == ["entry hole", "entry large"]
    assert target.rows_left_out == {"tree": 5}
    wanted = {path: seen for path, seen in look(tree).items() if path not in (b"large", b"hole")}
    assert look(tmp_path / "copy") == wanted


def test_what_comes_in_the_way_at_the_last_moment_is_left_as_it_is(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "a").write_text("newer")
    going = Going(source, backup)
    going.make_ready()
    going.target.check_unwritten()
    (tree / "d").rename(tree / "e")
    (tree / "d").write_text("somebody's")
    try:
        going.target.commit()
    finally:
        going.target.abort()
    assert "entry d/b" in going.left_out
    assert ((tree / "a").read_text(), (tree / "d").read_text()) == ("a", "somebody's")
    assert [name for name in os.listdir(tree.parent) if name.startswith(".lastgood")] == []


def test_an_owner_backs_up_and_restores_a_folder_that_forbids_writing(nobodys: Path) -> None:
    shut = nobodys / "tree" / "shut"

    def restored() -> None:
        (shut / "deep").mkdir(parents=True)
        for path in (shut / "file", shut / "deep" / "file"):
            path.write_text("old")
        (shut / "deep").chmod(0o555)
        shut.chmod(0o555)
        _, backup = back_up(source_of(nobodys / "tree"))
        for path in (shut / "file", shut / "deep" / "file"):
            path.write_text("new")
        shut.chmod(0o755)
        (shut / "since").write_text("x")
        shut.chmod(0o555)
        InPlace(source_of(nobodys / "tree"), backup).run()
        print((shut / "file").read_text(), (shut / "deep" / "file").read_text(), sorted(os.listdir(shut)), end=" ")
        print(oct(shut.stat().st_mode), oct((shut / "deep").stat().st_mode))

    told = as_nobody(restored)
    assert told == "old old ['deep', 'file'] 0o40555 0o40555\n"
