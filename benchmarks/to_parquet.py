"""The plainest restore there is, to Parquet files and nothing else: `python -m benchmarks.to_parquet PLAN FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.plan.plan import load_plan
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.executor import BoundedWindow, open_executor
from flows.pipeline.one_shot import OneShot
from flows.stages.compress import decompress
from flows.stages.diff import merge
from flows.stages.encrypt import decrypt
from flows.stages.normalize import denormalize
from flows.stages.store import fetch


def main(plan_path: str, folder: str) -> None:
    """Restore the latest backup of a plan, a Parquet file for each part."""
    plan, out = load_plan(plan_path), Path(folder)
    repository = plan.repository.unlock(plan.encryption)
    chain = Chain(repository, repository.find(plan.name))
    out.mkdir()

    def write(part: RestorePart, one_shot: OneShot[pa.Table]) -> None:
        pq.write_table(one_shot.take(), out / f"{str(part).replace('/', '-')}.parquet", compression="zstd")

    with open_executor() as executor:
        window: BoundedWindow[RestorePart] = BoundedWindow(chain.parts(Selection()), done=write)
        for part in window:
            pieces = executor.submit(fetch, part)
            packed = executor.submit(decrypt, part, pieces)
            changes = executor.submit(decompress, part, packed)
            merged = executor.submit(merge, part, changes)
            rows = executor.submit(denormalize, part, merged)
            window.follow(part, pieces, packed, changes, merged, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
