"""P2: an incremental backup of a PostgreSQL database after one percent of its rows changed."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import accounts


def run(bench: Bench) -> Outcome:
    """Update, then back up, in turn; each round stands on the one before."""
    with accounts(bench) as it:
        outcome = Outcome("P2", f"pgbench, {it.rows:,} rows, after 1% were updated", bar=0.4, goal=0.2)
        it.ours.init()
        it.ours.backup("full")
        it.restic.init()
        it.dump_and_store()
        it.pgbackrest.init()
        it.pgbackrest.backup("full")
        contestants = [
            Contestant("lastgood", lambda: it.ours.backup("incremental"), stored_bytes=it.ours.stored_bytes),
            Contestant("pg_dump, restic", it.dump_and_store, stored_bytes=it.restic.stored_bytes),
            Contestant(
                "pgBackRest incr",
                lambda: it.pgbackrest.backup("incr"),
                stored_bytes=it.pgbackrest.stored_bytes,
            ),
        ]
        outcome.series = compete(contestants, bench.pairs, bench.say, it.change)
        it.restore_ours()
        it.compare("restored_ours")
    outcome.notes = [
        "The chain, restored, was equal to the database in the number and a hash of all rows.",
        "After each change the table was read once, so that clearing up after the update was charged to nobody.",
    ]
    return outcome
