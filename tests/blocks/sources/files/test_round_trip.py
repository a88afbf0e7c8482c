"""A tree that was backed up comes back as it was."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.rows.selection import Selection
from blocks.sources.files.rows import TREE, Range
from blocks.sources.target import RestoreMode, RestoreScope
from tests.blocks.sources.files.kit import MIB, back_up, keys_of, look, restore, source_of


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def round_trip(tree: Path, **fields: object) -> Path:
    """Back up a tree and restore it beside, part by part in reverse."""
    source = source_of(tree, **fields)
    copy = tree.parent / "copy"
    _, tables = back_up(source)
    restore(source, tables[::-1], copy)
    assert look(copy) == look(tree)
    return copy


def test_an_empty_tree_comes_back_empty(tree: Path) -> None:
    os.chmod(tree, 0o750)
    os.utime(tree, ns=(1, 1_234_567_890_123_456_789))
    round_trip(tree)


def test_symbolic_links_come_back_whatever_they_point_at(tree: Path) -> None:
    for name, target in {
        "dangling": "nowhere",
        "absolute": "/etc/passwd",
        "loop": "loop",
        "up": "../..",
        "bytes": b"\xff\n".decode("utf-8", "surrogateescape"),
    }.items():
        os.symlink(target, tree / name)
        os.utime(tree / name, ns=(5, 1_000_000_007), follow_symlinks=False)
    os.chown(tree / "loop", 12, 34, follow_symlinks=False)
    round_trip(tree)


def test_modes_owners_and_times_come_back_to_the_nanosecond(tree: Path) -> None:
    for number, mode in enumerate([0o000, 0o4755, 0o2711, 0o1777, 0o600]):
        path = tree / f"f{number}"
        path.write_bytes(b"x" * number)
        os.chown(path, 1000 + number, 2000)
        os.chmod(path, mode)
        os.utime(path, ns=(0, 999_999_999 * (number - 1) - 1))
    closed = tree / "closed"
    (closed / "deeper").mkdir(parents=True)
    (closed / "deeper" / "file").write_text("hidden")
    os.chmod(closed / "deeper", 0o500)
    os.chmod(closed, 0o000)
    os.utime(closed, ns=(0, 77))
    round_trip(tree)


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe not UTF-8", b"new\nline", b"-rf *", b" ", b"%s", "ä\N{SNOWMAN}".encode(), b"x" * 255, b"..."],
)
def test_names_are_bytes(tree: Path, name: bytes) -> None:
    folder = os.fsencode(tree) + b"/" + name
    os.mkdir(folder)
    Path(os.fsdecode(folder), "inside").write_text("content")
    os.symlink(name, folder + b"/" + name)
    round_trip(tree)


def test_empty_folders_and_very_deep_ones_come_back(tree: Path) -> None:
    (tree / "empty").mkdir()
    deep = tree
    for level in range(150):
        deep /= f"{level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("here")
    (tree / "0" / "1" / "side").write_text("there")
    round_trip(tree)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB - 1, 3 * MIB, 3 * MIB + 1])
def test_files_around_the_chunk_size_come_back(tree: Path, size: int) -> None:
    (tree / "file").write_bytes(random.Random(size).randbytes(size))
    round_trip(tree, part_size_bytes=MIB)
    assert len(back_up(source_of(tree, part_size_bytes=MIB))[0]) >= size // MIB


def test_zeros_and_holes_take_no_row_and_come_back_as_holes(tree: Path) -> None:
    with open(tree / "zeros", "wb") as file:
        file.write(b"a" + b"\0" * (5 * MIB) + b"b")
    (tree / "only").write_bytes(b"\0" * (2 * MIB + 7))
    copy = round_trip(tree)
    _, (rows,) = back_up(source_of(tree))
    assert sorted(rows.filter(pa.compute.is_valid(rows["data"]))["offset"].to_pylist()) == [0, 5 * MIB]
    assert os.stat(copy / "only").st_blocks == 0
    assert os.stat(copy / "zeros").st_blocks * 512 <= 3 * MIB


def test_a_sparse_file_of_5_gb_is_backed_up_by_its_islands(tree: Path) -> None:
    islands = {0: b"first", 3 * 1024 * MIB + 5: b"x" * MIB, 5 * 1024 * MIB - 3: b"end"}
    with open(tree / "disk.img", "wb") as file:
        for offset, content in islands.items():
            file.seek(offset)
            file.write(content)
    (tree / "other").write_text("beside")
    source = source_of(tree, part_size_bytes=2 * MIB)
    bounds, tables = back_up(source)
    assert len(bounds) > 1
    assert sum(table.nbytes for table in tables) < 6 * MIB
    copy = tree.parent / "copy"
    restore(source, tables, copy)
    status = os.stat(copy / "disk.img")
    assert status.st_size == 5 * 1024 * MIB
    assert status.st_blocks * 512 < 8 * MIB
    with open(copy / "disk.img", "rb") as file:
        for offset, content in islands.items():
            file.seek(offset)
            assert file.read(len(content)) == content
    with open(tree / "disk.img", "rb") as one, open(copy / "disk.img", "rb") as two:
        for descriptor in (one.fileno(), two.fileno()):
            assert os.lseek(descriptor, 2 * MIB, os.SEEK_DATA) >= 3 * 1024 * MIB - MIB


def test_parts_are_disjoint_and_complete(tree: Path) -> None:
    for number in range(40):
        (tree / f"{number % 3}").mkdir(exist_ok=True)
        (tree / f"{number % 3}" / f"f{number}").write_bytes(random.Random(number).randbytes(number * 70_000))
    (tree / "1" / "large").write_bytes(random.Random(0).randbytes(5 * MIB + 3))
    bounds, tables = back_up(source_of(tree, part_size_bytes=2 * MIB))
    assert len(bounds) > 10
    assert max(table.nbytes for table in tables) < 3 * MIB
    keys = [key for table in tables for key in keys_of(table).to_pylist()]
    assert len(keys) == len(set(keys))
    assert [piece["after"] for piece in bounds] == [None, *(piece["upto"] for piece in bounds[:-1])]
    assert bounds[-1]["upto"] is None
    assert [Range.parse(piece).to_json() for piece in bounds] == bounds
    for before, after in pairwise(tables):
        assert max(keys_of(before).to_pylist()) < min(keys_of(after).to_pylist())
    round_trip(tree, part_size_bytes=2 * MIB)


def test_many_tiny_files_are_several_parts_by_their_number(tree: Path) -> None:
    for number in range(26_000):
        os.close(os.open(tree / f"{number}", os.O_CREAT | os.O_WRONLY))
    bounds, tables = back_up(source_of(tree))
    assert len(bounds) == 2
    assert sum(table.num_rows for table in tables) == 26_001


def test_parts_may_be_applied_by_several_threads_in_any_order_and_in_pieces(tree: Path) -> None:
    for number in range(30):
        (tree / f"f{number}").write_bytes(random.Random(number).randbytes(number * 200_000))
    source = source_of(tree, part_size_bytes=MIB)
    _, tables = back_up(source)
    pieces = [table.slice(start, 2) for table in tables for start in range(0, table.num_rows, 2)]
    random.Random(1).shuffle(pieces)
    copy = tree.parent / "copy"
    scope = RestoreScope({}, ((TREE, 0),), RestoreMode.EXACT, Selection(), 0)
    target = source.target(scope, str(copy))
    with ThreadPoolExecutor(4) as pool:
        applied = sum(pool.map(lambda piece: target.apply(TREE, piece), pieces))
    assert not copy.exists()
    target.commit()
    assert applied == sum(table.num_rows for table in tables)
    assert look(copy) == look(tree)
    assert sorted(os.listdir(tree.parent)) == ["copy", "tree"]


def test_columns_without_values_may_arrive_without_a_type(tree: Path) -> None:
    (tree / "folder").mkdir()
    source = source_of(tree)
    _, (rows,) = back_up(source)
    for name in ("data", "target", "ctime_ns", "inode", "size"):
        rows = rows.set_column(rows.column_names.index(name), name, pa.nulls(rows.num_rows))
    restore(source, [rows.drop_columns(["ctime_ns"])], tree.parent / "copy")
    assert look(tree.parent / "copy") == look(tree)


def test_special_entries_and_leftovers_of_restores_are_not_kept_and_said(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / ".lastgood-restore-abcd").mkdir()
    with source_of(tree).view() as view:
        assert view.listing.paths == [b""]
        assert len(view.warnings) == 2
        assert any("pipe is a FIFO" in warning for warning in view.warnings)


NAMES = st.binary(min_size=1, max_size=6).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b".."))
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.integers(0, 3), st.integers(-2, 2), st.binary(min_size=1, max_size=3)).map(
        lambda p: (p[2] * (p[0] * MIB))[: max(0, p[0] * MIB + p[1])]
    ),
)
LEAVES = st.one_of(
    st.tuples(st.just("file"), CONTENTS, st.integers(0, 0o7777), st.integers(0, 2**61)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=9).filter(lambda t: b"\0" not in t)),
)
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4).map(lambda d: ("dir", d)), max_leaves=12
)


def build(path: bytes, node: tuple) -> None:
    """Make a generated tree real."""
    if node[0] == "dir":
        os.mkdir(path)
        for name, inner in node[1].items():
            build(path + b"/" + name, inner)
    elif node[0] == "link":
        os.symlink(node[1], path)
    else:
        with open(path, "wb") as file:
            file.write(node[1])
        os.chmod(path, node[2])
        os.utime(path, ns=(0, node[3]))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, TREES, max_size=5), st.dictionaries(NAMES, TREES, max_size=3))
def test_any_tree_comes_back_onto_nothing_and_onto_any_other(nodes: dict, others: dict) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        base = os.fsencode(folder)
        build(base + b"/tree", ("dir", nodes))
        build(base + b"/other", ("dir", others))
        source = source_of(f"{folder}/tree", part_size_bytes=MIB)
        _, tables = back_up(source)
        truth = look(base + b"/tree")
        restore(source, tables, f"{folder}/copy")
        restore(source, tables, f"{folder}/other")
        shutil.rmtree(f"{folder}/tree")
        assert look(base + b"/copy") == truth
        assert look(base + b"/other") == truth


def test_a_restored_tree_reads_as_the_backup_but_for_the_columns_that_only_track(tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d" / "big").write_bytes(random.Random(1).randbytes(3 * MIB))
    os.symlink("d", tree / "link")
    source = source_of(tree, part_size_bytes=MIB)
    bounds, tables = back_up(source)
    restore(source, tables, tree.parent / "copy")
    order = [("path", "ascending"), ("offset", "ascending")]
    with source.at(str(tree.parent / "copy")).view() as view:
        for piece, table in zip(bounds, tables, strict=True):
            again = view.read(TREE, piece, None).rows
            kept = [name for name in again.column_names if name not in TREE.tracking]
            assert again.select(kept).sort_by(order).equals(table.select(kept).sort_by(order))
