"""R1: a full backup of a Redis."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.caches import cache


def run(bench: Bench) -> Outcome:
    """Back up all keys; the peer takes an RDB file, which restic stores."""
    with cache(bench) as it:
        outcome = Outcome("R1", f"full backup of a Redis with {it.keys:,} keys", bar=1.2, goal=0.7)

        def prepare() -> None:
            it.clear_copy()
            it.restic.init()

        contestants = [
            Contestant("lastgood", lambda: it.ours.backup("full"), it.ours.init, it.ours.stored_bytes),
            Contestant("redis-cli --rdb, restic", it.peer, prepare, it.restic.stored_bytes),
        ]
        outcome.series = compete(contestants, bench.pairs, bench.say)
        it.check()
        it.by_key.init()
        by_key = it.by_key.backup("full")
    outcome.facts.append(("without `consistent`: key by key, by default", f"{by_key.seconds:.2f} s", ""))
    outcome.notes.append("Both take one moment, and restored a dataset of equal DEBUG DIGEST.")
    return outcome
