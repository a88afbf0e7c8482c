from __future__ import annotations

import datetime as dt
import itertools
import threading
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from blocks.plan.quality.table import CheckedTable
from blocks.records import Collection
from blocks.rows.variant import encode_variant, variant_field
from flows.reading.tables import RestoredTables

NUMBERS = itertools.count()


def collection(name: str, *columns: tuple[str, str], key: tuple[str, ...] = ("id",)) -> Collection:
    return Collection(number=next(NUMBERS), name=name, key=key, label=key, columns=columns, definition={}, parts=())


def kept(kind: str, columns: dict[str, str], *parts: dict[str, pa.Array | list[Any]]) -> RestoredTables:
    made = RestoredTables("plan", [collection("s/t", *columns.items())], {"s": kind})
    for number, part in enumerate(parts):
        fields = [
            values.field if isinstance(values, Mixed) else pa.field(name, pa.array(values).type)
            for name, values in part.items()
        ]
        arrays = [values.values if isinstance(values, Mixed) else pa.array(values) for values in part.values()]
        made.add("s/t", pa.Table.from_arrays(arrays, schema=pa.schema(fields)), number)
    return made


class Mixed:
    def __init__(self, name: str, *values: Any) -> None:
        self.field, self.values = variant_field(name), encode_variant(values)


def read(table: CheckedTable) -> list[tuple[Any, ...]]:
    return table.connection.execute(f"SELECT * FROM {table.name}").fetchall()


def texts(*values: str | None) -> pa.Array:
    return pa.array(values, pa.large_string())


@pytest.mark.parametrize(
    ("declared", "values", "type_", "found", "wrong"),
    [
        ("numeric(10,2)", ["1.50", None, "-2.25"], "DECIMAL(10,2)", [Decimal("1.50"), None, Decimal("-2.25")], 0),
        ("numeric(10,2)", ["NaN", "1.00"], "DECIMAL(10,2)", [None, Decimal("1.00")], 1),
        ("numeric", ["1.5", "-1000.001", "7"], "DECIMAL(7,3)", [Decimal("1.500"), Decimal("-1000.001"), 7], 0),
        ("numeric", ["Infinity", "1"], "DECIMAL(1,0)", [None, 1], 1),
        ("numeric", ["1" * 20 + ".25"], "DECIMAL(22,2)", [Decimal("1" * 20 + ".25")], 0),
        ("numeric", ["1" * 38 + ".5", "2"], "DOUBLE", [float("1" * 38), 2.0], 0),
        ("numeric(5,-2)", ["1200"], "DECIMAL(4,0)", [1200], 0),
        ("date", ["2026-01-31", "0044-03-15 BC"], "DATE", [dt.date(2026, 1, 31), None], 1),
        (
            "timestamp without time zone",
            ["2026-01-31 09:30:00.5"],
            "TIMESTAMP",
            [dt.datetime(2026, 1, 31, 9, 30, 0, 500_000)],
            0,
        ),
        ("character varying(9)", ["2026-01-31"], "VARCHAR", ["2026-01-31"], 0),
        ("uuid", ["8c0f9d8e-0000-4000-8000-000000000001"], "VARCHAR", ["8c0f9d8e-0000-4000-8000-000000000001"], 0),
    ],
)
def test_texts_of_postgres_become_values_of_their_types(
    declared: str, values: list[str | None], type_: str, found: list[Any], wrong: int
) -> None:
    ids = list(range(len(values)))
    with kept("postgres", {"id": "integer", "c": declared}, {"id": ids, "c": texts(*values)}) as tables:
        table = tables.table("s/t")
        column = table.columns["c"]
        assert (column.type, column.wrong) == (type_, wrong)
        assert [row[1] for row in read(table)] == found
        assert len(column.keys) == wrong


def test_times_with_a_zone_are_utc_and_infinite_ones_stay_beyond_all_others() -> None:
    times = texts("2026-01-01 02:00:00+02", "infinity", "-infinity", None)
    columns = {"id": "integer", "made": "timestamp with time zone", "day": "date"}
    days = texts("2026-01-01", "infinity", "-infinity", None)
    with kept("postgres", columns, {"id": [1, 2, 3, 4], "made": times, "day": days}) as tables:
        table = tables.table("s/t")
        assert table.value("min(made) FILTER (WHERE isfinite(made))") == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        assert table.value("count(*) FILTER (WHERE made > '9999-01-01' AND day > '9999-01-01')") == 1
        assert table.value("count(*) FILTER (WHERE made < '0001-01-01' AND day < '0001-01-01')") == 1
        assert table.columns["made"].wrong == table.columns["day"].wrong == 0


def test_decimals_of_several_parts_have_one_type() -> None:
    parts = [{"id": [n], "c": texts(value)} for n, value in enumerate(["1.5", "100", None, "0.001"])]
    with kept("postgres", {"id": "integer", "c": "numeric"}, *parts) as tables:
        table = tables.table("s/t")
        assert table.columns["c"].type == "DECIMAL(6,3)"
        assert [row[1] for row in read(table)] == [Decimal("1.500"), Decimal("100.000"), None, Decimal("0.001")]


def test_decimals_with_too_many_digits_for_one_type_are_doubles_and_said_to_be() -> None:
    parts = [{"id": [1], "c": texts("1" * 30)}, {"id": [2], "c": texts("0." + "1" * 30)}]
    with kept("postgres", {"id": "integer", "c": "numeric"}, *parts) as tables:
        column = tables.table("s/t").columns["c"]
        assert (column.type, column.inexact) == ("DOUBLE", True)


@pytest.mark.parametrize(
    ("declared", "parts", "type_", "found", "wrong", "keys"),
    [
        ("INTEGER", [Mixed("c", 1, "x", None)], "BIGINT", [1, None, None], 1, ("1",)),
        ("INTEGER", [[1], texts("x")], "BIGINT", [1, None], 1, ("0",)),
        ("INTEGER", [texts("x", "y")], "BIGINT", [None, None], 2, ("0", "1")),
        ("REAL", [Mixed("c", 1, 2.5)], "DOUBLE", [1.0, 2.5], 0, ()),
        ("TEXT", [Mixed("c", "a", b"\xff", bytearray(b"\xff"))], "VARCHAR", ["a", None, None], 2, ("1", "2")),
        ("", [Mixed("c", 1, 2, "x")], "BIGINT", [1, 2, None], 1, ("2",)),
        ("DATETIME", [texts("2026-01-01")], "VARCHAR", ["2026-01-01"], 0, ()),
        ("FLOATING POINT", [pa.nulls(2)], "VARCHAR", [None, None], 0, ()),
        ("INTEGER", [pa.nulls(1), [3]], "BIGINT", [None, 3], 0, ()),
    ],
)
def test_values_of_sqlite_that_are_not_of_the_columns_type_are_counted(
    declared: str, parts: list[Any], type_: str, found: list[Any], wrong: int, keys: tuple[str, ...]
) -> None:
    sized = [(part, len(part.values if isinstance(part, Mixed) else part)) for part in parts]
    rows = [{"id": list(range(size)), "c": part} for part, size in sized]
    with kept("sqlite", {"id": "INTEGER", "c": declared}, *rows) as tables:
        table = tables.table("s/t")
        column = table.columns["c"]
        assert (column.type, column.wrong, column.keys) == (type_, wrong, keys)
        assert [row[1] for row in read(table)] == found


def test_what_is_no_number_is_null_and_counted_apart() -> None:
    with kept("sqlite", {"id": "INTEGER", "c": "REAL"}, {"id": [1, 2], "c": [1.5, float("nan")]}) as tables:
        column = tables.table("s/t").columns["c"]
        assert (column.nans, column.wrong) == (1, 0)
        assert tables.table("s/t").value("count(c)") == 1


def test_keys_and_paths_are_text_and_bytes_that_are_none_are_written_out() -> None:
    columns = {"key": "binary", "value": "binary"}
    made = RestoredTables("plan", [collection("s/t", *columns.items(), key=("key",))], {"s": "redis"})
    with made as tables:
        keys = pa.array([b"quote:1", b"\xffx"], pa.large_binary())
        tables.add("s/t", pa.table({"key": keys, "value": keys}))
        assert read(tables.table("s/t")) == [("quote:1", "quote:1"), ("\\xffx", "\\xffx")]


def test_the_content_of_files_is_left_out() -> None:
    files = collection("s/tree", ("path", "binary"), ("data", "large_binary"), key=("path",))
    rows = pa.table({"path": pa.array([b"a"], pa.large_binary()), "data": pa.array([b"x"], pa.large_binary())})
    with RestoredTables("plan", [files], {"s": "files"}) as tables:
        tables.add("s/tree", rows)
        assert list(tables.table("s/tree").columns) == ["path"]


def test_rows_stand_in_the_order_of_parts_whoever_comes_first() -> None:
    with RestoredTables("plan", [collection("s/t", ("id", "integer"))], {"s": "postgres"}) as tables:
        threads = [
            threading.Thread(target=tables.add, args=("s/t", pa.table({"id": [number] * 1000}), number))
            for number in (3, 1, 2, 0)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        table = tables.table("s/t")
        assert table.rows == 4000
        batches = pa.concat_tables(table.batches(["id"], 700)).column("id").to_pylist()
        assert batches == sorted(batches)


def test_a_collection_without_rows_is_a_table_with_its_columns() -> None:
    columns = {"id": "integer", "price": "numeric(10,2)", "note": "text"}
    with kept("postgres", columns) as tables:
        table = tables.table("s/t")
        assert {name: column.type for name, column in table.columns.items()} == {
            "id": "VARCHAR", "price": "DECIMAL(10,2)", "note": "VARCHAR"
        }  # fmt: skip
        assert (table.rows, read(table)) == (0, [])


def test_names_that_differ_in_case_only_are_told_apart() -> None:
    collections = [collection("s/t", ("id", "text"), ("ID", "text")), collection("s/T", ("id", "text"))]
    with RestoredTables("plan", collections, {"s": "postgres"}) as tables:
        tables.add("s/t", pa.table({"id": ["a"], "ID": ["b"]}))
        tables.add("s/T", pa.table({"id": ["c"]}))
        found = tables.tables()
        assert read(found["s/t"]) == [("a", "b")]
        assert read(found["s/T"]) == [("c",)]
        assert [column.sql_name for column in found["s/t"].columns.values()] == ["id", "ID_2"]
        assert next(found["s/t"].batches(["ID"])).column_names == ["ID"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "COPY (SELECT 1) TO '/tmp/out'",
        "SET memory_limit = '10GB'",
        "SELECT * FROM glob('/tmp/*')",
        "SELECT getenv('HOME')",
        "SELECT * FROM rows",
    ],
)
def test_queries_reach_nothing_of_the_machine(query: str) -> None:
    rows = pa.table({"id": [1]})
    with kept("postgres", {"id": "integer"}, {"id": [1]}) as tables:
        assert rows.num_rows, "a variable of the caller's, which is no table"
        with pytest.raises(duckdb.Error):
            tables.connection.execute(query)


def test_nothing_is_left_in_the_temporary_folder() -> None:
    with kept("postgres", {"id": "integer"}, {"id": [1]}) as tables:
        folder = tables.folder
        assert list(folder.iterdir())
    assert not folder.exists()
