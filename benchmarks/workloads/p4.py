"""P4: what an incremental of the same changes costs when the table is ten times as large."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import SCALE, accounts

CHANGES = 10_000


def run(bench: Bench) -> Outcome:
    """Change as many rows of a small table and of a large one, then back both up, in turn."""
    changes = bench.size(CHANGES)
    with accounts(bench, SCALE // 10) as small, accounts(bench) as large:
        outcome = Outcome("P4", f"incremental after {changes:,} changes, {large.rows:,} rows against {small.rows:,}")

        def change() -> None:
            for one in (small, large):
                one.change(changes)

        for one in (small, large):
            one.ours.init()
            one.ours.backup("full")
        contestants = [
            Contestant(f"{one.rows:,} rows", lambda one=one: one.ours.backup("incremental")) for one in (large, small)
        ]
        series = compete(contestants, bench.pairs, bench.say, change)
        for one in (small, large):
            one.restore_ours()
            one.compare("restored_ours")
    outcome.series = series
    time, memory = (series[0].seconds / series[1].seconds, series[0].peak_bytes / series[1].peak_bytes)
    outcome.facts = [
        ("time at 10 times the rows", f"{time:.1f} times", "4 times (goal 1.5)"),
        ("memory at 10 times the rows", f"{memory:.2f} times", ""),
    ]
    outcome.notes = ["Whole commands, start-up included. Both chains, restored, were equal to their databases."]
    return outcome
