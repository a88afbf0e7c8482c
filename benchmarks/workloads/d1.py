"""D1: the building blocks by themselves."""

from __future__ import annotations

import re
import sys

from benchmarks.bench import Bench
from benchmarks.report import Outcome

ROWS = 1_000_000


def run(bench: Bench) -> Outcome:
    """Measure keys, digests, differences, Parquet and sealing on one thread, in a child."""
    rows = bench.size(ROWS, least=20_000)
    done = bench.run([sys.executable, "-m", "benchmarks.building_blocks", str(rows), str(bench.pairs)])
    outcome = Outcome("D1", f"building blocks, one thread, {rows:,} rows of nine columns")
    outcome.facts = [(m[1], m[2], "") for m in re.finditer(r"^(.+?): (.+)$", done.output, re.MULTILINE)]
    outcome.notes = ["Processor time of the best of the runs."]
    return outcome
