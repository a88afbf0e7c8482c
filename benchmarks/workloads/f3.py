"""F3: a restore of files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, Run, compete
from benchmarks.report import Outcome
from benchmarks.workloads.files import Places, files


def run(bench: Bench) -> Outcome:
    """Restore the tree to an empty place, in turn."""
    it = files(bench)
    outcome = Outcome("F3", f"restore of {it.size}", bar=1.2, goal=0.9)
    it.fill()

    restores: dict[str, Callable[[Path], Run]] = {
        "lastgood": it.ours.restore,
        "restic": it.restic.restore,
        "borg": it.borg.restore,
    }
    places = {name: it.places(name) for name in restores}
    contestants = [Contestant(name, partial(_restored, restore, places[name])) for name, restore in restores.items()]
    outcome.series = compete(contestants, bench.pairs, bench.say)
    for place in places.values():
        it.compare(place.last)
        bench.clear(place.folder)
    outcome.notes.append("All restored trees were equal to the original in names, content, modes and times.")
    outcome.notes.append("Ours syncs files before it puts them into place; restic and borg do not sync them.")
    return outcome


def _restored(restore: Callable[[Path], Run], places: Places) -> Run:
    return restore(places.new())
