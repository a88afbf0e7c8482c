"""A part that is large is packed on disk as others are in memory, and in memory where there is no room."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from blocks.rows.parquet import rows_to_parquet
from flows.pipeline import packing


def test_a_large_part_is_packed_into_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.table(
        {
            "_key": pa.nulls(500, pa.large_binary()),
            "value": pa.array([b"%d" % n for n in range(500)], pa.large_binary()),
        }
    )
    wanted = rows_to_parquet(rows, 1).to_pybytes()
    monkeypatch.setattr(packing, "_LARGE_BYTES", 1)
    for folder in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv("TMPDIR", str(folder))
        held = [rows]
        assert packing.packed(held, 1).to_pybytes() == wanted
        assert not held
    assert not list(tmp_path.iterdir())
