"""Numbers about the columns of restored rows, and what later verifications take of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from blocks.plan.quality.table import CheckedColumn, CheckedTable
from blocks.verification import CollectionProfile, ColumnProfile
from flows.proving import profile as profiling
from flows.proving.profile import profile, read_value

ROWS = """
    SELECT range AS id,
        CAST(range * 1.10 AS DECIMAL(38, 2)) AS price,
        CASE range WHEN 3 THEN NULL WHEN 4 THEN 'inf' WHEN 5 THEN '-inf' ELSE range / 4 END::DOUBLE AS odd,
        CASE WHEN range > 0 THEN TIMESTAMPTZ '2026-01-01 00:30:00.25+02' ELSE 'infinity' END AS at,
        TIMESTAMP '2026-01-01 12:00:00' AS local,
        CASE WHEN range > 0 THEN DATE '2026-01-01' + CAST(range AS INTEGER) ELSE 'infinity' END AS day,
        'secret ' || range % 3 AS text,
        'secret'::BLOB AS bytes,
        range < 5 AS truth,
        [1] AS list,
        NULL AS nothing,
        CASE WHEN range < 2 THEN range END AS "quoted "" half"
    FROM range(10)
"""


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'America/New_York'")  # nobody's session has a say in what is kept
        yield opened


def table(connection: duckdb.DuckDBPyConnection, sql: str, **wrong: int) -> CheckedTable:
    connection.execute(f"CREATE VIEW rows AS {sql}")
    described = connection.execute("SELECT column_name, column_type FROM (DESCRIBE rows)").fetchall()
    ((count,),) = connection.execute("SELECT count(*) FROM rows").fetchall()
    columns = {name: CheckedColumn(kind, name, wrong.get(name, 0)) for name, kind in described}
    return CheckedTable(connection, "rows", columns, count)


def test_a_value_of_a_wrong_type_is_no_null(connection: duckdb.DuckDBPyConnection) -> None:
    found = profile(table(connection, "SELECT CASE WHEN range > 3 THEN range END AS id FROM range(10)", id=3))
    assert found.columns["id"].nulls == 1


@pytest.mark.parametrize(
    ("column", "numbers"),
    {
        "id": (0, 10, 0, 9, 4.5),
        "price": (0, 10, "0.00", "9.90", 4.95),
        "odd": (1, 9, 0.0, 2.25, pytest.approx(33 / 4 / 7)),
        "at": (0, 2, "2025-12-31T22:30:00.250000+00:00", "2025-12-31T22:30:00.250000+00:00", None),
        "local": (0, 1, "2026-01-01T12:00:00", "2026-01-01T12:00:00", None),
        "day": (0, 10, "2026-01-02", "2026-01-10", None),
        "text": (0, 3, None, None, None),
        "bytes": (0, 1, None, None, None),
        "truth": (0, 2, None, None, None),
        "list": (0, 1, None, None, None),
        "nothing": (10, 0, None, None, None),
        'quoted " half': (8, 2, 0, 1, 0.5),
    }.items(),
)
def test_what_is_said_of_a_column(connection: duckdb.DuckDBPyConnection, column: str, numbers: tuple[Any, ...]) -> None:
    found = profile(table(connection, ROWS))
    assert found.rows == 10
    one = found.columns[column]
    assert (one.nulls, one.distinct, one.minimum, one.maximum, one.mean) == numbers
    assert "secret" not in found.model_dump_json()


def test_no_rows_have_a_profile_too(connection: duckdb.DuckDBPyConnection) -> None:
    found = profile(table(connection, f"{ROWS} LIMIT 0"))
    assert found.rows == 0
    assert set(found.columns.values()) == {ColumnProfile(nulls=0, distinct=0)}


def test_a_wide_table_is_cut_and_a_long_one_estimated(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "EXACT_ROWS", 9_999)
    found = profile(table(connection, f"SELECT {', '.join(f'range AS c{n}' for n in range(60))} FROM range(10000)"))
    assert list(found.columns) == [f"c{n}" for n in range(profiling.MAX_COLUMNS)]
    assert found.columns["c0"].distinct == pytest.approx(10_000, rel=0.1)
    assert len(found.model_dump_json()) < 8_000
    assert CollectionProfile.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("kept", "value"),
    [
        (7, 7),
        (1.5, 1.5),
        ("20260101", Decimal("20260101")),
        ("-0.10", Decimal("-0.10")),
        ("2026-01-01", date(2026, 1, 1)),
        ("2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00", datetime(2026, 1, 1)),
        ("10:00:00", None),
        ("0044-03-15 (BC)", None),
        ("Infinity", None),
        (None, None),
        (True, None),
    ],
)
def test_a_kept_value_is_read_as_what_it_stands_for(kept: Any, value: Any) -> None:
    found = read_value(kept)
    assert found == value
    assert type(found) is type(value)
