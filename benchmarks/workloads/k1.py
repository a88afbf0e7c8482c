"""K1: one row restored from a long chain."""

from __future__ import annotations

import re
import sys

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, Run, compete
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome

ROWS, INCREMENTALS = 1_000_000, 24


def run(bench: Bench) -> Outcome:
    """Make a full and 24 incrementals, each of a thousandth of the rows, then restore one row of the newest."""
    rows = bench.size(ROWS, least=20_000)
    ledger = bench.folder / "chain.db"
    ledger.unlink(missing_ok=True)
    bench.make("ledgers", "make", ledger, rows)
    ours = Lastgood(bench, "chain", {"ledger": {"type": "sqlite", "path": str(ledger)}})
    ours.init()
    ours.backup("full")
    for number in range(INCREMENTALS):
        bench.make("ledgers", "change", ledger, number, rows)
        ours.backup("incremental")
        bench.say(f"  incremental {number + 1} of {INCREMENTALS}")
    wanted, place = rows // 2 + 1, bench.folder / "one.db"

    def restore() -> Run:
        words = ["restore", str(ours.plan), "latest", "--collection", "ledger/orders", "--key", str(wanted)]
        command = [sys.executable, "-m", "benchmarks.counted", *words, "--to", str(place), "--yes", "--no-server"]
        return bench.run(command)

    one = Contestant("lastgood", restore, lambda: place.unlink(missing_ok=True), ours.stored_bytes)
    outcome = Outcome("K1", f"one row of {rows:,} restored from a full and {INCREMENTALS} incrementals")
    outcome.series = compete([one], bench.pairs, bench.say)
    bench.make("ledgers", "one", ledger, place, wanted)
    counted = re.search(r"counted (\d+) bytes in (\d+) reads", outcome.series[0].runs[-1].output)
    if counted is None:
        raise RuntimeError("the counting command did not say what it counted")
    read = int(counted[1])
    outcome.facts = [
        ("bytes read from the repository", f"{read / 1e6:.2f} MB in {counted[2]} reads", "2 MB (goal 0.3 MB)"),
        ("of the bytes stored", f"{100 * read / ours.stored_bytes():.1f} %", ""),
    ]
    return outcome
