"""Rows that no backup ever wrote: a restore refuses them and changes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected, RestoreRefused
from blocks.sources.files.rows import SCHEMA, TREE, Range
from tests.blocks.sources.files.kit import MIB, look, restore, rows_of, source_of, untouched

HOSTILE = [b"/etc/x", b"../x", b"a/../../x", b"..", b".", b"./x", b"a//x", b"x/", b"/", b"a\0b"]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on a disk: what a file system in memory makes of an absurd size is another thing."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("path", HOSTILE)
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_a_path_that_leads_out_is_refused(tree: Path, path: bytes, kind: str) -> None:
    rows = rows_of({"path": b"", "kind": "dir"}, {"path": path, "kind": kind, "target": b"/etc"})
    with pytest.raises(CorruptionDetected, match="leads out of the tree"):
        restore(source_of(tree), [rows], tree.parent / "copy")
    assert os.listdir(tree.parent) == ["tree"]


@pytest.mark.parametrize("path", [*HOSTILE, b"x"])
def test_content_without_a_file_is_refused(tree: Path, path: bytes) -> None:
    rows = rows_of({"path": b"", "kind": "dir"}, {"path": path, "offset": 0, "kind": None, "data": b"evil"})
    with pytest.raises(CorruptionDetected, match="which is no file"):
        restore(source_of(tree), [rows], tree.parent / "copy")
    assert os.listdir(tree.parent) == ["tree"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"path": b"l", "kind": "symlink", "target": b"OUT"}, {"path": b"l/b", "kind": "file"}], "lies beneath l"),
        ([{"path": b"l", "kind": "symlink", "target": b"OUT"}, {"path": b"l/x/b", "kind": "dir"}], "lies beneath l"),
        ([{"path": b"f", "kind": "file"}, {"path": b"f/x/y", "kind": "file"}], "lies beneath f"),
        ([{"path": b"f", "kind": "file"}, {"path": b"f", "kind": "dir"}], "f is in the backup twice"),
        ([{"path": b"l", "kind": "symlink", "target": b"OUT"}, {"path": b"l", "kind": "file"}], "twice"),
        ([{"path": b"", "kind": "symlink", "target": b"OUT"}], "root is no folder"),
        ([{"path": b"f", "kind": "socket"}], "not known"),
        ([{"path": b"f", "kind": None}], "not known"),
        ([{"path": b"l", "kind": "symlink", "target": None}], "no valid target"),
        ([{"path": b"l", "kind": "symlink", "target": b""}], "no valid target"),
        ([{"path": b"l", "kind": "symlink", "target": b"a\0b"}], "no valid target"),
        ([{"path": b"f", "kind": "file", "offset": -2}], "impossible offset"),
        ([{"path": b"f", "kind": "file", "offset": 5, "data": b"x"}], "impossible offset"),
        ([{"path": b"f", "kind": "file"}, {"path": b"f", "offset": 0, "data": None}], "has no content"),
        ([{"path": b"f", "kind": "file"}, {"path": b"f", "offset": 0, "data": b"x" * (MIB + 1)}], "more than fits"),
        ([{"path": b"d", "kind": "dir"}, {"path": b"d", "offset": 0, "data": b"x"}], "which is no file"),
        ([{"path": b"f", "kind": "file", "uid": 1 << 40}], "size, owner or time"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    tree: Path, outside: Path, entries: list[dict[str, object]], message: str
) -> None:
    out = os.fsencode(outside)
    rows = rows_of(*({**e, "target": out} if e.get("target") == b"OUT" else e for e in entries))
    before = look(tree)
    for order in (rows, rows.take(list(range(rows.num_rows))[::-1])):
        with pytest.raises(CorruptionDetected, match=message):
            restore(source_of(tree), [order])
    assert look(tree) == before
    assert untouched(outside)


@pytest.mark.parametrize("size", [-1, 1 << 62])
def test_an_impossible_size_is_refused_before_anything_changes(tree: Path, size: int) -> None:
    before = look(tree)
    rows = rows_of({"path": b"f", "kind": "file", "size": size})
    with pytest.raises((RestoreRefused, CorruptionDetected)):
        restore(source_of(tree), [rows])
    assert look(tree) == before


def test_a_column_of_a_wrong_type_is_refused(tree: Path) -> None:
    rows = rows_of({"path": b"f", "kind": "file"})
    wrong = rows.set_column(rows.column_names.index("mode"), "mode", pa.array(["rw"], pa.large_string()))
    with pytest.raises(CorruptionDetected, match="'mode'"):
        restore(source_of(tree), [wrong])
    without = rows.set_column(SCHEMA.get_field_index("offset"), "offset", pa.nulls(1))
    with pytest.raises(CorruptionDetected, match="no path or no offset"):
        restore(source_of(tree), [without])


@pytest.mark.parametrize(
    "edge", ["x", 5, {}, [], ["61"], ["61", 3], ["zz", -2], ["6", -2], ["61", -2 - MIB], ["61", MIB - 1], ["61", 0.5]]
)
def test_bounds_that_were_never_drawn_are_refused(tree: Path, edge: object) -> None:
    with pytest.raises(CorruptionDetected, match="bounds that no tree has"):
        Range.parse({"after": None, "upto": edge})
    with source_of(tree).view() as view, pytest.raises(CorruptionDetected):
        view.read(TREE, {"after": edge, "upto": None}, None)
