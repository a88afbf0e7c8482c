"""What differs from the backup before is told: a table once, lost rows without any suite."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import QualityFailed
from blocks.records import BackupType
from blocks.sources.postgres import PostgresSource
from blocks.sources.sqlite import SQLiteSource
from blocks.verification import Axis, CheckOutcome, RuleOutcome
from flows.backup import make_backup
from flows.proving.column_facts import belong_together
from flows.proving.definitions import drift
from flows.proving.failure import failure
from flows.verify import make_verification
from tests.plans import plan_of
from tests.postgres_server import postgres_server


def test_a_table_of_postgres_that_is_gone_is_told_once(tmp_path: Path) -> None:
    with postgres_server() as server:
        plan = plan_of(tmp_path, books=PostgresSource(dsn=server.dsn("postgres")))
        server.run("postgres", "CREATE TABLE kept (id serial PRIMARY KEY, symbol text UNIQUE)")
        server.run(
            "postgres",
            "CREATE TABLE gone (id bigserial PRIMARY KEY, symbol text REFERENCES kept (symbol), at timestamptz)",
            "CREATE INDEX gone_at ON gone (at)",
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER gone_stamp BEFORE UPDATE ON gone FOR EACH ROW EXECUTE FUNCTION stamp()",
        )
        first = make_backup(plan, BackupType.FULL)
        server.run("postgres", "DROP TABLE gone", "ALTER TABLE kept ALTER id DROP DEFAULT")
        second = make_backup(plan, BackupType.INCREMENTAL)
        repository = plan.repository.unlock(plan.encryption)
        assert drift(plan, repository, second) == [
            f"books: since {first.backup_id}: default public.kept is gone.",
            f"books: since {first.backup_id}: table public.gone is gone.",
        ]


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM fills", ["books/fills has 0 rows, 200 before."]),
        ("DELETE FROM fills WHERE id > 100", ["books/fills has 100 rows, 200 before."]),
        ("DELETE FROM fills WHERE id > 101", []),
        ("INSERT INTO fills (price) SELECT price FROM fills", []),
        ("DELETE FROM few", []),
        ("DROP TABLE fills", ["books/fills is gone, which had 200 rows."]),
    ],
)
def test_rows_that_got_lost_are_a_warning_of_their_quality(
    tmp_path: Path, change: str, said: list[str], deep: bool
) -> None:
    path = tmp_path / "books.db"
    with sqlite3.connect(path) as live:
        live.executescript("""
            CREATE TABLE fills (id INTEGER PRIMARY KEY, price REAL); CREATE INDEX by_price ON fills (price);
            CREATE TABLE few (id INTEGER PRIMARY KEY, price REAL);
        """)
        live.executemany("INSERT INTO fills (price) VALUES (?)", [(n,) for n in range(200)])
        live.executemany("INSERT INTO few (price) VALUES (?)", [(n,) for n in range(99)])
    plan = plan_of(tmp_path, books=SQLiteSource(path=str(path)))
    first = make_backup(plan, BackupType.FULL)
    assert make_verification(plan, deep=deep).warnings == ()
    with sqlite3.connect(path) as live:
        live.execute(change)
    make_backup(plan, BackupType.INCREMENTAL)
    found = make_verification(plan, deep=deep)
    quality, definitions = (found.results[axis.value] for axis in (Axis.QUALITY, Axis.DEFINITIONS))
    assert quality.outcome is not CheckOutcome.BAD
    assert list(quality.warnings) == [f"since {first.backup_id}: {one}" for one in said]
    table = [f"books: since {first.backup_id}: table 'fills' is gone."] if "DROP" in change else []
    assert list(definitions.warnings) == table


@pytest.mark.parametrize(
    ("one", "other", "compared"),
    [
        ("price", "limit_price", True),
        ("maxQuantity", "quantity", True),
        ("high", "low", True),
        ("ask", "bid", True),
        ("quantity", "fee", False),
        ("amount", "price", False),
        ("line", "id", False),
        ("order_id", "id", False),
        ("order_number", "order_total", False),
    ],
)
def test_numbers_are_compared_where_their_names_belong_together(one: str, other: str, compared: bool) -> None:
    assert belong_together(one, other) is belong_together(other, one) is compared


@pytest.mark.parametrize("broken", [0, 2])
def test_numbers_that_became_text_are_of_a_wrong_type(tmp_path: Path, broken: int) -> None:
    rules: list[dict[str, Any]] = [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "price", "min_value": 1}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "price", "min_value": 1}},
        {
            "type": "expect_column_pair_values_a_to_be_greater_than_b",
            "kwargs": {"column_A": "price", "column_B": "least", "or_equal": True},
        },
        {
            "type": "unexpected_rows_expectation",
            "kwargs": {"unexpected_rows_query": "SELECT id FROM {batch} WHERE price <> least * 1"},
        },
    ]
    file = tmp_path / "suite.json"
    file.write_text(json.dumps({"name": "fills", "collection": "books/public.fills", "expectations": rules}))
    with postgres_server() as server:
        plan = plan_of(tmp_path, books=PostgresSource(dsn=server.dsn("postgres")))
        plan = plan.model_copy(update={"quality": [str(file)]})
        server.run(
            "postgres",
            "CREATE TABLE fills (id int PRIMARY KEY, price numeric(12, 4), least numeric(24, 8))",
            "INSERT INTO fills SELECT n, n + 0.1, n + 0.1 FROM generate_series(1, 50) n",
        )
        first = make_backup(plan, BackupType.FULL)
        assert make_verification(plan, deep=False).findings == ()
        server.run(
            "postgres",
            "ALTER TABLE fills ALTER price TYPE text",
            f"UPDATE fills SET price = 'n/a' WHERE id <= {broken}",
        )
        make_backup(plan, BackupType.INCREMENTAL)
        found = make_verification(plan, deep=False)
        said = f"price is text, and was numeric(12,4) in {first.backup_id}: {broken} of 50 values are no DECIMAL(12,4)"
        assert found.findings[0] == f"books/public.fills: {said}"
        assert isinstance(failure(found), QualityFailed)
        assert {rule.kind for rule in found.rules if rule.outcome is RuleOutcome.UNJUDGED} == set()
