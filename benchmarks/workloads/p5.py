"""P5: rows that lie in no order of their key (UUIDs): what a full and an incremental cost at ten times the rows."""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome
from tests.postgres_server import PostgresServer, postgres_server

ROWS = 5_000_000
CHANGES = 10_000


class _Scattered:
    """A table of UUIDs, some of whose rows can be changed at a time."""

    def __init__(self, bench: Bench, server: PostgresServer, rows: int) -> None:
        self._server, self.rows, self._name, self._round = server, rows, f"scattered_{rows}", 0
        bench.say(f"  making a table of {rows:,} rows")
        server.create(self._name, "CREATE TABLE items (id uuid PRIMARY KEY, place int, what text, price float8)")
        server.run(
            self._name,
            "INSERT INTO items SELECT md5(g::text)::uuid, g, 'article number ' || g || ' of the catalogue', g * 0.01"
            f" FROM generate_series(1, {rows}) g",
            "VACUUM ANALYZE",
            "CHECKPOINT",
        )
        self.ours = Lastgood(bench, self._name, {"items": {"type": "postgres", "dsn": server.dsn(self._name)}})
        self.ours.init()

    def change(self, rows: int) -> None:
        """Update so many rows, others each time."""
        self._round += 1
        every = self.rows // rows
        self._server.run(
            self._name, f"UPDATE items SET price = price + 1 WHERE place % {every} = {self._round % every}"
        )

    def compare(self) -> None:
        """Make sure that the chain, restored, is the original."""
        self.ours("restore", "latest", "--to", self._server.dsn("restored"), "--mode", "exact", "--yes", "--no-server")
        sums = []
        for name in (self._name, "restored"):
            with self._server.connect(name) as session:
                rows = "SELECT count(*), sum(pg_catalog.hashtextextended(t::text, 0)::numeric) FROM items t"
                sums.append(session.execute(rows.encode()).fetchall())
        assert sums[0] == sums[1], self._name
        self._server.run("postgres", "DROP DATABASE restored")


def run(bench: Bench) -> Outcome:
    """Back up a small table and a large one, then change as many rows of each and back both up, in turn."""
    changes, rows = bench.size(CHANGES), bench.size(ROWS)
    with postgres_server(autovacuum="off") as server:
        small, large = _Scattered(bench, server, rows // 10), _Scattered(bench, server, rows)
        outcome = Outcome("P5", f"rows in no order of their key: {rows:,} of them, and {rows // 10:,}")

        def change() -> None:
            for one in (small, large):
                one.change(changes)

        def both(kind: str) -> list[Contestant]:
            return [Contestant(f"{kind}, {one.rows:,} rows", partial(one.ours.backup, kind)) for one in (large, small)]

        fulls = compete(both("full"), bench.pairs, bench.say)
        incrementals = compete(both("incremental"), bench.pairs, bench.say, change)
        for one in (small, large):
            one.compare()
    outcome.series = [*incrementals, *fulls]
    for what, (much, few), asked in (("full", fulls, "11 times"), ("incremental", incrementals, "4 times (goal 1.5)")):
        outcome.facts.append((f"time at 10 times the rows, {what}", f"{much.seconds / few.seconds:.1f} times", asked))
        peaks = f"{much.peak_bytes / few.peak_bytes:.2f} times"
        outcome.facts.append((f"memory at 10 times the rows, {what}", peaks, "1.5 times" if what == "full" else ""))
    outcome.notes = [
        f"Incrementals after {changes:,} rows were updated.",
        "Both chains, restored, were equal to their tables.",
    ]
    return outcome
