"""What a restore of files touches, and what it never touches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import ConfigurationError, CorruptionDetected, RestoreRefused, SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from blocks.sources.files.rows import TREE
from blocks.sources.target import RestoreMode, RestoreScope
from tests.blocks.sources.files.kit import back_up, look, restore, rows_of, source_of, untouched

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE


def target_of(source: FilesSource, mode: RestoreMode = EXACT, size: int = 0, to: str | None = None) -> object:
    return source.target(RestoreScope({}, ((TREE, 0),), mode, Selection(), size), to)


def test_an_exact_restore_in_place_brings_back_the_tree_and_nothing_else(tree: Path) -> None:
    source = source_of(tree)
    before = look(tree)
    _, tables = back_up(source)
    (tree / "a").write_text("spoiled")
    (tree / "d" / "b").unlink()
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "new" / "deep" / "file").write_text("new")
    os.unlink(tree / "l")
    (tree / "l").mkdir()
    (tree / "l" / "in the way").write_text("x")
    restore(source, tables)
    assert look(tree) == before


def test_a_merge_leaves_what_the_backup_does_not_have(tree: Path) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    (tree / "a").write_text("spoiled")
    (tree / "d" / "new").write_text("new")
    restore(source, tables, mode=MERGE)
    assert (tree / "a").read_text() == "a"
    assert (tree / "d" / "new").read_text() == "new"


def test_excluded_files_are_left_alone_by_an_exact_restore(tree: Path) -> None:
    source = source_of(tree, exclude=["*.log", "cache"])
    (tree / "cache").mkdir()
    (tree / "cache" / "entry").write_text("cached")
    (tree / "d" / "x.log").write_text("log")
    _, tables = back_up(source)
    assert {path for table in tables for path in table["path"].to_pylist()} == {b"", b"a", b"d", b"d/b", b"l"}
    (tree / "surplus").mkdir()
    (tree / "surplus" / "y.log").write_text("log")
    (tree / "surplus" / "gone").write_text("gone")
    restore(source, tables)
    assert (tree / "cache" / "entry").read_text() == "cached"
    assert (tree / "d" / "x.log").read_text() == "log"
    assert os.listdir(tree / "surplus") == ["y.log"]


def test_includes_keep_what_they_cover_and_the_folders_that_lead_there(tree: Path) -> None:
    (tree / "d" / "e" / "f").mkdir(parents=True)
    (tree / "d" / "e" / "f" / "model.bin").write_text("m")
    (tree / "empty").mkdir()
    source = source_of(tree, include=["d/e/", "*.bin", "./a"])
    _, tables = back_up(source)
    kept = {path for table in tables for path in table["path"].to_pylist()}
    assert kept == {b"", b"a", b"d", b"d/e", b"d/e/f", b"d/e/f/model.bin"}
    restore(source, tables)
    assert (tree / "d" / "b").exists()
    assert (tree / "empty").exists()


def test_a_selection_restores_and_deletes_only_what_it_names(tree: Path) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    for path in ("a", "d/b", "d/surplus", "surplus"):
        (tree / path).write_text("spoiled")
    restore(source, tables, keys=("d/*",))
    assert (tree / "d" / "b").read_text() == "b"
    assert not (tree / "d" / "surplus").exists()
    assert (tree / "a").read_text() == (tree / "surplus").read_text() == "spoiled"


def test_a_selected_file_comes_back_with_the_folders_above_it(tree: Path) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    restore(source, tables, tree.parent / "copy", keys=("d/b",))
    assert (tree.parent / "copy" / "d" / "b").read_text() == "b"
    assert os.listdir(tree.parent / "copy") == ["d"]


@pytest.mark.parametrize(("name", "kind"), [("a", "folder"), ("d", "file"), ("d", "link")])
def test_a_merge_refuses_what_is_of_another_kind_and_changes_nothing(
    tree: Path, outside: Path, name: str, kind: str
) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    (tree / name).rename(tree.parent / "moved")
    if kind == "folder":
        (tree / name).mkdir()
    elif kind == "file":
        (tree / name).write_text("file")
    else:
        os.symlink(outside, tree / name)
    before = look(tree.parent)
    with pytest.raises(RestoreRefused, match=f"in the way: {name} "):
        restore(source, tables, mode=MERGE)
    after = look(tree.parent)
    assert {path: seen[4] for path, seen in after.items()} == {path: seen[4] for path, seen in before.items()}


def test_an_exact_restore_replaces_a_link_and_never_follows_it(tree: Path, outside: Path) -> None:
    source = source_of(tree)
    before = look(tree)
    _, tables = back_up(source)
    (tree / "d").rename(tree.parent / "moved")
    os.symlink(outside, tree / "d")
    restore(source, tables)
    assert look(tree) == before
    assert untouched(outside)


def test_a_link_above_a_selected_file_is_refused_in_both_modes(tree: Path, outside: Path) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    (tree / "d").rename(tree.parent / "moved")
    os.symlink(outside, tree / "d")
    for mode in (EXACT, MERGE):
        with pytest.raises(RestoreRefused, match="in the way: d "):
            restore(source, tables, mode=mode, keys=("d/b",))
    assert untouched(outside)


@pytest.mark.parametrize("protected", ["keep.log", "pipe"])
def test_a_folder_with_protected_content_is_not_replaced_by_a_file(tree: Path, protected: str) -> None:
    source = source_of(tree, exclude=["*.log"])
    _, tables = back_up(source)
    os.unlink(tree / "a")
    (tree / "a" / "deep").mkdir(parents=True)
    (tree / "a" / "deep" / "other").write_text("x")
    os.mkfifo(tree / "a" / "deep" / protected)
    with pytest.raises(RestoreRefused, match=f"a/deep/{protected} must stay"):
        restore(source, tables)
    assert (tree / "a" / "deep" / "other").exists()


def test_an_aborted_restore_leaves_no_trace(tree: Path) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    (tree / "a").write_text("newer")
    before = look(tree)
    target = target_of(source)
    target.preflight()
    target.apply(TREE, tables[0])
    assert look(tree) == before
    assert any(name.startswith(".lastgood-restore-") for name in os.listdir(tree.parent))
    target.abort()
    target.abort()
    assert look(tree) == before
    assert os.listdir(tree.parent) == ["tree"]


def test_what_is_staged_is_private(tree: Path) -> None:
    source = source_of(tree)
    _, tables = back_up(source)
    target = target_of(source)
    target.apply(TREE, tables[0])
    (staging,) = (path for path in tree.parent.iterdir() if path != tree)
    assert staging.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in staging.iterdir()} == {0o600}
    target.abort()


def test_an_exact_restore_of_nothing_selected_deletes_nothing(tree: Path) -> None:
    before = look(tree)
    target = source_of(tree).target(RestoreScope({}, (), EXACT, Selection(("other/*",)), 0))
    target.commit()
    assert {path: seen[4] for path, seen in look(tree).items()} == {path: seen[4] for path, seen in before.items()}


def test_a_part_that_failed_may_be_applied_again(tree: Path) -> None:
    source = source_of(tree)
    _, (rows,) = back_up(source)
    target = target_of(source, to=str(tree.parent / "copy"))
    torn = rows.set_column(rows.column_names.index("data"), "data", pa.nulls(rows.num_rows, pa.large_binary()))
    with pytest.raises(CorruptionDetected, match="has no content"):
        target.apply(TREE, torn)
    target.apply(TREE, rows)
    target.commit()
    assert look(tree.parent / "copy") == look(tree)


def test_there_must_be_a_place_and_room(tree: Path) -> None:
    source = source_of(tree)
    with pytest.raises(RestoreRefused, match="bytes free"):
        target_of(source, size=1 << 60).preflight()
    with pytest.raises(RestoreRefused, match="No such file"):
        target_of(source, to=str(tree / "missing" / "copy")).preflight()
    with pytest.raises(RestoreRefused, match="is no folder"):
        target_of(source, to=str(tree / "a")).preflight()
    (sentence,) = target_of(source).preflight()
    assert "deleted" in sentence
    (tree.parent / ".lastgood-restore-old").mkdir()
    assert any("interrupted" in sentence for sentence in target_of(source, MERGE).preflight())


def test_a_restore_through_a_link_to_the_root_serves_the_folder_it_names(tree: Path) -> None:
    os.symlink(tree, tree.parent / "current")
    source = source_of(tree.parent / "current")
    before = look(tree)
    _, tables = back_up(source)
    (tree / "a").unlink()
    restore(source, tables)
    assert look(tree) == before
    assert (tree.parent / "current").is_symlink()


def test_a_root_taken_by_somebody_else_is_refused_at_the_last_moment(tree: Path) -> None:
    _, (rows,) = back_up(source_of(tree))
    copy = tree.parent / "copy"
    target = target_of(source_of(tree), to=str(copy))
    target.apply(TREE, rows)
    copy.write_text("somebody was faster")
    with pytest.raises(RestoreRefused, match="cannot be opened"):
        target.commit()
    target.abort()
    assert sorted(os.listdir(tree.parent)) == ["copy", "tree"]
    assert copy.read_text() == "somebody was faster"


def test_what_the_file_system_refuses_is_refused_before_anything_is_written(tree: Path) -> None:
    rows = rows_of({"path": b"", "kind": "dir", "mode": 0o755}, {"path": b"x" * 300, "kind": "file"})
    before = look(tree)
    for place in (None, tree.parent / "copy"):
        with pytest.raises(RestoreRefused, match="does not take this name: File name too long"):
            restore(source_of(tree), [rows], place)
    assert look(tree) == before
    assert not (tree.parent / "copy").exists()


@pytest.mark.parametrize("url", ["gs://bucket/x", "gs://b", "sftp://h/x", "zip::file:///x", "file://host/x", " "])
def test_other_places_than_local_folders_are_refused(tree: Path, url: str) -> None:
    with pytest.raises(ConfigurationError):
        FilesSource(url=url)
    with pytest.raises(ConfigurationError):
        target_of(FilesSource(url=str(tree)), to=url)


@pytest.mark.parametrize("glob", ["/../abs", "", "../x", "a/../b", "."])
def test_patterns_that_leave_the_folder_are_refused(glob: str) -> None:
    for field in ("include", "exclude"):
        with pytest.raises(ConfigurationError, match="names nothing inside"):
            FilesSource(url="x", **{field: [glob]})


def test_a_relative_folder_is_resolved_against_that_of_the_plan(tree: Path) -> None:
    assert FilesSource(url="./tree").anchored(tree.parent).root == tree
    assert FilesSource(url=f"file://{tree}").anchored(Path("/elsewhere")).root == tree
    source = FilesSource(url=str(tree), exclude=["d"])
    scratch = source.at(source.scratch(tree.parent))
    assert scratch.exclude == ["d"]
    assert scratch.root.parent == tree.parent


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Run as an ordinary user, in a folder of theirs."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield folder
    else:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)
    shutil.rmtree(folder)


def test_an_ordinary_user_restores_into_folders_that_forbid_writing(as_nobody: Path) -> None:
    tree = as_nobody / "tree"
    (tree / "shut" / "in").mkdir(parents=True)
    (tree / "shut" / "in" / "file").write_text("x")
    (tree / "own").mkdir()
    os.chmod(tree / "shut" / "in", 0o500)
    os.chmod(tree / "shut", 0o500)
    os.chmod(tree, 0o555)
    source = source_of(tree)
    before = look(tree)
    _, tables = back_up(source)
    for folder in (tree / "shut" / "in", tree / "own"):
        os.chmod(folder, 0o700)
        (folder / "surplus").write_text("y")
        os.chmod(folder, 0o500)
    restore(source, tables)
    assert look(tree) == before
    restore(source, tables, as_nobody / "copy")
    assert look(as_nobody / "copy") == before
    os.chmod(as_nobody, 0o500)
    os.chmod(tree, 0o755)
    restore(source, tables)
    assert look(tree) == before
    os.chmod(as_nobody, 0o700)


def test_an_unreadable_file_is_unavailable_by_name(as_nobody: Path) -> None:
    (as_nobody / "tree").mkdir()
    (as_nobody / "tree" / "closed").write_text("x")
    os.chmod(as_nobody / "tree" / "closed", 0)
    with pytest.raises(SourceUnavailable, match="closed cannot be read: Permission denied"):
        back_up(source_of(as_nobody / "tree"))
    (as_nobody / "tree" / "shut").mkdir(mode=0)
    with pytest.raises(SourceUnavailable, match="the folder shut cannot be read"):
        back_up(source_of(as_nobody / "tree"))
