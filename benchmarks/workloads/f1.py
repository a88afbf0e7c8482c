"""F1: a full backup of files."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.files import files


def run(bench: Bench) -> Outcome:
    """Back the tree up into a fresh repository, in turn."""
    it = files(bench)
    outcome = Outcome("F1", f"full backup of {it.size}", bar=0.6, goal=0.4)
    contestants = [
        Contestant("lastgood", lambda: it.ours.backup("full"), it.ours.init, it.ours.stored_bytes),
        Contestant("restic", lambda: it.restic.backup(it.tree), it.restic.init, it.restic.stored_bytes),
        Contestant("borg", lambda: it.borg.backup(it.tree), it.borg.init, it.borg.stored_bytes),
    ]
    outcome.series = compete(contestants, bench.pairs, bench.say)
    it.check_restores(outcome.notes)
    return outcome
