"""Rows in COPY's binary format are the rows that CSV gives."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.sources.postgres.connect import Session, connect
from blocks.sources.postgres.schema.tables import Column, TableShape, read_tables
from blocks.sources.postgres.write.binary import encode, encoders
from blocks.sources.postgres.write.copy import as_csv, copy_rows
from tests.postgres_server import PostgresServer

DEFINITION = """
    b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, t text, v varchar(20), c char(5), c1 bpchar, by bytea,
    j json, jb jsonb, u uuid, d date, ts timestamp, ts3 timestamp(3), tz timestamptz, n2 numeric(9, 2),
    n0 numeric(18, 0), n5 numeric(14, 5), n4 numeric(4, 4), di counted, dt named, last int4
"""
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SHORT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
ODD_DATES = st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "5874897-12-31"])
ODD_MOMENTS = st.sampled_from(["infinity", "-infinity", "0044-03-15 12:00:00.5 BC", "10000-01-01 00:00:00"])


def moments(zone: str, places: int) -> st.SearchStrategy[str]:
    """Moments as PostgreSQL prints them."""

    def printed(moment: datetime) -> str:
        text = moment.replace(tzinfo=None).isoformat(" ", "microseconds")
        return text[: len(text) - 6 + places].rstrip("0").rstrip(".") + zone

    return st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(printed)


def numbers(digits: int, places: int) -> st.SearchStrategy[str]:
    """Numbers as PostgreSQL prints those of a declared scale."""
    top = 10**digits - 1
    return st.integers(-top, top).map(lambda n: f"{Decimal(n).scaleb(-places):.{places}f}")


COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[object]]] = {
    "b": (pa.bool_(), st.booleans()),
    "i2": (pa.int64(), st.integers(-(2**15), 2**15 - 1)),
    "i4": (pa.int64(), st.integers(-(2**31), 2**31 - 1)),
    "i8": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "f4": (pa.float64(), st.floats(width=32)),
    "f8": (pa.float64(), st.floats()),
    "t": (pa.large_string(), TEXT),
    "v": (pa.large_string(), TEXT),
    "c": (pa.large_string(), SHORT),
    "c1": (pa.large_string(), TEXT),
    "by": (pa.large_binary(), st.binary(max_size=12)),
    "j": (pa.large_string(), st.sampled_from(["null", '{ "b":1, "b" : 1.0e5}', '"\\ud83d\\ude00"', "[]"])),
    "jb": (pa.large_string(), st.sampled_from(["null", '{"a": [null, 1e5]}', '"é"', "-0.0", "[]"])),
    "u": (pa.large_string(), st.uuids().map(str)),
    "d": (pa.large_string(), st.dates().map(date.isoformat)),
    "ts": (pa.large_string(), moments("", 6)),
    "ts3": (pa.large_string(), moments("", 3)),
    "tz": (pa.large_string(), moments("+00", 6)),
    "n2": (pa.large_string(), numbers(9, 2)),
    "n0": (pa.large_string(), numbers(18, 0)),
    "n5": (pa.large_string(), numbers(14, 5)),
    "n4": (pa.large_string(), numbers(4, 4)),
    "di": (pa.int64(), st.integers(1, 1000)),
    "dt": (pa.large_string(), TEXT),
    "last": (pa.int64(), st.integers(-5, 5)),
}  # fmt: skip
ODD = {"d": ODD_DATES, "ts": ODD_MOMENTS, "tz": ODD_MOMENTS.map(lambda m: m.replace(" BC", "+00 BC")),
       "n2": st.just("NaN"), "n0": st.just("NaN")}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, odd: bool) -> pa.Table:
    """Rows with NULLs in some columns, in others not; odd ones have values that stay text."""
    rows = draw(st.integers(1, 8))
    columns = {}
    for name, (kind, values) in COLUMNS.items():
        own = values | st.none() if draw(st.booleans()) else values
        if odd and name in ODD:
            own |= ODD[name]
        columns[name] = pa.array(draw(st.lists(own, min_size=rows, max_size=rows)), kind)
    return pa.table(columns)


@pytest.fixture(scope="module")
def session(server: PostgresServer) -> Iterator[tuple[Session, TableShape]]:
    dsn = server.create(
        "formats",
        "CREATE DOMAIN counted AS int CHECK (VALUE > 0)",
        "CREATE DOMAIN named AS text",
        *(f"CREATE TABLE {name} ({DEFINITION})" for name in ("one", "other")),
    )
    with connect(dsn, 10) as opened:
        yield opened, next(table.shape for table in read_tables(opened).tables if table.shape.table == "one")


def differing(session: Session, columns: tuple[Column, ...], rows: pa.Table) -> int:
    """Write rows in both formats; count the rows that differ in their text."""
    session.execute("TRUNCATE public.one, public.other")
    copy_rows(session, "public.one", columns, rows)
    names = ", ".join(column.name for column in columns)
    with (
        session.cursor() as cursor,
        cursor.copy(f"COPY public.other ({names}) FROM STDIN (FORMAT csv)".encode()) as out,
    ):
        out.write(as_csv(rows.select([column.name for column in columns])))
    row = session.execute(
        "SELECT (SELECT count(*) FROM public.one), (SELECT count(*) FROM"
        " (SELECT o::text FROM public.one o EXCEPT ALL SELECT o::text FROM public.other o) d)"
    ).fetchone()
    assert row is not None
    assert row[0] == rows.num_rows
    return int(str(row[1]))


FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


@FIXTURES
@given(rows=tables(odd=False))
def test_values_of_every_encoded_type_are_those_that_csv_gives(
    session: tuple[Session, TableShape], rows: pa.Table
) -> None:
    shape = session[1]
    how = encoders(shape.columns)
    assert how is not None
    assert encode(rows.select([column.name for column in shape.columns]), how) is not None
    assert differing(session[0], shape.columns, rows) == 0


@FIXTURES
@given(rows=tables(odd=True))
def test_values_without_a_place_in_an_encoded_type_travel_as_text(
    session: tuple[Session, TableShape], rows: pa.Table
) -> None:
    assert differing(session[0], session[1].columns, rows) == 0


def test_pieces_change_their_format_where_they_have_to(
    session: tuple[Session, TableShape], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.sources.postgres.write.copy._ROWS", 2)
    days = ["2020-01-01", "2020-01-02", "infinity", None, "2020-01-03", None, None, None, "-infinity"]
    rows = pa.table({"d": pa.array(days, pa.large_string()), "last": pa.array(range(9), pa.int64())})
    columns = tuple(column for column in session[1].columns if column.name in rows.column_names)
    assert differing(session[0], columns, rows) == 0


def test_columns_without_any_value_and_slices_are_encoded(session: tuple[Session, TableShape]) -> None:
    rows = pa.table(
        {
            "t": pa.chunked_array([pa.array(["a", "bc"], pa.large_string()), pa.array([None, ""], pa.large_string())]),
            "by": pa.nulls(4),
            "f8": pa.array([1.0, None, float("nan"), -0.0]),
        }
    )
    columns = tuple(column for column in session[1].columns if column.name in rows.column_names)
    assert differing(session[0], columns, rows.slice(1, 3)) == 0


@pytest.mark.parametrize(
    "kind", ["numeric", "numeric(20,3)", "numeric(3,5)", "text[]", "oid", "public.mood", "interval"]
)
def test_types_whose_binary_form_is_not_known_here_are_left_to_text(kind: str) -> None:
    assert encoders([Column("id", "integer", '"id"'), Column("v", kind, 'pg_catalog.textin(x("v"))')]) is None


def test_a_uuid_that_is_none_and_moments_between_zones_stay_text() -> None:
    (how,) = encoders([Column("u", "uuid", "")]) or []
    assert how(pa.array([str(uuid.uuid4()), "x" * 36], pa.large_string())) is None
    (how,) = encoders([Column("t", "timestamp with time zone", "")]) or []
    assert how(pa.array([datetime(2020, 1, 1, tzinfo=UTC).isoformat(" ")[:-6]], pa.large_string())) is None
