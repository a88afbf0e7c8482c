"""P2: an incremental backup of a PostgreSQL database after one percent of its rows changed."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete, ratio_of
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import accounts


def run(bench: Bench) -> Outcome:
    """Update, then back up, in turn; each round depends on the one before."""
    with accounts(bench, wal_level="logical") as it:
        outcome = Outcome("P2", f"pgbench, {it.rows:,} rows, after 1% were updated", bar=0.6, goal=0.4)
        for ours in (it.ours, it.following):
            ours.init()
            ours.backup("full")
        it.restic.init()
        it.dump_and_store()
        it.pgbackrest.init()
        it.pgbackrest.backup("full")
        following, dump, files, looking = compete(
            [
                _ours("lastgood", it.following),
                Contestant("pg_dump, restic", it.dump_and_store, stored_bytes=it.restic.stored_bytes),
                Contestant(
                    "pgBackRest incr", lambda: it.pgbackrest.backup("incr"), stored_bytes=it.pgbackrest.stored_bytes
                ),
                _ours("lastgood without a slot", it.ours),
            ],
            bench.pairs,
            bench.say,
            it.change,
        )
        it.restore_ours()
        it.restore_ours(it.following, "restored_following")
        it.compare("restored_ours", "restored_following")
    outcome.series = [following, dump, files]
    ratio = ratio_of(looking, outcome.best_peer or dump)
    outcome.facts = [
        ("without `slot`: every row is looked at, by default", f"{looking.seconds:.2f} s, {ratio} of the best peer", "")
    ]
    outcome.notes = [
        "Both chains, restored, were equal to the database in the number and a hash of all rows.",
        "The server has `wal_level = logical`, and the plan names a `slot`: it reports which rows were written.",
        "After each change the table was read once and a checkpoint was made, so that clearing up after the update was "
        "charged to nobody; a server that is backed up less often than every few seconds does both by itself.",
    ]
    return outcome


def _ours(name: str, ours: Lastgood) -> Contestant:
    return Contestant(name, lambda: ours.backup("incremental"), stored_bytes=ours.stored_bytes)
