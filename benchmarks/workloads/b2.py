"""B2: full and incremental backups of a PostgreSQL database to an S3 server."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete, ratio_of
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import accounts
from benchmarks.workloads.s3 import accounts_on, s3


def run(bench: Bench) -> Outcome:
    """Back up into fresh repositories, in turn; then update one percent and back up again."""
    with s3(bench) as server, accounts(bench) as database:
        it = accounts_on(server, database)
        outcome = Outcome("B2", f"full backup of pgbench, {it.rows:,} rows, to an S3 server", bar=1.2, goal=0.9)
        outcome.series = compete(
            [
                Contestant("lastgood", lambda: it.ours.backup("full"), it.ours.init),
                Contestant("pg_dump, restic", it.dump_and_store, it.restic.init),
            ],
            bench.pairs,
            bench.say,
        )
        ours, restic = compete(
            [
                Contestant("lastgood, incremental", lambda: it.ours.backup("incremental")),
                Contestant("pg_dump, restic, incremental", it.dump_and_store),
            ],
            bench.pairs,
            bench.say,
            it.change,
        )
        it.restore_ours()
        it.compare("restored_ours")
    ratio = ratio_of(ours, restic)
    outcome.facts = [("incremental after 1% updates", f"{ours.seconds:.2f} s, {ratio} of the peer", "0.6 (goal 0.4)")]
    outcome.notes = ["The chain, restored, was equal to the database in the number and a hash of all rows."]
    return outcome
