"""Files that change while they are read, and parts that are read again over a base."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import SourceChanged, SourceUnavailable
from blocks.sources.files import FilesSource
from blocks.sources.files.rows import TREE
from blocks.sources.reading import FullRead
from blocks.sources.view import read_whole
from tests.blocks.sources.files.kit import (
    MIB,
    Bystander,
    back_up,
    follow_up,
    known,
    lay_over,
    look,
    restore,
    rewrite,
    source_of,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def opened(source: FilesSource) -> list[bytes]:
    assert isinstance(source._watch, Bystander)
    return source._watch.opened


def paths_of(tables: list[pa.Table]) -> set[bytes]:
    return {path for table in tables for path in table["path"].to_pylist()}


def once(action: object) -> object:
    """Make a step that acts when `b` is read for the first time."""
    done: list[bytes] = []

    def step(path: bytes) -> None:
        if path == b"b" and not done:
            done.append(path)
            action()  # type: ignore[operator]

    return step


def rewrite_keeping_size_and_mtime(path: Path) -> None:
    rewrite(path, os.urandom(path.stat().st_size), keep_mtime=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"longer" * 1000),
        lambda path: os.truncate(path, 3),
        lambda path: os.truncate(path, 0),
        rewrite_keeping_size_and_mtime,
        lambda path: os.chmod(path, 0o600),
        lambda path: (path.rename(path.parent / "b2"), path.write_bytes(b"replaced")),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_read_again(tree: Path, change: object) -> None:
    source = source_of(tree, once(lambda: change(tree / "b")))  # type: ignore[operator]
    _, tables = back_up(source)
    assert opened(source).count(b"b") == 2
    restore(source, tables, tree.parent / "copy")
    assert (tree.parent / "copy" / "b").read_bytes() == (tree / "b").read_bytes()
    assert (tree.parent / "copy" / "b").stat().st_mode == (tree / "b").stat().st_mode


def keep_changing(tree: Path) -> object:
    def step(path: bytes) -> None:
        if path == b"b":
            with open(tree / "b", "ab") as file:
                file.write(b"more")

    return step


def test_a_file_that_changes_each_time_it_is_read_is_an_error_that_names_it(tree: Path) -> None:
    source = source_of(tree, keep_changing(tree), read_attempts=4)
    with pytest.raises(SourceChanged, match=r"^b changed each of the 4 times"):
        back_up(source)
    assert opened(source).count(b"b") == 4


def test_a_file_that_keeps_changing_is_left_out_wholly_where_the_source_says_skip(tree: Path) -> None:
    source = source_of(tree, keep_changing(tree), on_change="skip")
    with source.view() as view:
        reading = view.read(TREE, view.partition(TREE)[0], None)
    assert paths_of([reading.rows]) == {b"", b"a", b"c"}
    assert reading.warnings == ("b kept changing and is not in this backup",)


def test_a_skipped_file_keeps_the_version_of_the_base(tree: Path) -> None:
    bounds, tables = back_up(source_of(tree))
    before = look(tree)
    (tree / "b").write_bytes(b"new")
    merged, warnings = follow_up(source_of(tree, keep_changing(tree), on_change="skip"), bounds, tables)
    assert warnings == ["b kept changing; the backup keeps the version of its base"]
    restore(source_of(tree), merged, tree.parent / "copy")
    assert look(tree.parent / "copy")[b"b"] == before[b"b"]


def test_a_file_that_vanishes_before_it_is_read_is_taken_as_deleted(tree: Path) -> None:
    with source_of(tree).view() as view:
        os.unlink(tree / "c")
        reading = view.read(TREE, view.partition(TREE)[0], None)
        view.finish()
    assert paths_of([reading.rows]) == {b"", b"a", b"b"}
    assert reading.warnings == ("c vanished while the backup was made and is taken as deleted",)


def test_a_vanished_folder_takes_its_files_and_links_with_it(tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d" / "file").write_text("x")
    os.symlink("x", tree / "d" / "link")
    with source_of(tree).view() as view:
        (tree / "d").rename(tree.parent / "elsewhere")
        reading = view.read(TREE, view.partition(TREE)[0], None)
    assert paths_of([reading.rows]) & {b"d/file", b"d/link"} == set()
    assert len(reading.warnings) == 2


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_takes_a_files_place_is_neither_followed_nor_waited_for(tree: Path, kind: str) -> None:
    (tree.parent / "secret").write_text("not to be read")
    with source_of(tree).view() as view:
        os.unlink(tree / "b")
        if kind == "link":
            os.symlink(tree.parent / "secret", tree / "b")
        elif kind == "fifo":
            os.mkfifo(tree / "b")
        else:
            (tree / "b").mkdir()
        with pytest.raises(SourceChanged, match=r"^b changed"):
            view.read(TREE, view.partition(TREE)[0], None)


def test_a_folder_swapped_for_a_link_never_leads_out_of_the_tree(tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d" / "file").write_text("inside")
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    with source_of(tree).view() as view:
        (tree / "d").rename(tree.parent / "moved")
        os.symlink(outside, tree / "d")
        reading = view.read(TREE, view.partition(TREE)[0], None)
    assert b"d/file" not in paths_of([reading.rows])


def test_a_link_that_became_a_file_is_a_change(tree: Path) -> None:
    os.symlink("a", tree / "l")
    with source_of(tree).view() as view:
        os.unlink(tree / "l")
        (tree / "l").write_text("file")
        with pytest.raises(SourceChanged, match=r"^l changed"):
            view.read(TREE, view.partition(TREE)[0], None)


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("moment", ["between parts", "after the last"])
def test_a_file_in_several_parts_must_stay_the_same_from_the_first_to_the_end(
    tree: Path, policy: str, moment: str
) -> None:
    (tree / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
    source = source_of(tree, part_size_bytes=MIB, on_change=policy)

    def read_all() -> None:
        with source.view() as view:
            for number, bounds in enumerate(view.partition(TREE)):
                if moment == "between parts" and number == 2:
                    rewrite_keeping_size_and_mtime(tree / "big")
                view.read(TREE, bounds, None)
            if moment == "after the last":
                os.unlink(tree / "big")
            view.finish()

    with pytest.raises(SourceChanged, match="the file big changed while its parts were read") as caught:
        read_all()
    assert "several parts" in caught.value.hint


def test_a_missing_root_and_a_root_that_is_a_file_are_unavailable(tree: Path) -> None:
    for place in (tree / "missing", tree / "a"):
        with pytest.raises(SourceUnavailable, match=place.name), source_of(place).view():
            pass


def test_unchanged_files_are_not_opened_again(tree: Path) -> None:
    (tree / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
    os.symlink("a", tree / "link")
    bounds, tables = back_up(source_of(tree, part_size_bytes=MIB))
    (tree / "a").write_text("changed")
    os.unlink(tree / "c")
    (tree / "new").write_text("new")
    source = source_of(tree, part_size_bytes=MIB)
    merged, _ = follow_up(source, bounds, tables)
    assert opened(source) == [b"a", b"new"]
    restore(source, merged, tree.parent / "copy")
    assert look(tree.parent / "copy") == look(tree)


def test_a_read_without_a_base_reads_everything(tree: Path) -> None:
    bounds, _ = back_up(source_of(tree))
    source = source_of(tree)
    with source.view() as view:
        for piece in bounds:
            assert read_whole(view, TREE, piece).unchanged is None
    assert opened(source) == [b"a", b"b", b"c"]


def test_nothing_but_what_was_touched_is_read_of_a_file_in_many_parts(tree: Path) -> None:
    (tree / "big").write_bytes(random.Random(1).randbytes(5 * MIB))
    bounds, tables = back_up(source_of(tree, part_size_bytes=MIB))
    content = (tree / "big").read_bytes()
    rewrite(tree / "big", content[: 2 * MIB] + b"patched" + content[2 * MIB + 7 :])
    source = source_of(tree, part_size_bytes=MIB)
    merged, _ = follow_up(source, bounds, tables)
    assert set(opened(source)) == {b"big"}
    restore(source, merged, tree.parent / "copy")
    assert look(tree.parent / "copy") == look(tree)


def test_a_file_that_outgrew_its_part_since_the_walk_is_never_cut_off(tree: Path) -> None:
    (tree / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
    bounds, _ = back_up(source_of(tree, part_size_bytes=MIB))
    os.truncate(tree / "big", MIB // 2)
    with source_of(tree, part_size_bytes=MIB).view() as view:
        (tree / "big").write_bytes(random.Random(2).randbytes(3 * MIB))
        tables = [view.read(TREE, piece, None).rows for piece in bounds]
        view.finish()
    restore(source_of(tree), tables, tree.parent / "copy")
    assert (tree.parent / "copy" / "big").read_bytes() == (tree / "big").read_bytes()


SIZES = st.one_of(
    st.none(),
    st.just("folder"),
    st.just("link"),
    st.tuples(st.sampled_from([0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB, 3 * MIB + 5]), st.integers(0, 2)),
)
GENERATIONS = st.lists(st.fixed_dictionaries(dict.fromkeys(("a", "m", "m-1", "z"), SIZES)), min_size=2, max_size=3)


def become(tree: Path, generation: dict) -> None:
    """Make the entries of a tree what a generation says, leaving alone what it already is."""
    for name, wanted in generation.items():
        path = tree / name
        if wanted is None or not isinstance(wanted, tuple) or not path.is_file() or path.is_symlink():
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.is_dir():
                (path / "inside").unlink()
                path.rmdir()
        if wanted == "folder":
            path.mkdir()
            (path / "inside").write_bytes(b"inside")
        elif wanted == "link":
            path.symlink_to("a")
        elif wanted is not None:
            content = random.Random(wanted[1]).randbytes(wanted[0])
            if not path.exists():
                path.write_bytes(content)
            elif path.read_bytes() != content:
                rewrite(path, content)


@settings(max_examples=40, deadline=None)
@given(GENERATIONS, st.booleans())
def test_boundaries_of_an_old_full_serve_a_tree_that_grew_shrank_and_changed_its_kinds(
    generations: list, relied_on: bool
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        become(tree, generations[0])
        bounds, tables = back_up(source_of(tree, part_size_bytes=MIB))
        for number, generation in enumerate(generations[1:]):
            become(tree, generation)
            source = source_of(tree, part_size_bytes=MIB)
            if relied_on:
                tables, _ = follow_up(source, bounds, tables)
            else:
                with source.view() as view:
                    tables = [
                        lay_over(table, view.read(TREE, piece, None))
                        for piece, table in zip(bounds, tables, strict=True)
                    ]
            copy = Path(folder, f"copy{number}")
            restore(source, tables, copy)
            assert look(copy) == look(tree)


def test_what_a_base_knows_of_one_part_says_nothing_of_another(tree: Path) -> None:
    (tree / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
    bounds, tables = back_up(source_of(tree, part_size_bytes=MIB))
    source = source_of(tree, part_size_bytes=MIB)
    with source.view() as view:
        for piece, table in zip(bounds, tables, strict=True):
            reading = view.read(TREE, piece, known(table))
            files = table.filter(pa.compute.is_in(table["kind"], pa.array(["file", "span", None], "large_string")))
            assert isinstance(reading, FullRead)
            assert len(reading.unchanged or []) == files.num_rows
    assert opened(source) == []
