"""Measures what each building block does in a second: `python -m benchmarks.building_blocks ROWS TIMES`."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from blocks.crypto.stream import ObjectContext, ObjectKind, seal, unseal
from blocks.rows.canonical import KEY as KEY_COLUMN
from blocks.rows.canonical import one_chunk
from blocks.rows.changes import changes_between
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex
from blocks.rows.keys import encode_keys
from blocks.rows.normalize import to_normal
from blocks.rows.parquet import from_parquet, index_to_parquet, rows_to_parquet

KEY = b"k" * 32


def rows_of(count: int) -> pa.Table:
    """Make rows such as a ledger has."""
    chance = np.random.default_rng(7)
    numbers = chance.integers(0, 1 << 30, count)
    return pa.table(
        {
            "id": np.arange(count),
            "symbol": pa.array([f"S{n % 400:03d}USD" for n in numbers], pa.large_string()),
            "side": np.where(numbers & 1, 1, -1),
            "quantity": numbers % 9_999,
            "price": numbers / 1000,
            "status": pa.array([("open", "filled", "cancelled")[n % 3] for n in numbers], pa.large_string()),
            "placed_us": np.arange(count) * 997,
            "reference": pa.array(
                [f"{n * 0x9E3779B97F4A7C15 % 2**64:032x}" for n in numbers.tolist()], pa.large_string()
            ),
            "note": pa.array([f"order of desk {n % 17}" if n % 4 else None for n in numbers], pa.large_string()),
        }
    )


def main(count: int, times: int) -> None:
    """Print one line per building block."""
    rows = rows_of(count)
    normal = to_normal(rows, ("id",), RowDigest(KEY))
    changes = changes_between(PartIndex([]), normal)
    keys = one_chunk(changes.index.column(KEY_COLUMN))
    packed, index = rows_to_parquet(changes.rows, keys, 3), index_to_parquet(changes.index)
    base = PartIndex([changes.index])
    context = ObjectContext("repository", "plan", "backup", ObjectKind.SEGMENT)
    noise = np.random.default_rng(1).bytes(64 << 20)
    sealed = seal(noise, KEY, context)

    def by_rows(name: str, work: Callable[[], object]) -> None:
        print(f"{name}: {count / _seconds(work, times) / 1e6:.2f} M rows/s")

    def by_bytes(name: str, size: int, work: Callable[[], object]) -> None:
        print(f"{name}: {size / _seconds(work, times) / 1e9:.2f} GB/s")

    by_rows("keys", lambda: encode_keys(rows, ["id"]))
    by_rows("digests", lambda: RowDigest(KEY)(rows))
    by_rows("normalize (canonical form, keys, digests, order)", lambda: to_normal(rows, ("id",), RowDigest(KEY)))
    by_rows("diff against an equal base", lambda: changes_between(base, normal))
    by_rows("rows to Parquet, zstd 3", lambda: rows_to_parquet(changes.rows, keys, 3))
    by_rows("index to Parquet", lambda: index_to_parquet(changes.index))
    by_rows("Parquet to rows", lambda: from_parquet(packed, "rows"))
    sizes = {"in memory": rows.nbytes, "as data": len(packed), "as index": len(index)}
    print("bytes a row: " + ", ".join(f"{size / count:.1f} {where}" for where, size in sizes.items()))
    by_bytes("seal, opened again and compared", len(noise), lambda: seal(noise, KEY, context))
    by_bytes("unseal", len(noise), lambda: unseal(sealed, KEY, context))
    by_bytes("SHA-256", len(noise), lambda: hashlib.sha256(noise).digest())


def _seconds(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times + 1):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return max(min(found), 1e-9)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
