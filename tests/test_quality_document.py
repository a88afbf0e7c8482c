"""Each suite of docs/quality.md is read, and holds on rows that are as it says; on others it does not."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.plan.quality import load_suites
from tests.blocks.plan.quality.support import NOW, Known, broken, outcomes, run_on
from tests.flows.proving.test_fields import file_rows, redis_rows

DOCUMENT = (Path(__file__).parents[1] / "docs/quality.md").read_text()
EXAMPLES: dict[str, dict[str, Any]] = {
    suite["name"]: suite for suite in map(json.loads, re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.S | re.M))
}
TABLES = {
    "ledger/orders": pa.table(
        {
            "id": pa.array(range(4), pa.int64()),
            "amount": pa.array(["1.00", "2.00", "3.50", "0.00"], pa.large_string()),
            "note": pa.array(["a", None, None, None], pa.large_string()),
            "status": pa.array(["paid", "paid", "paid", "open"], pa.large_string()),
            "made": pa.array(
                [f"{NOW - timedelta(minutes=n):%Y-%m-%d %H:%M:%S}+00" for n in range(4)], pa.large_string()
            ),
        }
    ),
    "ledger/fills": pa.table(
        {
            "id": pa.array([1, 2], pa.int64()),
            "order_id": pa.array([0, 3], pa.int64()),
            "quantity": pa.array([2, 3], pa.int64()),
            "price": pa.array(["0.10", "1.10"], pa.large_string()),
            "amount": pa.array(["0.20", "3.30"], pa.large_string()),
        }
    ),
    "ledger/totals": pa.table({"id": pa.array([1], pa.int64()), "total": pa.array(["3.30"], pa.large_string())}),
    "cache/db0": redis_rows(quote_1='{"bid": 1.10, "ask": 1.20}', quote_2='{"bid": 2.20, "ask": 2.30}', other="x"),
    "exports/tree": file_rows(
        **{
            "orders-1__csv": b"id,day,amount\n1,2026-06-01,1.50\n2,2026-06-02,0\n",
            "orders-2__csv": b"id,day,amount\n3,2026-06-30,7.25\n",
            "readme__txt": b"nothing",
        }
    ),
}
NUMERIC = dict.fromkeys(("amount", "price", "total"), "numeric(10,2)") | {"made": "timestamp with time zone"}
COLUMNS = {name: {column: NUMERIC.get(column, "") for column in rows.column_names} for name, rows in TABLES.items()}
LATE_AND_CUT = b"id,day,amount\n1,2026-07-05,1\n1,2026-06-01\n"
KNOWN = Known(previous_rows=4, **{"previous_verified.amount.mean": 1.5})


def evaluated(*names: str, **changed: pa.Table) -> list[Any]:
    tables = {**TABLES, **{name.replace("__", "/"): rows for name, rows in changed.items()}}
    suites = [EXAMPLES[name] for name in names]
    return run_on(tables, *suites, columns=COLUMNS, known=KNOWN, ledger="postgres", cache="redis", exports="files")


def test_all_examples_are_suites(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps(list(EXAMPLES.values())))
    assert len(load_suites([str(tmp_path / "all.json")])) == 5


def test_all_examples_hold_on_good_rows() -> None:
    rules = evaluated(*EXAMPLES)
    assert {*outcomes(rules)} == {"holds"}
    assert len(rules) == 19


def changed(name: str, column: str, *values: Any) -> pa.Table:
    rows = TABLES[name]
    place = rows.column_names.index(column)
    return rows.set_column(place, column, pa.array(values, rows.schema.field(column).type))


@pytest.mark.parametrize(
    ("suite", "rows", "count"),
    [
        ("orders", {"ledger__orders": changed("ledger/orders", "amount", "1.00", "-2.00", "3.50", "0.00")}, 2),
        ("quotes", {"cache__db0": redis_rows(quote_1='{"bid": 1.10, "ask": 1.00')}, 4),
        (
            "exports",
            {"exports__tree": file_rows(**{"orders-1__csv": b"id,day,amount\n1,2026-07-05,1\n1,2026-06-01\n"})},
            2,
        ),
        ("fills", {"ledger__fills": changed("ledger/fills", "amount", "0.20", "3.31")}, 1),
        ("fills", {"ledger__fills": changed("ledger/fills", "order_id", 0, 4)}, 1),
        ("freshness", {"ledger__orders": changed("ledger/orders", "amount", "1.00", "200.00", "3.50", "0.00")}, 1),
    ],
)
def test_they_find_what_is_wrong(suite: str, rows: dict[str, pa.Table], count: int) -> None:
    names = [suite] if suite != "fills" else ["quotes", "fills"]
    assert len(broken(evaluated(*names, **rows))) == count
