"""Whole backups of rows that no source holds, made by someone with the keys of a writer."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected, LastgoodError, RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.files.rows import SCHEMA
from blocks.sources.target import RestoreMode
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.faults.forging import ForgedBackup, unlocked


def file_rows(*rows: dict[str, Any]) -> pa.Table:
    defaults = {"offset": -1, "kind": "file", "mode": 0o644, "mtime_ns": 0, "size": 0, "uid": -1, "gid": -1}
    root = {"path": b"", "kind": "dir", "mode": 0o755}
    full = [{**dict.fromkeys(SCHEMA.names), **defaults, **row} for row in (root, *rows)]
    return pa.Table.from_pylist(full, schema=SCHEMA)


def link(path: bytes, target: bytes) -> dict[str, Any]:
    return {"path": path, "kind": "symlink", "target": target, "size": None}


def text(path: bytes) -> list[dict[str, Any]]:
    chunk = {"path": path, "offset": 0, "kind": None, "mode": None, "size": None, "data": b"evil"}
    return [{"path": path, "size": 4}, chunk]


TREES: dict[str, list[dict[str, Any]]] = {
    "a path above": text(b"../escaped"),
    "a path above by a detour": text(b"deep/../../escaped"),
    "an absolute path": text(b"/tmp/escaped"),
    "a path with a NUL": text(b"esc\0aped"),
    "an empty name": text(b"deep//escaped"),
    "the folder itself": text(b"."),
    "content without an entry": text(b"../escaped")[1:],
    "through a link of its own": [link(b"way", b"../.."), *text(b"way/escaped")],
    "over a link of its own": [link(b"way", b"../../escaped"), *text(b"way")],
    "a link for the root": [{"path": b"", "kind": "symlink", "target": b"../.."}],
    "a file for the root": [{"path": b"", "kind": "file"}],
    "a link to nothing": [link(b"way", b"")],
    "a device": [{"path": b"escaped", "kind": "device"}],
    "an absurd size": [{"path": b"big", "size": 2**63 - 1}],
    "a negative size": [{"path": b"small", "size": -7}],
    "an absurd offset": [{"path": b"big", "size": 4}, text(b"big")[1] | {"offset": 2**62}],
    "a crooked offset": [{"path": b"odd", "size": 4}, text(b"odd")[1] | {"offset": 17}],
    "a name that is too long": text(b"x" * 5000),
    "a file under a file": [*text(b"one"), *text(b"one/two")],
    "the same file twice": [*text(b"one"), *text(b"one")],
}


@pytest.fixture
def tmp_path():
    """A folder on a disk: what a file system in memory makes of an absurd size is another thing."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("name", TREES)
def test_rows_of_a_hostile_tree_never_leave_the_target(place, name, shared):
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "models", shared=shared)
    forged.add("models/tree", file_rows(*TREES[name]))
    backup_id = forged.commit()
    before = place.around()
    target = place.folder / "target"
    target.mkdir()
    with pytest.raises(LastgoodError) as caught:
        make_restore(place.plan, RestoreRequest(backup_id, mode=RestoreMode.EXACT, to=str(target / "tree")))
    assert isinstance(caught.value, CorruptionDetected | RestoreRefused), repr(caught.value)
    assert place.around() == before
    assert not (target / "tree").exists()
    assert list(place.folder.parent.rglob("*escaped*")) == []


@pytest.mark.parametrize("mode", [RestoreMode.MERGE, RestoreMode.EXACT])
def test_links_that_lie_in_the_target_lead_no_file_out_of_it(place, mode):
    """Someone who may write in the target cannot have a restore write elsewhere for him."""
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "models")
    forged.add(
        "models/tree", file_rows({"path": b"way", "kind": "dir", "mode": 0o755}, *text(b"way/file"), *text(b"f"))
    )
    backup_id = forged.commit()
    outside, tree = place.folder / "outside", place.folder / "target" / "tree"
    outside.mkdir()
    (outside / "f").write_text("mine")
    tree.mkdir(parents=True)
    (tree / "way").symlink_to(outside)
    (tree / "f").symlink_to(outside / "f")
    before = place.around()
    try:
        make_restore(
            place.plan, RestoreRequest(backup_id, mode=mode, to=str(tree), overwrite=mode is RestoreMode.EXACT)
        )
    except RestoreRefused:
        assert mode is RestoreMode.MERGE
    else:
        assert (tree / "way" / "file").read_text() == "evil"
        assert not (tree / "way").is_symlink()
    assert place.around() == before


def table_rows(**columns: Any) -> pa.Table:
    return pa.table(columns)


TABLES: dict[str, pa.Table] = {
    "no key": table_rows(symbol=["a"], price=[1.0], note=["x"]),
    "other columns": table_rows(id=[1], escaped=["x"]),
    "a column that is a statement": pa.table({"id": [1], "x\") VALUES (1); ATTACH 'escaped.db' AS y; --": ["x"]}),
    "keys twice": table_rows(id=[1, 1], symbol=["a", "b"], price=[1.0, 1.0], note=["x", "x"]),
    "structures": pa.table({"id": [1], "symbol": [{"a": 1}], "price": [[1.0]], "note": ["x"]}),
    "another key type": pa.table({"id": [[1]], "symbol": ["a"], "price": [1.0], "note": ["x"]}),
    "a key that is NULL": pa.table(
        {"id": pa.array([None], pa.int64()), "symbol": ["a"], "price": [1.0], "note": ["x"]}
    ),
    "nothing": pa.table({"x": pa.array([], pa.int64())}),
}


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_hostile_table_are_refused_or_written_to_their_table_only(place, name, shared):
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "ledger", shared=shared)
    forged.add("ledger/orders", TABLES[name])
    backup_id = forged.commit()
    before = place.around()
    for verb in (
        lambda: make_restore(
            place.plan, RestoreRequest(backup_id, mode=RestoreMode.EXACT, to=str(place.folder / "target.db"))
        ),
        lambda: make_restore(place.plan, RestoreRequest(backup_id, preview=True)),
        lambda: make_verification(place.plan, backup_id),
        lambda: make_restore(place.plan, RestoreRequest(backup_id, selection=Selection(keys=("1",)), preview=True)),
    ):
        with contextlib.suppress(LastgoodError):
            verb()
    own = ("target.db", "repository/verif", f"state/lastgood/{unlocked(place.plan).repository_id}/verif")
    outside = {n: d for n, d in place.around().items() if not n.startswith(own)}
    assert outside == before
    assert list(place.folder.parent.rglob("*escaped*")) == []
