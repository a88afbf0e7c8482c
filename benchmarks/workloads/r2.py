"""R2: an incremental backup of a Redis after one key of a hundred changed."""

from __future__ import annotations

import itertools

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.caches import cache


def run(bench: Bench) -> Outcome:
    """Change keys, then back up, in turn; each round depends on the one before."""
    with cache(bench) as it:
        title = f"incremental of a Redis with {it.keys:,} keys after 1% changed or were deleted"
        outcome = Outcome("R2", title, bar=1.0, goal=0.4)
        it.ours.init()
        it.ours.backup("full")
        it.restic.init()
        seeds = itertools.count(1)
        contestants = [
            Contestant("lastgood", lambda: it.ours.backup("incremental")),
            Contestant("redis-cli --rdb, restic", it.peer, it.clear_copy),
        ]
        outcome.series = compete(contestants, bench.pairs, bench.say, lambda: it.change(next(seeds)))
        it.check()
        it.by_key.init()
        it.by_key.backup("full")
        it.change(next(seeds))
        by_key = it.by_key.backup("incremental")
        it.forget()
        it.change(next(seeds))
        all_taken, all_read = it.ours.backup("incremental"), it.by_key.backup("incremental")
    outcome.facts = [
        ("without `consistent`: key by key, by default", f"{by_key.seconds:.2f} s", ""),
        ("all keys taken, as with the default backlog of 1 MB", f"{all_taken.seconds:.2f} s", ""),
        ("all keys read without `consistent`", f"{all_read.seconds:.2f} s", ""),
    ]
    outcome.notes = [
        f"Both take one moment, and restored a dataset of equal DEBUG DIGEST. A chain of {bench.pairs + 1}.",
        "The server has `repl-backlog-size 64mb`: ours reads from its replication backlog which keys were written. The "
        "changes of a round are about 3 MB there.",
    ]
    return outcome
