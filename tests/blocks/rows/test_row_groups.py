"""Of a segment's file only the footer and the row groups that can hold a key are read."""

from __future__ import annotations

import base64
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import KEY
from blocks.rows.keys import encode_keys
from blocks.rows.parquet import FIRST_KEYS, ROW_GROUP_ROWS, pack_keys, rows_to_parquet, unpack_keys
from blocks.rows.row_groups import RowGroups, checked_order
from blocks.rows.wanted import WantedKeys

COUNT = 5 * ROW_GROUP_ROWS + 17


def rows_of(texts: list[str]) -> tuple[pa.Table, pa.LargeBinaryArray]:
    rng = random.Random(3)
    table = pa.table(
        {
            KEY: pa.nulls(len(texts), pa.large_binary()),
            "id": pa.array(sorted(texts), pa.large_string()),
            "price": pa.array([rng.random() for _ in texts]),
        }
    )
    return table, encode_keys(table, ["id"])


def wanted(*keys: bytes) -> WantedKeys:
    return WantedKeys(frozenset(keys))


ROWS, KEYS = rows_of([f"{n:08d}" for n in range(COUNT)])
DATA = rows_to_parquet(ROWS, KEYS, 1)


class Counting:
    """Reads ranges of a file and counts what it reads."""

    def __init__(self, data: pa.Buffer) -> None:
        self.data, self.bytes, self.reads = data, 0, 0

    def __call__(self, offset: int, length: int) -> bytes:
        self.bytes, self.reads = self.bytes + length, self.reads + 1
        return self.data.slice(offset, length).to_pybytes()


def test_one_row_costs_a_footer_and_a_group() -> None:
    for n in (0, 1, ROW_GROUP_ROWS - 1, ROW_GROUP_ROWS, COUNT // 2, COUNT - 1):
        read = Counting(DATA)
        found = RowGroups(DATA.size, read, "x").rows(wanted(KEYS[n].as_py()))
        assert ROWS.slice(n, 1).to_pylist()[0] in found.to_pylist()
        assert read.reads == 2
        assert read.bytes < DATA.size / 2
    whole = RowGroups(DATA.size, Counting(DATA), "x").rows(wanted(*KEYS.to_pylist()[::500], KEYS[-1].as_py()))
    assert whole.num_rows == COUNT


def test_keys_that_begin_in_a_way_cost_the_groups_that_have_them() -> None:
    for begin, groups in (
        ("00000", 1),
        ("0000", 2),
        ("0004095", 1),
        ("000081", 2),
        ("0003", 2),
        ("00040976", 1),
        ("9", 1),
    ):
        read = Counting(DATA)
        wanted = WantedKeys(beginnings=frozenset([b"\x20" + begin.encode()]))
        found = RowGroups(DATA.size, read, "x").rows(wanted)
        assert found.filter(wanted.among(encode_keys(found, ["id"]))).num_rows == sum(
            text.startswith(begin) for text in ROWS.column("id").to_pylist()
        )
        assert found.num_rows <= groups * ROW_GROUP_ROWS
        assert read.reads == 2  # groups that follow each other are read at once
    same = "same beginning of every key, which is longer than it is kept" * 2
    rows, keys = rows_of([f"{same}{n:08d}" for n in range(COUNT)])
    data = rows_to_parquet(rows, keys, 1)
    for begin, count in ((same, COUNT), (same[:5], COUNT), (same + "0002", 10_000), (same + "1", 0)):
        wanted = WantedKeys(beginnings=frozenset([b"\x20" + begin.encode()]))
        found = RowGroups(data.size, Counting(data), "x").rows(wanted)
        assert sum(wanted.among(encode_keys(found, ["id"])).to_pylist()) == count


def test_a_key_before_all_others_is_in_no_group() -> None:
    assert RowGroups(DATA.size, Counting(DATA), "x").rows(wanted(b"\x05")).num_rows == 0


def test_keys_that_begin_alike_are_looked_for_in_all_groups_that_may_have_them() -> None:
    same = "same beginning of every key, which is longer than it is kept" * 2
    rows, keys = rows_of([f"{same}{n:08d}" for n in range(COUNT)])
    data = rows_to_parquet(rows, keys, 1)
    for n in (0, ROW_GROUP_ROWS, COUNT - 1):
        found = RowGroups(data.size, Counting(data), "x").rows(wanted(keys[n].as_py()))
        assert rows.slice(n, 1).to_pylist()[0] in found.to_pylist()


def test_rows_out_of_order_and_groups_that_begin_otherwise_are_found() -> None:
    assert checked_order(DATA, ROWS, ("id",), "x").equals(KEYS)
    turned = ROWS.take(pa.array([1, 0, *range(2, COUNT)]))
    with pytest.raises(CorruptionDetected, match="segment 7: its rows are not in the order"):
        checked_order(DATA, turned, ("id",), "segment 7")
    moved = pa.concat_arrays([KEYS.slice(1), KEYS.slice(COUNT - 1)])
    with pytest.raises(CorruptionDetected, match="segment 7: its row groups begin"):
        checked_order(rows_to_parquet(ROWS, moved, 1), ROWS, ("id",), "segment 7")


def file_with(first_keys: str | None) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, ROWS.schema) as writer:
        writer.write_table(ROWS, row_group_size=ROW_GROUP_ROWS)
        if first_keys is not None:
            writer.add_key_value_metadata({FIRST_KEYS: first_keys})
    return sink.getvalue()


@pytest.mark.parametrize(
    "first_keys",
    [
        *(None, "", "?", "AAAA", pack_keys([b"a"] * 5), pack_keys([b"b", *[b"a"] * 5])),
        base64.b64encode(b"\x41" + b"a" * 65).decode(),
    ],
)
def test_a_file_that_does_not_say_its_first_keys_is_damage(first_keys: str | None) -> None:
    data = file_with(first_keys)
    with pytest.raises(CorruptionDetected, match="segment 7"):
        RowGroups(data.size, Counting(data), "segment 7").rows(wanted(b"a"))


@pytest.mark.parametrize("damage", ["cut", "zeros", "footer", "magic"])
def test_a_damaged_file_is_named(damage: str) -> None:
    whole = DATA.to_pybytes()
    damaged: dict[str, bytes] = {
        "cut": whole[:1000],
        "zeros": bytes(len(whole)),
        "footer": whole[:-8] + (2**31).to_bytes(4, "little") + b"PAR1",
        "magic": whole[:-1] + b"2",
    }
    data = pa.py_buffer(damaged[damage])
    with pytest.raises(CorruptionDetected, match="segment 7"):
        RowGroups(data.size, Counting(data), "segment 7").rows(wanted(KEYS[0].as_py()))


def test_the_beginnings_of_keys_come_back() -> None:
    keys: list[Any] = [b"", b"a", b"b" * 64, b"c" * 200]
    assert unpack_keys(pack_keys(keys)) == [key[:64] for key in keys]
