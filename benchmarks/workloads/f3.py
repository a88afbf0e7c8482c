"""F3: a restore of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, Run, compete
from benchmarks.report import Outcome
from benchmarks.workloads.files import files


def run(bench: Bench) -> Outcome:
    """Restore the tree to an empty place, in turn."""
    it = files(bench)
    outcome = Outcome("F3", f"restore of {it.size}", bar=1.2, goal=0.9)
    it.fill()

    def contestant(name: str, restore: Callable[[Path], Run]) -> Contestant:
        return Contestant(name, lambda: restore(bench.folder / f"restored-{name}"), lambda: _clear(bench, name))

    contestants = [
        contestant("lastgood", it.ours.restore),
        contestant("restic", it.restic.restore),
        contestant("borg", it.borg.restore),
    ]
    outcome.series = compete(contestants, bench.pairs, bench.say)
    for one in contestants:
        it.compare(bench.folder / f"restored-{one.name}")
        _clear(bench, one.name)
    outcome.notes.append("All restored trees were equal to the original in names, content, modes and times.")
    outcome.notes.append("Ours syncs files before it puts them into place; restic and borg do not sync them.")
    return outcome


def _clear(bench: Bench, name: str) -> None:
    bench.fresh(f"restored-{name}")
