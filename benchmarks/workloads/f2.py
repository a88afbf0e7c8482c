"""F2: an incremental backup of files after a few changes."""

from __future__ import annotations

import itertools

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.files import files


def run(bench: Bench) -> Outcome:
    """Change 2 large and 200 small files, then back up, in turn; each round depends on the one before."""
    it = files(bench)
    outcome = Outcome("F2", f"incremental of {it.size} after 2 large and 200 small ones changed", bar=1.5, goal=1.0)
    it.fill()
    seeds = itertools.count(1)
    contestants = [
        Contestant("lastgood", lambda: it.ours.backup("incremental")),
        Contestant("restic", lambda: it.restic.backup(it.tree)),
        Contestant("borg", lambda: it.borg.backup(it.tree)),
    ]
    outcome.series = compete(
        contestants, bench.pairs, bench.say, lambda: bench.make("trees", "change", it.tree, next(seeds))
    )
    it.check_restores(outcome.notes)
    outcome.notes.append(f"Ours: a chain of {bench.pairs + 1} incrementals at the end, each on the one before.")
    return outcome
