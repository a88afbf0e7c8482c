"""P4: what an incremental of the same changes costs when the table is ten times as large."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import SCALE, accounts

CHANGES = 10_000


def run(bench: Bench) -> Outcome:
    """Change as many rows of a small table and of a large one, then back both up, in turn."""
    changes = bench.size(CHANGES)
    with (
        accounts(bench, SCALE // 10, wal_level="logical") as small,
        accounts(bench, wal_level="logical") as large,
    ):
        outcome = Outcome("P4", f"incremental after {changes:,} changes, {large.rows:,} rows against {small.rows:,}")

        def change() -> None:
            for one in (small, large):
                one.change(changes)

        contestants = [
            *(_incremental(f"{one.rows:,} rows", one.ours) for one in (large, small)),
            *(_incremental(f"{one.rows:,} rows, with a slot", one.following) for one in (large, small)),
        ]
        for one in (small, large):
            for plan in (one.ours, one.following):
                plan.init()
                plan.backup("full")
        series = compete(contestants, bench.pairs, bench.say, change)
        for one in (small, large):
            one.restore_ours()
            one.restore_ours(one.following, "restored_following")
            one.compare("restored_ours", "restored_following")
    outcome.series = series
    looking, following = series[:2], series[2:]
    outcome.facts = [
        ("time at 10 times the rows", f"{looking[0].seconds / looking[1].seconds:.1f} times", "4 times (goal 1.5)"),
        ("memory at 10 times the rows", f"{looking[0].peak_bytes / looking[1].peak_bytes:.2f} times", ""),
        ("time with a replication slot", f"{following[0].seconds / following[1].seconds:.1f} times", ""),
    ]
    outcome.notes = [
        "Whole commands, start-up included. All chains, restored, were equal to their databases.",
        "A slot reports which rows were written, and the index of the base is not read where no key came or went.",
    ]
    return outcome


def _incremental(name: str, ours: Lastgood) -> Contestant:
    return Contestant(name, lambda: ours.backup("incremental"))
