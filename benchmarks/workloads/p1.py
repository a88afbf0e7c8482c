"""P1: a full backup of a PostgreSQL database."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import accounts


def run(bench: Bench) -> Outcome:
    """Back up, in turn, each time into a new repository."""
    with accounts(bench) as it:
        outcome = Outcome("P1", f"full backup of pgbench, {it.rows:,} rows", bar=1.2, goal=0.8)
        contestants = [
            Contestant("lastgood", lambda: it.ours.backup("full"), it.ours.init, it.ours.stored_bytes),
            Contestant("pg_dump, restic", it.dump_and_store, it.restic.init, it.restic.stored_bytes),
            Contestant(
                "pgBackRest", lambda: it.pgbackrest.backup("full"), it.pgbackrest.init, it.pgbackrest.stored_bytes
            ),
        ]
        outcome.series = compete(contestants, bench.pairs, bench.say)
    outcome.notes = [
        "Memory is that of the largest process; the server's is not counted on either side.",
        "pgBackRest copies the files of the whole cluster, indexes included, and archives no write-ahead log here.",
    ]
    return outcome
