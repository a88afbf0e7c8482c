"""V1: what proving a backup costs over only getting it out."""

from __future__ import annotations

import json
import sys

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome

ROWS = 1_000_000
_SUITE = {
    "name": "orders",
    "collection": "ledger/orders",
    "expectations": [
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "symbol"}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "side", "value_set": [-1, 1]}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "min_value": 1}},
    ],
}


def run(bench: Bench) -> Outcome:
    """Verify a backup, with and without deep restore and suite, against a plain restore to Parquet, in turn."""
    rows = bench.size(ROWS, least=20_000)
    ledger = bench.folder / "proved.db"
    ledger.unlink(missing_ok=True)
    bench.make("ledgers", "make", ledger, rows)
    suite = bench.folder / "suite.json"
    suite.write_text(json.dumps([_SUITE]))
    source = {"ledger": {"type": "sqlite", "path": str(ledger)}}
    ours = Lastgood(bench, "proved", source, (str(suite),))
    ours.init()
    ours.backup("full")
    plain = [sys.executable, "-m", "benchmarks.to_parquet", str(ours.plan), str(bench.folder / "parquet")]
    contestants = [
        Contestant("verify, with suite", lambda: ours("verify", "--no-server")),
        Contestant("plain restore to Parquet", lambda: bench.run(plain), lambda: _clear(bench)),
        Contestant("verify --deep, with suite", lambda: ours("verify", "--deep", "--no-server")),
    ]
    outcome = Outcome("V1", f"verification of {rows:,} rows of SQLite", bar=2.0, goal=1.3)
    series = compete(contestants, bench.pairs, bench.say)
    outcome.series = series[:2]
    deep = [a.seconds / b.seconds for a, b in zip(series[2].runs, series[1].runs, strict=True)]
    outcome.facts = [
        ("verify --deep: seconds", f"{series[2].seconds:.2f}", ""),
        ("verify --deep / plain restore", f"{sorted(deep)[len(deep) // 2]:.2f}", "2.0 (goal 1.3)"),
    ]
    outcome.notes = [
        "Verify fetches, opens, merges and digests every row again, compares it with the index and runs a suite of "
        "four expectations. Deep also restores to a scratch database and reads that back through the source."
    ]
    return outcome


def _clear(bench: Bench) -> None:
    bench.fresh("parquet")
