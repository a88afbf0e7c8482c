"""B1: full and incremental backups of files to an S3 server."""

from __future__ import annotations

import itertools

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete, ratio_of
from benchmarks.report import Outcome
from benchmarks.workloads.s3 import files_on, s3


def run(bench: Bench) -> Outcome:
    """Back the tree up into fresh repositories, in turn; then change it and back it up again."""
    with s3(bench) as server:
        it = files_on(server, bench)
        outcome = Outcome("B1", f"full backup of {it.size} to an S3 server", bar=1.2, goal=0.9)
        outcome.series = compete(
            [
                Contestant("lastgood", lambda: it.ours.backup("full"), it.ours.init),
                Contestant("restic", lambda: it.restic.backup(it.tree), it.restic.init),
            ],
            bench.pairs,
            bench.say,
        )
        seeds = itertools.count(1)
        ours, restic = compete(
            [
                Contestant("lastgood, incremental", lambda: it.ours.backup("incremental")),
                Contestant("restic, incremental", lambda: it.restic.backup(it.tree)),
            ],
            bench.pairs,
            bench.say,
            lambda: bench.make("trees", "change", it.tree, next(seeds)),
        )
        for restore in (it.ours.restore, it.restic.restore):
            place = bench.fresh("restored")
            restore(place)
            it.compare(place)
    ratio = ratio_of(ours, restic)
    outcome.facts = [
        ("incremental, 2 large and 200 small changed", f"{ours.seconds:.2f} s, {ratio} of restic", "0.6 (goal 0.4)")
    ]
    outcome.notes = ["Both restored trees equal to the original; server and both sides on the same machine."]
    return outcome
