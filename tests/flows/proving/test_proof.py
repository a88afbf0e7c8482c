"""The comparison of rows with an index: what it finds, and how many keys it holds meanwhile."""

from __future__ import annotations

import pyarrow as pa
import pytest

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import DIGEST, KEY, one_chunk
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex
from blocks.rows.normalize import to_normal
from flows.proving import proof
from flows.proving.proof import compare

ROWS = pa.table({"id": pa.array(range(10), pa.int64()), "n": pa.array(["n"] * 10, pa.large_string())})
OTHER = ROWS.set_column(1, "n", pa.array(["n"] * 9 + ["m"], pa.large_string()))
WHAT = {KEY: ("id",), DIGEST: RowDigest(bytes(32), 32)}


def index_of(rows: pa.Table) -> PartIndex:
    normal = to_normal(rows, WHAT[KEY], WHAT[DIGEST])
    return PartIndex.of(one_chunk(normal.column(KEY)), one_chunk(normal.column(DIGEST)))


def differing(expected: PartIndex, rows: pa.Table) -> str:
    try:
        compare("part", expected, rows, WHAT[KEY], WHAT[DIGEST])
    except CorruptionDetected as exc:
        return exc.message
    return ""


@pytest.fixture(autouse=True, params=[3, 1 << 17])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "BLOCK_ROWS", request.param)


def test_the_same_rows_are_the_same_in_any_order() -> None:
    assert differing(index_of(ROWS), ROWS) == ""
    assert differing(index_of(ROWS), ROWS.take(list(reversed(range(10))))) == ""
    assert differing(index_of(ROWS), pa.concat_tables([ROWS.slice(0, 4), ROWS.slice(4)])) == ""
    assert differing(PartIndex([]), pa.table({})) == ""


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        (OTHER, (0, 1, 0)),
        (ROWS.slice(0, 7), (3, 0, 0)),
        (ROWS.slice(1), (1, 0, 0)),
        (pa.table({}), (10, 0, 0)),
        (pa.concat_tables([OTHER.slice(2), ROWS.slice(0, 1).set_column(0, "id", [[77]])]), (2, 1, 1)),
    ],
)
def test_each_difference_is_counted(rows: pa.Table, counts: tuple[int, int, int]) -> None:
    lost, different, extra = counts
    expected = f"part: {lost} rows are missing, {different} differ and {extra} are too many"
    assert differing(index_of(ROWS), rows) == expected
    assert "too many" in differing(PartIndex([]), ROWS)


def test_rows_that_come_twice_are_not_taken_for_an_index_that_has_them_twice() -> None:
    normal = to_normal(ROWS, WHAT[KEY], WHAT[DIGEST])
    keys, digests = (one_chunk(normal.column(name)) for name in (KEY, DIGEST))
    twice = PartIndex.of(pa.concat_arrays([keys, keys]), pa.concat_arrays([digests, digests]))
    with pytest.raises(Exception, match="same key"):
        compare("part", twice, pa.concat_tables([ROWS, ROWS]), WHAT[KEY], WHAT[DIGEST])


def test_the_keys_of_all_rows_are_not_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = list[int]()

    def counted(rows: pa.Table, *args: object) -> pa.Table:
        normalised.append(rows.num_rows)
        return to_normal(rows, *args)  # type: ignore[arg-type]

    expected = index_of(ROWS)
    monkeypatch.setattr(proof, "to_normal", counted)
    monkeypatch.setattr(proof, "BLOCK_ROWS", 3)
    assert differing(expected, ROWS) == ""
    assert normalised == [3, 3, 3, 1]
