"""What says where a record is, and lies: a lookup finds the record or ends as corruption, and a verification tells."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import CorruptionDetected
from blocks.records import BackupMetadata, BackupStatus
from blocks.rows.parquet import FIRST_KEYS, pack_keys, unpack_keys
from blocks.rows.selection import Selection
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.faults.forged_manifests import first_segment
from tests.faults.forging import Manifest, replace_manifest, replace_plaintext, unlocked
from tests.faults.kept import error_of
from tests.faults.live_state import Entry, dump_of, restored, tree_of
from tests.faults.place import Place

ORDERS, TREE = "ledger/orders", "models/tree"


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def key_of(order: int) -> str:
    return text(b"\x10" + (order + 2**63).to_bytes(8, "big"))


EXCLUDING: dict[str, dict[str, Any]] = {
    "it ends before the key": {"last": key_of(9_000)},
    "it begins behind the key": {"first": key_of(20_000), "last": key_of(20_000)},
    "its filter leaves the key out": {"filter": text(b"\x07" + bytes(8))},
    "its filter is no base64": {"filter": "%%%"},
    "its filter is no text of base64": {"filter": "\u2603"},
    "its filter is empty": {"filter": ""},
    "its filter has no functions": {"filter": text(b"\x00" + b"\xff" * 8)},
    "its filter has too many functions": {"filter": text(b"\xff" + b"\xff" * 8)},
    "its filter has no bits": {"filter": text(b"\x07")},
    "its filter is too large": {"filter": text(b"\x07" + b"\xff" * 5000)},
    "its beginning is no base64": {"first": "%"},
    "its beginning is cut off": {"first": "EIA"},
    "its end is no base64": {"last": "\u2603"},
}
"""What is said of the keys of a segment that holds one: each leaves it out, or cannot be read."""

ODD: dict[str, dict[str, Any]] = {
    "it begins before": {"first": key_of(-5)},
    "it is turned around": {"first": key_of(10_001), "last": key_of(1)},
    "its end is long": {"last": text(b"\xff" * 1000)},
    "its keys have other types": {"kinds": ["t"]},
    "its keys have no types": {"kinds": []},
    "its keys have more columns": {"kinds": ["i", "i"]},
    "its keys have types that nobody knows": {"kinds": ["xyz"]},
}
"""What is wrong and leaves out nothing, or nothing in a chain where others say it right."""


def look_up(place: Place, backup: BackupMetadata, order: int) -> list[str]:
    """Restore one order by its key, and return what came back."""
    to = place.folder / "target.db"
    make_restore(
        place.plan, RestoreRequest(backup.backup_id, selection=Selection((ORDERS,), (str(order),)), to=str(to))
    )
    return [line for line in dump_of(to) if line.startswith('INSERT INTO "orders"')]


def line_of(place: Place, order: int) -> list[str]:
    return [line for line in place.oracle.dump if line.startswith(f'INSERT INTO "orders" VALUES({order},')]


def is_found_by_a_verification(place: Place, backup: BackupMetadata) -> None:
    result = make_verification(place.plan, backup.backup_id, deep=False)
    assert result.status is BackupStatus.CORRUPTED
    assert backup.backup_id in result.findings[0]
    assert ".pack" in result.findings[0]
    assert ORDERS in result.findings[0]


@pytest.fixture(params=["shared", "alone"])
def either(request) -> Place:
    return request.getfixturevalue("place" if request.param == "shared" else "place_alone")


def lying(place: Place, backup: BackupMetadata, **keys: Any) -> None:
    replace_manifest(
        place.root, unlocked(place.plan), backup, lambda data: first_segment(data)["key_range"].update(keys)
    )


def test_a_record_is_found_by_its_key(either):
    assert look_up(either, either.incremental, 10_001) == line_of(either, 10_001) != []


@pytest.mark.parametrize("lie", EXCLUDING)
def test_a_range_that_leaves_out_a_key_is_never_taken_for_the_absence_of_the_record(either, lie):
    lying(either, either.incremental, **EXCLUDING[lie])
    with pytest.raises(CorruptionDetected) as caught:
        look_up(either, either.incremental, 10_001)
    assert caught.value.hint
    is_found_by_a_verification(either, either.incremental)
    assert restored(either.plan, either.incremental.backup_id, either.folder / "target") == either.oracle


@pytest.mark.parametrize("lie", ODD)
def test_a_range_that_is_wrong_otherwise_does_no_harm_and_is_found(either, lie):
    lying(either, either.incremental, **ODD[lie])
    assert look_up(either, either.incremental, 10_001) == line_of(either, 10_001)
    is_found_by_a_verification(either, either.incremental)


PATHS: dict[str, dict[str, Any]] = {
    "it ends before the path": {"last": text(b"0m")},
    "it begins behind the path": {"first": text(b"0n"), "last": text(b"0z")},
    "its beginning is no base64": {"first": "%"},
    "its end is no base64": {"last": "\u2603"},
}
"""What is said of the paths of a segment that holds one: each leaves it out, or cannot be read."""


def range_of_tree(data: Manifest) -> dict[str, Any]:
    held = data["changed"] if data["inherits"] else data["collections"]
    (tree,) = (one for one in held if one["name"] == TREE)
    return next(part["segment"]["key_range"] for part in tree["parts"] if part["segment"])


def path_restored(place: Place, backup: BackupMetadata, key: str) -> dict[str, Entry]:
    """Restore what one path stands for, and return what came back."""
    to = place.folder / "target"
    make_restore(place.plan, RestoreRequest(backup.backup_id, selection=Selection((TREE,), (key,)), to=str(to)))
    return tree_of(to)


@pytest.mark.parametrize("key", ["made 1.txt", "made*"])
def test_a_path_is_found_by_its_range(either, key):
    assert path_restored(either, either.incremental, key) == {"made 1.txt": either.oracle.tree["made 1.txt"]}


@pytest.mark.parametrize("key", ["made 1.txt", "made*"])
@pytest.mark.parametrize("lie", PATHS)
def test_a_range_that_leaves_out_a_path_is_never_taken_for_its_absence(either, lie, key):
    replace_manifest(
        either.root, unlocked(either.plan), either.incremental, lambda data: range_of_tree(data).update(PATHS[lie])
    )
    with pytest.raises(CorruptionDetected) as caught:
        path_restored(either, either.incremental, key)
    assert caught.value.hint
    assert make_verification(either.plan, either.incremental.backup_id, deep=False).status is BackupStatus.CORRUPTED


def test_types_of_paths_that_leave_out_one_are_never_taken_for_its_absence(either):
    replace_manifest(
        either.root, unlocked(either.plan), either.full, lambda data: range_of_tree(data).update(kinds=["t", "in"])
    )
    for key in ("weights.bin", "deep", "weights*"):
        with pytest.raises(CorruptionDetected, match=TREE):
            path_restored(either, either.full, key)


def test_types_of_keys_that_leave_out_a_record_are_never_taken_for_its_absence(either):
    lying(either, either.full, kinds=["t"])
    with pytest.raises(CorruptionDetected, match=ORDERS):
        look_up(either, either.full, 5)
    is_found_by_a_verification(either, either.full)


def test_without_a_range_all_rows_are_read(either):
    replace_manifest(
        either.root, unlocked(either.plan), either.incremental, lambda data: first_segment(data).update(keys=None)
    )
    assert look_up(either, either.incremental, 10_001) == line_of(either, 10_001)
    assert make_verification(either.plan, either.incremental.backup_id, deep=False).status is BackupStatus.VERIFIED


Said = Callable[[list[bytes]], str | None]

FIRST: dict[str, Said] = {
    "all but the first are later": lambda keys: pack_keys([keys[0], *[b"\xff"] * (len(keys) - 1)]),
    "the last one is later": lambda keys: pack_keys([*keys[:-1], b"\xff"]),
    "all are later": lambda keys: pack_keys([b"\xff"] * len(keys)),
    "one is left out": lambda keys: pack_keys(keys[:-1]),
    "one is too many": lambda keys: pack_keys([*keys, b"\xff"]),
    "they descend": lambda keys: pack_keys(keys[::-1]),
    "none is there": lambda keys: "",
    "they are missing": lambda keys: None,
    "they are no base64": lambda keys: "%%%",
    "one is cut off": lambda keys: text(b"\x40abc"),
    "one is too long": lambda keys: text(bytes([65]) + bytes(65)),
}
"""What a file says of the keys that its row groups begin with."""


def rewritten(rows: pa.Table, said: str | None, *empty: int) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    rows = rows.replace_schema_metadata(None)  # where a reader puts what the file said
    with pq.ParquetWriter(sink, rows.schema) as writer:
        writer.write_table(rows, row_group_size=2)
        for _ in empty:
            writer.write_table(rows.slice(0, 0))
        if said is not None:
            writer.add_key_value_metadata({FIRST_KEYS: said})
    return sink.getvalue()


def taken_apart(plaintext: bytes) -> tuple[pa.Table, list[bytes]]:
    file = pq.ParquetFile(pa.BufferReader(plaintext))
    return file.read(), unpack_keys(file.metadata.metadata[FIRST_KEYS.encode()].decode())


def right_or_corrupted(place: Place, order: int) -> bool:
    """Return whether a record was found; where it was not, that was told as corruption."""
    found: list[str] = []
    error = error_of(lambda: found.extend(look_up(place, place.incremental, order)))
    assert isinstance(error, CorruptionDetected) or found == line_of(place, order)
    assert error is None or error.hint
    return error is None


@pytest.mark.parametrize("lie", FIRST)
def test_row_groups_that_begin_otherwise_than_their_file_says_are_found(place_alone, lie):
    place = place_alone

    def change(plaintext: bytes) -> pa.Buffer:
        rows, keys = taken_apart(plaintext)
        assert len(keys) > 2
        return rewritten(rows, FIRST[lie](keys))

    replace_plaintext(place.root, unlocked(place.plan), place.incremental, (ORDERS, 0), change)
    assert not right_or_corrupted(place, 10_001)
    is_found_by_a_verification(place, place.incremental)
    assert restored(place.plan, place.incremental.backup_id, place.folder / "target") == place.oracle


def footer_of(length: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-8] + length.to_bytes(4, "little") + data[-4:]


FILES: dict[str, Callable[[bytes], Any]] = {
    "a row group without rows": lambda data: rewritten(
        taken_apart(data)[0], pack_keys([*taken_apart(data)[1], b"\xff"]), 1
    ),
    "rows in another order": lambda data: rewritten(
        taken_apart(data)[0].take([5, 4, 3, 2, 1, 0]), pack_keys(taken_apart(data)[1])
    ),
    "no rows": lambda data: rewritten(taken_apart(data)[0].slice(0, 0), ""),
    "no columns": lambda data: rewritten(pa.table({}), ""),
    "no column of the key": lambda data: rewritten(
        taken_apart(data)[0].drop_columns(["id"]), pack_keys(taken_apart(data)[1])
    ),
    "no tombstones": lambda data: rewritten(
        taken_apart(data)[0].drop_columns(["_key"]), pack_keys(taken_apart(data)[1])
    ),
    "a column twice": lambda data: rewritten(
        pa.Table.from_arrays([taken_apart(data)[0].column(0)] * 2, ["_key", "_key"]), pack_keys(taken_apart(data)[1])
    ),
    "nothing at all": lambda data: b"",
    "four bytes": lambda data: b"PAR1",
    "no Parquet": lambda data: b"x" * 100_000,
    "a footer longer than the file": footer_of(2**32 - 1),
    "a footer of nothing": footer_of(0),
    "a footer that begins before": footer_of(70_000),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_is_refused_by_lookups_and_found(place_alone, name):
    place = place_alone
    replace_plaintext(place.root, unlocked(place.plan), place.incremental, (ORDERS, 0), FILES[name])
    if right_or_corrupted(place, 10_001):
        assert name == "a row group without rows"
    result = make_verification(place.plan, place.incremental.backup_id, deep=False)
    assert result.status is BackupStatus.CORRUPTED
    assert ORDERS in result.findings[0] or place.incremental.backup_id in result.findings[0]


def test_a_lookup_takes_no_memory_for_a_size_that_is_only_claimed(place_alone):
    place = place_alone

    def change(data: Manifest) -> None:
        blob = first_segment(data)["data"]
        blob["size_bytes"] = 42 + (2**36 // 65_552) * 65_552
        data["objects"][0]["size_bytes"] = 2**62

    replace_manifest(place.root, unlocked(place.plan), place.incremental, change)
    with pytest.raises(CorruptionDetected, match="cut off"):
        look_up(place, place.incremental, 10_001)
