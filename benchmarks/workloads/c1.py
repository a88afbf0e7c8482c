"""C1: reading and checking every stored byte."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.files import files


def run(bench: Bench) -> Outcome:
    """Check the repositories of the tree, in turn."""
    it = files(bench)
    outcome = Outcome("C1", f"read and check every stored byte of {it.size}")
    it.fill()
    contestants = [
        Contestant("lastgood", lambda: it.ours("check", "--read-data=100%"), stored_bytes=it.ours.stored_bytes),
        Contestant("restic", lambda: it.restic("check", "--read-data"), stored_bytes=it.restic.stored_bytes),
        Contestant("borg", it.borg.check, stored_bytes=it.borg.stored_bytes),
    ]
    outcome.series = compete(contestants, bench.pairs, bench.say)
    return outcome
