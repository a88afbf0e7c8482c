"""Modification times of any year come back, to the nanosecond, without another column."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected
from blocks.sources.files.rows import SCHEMA, TREE
from tests.blocks.sources.files.kit import (
    MIB,
    InPlace,
    back_up,
    follow_up,
    known,
    lay_over,
    look,
    restore,
    rows_of,
    source_of,
)

SECOND = 1_000_000_000
TIMES = {
    "a beginning": (-(1 << 63)) // SECOND * SECOND,
    "before 1677": -9_223_372_037 * SECOND + 5,
    "the least that fits": -(1 << 63),
    "after 2262": 9_223_372_036_854_775_808,
    "the greatest that fits": (1 << 63) - 1,
    "3000": 32_503_680_000 * SECOND + 123_456_789,
    "near the end of time": ((1 << 55) - 1) * SECOND + 999_999_999,
    "long ago": -(1 << 55) * SECOND + 1,
    "1969": -1,
}


def stamp(path: Path, moment: int) -> None:
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree on a file system that holds any time; all others here only hold some."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for number, moment in enumerate(TIMES.values()):
        (folder / f"{number}d").mkdir()
        for name in (f"{number}f", f"{number}d/inside"):
            (folder / name).write_bytes(os.urandom(10))
        (folder / f"{number}l").symlink_to("nowhere")
        for name in (f"{number}f", f"{number}d/inside", f"{number}d", f"{number}l"):
            stamp(folder / name, moment)
    (folder / "big").write_bytes(os.urandom(3 * MIB))
    stamp(folder / "big", TIMES["3000"])
    stamp(folder, TIMES["before 1677"])
    if (folder / "big").lstat().st_mtime_ns != TIMES["3000"]:
        raise RuntimeError("these tests need a temporary folder that holds the year 3000: tmpfs, xfs or btrfs")
    return folder


def test_any_time_comes_back_to_the_nanosecond_with_and_without_content(tree: Path, tmp_path: Path) -> None:
    source = source_of(tree, part_size_bytes=MIB)
    bounds, backup = back_up(source)
    assert {table.schema for table in backup} == {SCHEMA}
    restore(source, backup, tmp_path / "copy")
    assert look(tmp_path / "copy") == look(tree)
    # what is as it was is not read again, and what has another time is told from it by a nanosecond
    stamp(tree / "5f", TIMES["3000"] + 1)
    with source.view() as view:
        readings = [view.read(TREE, piece, known(base)) for piece, base in zip(bounds, backup, strict=True)]
    files = [row for one in readings for row in one.rows.to_pylist() if row["kind"] in ("file", "span")]
    assert [row["path"] for row in files] == [b"5f"]
    after = [lay_over(base, one) for base, one in zip(backup, readings, strict=True)]
    (tree / "5f").write_text("newer")
    stamp(tree / "2f", 77)
    stamp(tree / "0d", TIMES["3000"])
    (tree / "3l").unlink()
    InPlace(source, after).run()
    stamp(tmp_path / "copy" / "5f", TIMES["3000"] + 1)
    assert look(tree) == look(tmp_path / "copy")
    assert not [name for name in os.listdir(tmp_path) if "lastgood" in name]
    assert follow_up(source, bounds, after)[1] == []


def test_who_knows_nothing_of_such_times_gets_the_nearest(tree: Path, tmp_path: Path) -> None:
    _, backup = back_up(source_of(tree))
    rows = {row["path"]: row for table in backup for row in table.to_pylist() if row["offset"] == -1}
    for number, moment in enumerate(TIMES.values()):
        nearest = min(max(moment, -(1 << 63)), (1 << 63) - 1)
        row = rows[b"%df" % number]
        assert row["mtime_ns"] == nearest
        assert row["data"] == (None if nearest == moment else b"%d" % moment)


@pytest.mark.parametrize("text", [b"", b"soon", b"1e9", b"9" * 40, b"1" * 30])
def test_a_time_that_no_file_has_is_refused_before_anything_is_changed(tree: Path, text: bytes) -> None:
    rows = rows_of({"path": b"5f", "kind": "file"}).to_pylist()
    rows[0]["data"] = text
    before = look(tree)
    with pytest.raises(CorruptionDetected, match="5f has a"):
        restore(source_of(tree), [pa.Table.from_pylist(rows, schema=SCHEMA)])
    assert look(tree) == before


def test_a_place_that_holds_fewer_years_is_named_in_a_note(tree: Path, anybodys: Path) -> None:
    _, backup = back_up(source_of(tree))
    (anybodys / "copy").mkdir()
    notes = InPlace(source_of(anybodys / "copy"), backup).run()
    before, after = look(tree), look(anybodys / "copy")
    lost = sum(before[path][1] != seen[1] for path, seen in after.items())
    assert notes == ((f"{lost} entries have another time: this file system does not hold theirs.",) if lost else ())
