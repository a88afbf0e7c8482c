from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import ConfigurationError
from blocks.plan.quality import QualitySuite
from blocks.plan.quality.findings import is_fault
from blocks.sources.files.rows import SCHEMA as FILE_SCHEMA
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rows import SCHEMA as REDIS_SCHEMA
from blocks.verification import RuleResult
from flows.proving.fields import Fields
from flows.proving.keyed import KeyedValues
from tests.blocks.plan.quality.support import broken, expect, outcomes, query, run_on, suite_of

ROWS = expect("table_row_count_to_be_between", min_value=1)


def redis_rows(**values: bytes | str | dict[str, str]) -> pa.Table:
    """Keys as the source hands them out: texts are strings, mappings hashes."""
    rows: list[dict[str, Any]] = []
    for key, value in values.items():
        pairs = value if isinstance(value, dict) else None
        held = packed(*[word for pair in pairs.items() for word in pair]) if pairs is not None else value
        kind = "string" if pairs is None else "hash"
        held = held.encode() if isinstance(held, str) else held
        rows.append({"key": key.replace("_", ":").encode(), "type": kind, "value": held, "expires_ms": 5_000})
    return pa.Table.from_pylist(rows, schema=REDIS_SCHEMA)


def wide_hash(key: bytes, fields: dict[str, str]) -> pa.Table:
    head = {"key": key, "type": "hash"}
    return pa.Table.from_pylist(
        [head, *({**head, "element": name.encode(), "value": value.encode()} for name, value in fields.items())],
        schema=REDIS_SCHEMA,
    )


def file_rows(**files: bytes) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for name, content in files.items():
        path = name.replace("__", ".").encode()
        rows.append({"path": path, "offset": -1, "kind": "file", "size": len(content)})
        step = 1 << 20
        rows += [
            {"path": path, "offset": start, "data": content[start : start + step]}
            for start in range(0, len(content), step)
        ]
    return pa.Table.from_pylist(rows, schema=FILE_SCHEMA)


def on_redis(rows: pa.Table, *expectations: dict[str, Any], **more: Any) -> list[RuleResult]:
    suite = {**suite_of(*expectations, **more), "collection": "cache/db0"}
    return run_on({"cache/db0": rows}, suite, cache="redis")


def on_files(rows: pa.Table, *expectations: dict[str, Any], **more: Any) -> list[RuleResult]:
    suite = {**suite_of(*expectations, **more), "collection": "exports/tree"}
    return run_on({"exports/tree": rows}, suite, exports="files")


QUOTES = redis_rows(
    quote_1='{"bid": 1.10, "size": 3, "open": true, "venue": "X"}',
    quote_2='{"bid": 2.20, "size": 4, "open": false, "venue": null, "more": {"a": 1}}',
    other_1="no JSON",
)


def test_fields_of_json_under_keys_are_columns_with_exact_numbers() -> None:
    rules = on_redis(
        QUOTES,
        expect("column_sum_to_be_between", column="bid", min_value=3.3, max_value=3.3),
        expect("column_sum_to_be_between", column="size", min_value=7, max_value=7),
        expect("column_values_to_be_in_set", column="open", value_set=[True, False]),
        expect("column_values_to_match_regex", column="key", regex="^quote:"),
        expect("column_values_to_be_between", column="expires_ms", min_value=5000, max_value=5000),
        expect("column_values_to_not_be_null", column="venue", mostly=0.5),
        query("SELECT * FROM {batch} WHERE bid > 2 AND size < 4"),
        keys="quote:*",
        format="json",
    )
    assert outcomes(rules) == ["holds"] * 7


@pytest.mark.parametrize("cut", ['{"bid": 1.1', "", "[1]", "12", '{"bid": NaN}', b"\xff"])
def test_a_json_text_that_was_cut_is_a_finding_of_its_own(cut: bytes | str) -> None:
    rows = redis_rows(quote_1='{"bid": 1}', quote_2=cut, quote_3='{"bid": 2}')
    rules = on_redis(
        rows, expect("column_values_to_be_between", column="bid", min_value=0), format="json", examples=True
    )
    assert outcomes(rules) == ["broken: does not parse", "holds"]
    assert rules[0].sentence == "cache/db0: 1 of 3 JSON texts do not parse; for example quote:2"


def test_a_field_that_was_retyped_is_counted() -> None:
    rows = redis_rows(**{f"q_{n}": json.dumps({"bid": n if n else "0"}) for n in range(5)})
    rules = on_redis(rows, expect("column_min_to_be_between", column="bid", min_value=1), format="json", examples=True)
    assert outcomes(rules) == ["broken: wrong type", "holds"]
    assert rules[0].examples == ("q:0",)


def test_a_key_of_another_type_does_not_parse() -> None:
    rows = redis_rows(quote_1='{"bid": 1}', quote_2={"bid": "1"})
    assert outcomes(on_redis(rows, ROWS, format="json"))[0] == "broken: does not parse"


def test_fields_of_hashes_are_columns_and_numbers_where_they_are_numbers() -> None:
    rows = redis_rows(
        position_1={"quantity": "10", "price": "1.25", "code": "007", "note": "x"},
        position_2={"quantity": "20", "price": "2.50", "code": "008"},
    )
    rows = pa.concat_tables([rows, wide_hash(b"position:3", {"quantity": "30", "price": "3.75", "code": "009"})])
    rules = on_redis(
        rows,
        expect("column_sum_to_be_between", column="quantity", min_value=60, max_value=60),
        expect("column_sum_to_be_between", column="price", min_value=7.5, max_value=7.5),
        expect("column_values_to_match_regex", column="code", regex="^00"),
        expect("column_values_to_not_be_null", column="note"),
        format="hash",
        keys="position:*",
    )
    assert outcomes(rules) == ["holds", "holds", "holds", "broken"]
    assert (rules[3].unexpected, rules[3].total) == (2, 3)


def test_a_hash_with_very_many_fields_is_no_row_of_a_table() -> None:
    rows = wide_hash(b"position:1", {str(n): "1" for n in range(1_001)})
    assert_too_wide(on_redis(rows, ROWS, format="hash"))
    two_parts = [wide_hash(b"position:1", {f"{half}{n}": "1" for n in range(600)}) for half in "ab"]
    kept = KeyedValues(QualitySuite(**suite_of(ROWS, format="hash")), duckdb.connect(), Path(), "wide")
    kept.add(two_parts[0], 0)
    with pytest.raises(ConfigurationError):  # before more of it is held in memory
        kept.add(two_parts[1], 1)
    packed_rows = redis_rows(**{f"position_{n}": json.dumps({str(n): 1}) for n in range(1_001)})
    assert_too_wide(on_redis(packed_rows, ROWS, format="json"))


def assert_too_wide(rules: list[RuleResult]) -> None:
    """A fault of the suite, which ends nothing else."""
    [rule] = rules
    assert is_fault(rule)
    assert "more than 1,000 different fields" in rule.sentence


def test_no_keys_are_no_rows() -> None:
    rules = on_redis(QUOTES, expect("column_values_to_be_unique", column="key"), keys="none:*", format="json")
    assert outcomes(rules) == ["broken: no rows"]


def test_keys_alone_select_rows_as_they_are() -> None:
    rules = on_redis(QUOTES, expect("column_values_to_be_json_parseable", column="value"), keys="quote:*")
    assert outcomes(rules) == ["holds"]
    assert rules[0].total == 2


CSV = b"id,price,code\n1,1.10,007\n2,2.20,008\n3,,009\n"


def test_csv_is_a_table_of_all_files_that_match() -> None:
    rows = file_rows(orders_1__csv=CSV, orders_2__csv=b'id,price,code\n4,"4.40",010\n', other__txt=b"nothing")
    rules = on_files(
        rows,
        expect("column_sum_to_be_between", column="price", min_value=7.7, max_value=7.7),
        expect("column_values_to_be_unique", column="id"),
        expect("column_max_to_be_between", column="id", max_value=4, min_value=4),
        expect("column_values_to_match_regex", column="code", regex="^0"),
        expect("column_unique_value_count_to_be_between", column="path", min_value=2, max_value=2),
        expect("column_max_to_be_between", column="line", max_value=3, min_value=3),
        format="csv",
        keys="orders_*.csv",
    )
    assert outcomes(rules) == ["holds"] * 6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (CSV[:-6], "1 of 3 lines do not parse; for example a.csv"),
        (b"", "1 of 2 files do not parse; for example a.csv"),
        (b"id,price,code\n\xff,1,2\n", "1 of 2 files do not parse; for example a.csv"),
    ],
)
def test_csv_that_was_cut_is_a_finding(content: bytes, sentence: str) -> None:
    rows = file_rows(a__csv=content, b__csv=b"id,price,code\n")
    rules = on_files(rows, ROWS, format="csv", keys="*.csv", examples=True)
    assert f"exports/tree: {sentence}" in [rule.sentence for rule in rules]


def test_csv_that_ends_within_a_line_is_a_warning() -> None:
    rules = on_files(file_rows(a__csv=CSV[:-1], b__csv=CSV), ROWS, format="csv", examples=True)
    assert outcomes(rules) == ["broken: does not parse", "holds"]
    assert rules[0].severity == "warning"
    assert rules[0].sentence == "exports/tree: 1 of 2 files end within a line; for example a.csv"


def test_another_delimiter_and_types_that_the_suite_says() -> None:
    rows = file_rows(a__csv=b"day;price\n2026-01-01;1.5\n2026-01-02;x\n")
    rules = on_files(
        rows,
        expect("column_max_to_be_between", column="day", min_value="2026-01-02", max_value="2026-01-02"),
        expect("column_sum_to_be_between", column="price", min_value=1.5, max_value=1.5),
        format="csv",
        delimiter=";",
        types={"day": "date", "price": "decimal"},
    )
    assert outcomes(rules) == ["broken: wrong type", "holds", "holds"]


def test_json_lines_are_rows_and_broken_ones_are_counted() -> None:
    rows = file_rows(a__jsonl=b'{"n": 1}\n\n{"n": 2.5}\n{"n": \n')
    rules = on_files(
        rows, expect("column_sum_to_be_between", column="n", min_value=3.5, max_value=3.5), format="json_lines"
    )
    assert outcomes(rules) == ["broken: does not parse", "holds"]
    assert (rules[0].unexpected, rules[0].total) == (1, 3)


def parquet(folder: Path, **columns: Any) -> bytes:
    pq.write_table(pa.table(columns), folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def test_parquet_is_read_with_its_types_and_a_cut_footer_is_a_finding(tmp_path: Path) -> None:
    moments = pa.array([1_000_000, 2_000_000], pa.timestamp("us", "UTC"))
    whole = parquet(tmp_path, n=[1, 2], x=[0.5, 1.5], made=moments)
    large = whole + b""
    rules = on_files(
        file_rows(a__parquet=whole, b__parquet=large[:-10]),
        expect("column_sum_to_be_between", column="x", min_value=2, max_value=2),
        expect("column_max_to_be_between", column="made", max_value="1970-01-01T00:00:02+00:00"),
        format="parquet",
        examples=True,
    )
    assert outcomes(rules) == ["broken: does not parse", "holds", "holds"]
    assert rules[0].sentence == "exports/tree: 1 of 2 files do not parse; for example b.parquet"


def test_a_file_of_several_chunks_in_any_order_is_laid_together() -> None:
    lines = b"id\n" + b"".join(b"%d\n" % n for n in range(200_000))
    rows = file_rows(a__csv=lines)
    assert rows.num_rows == 3
    rules = on_files(rows.take([2, 1, 0]), expect("table_row_count_to_equal", value=200_000), format="csv")
    assert outcomes(rules) == ["holds"]


ORDERS = pa.table({"id": pa.array([1, 2], pa.int64()), "amount": pa.array(["10.10", "20.20"], pa.large_string())})
FILLS = pa.table({"id": pa.array([7, 8], pa.int64()), "order_id": pa.array([1, 2], pa.int64())})
BALANCES = redis_rows(balance_1='{"amount": 10.10}', balance_2='{"amount": 20.20}')
COLUMNS = {"books/orders": {"id": "bigint", "amount": "numeric"}, "cache/db0": dict.fromkeys(REDIS_SCHEMA.names, "")}
ORPHANS = 'SELECT * FROM {batch} f WHERE NOT EXISTS (SELECT 1 FROM "books"."orders" o WHERE o.id = f.order_id)'
SUMS = {
    "type": "expect_query_results_to_match_comparison",
    "kwargs": {
        "base_query": 'SELECT sum(amount) FROM "suites"."balances"',
        "comparison_query": 'SELECT sum(amount) FROM "books"."orders"',
    },
}


def across(fills: pa.Table = FILLS, balances: pa.Table = BALANCES) -> list[RuleResult]:
    suites = [
        {
            **suite_of(query(ORPHANS, meta={"rule": "every fill has an order"})),
            "name": "fills",
            "collection": "books/fills",
        },
        {**suite_of(SUMS), "name": "balances", "collection": "cache/db0", "keys": "balance:*", "format": "json"},
        {
            **suite_of(expect("table_row_count_to_equal_other_table", other_table_name="books/orders")),
            "name": "counts",
            "collection": "books/fills",
        },
    ]
    tables = {"books/orders": ORDERS, "books/fills": fills, "cache/db0": balances}
    return run_on(tables, *suites, columns=COLUMNS, books="postgres", cache="redis")


def test_rules_across_tables_and_sources_hold() -> None:
    assert broken(across()) == []


def test_an_orphan_is_found_and_named_by_its_rule() -> None:
    orphan = pa.concat_tables(
        [FILLS, pa.table({"id": pa.array([9], pa.int64()), "order_id": pa.array([3], pa.int64())})]
    )
    assert [rule.sentence for rule in broken(across(fills=orphan))] == [
        "books/fills: the query finds 1 rows that break the rule 'every fill has an order'",
        "books/fills: there are 3 rows, and 2 in books/orders",
    ]


def test_sums_that_differ_by_a_cent_between_redis_and_postgres_are_found() -> None:
    [rule] = broken(across(balances=redis_rows(balance_1='{"amount": 10.10}', balance_2='{"amount": 20.21}')))
    assert (rule.suite, rule.unexpected, rule.total) == ("balances", 1, 1)


def test_a_query_that_takes_too_long_is_a_fault() -> None:
    slow = query("SELECT * FROM range(1000000000) a, range(1000000000) b WHERE a.range * b.range = 7 -- {batch}")
    rules = run_on({"books/orders": ORDERS}, {**suite_of(slow, query_seconds=0.2), "collection": "books/orders"})
    assert outcomes(rules)[-1] == "unjudged: query took too long"


def test_no_room_for_what_is_read_of_a_file_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Fields, "add", full)
    with pytest.raises(OSError, match="No space left"):
        on_files(file_rows(a__csv=b"id,price\n1,2\n"), ROWS, format="csv")


def on_csv(content: bytes, *expectations: dict[str, Any], **more: Any) -> list[RuleResult]:
    return on_files(file_rows(a__csv=content), *expectations, format="csv", **more)


def test_numbers_with_an_exponent_keep_all_of_their_digits() -> None:
    rules = on_csv(
        b"id,a\n1,1e-05\n2,0.5\n3,1e10\n",
        expect("column_min_to_be_between", column="a", min_value=0.00001, max_value=0.00001),
        expect("column_max_to_be_between", column="a", min_value=1e10, max_value=1e10),
    )
    assert outcomes(rules) == ["holds"] * 2


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("integer", "5.0", "1.5"),
        ("integer", "-5", "0x10"),
        ("date", "2026-01-01T00:00:00", "2026-01-01 12:00"),
    ],
)
def test_a_type_takes_no_value_that_it_would_round(kind: str, good: str, bad: str) -> None:
    there = expect("column_values_to_not_be_null", column="a", mostly=0.1)
    rules = on_csv(f"id,a\n1,{good}\n2,{bad}\n".encode(), there, types={"a": kind})
    assert [(rule.kind, rule.unexpected) for rule in broken(rules)] == [("wrong type", 1)]


def test_columns_of_a_csv_are_there_without_a_value_and_without_a_row() -> None:
    exists, values = expect("column_to_exist", column="a"), expect("column_values_to_be_unique", column="a")
    assert outcomes(on_csv(b"id,a\n1,\n", exists, values)) == ["holds", "broken: only NULL"]
    assert outcomes(on_csv(b"id,a\n", exists, values)) == ["holds", "broken: no rows"]
    assert outcomes(on_csv(b"id,a\n", exists, values, may_be_empty=True)) == ["holds"] * 2


def test_fields_are_not_missed_where_no_key_may_be() -> None:
    rules = on_redis(
        QUOTES, expect("column_values_to_be_unique", column="a"), keys="z*", format="json", may_be_empty=True
    )
    assert outcomes(rules) == ["holds"]


def test_a_type_of_a_column_that_is_not_there_is_a_finding() -> None:
    rules = on_csv(b"id,b\n1,2\n", expect("column_values_to_be_unique", column="b"), types={"a": "integer"})
    assert outcomes(rules) == ["broken: missing column", "holds"]


def test_two_columns_of_one_name_do_not_parse() -> None:
    assert outcomes(on_csv(b"a,a\n1,2\n", expect("column_to_exist", column="a")))[0] == "broken: does not parse"
    held = pa.BufferOutputStream()
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), held)
    rows = file_rows(a__parquet=held.getvalue().to_pybytes())
    rules = on_files(rows, expect("column_to_exist", column="a"), format="parquet")
    assert outcomes(rules)[0] == "broken: does not parse"


@pytest.mark.parametrize("held", ['{"bid": ' + "[" * 100_000, '{"bid": 1e9999999999999999999999}'])
def test_json_that_python_cannot_hold_does_not_parse(held: str) -> None:
    rows = redis_rows(quote_1=held, quote_2='{"bid": 1}')
    rules = on_redis(rows, expect("column_values_to_be_between", column="bid", min_value=0), format="json")
    assert outcomes(rules) == ["broken: does not parse", "holds"]


def test_floats_of_parquet_are_floats_and_nan_is_a_warning() -> None:
    held = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1e300, 1e-7, float("inf"), float("nan")]}), held)
    rules = on_files(
        file_rows(a__parquet=held.getvalue().to_pybytes()),
        expect("column_values_to_be_between", column="a", min_value=0, strict_min=True),
        format="parquet",
    )
    assert [(rule.kind, rule.severity, rule.unexpected) for rule in broken(rules)] == [("not a number", "warning", 1)]
