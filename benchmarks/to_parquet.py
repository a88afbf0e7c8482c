"""The plainest restore there is, to Parquet files and nothing else: `python -m benchmarks.to_parquet PLAN FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from blocks.plan import load_plan
from blocks.selection import Selection
from flows.backup import open_line
from flows.box import Box
from flows.chain import Chain
from flows.line import Window
from flows.parcel import RestorePart
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

    def write(part: RestorePart, box: Box) -> None:
        pq.write_table(box.take(), out / f"{str(part).replace('/', '-')}.parquet", compression="zstd")

    with open_line() as line:
        window: Window[RestorePart] = Window(chain.parts(Selection()), done=write)
        for part in window:
            pieces = line.submit(fetch, part)
            packed = line.submit(decrypt, part, pieces)
            changes = line.submit(decompress, part, packed)
            merged = line.submit(merge, part, changes)
            rows = line.submit(denormalize, part, merged)
            window.follow(part, pieces, packed, changes, merged, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
