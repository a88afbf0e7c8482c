"""P3: a restore of a PostgreSQL database."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import accounts


def run(bench: Bench) -> Outcome:
    """Restore into an empty database, in turn."""
    with accounts(bench) as it:
        outcome = Outcome("P3", f"restore of pgbench, {it.rows:,} rows", bar=0.9, goal=0.6)
        it.ours.init()
        it.ours.backup("full")
        it.restic.init()
        it.dump_and_store()
        contestants = [
            Contestant("lastgood", it.restore_ours, lambda: it.clear("restored_ours", make=False)),
            Contestant("restic, psql", it.restore_dump, lambda: it.clear("restored_dump", make=True)),
        ]
        outcome.series = compete(contestants, bench.pairs, bench.say)
        it.compare("restored_ours", "restored_dump")
    outcome.notes = [
        "Both restored databases were equal to the original in the number and a hash of all rows.",
        "Ours makes the database as well.",
    ]
    return outcome
