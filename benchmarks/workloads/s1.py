"""S1: a full backup of a large SQLite database, and what ten times the rows cost."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Bench, need
from benchmarks.measure import Contestant, Run, Series, compete
from benchmarks.ours import Lastgood
from benchmarks.peers import Restic
from benchmarks.report import Outcome

ROWS = 10_000_000


def run(bench: Bench) -> Outcome:
    """Back up a small and a large database; the large one against a copy that restic stores."""
    need("sqlite3", "sqlite3")
    rows = bench.size(ROWS, least=10_000)
    small, large = (_Ledger(bench, count) for count in (rows // 10, rows))
    title = f"full backup of an SQLite database of {rows:,} rows, {large.path.stat().st_size / 1e9:.2f} GB"
    outcome = Outcome("S1", title)
    series = compete([small.ours_alone(), large.ours_alone(), large.peer()], bench.pairs, bench.say)
    outcome.series = series[1:]
    outcome.facts = _facts(*series[:2])
    large.check()
    outcome.notes = [
        "The peer is `sqlite3 .backup` to a file and then restic on that file; it needs room for the copy. "
        "Both restored all rows.",
        "Growth is of whole commands, start-up included; bars are for ten times the rows.",
    ]
    return outcome


def _facts(small: Series, large: Series) -> list[tuple[str, str, str]]:
    time, memory = large.seconds / small.seconds, large.peak_bytes / small.peak_bytes
    return [
        ("a tenth of the rows", f"{small.seconds:.2f} s, {small.peak_bytes / 1e6:.0f} MB", ""),
        ("peak memory", f"{large.peak_bytes / 1e6:.0f} MB", "1,000 MB (goal 500)"),
        ("time at 10 times the rows", f"{time:.1f} times", "11 times (goal 10)"),
        ("memory at 10 times the rows", f"{memory:.2f} times", "1.5 times (goal 1.1)"),
    ]


class _Ledger:
    """One database, our repository for it and restic's."""

    def __init__(self, bench: Bench, rows: int) -> None:
        self._bench, self.path = bench, bench.folder / f"ledger-{rows}.db"
        if not self.path.exists():
            bench.say(f"  making a database of {rows:,} rows")
            bench.make("ledgers", "make", self.path, rows)
        name = f"ledger-{rows}"
        self._ours = Lastgood(bench, name, {"ledger": {"type": "sqlite", "path": str(self.path)}})
        self._restic = Restic(bench, name)
        self._copy = bench.folder / f"copy-{rows}"

    def ours_alone(self) -> Contestant:
        """Ours."""
        return Contestant("lastgood", lambda: self._ours.backup("full"), self._ours.init, self._ours.stored_bytes)

    def peer(self) -> Contestant:
        """A consistent copy, then restic."""
        return Contestant("sqlite3 .backup, restic", self._copy_and_store, self._clear, self._restic.stored_bytes)

    def _clear(self) -> None:
        self._bench.fresh(self._copy.name).mkdir()
        self._restic.init()

    def _copy_and_store(self) -> Run:
        script = 'sqlite3 "$1" ".backup $2/copy.db" && cd "$2" && restic --repo "$3" backup copy.db'
        places: list[Path | str] = [self.path, self._copy, self._restic.repository]
        return self._bench.run(["sh", "-c", script, "sh", *map(str, places)])

    def check(self) -> None:
        """Restore both and compare all rows."""
        mine, theirs = self._bench.fresh("restored.db"), self._bench.fresh("restored-copy")
        mine.unlink(missing_ok=True)
        self._ours.restore(mine)
        self._restic.restore(theirs)
        for restored in (mine, theirs / "copy.db"):
            self._bench.make("ledgers", "compare", self.path, restored)
