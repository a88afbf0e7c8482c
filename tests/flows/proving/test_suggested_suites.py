"""Suites that are suggested for real sources: `check` accepts them, and they hold on the backup that they came from."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.plan.plan import BackupPlan
from blocks.plan.quality.suite import Format
from blocks.records import BackupMetadata, BackupType
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from blocks.sources.sqlite import SQLiteSource
from blocks.verification import RuleOutcome
from flows.backup import make_backup
from flows.proving.evidence import draft, gather
from flows.proving.suggest import suggested
from flows.proving.suite_check import check_suites
from flows.reading.state import plan_of_given
from flows.verify import make_verification
from tests.blocks.sources.redis.kit import RedisServer
from tests.plans import plan_of
from tests.postgres_server import postgres_server

NOW = datetime.now(UTC)


def proved(
    plan: BackupPlan,
    folder: Path,
    made: BackupMetadata,
    name: str,
    keys: str | None = None,
    format: Format | None = None,
) -> dict[str, Any]:
    """Suggest a suite for a collection, and prove it with a verification; returns it with rules by column and type."""
    notes: list[str] = []
    collection = next(one for one in made.collections if one.name == name)
    repository = plan.repository.unlock(plan.encryption)
    suite = suggested(gather(repository, made, draft(collection, keys, format), 5, False, notes.append))
    assert notes == []
    file = folder / "suite.json"
    file.write_text(json.dumps(suite))
    assert check_suites([str(file)], made).faults == []
    result = make_verification(plan.model_copy(update={"quality": [str(file)]}), made.backup_id, deep=False)
    assert (result.findings, result.warnings) == ((), ())
    rules: Any = suite["expectations"]
    judged = [rule for rule in result.rules if rule.outcome is RuleOutcome.HOLDS]
    assert len(judged) >= len(rules)
    said = {(rule["kwargs"].get("column"), rule["type"]): rule["kwargs"] for rule in rules}
    return {"suite": suite, "rules": said, "profile": result.profile}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as server, psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE trades (
                id bigint PRIMARY KEY, uid uuid, price numeric(12,2), free numeric, at timestamptz, local timestamp,
                day date, symbol varchar(8), open boolean, raw bytea, extra jsonb)
        """)
        connection.execute("""
            INSERT INTO trades SELECT n, gen_random_uuid(), n * 1.25, n * 0.001, now() - n * interval '1 minute',
                (now() AT TIME ZONE 'UTC') - n * interval '1 hour', current_date - n::int, 'S' || n % 4, n % 2 = 0,
                CASE WHEN n % 5 > 0 THEN '\\x00ff'::bytea END, jsonb_build_object('n', n)
            FROM generate_series(1, 300) n
        """)
        yield server.dsn("postgres")


def test_a_table_of_postgres(database: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, books=PostgresSource(dsn=database))
    made = make_backup(plan, BackupType.FULL)
    found = proved(plan, tmp_path, made, "books/public.trades")
    rules, columns = found["rules"], found["profile"]["books/public.trades"].columns
    assert (columns["price"].minimum, columns["price"].maximum) == ("1.25", "375.00")
    assert Decimal(columns["free"].maximum) == Decimal("0.3")
    assert rules["price", "expect_column_values_to_be_between"]["max_value"] == 570
    assert rules["at", "expect_column_max_to_be_between"]["min_value"] == {"$PARAMETER": "backup_timestamp - 15m"}
    assert rules["local", "expect_column_max_to_be_between"]["min_value"] == {"$PARAMETER": "backup_timestamp - 4h"}
    assert ("day", "expect_column_max_to_be_between") in rules
    assert rules["raw", "expect_column_values_to_not_be_null"]["mostly"] == pytest.approx(0.75)
    assert ("uid", "expect_column_values_to_be_unique") in rules
    assert ("extra", "expect_column_values_to_be_json_parseable") in rules


def test_texts_of_sqlite_that_are_times(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as live:
        live.execute("CREATE TABLE trades (id INTEGER PRIMARY KEY, uid TEXT, at TEXT, price)")
        rows = [
            (n, str(uuid.uuid4()), (NOW - timedelta(minutes=n)).isoformat(), n / 8 if n % 3 else n)
            for n in range(1, 200)
        ]
        live.executemany("INSERT INTO trades VALUES (?, ?, ?, ?)", rows)
    plan = plan_of(tmp_path, books=SQLiteSource(path=str(path)))
    first = make_backup(plan, BackupType.FULL)
    found = proved(plan, tmp_path, first, "books/trades")
    assert found["suite"]["types"] == {"at": "timestamp"}
    assert found["profile"]["books/trades (books/trades)"].columns["at"].maximum.endswith("+00:00")
    with sqlite3.connect(path) as live:
        live.execute("INSERT INTO trades VALUES (200, ?, ?, 1)", (str(uuid.uuid4()), NOW.isoformat()))
    second = proved(plan, tmp_path, make_backup(plan, BackupType.INCREMENTAL), "books/trades")
    why = next(rule["meta"]["why"] for rule in second["suite"]["expectations"] if rule["kwargs"].get("column") == "id")
    assert why == "the key"
    assert any("2 backups" in rule["meta"]["why"] for rule in second["suite"]["expectations"])


@pytest.mark.parametrize("kind", ["json", "hash"])
def test_values_under_keys_of_redis(kind: Format, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    try:
        for n in range(1, 101):
            quote = {"symbol": f"S{n % 4}", "price": str(n), "uid": str(uuid.uuid4())}
            if kind == "json":
                server("SET", f"quote:{n}", json.dumps(quote | {"price": n * 1.5, "open": n % 2 == 0}))
            else:
                server("HSET", f"quote:{n}", *(word for pair in quote.items() for word in pair))
        server("SET", "other", "no quote")
        plan = plan_of(tmp_path, cache=RedisSource(url=server.url))
        made = make_backup(plan, BackupType.FULL)
    finally:
        server.kill()
    found = proved(plan, tmp_path, made, "cache/db0", "quote:*", kind)
    assert {name: found["suite"][name] for name in ("keys", "format")} == {"keys": "quote:*", "format": kind}
    assert ("price", "expect_column_values_to_be_between") in found["rules"]
    assert ("uid", "expect_column_values_to_match_regex") in found["rules"]
    assert ("key", "expect_column_values_to_be_unique") in found["rules"]
    assert found["profile"]["cache/db0 (cache/db0 quote:*)"].rows == 100


def test_given_state(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, books=SQLiteSource(path=str(tmp_path / "none.db")))
    given = plan_of_given(plan, {f"quote:{n}": {"price": n, "symbol": "A"} for n in range(60)})
    made = make_backup(given, BackupType.FULL)
    found = proved(given, tmp_path, made, "state/state")
    assert ("key", "expect_column_values_to_be_unique") in found["rules"]
    assert ("value", "expect_column_values_to_be_json_parseable") in found["rules"]


def test_tables_without_rows_and_columns_of_several_types(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "odd.sqlite") as odd:
        odd.execute("CREATE TABLE empty (id INTEGER PRIMARY KEY, note TEXT)")
        odd.execute('CREATE TABLE "a ""b"" <i>" (id INTEGER PRIMARY KEY, w, n REAL, "select" TEXT)')
        odd.executemany(
            'INSERT INTO "a ""b"" <i>" VALUES (?, ?, ?, ?)',
            [(n, [1, "x", 2.5, None, b"q"][n % 5], "inf" if n % 2 else None, f"v{n % 7}") for n in range(300)],
        )
    odd.close()
    plan = plan_of(tmp_path, odd=SQLiteSource(path=str(tmp_path / "odd.sqlite")))
    made = make_backup(plan, BackupType.FULL)
    repository = plan.repository.unlock(plan.encryption)
    files, notes = [], list[str]()
    for collection in made.collections:
        suite = suggested(gather(repository, made, draft(collection, None, None), 5, False, notes.append))
        files.append(str(tmp_path / f"{collection.number}.json"))
        Path(files[-1]).write_text(json.dumps(suite))
    assert notes == ["values of several types are in n, w: nothing is said of that"]
    assert check_suites(files, made).faults == []
    result = make_verification(plan.model_copy(update={"quality": files}), made.backup_id, deep=False)
    assert (result.findings, result.warnings) == ((), ())
    assert {rule.outcome for rule in result.rules} == {RuleOutcome.HOLDS}
    assert "select" in {column for rule in result.rules for column in rule.columns}
