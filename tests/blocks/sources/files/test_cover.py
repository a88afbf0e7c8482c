"""A restore of files writes and deletes only what plan and backup both cover, and nothing that is somebody else's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected, RestoreRefused
from blocks.sources.files import FilesSource
from blocks.sources.files.rows import TREE
from blocks.sources.target import RestoreMode
from tests.blocks.sources.files.kit import InPlace, back_up, look, restore, source_of

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def definition_of(source: FilesSource) -> dict[str, object]:
    with source.view() as view:
        for piece in view.partition(TREE):
            view.read(TREE, piece, None)
        return dict(view.definition)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({"exclude": ["c/*"]}, {"c/x", "c/new"}),
        ({"exclude": ["c"]}, {"c/x", "c/new"}),
        ({"include": ["d"]}, {"c/x", "c/new", "a"}),
        ({"include": ["*.bin"], "exclude": ["c"]}, {"a", "c/x", "c/new", "d/e/f"}),
    ],
)
def test_what_the_plan_leaves_out_since_is_neither_written_nor_deleted(
    tmp_path: Path, mode: RestoreMode, rules: dict[str, list[str]], left: set[str]
) -> None:
    make(tmp_path, "a", "c/x", "d/e/f", "d/m.bin", "empty/.keep")
    (tmp_path / "empty" / ".keep").unlink()
    _, backup = back_up(source_of(tmp_path))
    make(tmp_path, "c/new", "d/new")
    for path in left | {"d/m.bin"}:
        (tmp_path / path).write_text("newer")
    (tmp_path / "empty").rmdir()
    (tmp_path / "c").chmod(0o700)
    InPlace(source_of(tmp_path, **rules), backup, mode).run()
    assert {path for path in left if (tmp_path / path).read_text() == "newer"} == left
    assert (tmp_path / "d" / "m.bin").read_text() == "d/m.bin"
    if rules != {"exclude": ["c/*"]}:
        assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "empty").exists() == (rules == {"exclude": ["c/*"]} or rules == {"exclude": ["c"]})


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"exclude": ["c"]}, {"a", "c/x", "c/new"}),
        ({"include": ["d", "*.txt"]}, {"a", "c/x", "c/new"}),
        ({}, set()),
    ],
)
def test_what_the_backup_did_not_cover_is_not_deleted_when_the_plan_was_widened_since(
    tmp_path: Path, rules: dict[str, list[str]], kept: set[str]
) -> None:
    make(tmp_path, "a", "c/x", "d/e/f")
    narrow = source_of(tmp_path, **rules)
    _, backup = back_up(narrow)
    definition = definition_of(narrow)
    make(tmp_path, "c/new", "d/new")
    InPlace(source_of(tmp_path), backup, EXACT, (), definition).run()
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == kept | {"d/e/f"} | (set() if rules else {"a", "c/x"})


def test_a_file_that_a_backup_skipped_is_not_deleted_by_its_restore(tmp_path: Path) -> None:
    make(tmp_path, "a", "busy")
    skipping = source_of(tmp_path, lambda path: os.utime(tmp_path / "busy"), on_change="skip")
    with skipping.view() as view:
        backup = [view.read(TREE, piece, None).rows for piece in view.partition(TREE)]
        definition = dict(view.definition)
    assert b"busy" not in backup[0]["path"].to_pylist()
    InPlace(source_of(tmp_path), backup, EXACT, (), definition).run()
    assert (tmp_path / "busy").read_text() == "busy"


@pytest.mark.parametrize("definition", [{"left_out": ["xyz"]}, {"left_out": ["0"]}])
def test_a_definition_that_no_backup_has_is_refused(tmp_path: Path, definition: dict[str, object]) -> None:
    _, backup = back_up(source_of(tmp_path))
    with pytest.raises(CorruptionDetected):
        InPlace(source_of(tmp_path), backup, EXACT, (), definition).run()


def test_covered_tells_by_paths_alone(tmp_path: Path) -> None:
    source = source_of(tmp_path, exclude=["d/x*"]).around([tmp_path / "app.db", tmp_path / "repo"], [])
    paths = [b"", b"a", b"d", b"d/x1", b"d/x1/below", b"app.db", b"app.db-wal", b"repo/objects/1", b"repo2"]
    rows = pa.table({"path": pa.array(paths, pa.large_binary()), "offset": pa.array([-1] * len(paths), pa.int64())})
    expected = [True, True, True, False, False, False, True, False, True]
    assert source.covered(TREE, rows).to_pylist() == expected
    assert source_of(tmp_path).covered(TREE, rows) is None
    assert source.covered(TREE, rows.slice(0, 0)).type == pa.bool_()


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A tree that also shows the folder `owned`, which lies in it, in another place."""
    tree = tmp_path / "tree"
    make(tree, "owned/inside", "seen/.keep", "a")
    subprocess.run(["mount", "--bind", str(tree / "owned"), str(tree / "seen")], check=True)
    yield tree
    subprocess.run(["umount", str(tree / "seen")], check=True)


def test_what_is_left_out_is_so_by_whatever_way_it_is_reached(bound: Path, tmp_path: Path) -> None:
    os.link(bound / "owned" / "inside", bound / "second")
    (tmp_path / "way").symlink_to(bound / "owned")
    source = source_of(bound).around([tmp_path / "way", bound / "owned" / "inside"], [])
    with source.view() as view:
        assert view.listing.paths == [b"", b"a"]
        assert sum("is left out: it is the repository's" in sentence for sentence in view.warnings) == 3


def test_what_comes_to_be_in_a_place_that_is_left_out_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, "a", "d/app.db-wal")
    _, backup = back_up(source_of(tmp_path))
    (tmp_path / "d" / "app.db-wal").unlink()
    source = source_of(tmp_path).around([tmp_path / "d" / f"app.db{end}" for end in ("", "-wal", "-shm")], [])
    (tmp_path / "d" / "app.db-shm").write_text("new")
    before = look(tmp_path)
    for mode in (EXACT, MERGE):
        target = InPlace(source, backup, mode)
        target.run()
        assert {path: seen[4] for path, seen in look(tmp_path).items()} == {p: seen[4] for p, seen in before.items()}
    restore(source, backup)
    assert look(tmp_path)[b"d/app.db-shm"] == before[b"d/app.db-shm"]
    assert not (tmp_path / "d" / "app.db-wal").exists()


def test_an_exact_restore_leaves_a_repository_in_the_tree_and_the_folders_above_it(tmp_path: Path) -> None:
    make(tmp_path, "a")
    source = source_of(tmp_path).around([tmp_path / "deep" / "repository"], [])
    _, backup = back_up(source)
    make(tmp_path, "deep/repository/objects/1", "deep/surplus")
    InPlace(source, backup).run()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "a",
        "deep/repository/objects/1",
    }


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_the_plan_and_its_keys_are_backed_up_but_never_written_or_deleted_in_place(
    tmp_path: Path, mode: RestoreMode
) -> None:
    make(tmp_path, "plan.yaml", "keys/old.key", "a")
    source = source_of(tmp_path).around([], [tmp_path / name for name in ("plan.yaml", "keys/new.key", "keys/old.key")])
    _, backup = back_up(source)
    assert b"plan.yaml" in backup[0]["path"].to_pylist()
    (tmp_path / "plan.yaml").write_text("newer")
    (tmp_path / "keys" / "old.key").unlink()
    make(tmp_path, "keys/new.key")
    (tmp_path / "a").write_text("newer")
    notes = InPlace(source, backup, mode).run()
    assert "keys/old.key, plan.yaml stayed as they are" in notes[0]
    assert (tmp_path / "plan.yaml").read_text() == "newer"
    assert os.listdir(tmp_path / "keys") == ["new.key"]
    assert (tmp_path / "a").read_text() == "a"


def test_a_folder_with_a_key_in_it_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    make(tmp_path, "keys")
    _, backup = back_up(source_of(tmp_path))
    (tmp_path / "keys").unlink()
    make(tmp_path, "keys/one")
    with pytest.raises(RestoreRefused, match="keys/one must stay"):
        InPlace(source_of(tmp_path).around([], [tmp_path / "keys" / "one"]), backup).run()


def test_a_location_is_the_same_by_every_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "tree/a")
    (tmp_path / "link").symlink_to("tree")
    monkeypatch.chdir(tmp_path)
    live = source_of(tmp_path / "tree").location()
    for spelling in ("tree", "./link", "tree/../link/", f"file://{tmp_path}/tree", f"file://localhost{tmp_path}/link/"):
        assert source_of("elsewhere").location(spelling).same(live), spelling
        assert source_of(spelling).location().same(live), spelling
    assert not source_of(tmp_path / "tree" / "a").location().same(live)
    assert live.holds(source_of(tmp_path / "link" / "deep").location())
    assert source_of("x", include=["a"], exclude=["b"]).location().part == "only a; not b"


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_what_is_at_another_place_is_counted_and_kept_aside(tmp_path: Path, mode: RestoreMode) -> None:
    make(tmp_path, "tree/a", "tree/d/b", "copy/a", "copy/own/file")
    (tmp_path / "copy" / "a").write_text("a stranger's")
    source = source_of(tmp_path / "tree")
    _, backup = back_up(source)
    scope = replace(InPlace(source, backup, mode).scope, in_place=False, overwrite=mode is EXACT)
    target = source.target(scope, str(tmp_path / "copy"))
    assert target.occupied() == "a folder with 3 entries"
    target.preflight()
    target.apply(TREE, backup[0])
    target.commit()
    target.abort()
    (kept,) = tmp_path.glob("lastgood-kept-aside-trading-*")
    assert (kept / "copy" / "a").read_text() == "a stranger's"
    assert (kept / "copy" / "own" / "file").exists() == (mode is EXACT)
    assert (tmp_path / "copy" / "own" / "file").exists() == (mode is MERGE)
    assert f"a was there before the restore; it is kept as {kept}/copy/a." in target.notes
    assert (tmp_path / "copy" / "a").read_text() == "tree/a"


def test_what_is_at_a_place_is_told(tmp_path: Path) -> None:
    source = source_of(tmp_path / "tree")
    scope = InPlace(source, []).scope
    make(tmp_path, "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    make(tmp_path, "one/file")
    told = {
        name: source.target(scope, str(tmp_path / name)).occupied()
        for name in ("file", "empty", "dangling", "pipe", "one", "x")
    }
    assert told == {
        "file": "a file of 4 bytes",
        "empty": None,
        "dangling": None,
        "pipe": "a FIFO",
        "one": "a folder with 1 entry",
        "x": None,
    }
