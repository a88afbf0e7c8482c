"""B3: restores from an S3 server."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete, ratio_of
from benchmarks.report import Outcome
from benchmarks.workloads.pgbench import accounts
from benchmarks.workloads.s3 import accounts_on, files_on, s3


def run(bench: Bench) -> Outcome:
    """Restore a tree of files, and a database, in turn."""
    with s3(bench) as server, accounts(bench) as database:
        it = files_on(server, bench)
        outcome = Outcome("B3", f"restore of {it.size} from an S3 server", bar=1.1, goal=0.8)
        for one in (it.ours, it.restic):
            one.init()
        it.ours.backup("full")
        it.restic.backup(it.tree)
        ours, restic = it.places("ours"), it.places("restic")
        outcome.series = compete(
            [
                Contestant("lastgood", lambda: it.ours.restore(ours.new())),
                Contestant("restic", lambda: it.restic.restore(restic.new())),
            ],
            bench.pairs,
            bench.say,
        )
        for place in (ours, restic):
            it.compare(place.last)
            bench.clear(place.folder)
        rows = accounts_on(server, database)
        rows.ours.init()
        rows.ours.backup("full")
        rows.restic.init()
        rows.dump_and_store()
        first, second = compete(
            [
                Contestant("lastgood", rows.restore_ours, lambda: rows.clear("restored_ours", make=False)),
                Contestant("restic, psql", rows.restore_dump, lambda: rows.clear("restored_dump", make=True)),
            ],
            bench.pairs,
            bench.say,
        )
        rows.compare("restored_ours", "restored_dump")
    ratio = ratio_of(first, second)
    outcome.facts = [
        (f"pgbench, {rows.rows:,} rows", f"{first.seconds:.2f} s, {ratio} of restic, psql", "1.1 (goal 0.8)")
    ]
    outcome.notes = ["Everything restored was equal to the original."]
    return outcome
