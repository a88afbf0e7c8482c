"""What is wrong with suites, found without reading a row: all of it, with what was meant."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from blocks.records import BackupMetadata, Collection
from flows.proving.suite_check import check_suites
from flows.proving.suite_warnings import warn_of_suites
from tests.flows.flow_support import Shop

COLUMNS = {
    "books/trades": {
        "id": "bigint",
        "price": "numeric(10,2)",
        "amount": "double precision",
        "symbol": "character varying(8)",
        "at": "timestamp with time zone",
        "day": "date",
        "open": "boolean",
        "my column": "integer",
    },
    "books/fills": {"id": "bigint", "trade": "bigint"},
    "ledger/orders": {"id": "INTEGER", "note": "TEXT", "odd": ""},
    "cache/db0": {"key": "large_binary", "value": "large_binary", "expires_ms": "int64"},
}
BETWEEN, MEAN = "expect_column_values_to_be_between", "expect_column_mean_to_be_between"
NOT_NULL, REGEX = "expect_column_values_to_not_be_null", "expect_column_values_to_match_regex"


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> BackupMetadata:
    """A backup whose collections are those of `COLUMNS`."""
    shop = Shop(tmp_path_factory.mktemp("shop"), encrypted=False)
    shop.fill(1)
    made = shop.back_up()
    collections = tuple(
        Collection(number=n, name=name, key=("id",), label=("id",), columns=(*one.items(),), definition={}, parts=())
        for n, (name, one) in enumerate(COLUMNS.items())
    )
    kinds = {"books": "postgres", "ledger": "sqlite", "cache": "redis"}
    sources = tuple(made.sources[0].model_copy(update={"name": name, "type": kind}) for name, kind in kinds.items())
    return made.model_copy(update={"collections": collections, "sources": sources})


def written(folder: Path, *suites: Any, name: str = "suite.json") -> str:
    path = folder / name
    path.write_text(json.dumps(list(suites)))
    return str(path)


def suite(*expectations: Any, name: str = "s", collection: str = "books/trades", **fields: Any) -> dict[str, Any]:
    return {"name": name, "collection": collection, "expectations": list(expectations), **fields}


def rule(type: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": type, "kwargs": kwargs}


def sql(query: str) -> dict[str, Any]:
    return rule("unexpected_rows_expectation", unexpected_rows_query=query)


def parameter(text: str) -> dict[str, str]:
    return {"$PARAMETER": text}


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (rule("expect_column_values_to_be_uniqe", column="id"), "did you mean expect_column_values_to_be_unique?"),
        (
            rule("expect_column_values_to_be_in_set", column="symbol", value_set=[1, 2]),
            "value_set: none of the values is of the type of 'symbol', which holds text",
        ),
        (
            rule("expect_column_values_to_not_be_in_set", column="day", value_set=["never"]),
            "value_set: none of the values is of the type of 'day', which holds dates",
        ),
        (
            rule(BETWEEN, column="price", min_valu=1, max_value=2),
            "'min_valu' is no argument; did you mean min_value?",
        ),
        (
            rule(BETWEEN, column="prize", min_value=1),
            "there is no column 'prize'; did you mean price?; there are id, price",
        ),
        (rule(BETWEEN, column="price"), "min_value and max_value cannot both be None"),
        (rule(BETWEEN, column="price", min_value="dear"), "min_value: value is not a valid float"),
        (rule(BETWEEN, column="price", min_value="2026-01-01"), "min_value is no number, and 'price' holds numbers"),
        (rule(BETWEEN, column="symbol", min_value=5), "min_value is a number, and 'symbol' holds text"),
        (rule(BETWEEN, column="at", max_value=5), "max_value is no time such as 2026-01-01T00:00:00+00:00"),
        (rule(BETWEEN, column="day", max_value=5), "and 'day' holds dates"),
        (
            rule(MEAN, column="symbol", min_value=1),
            "it is about numbers, and 'symbol' holds text",
        ),
        (
            rule(MEAN, column="at", min_value=1),
            "it is about numbers, and 'at' holds times",
        ),
        (rule("expect_column_sum_to_be_between", column="open", min_value=1), "'open' holds neither text nor numbers"),
        (
            rule(REGEX, column="price", regex="x"),
            "it is about text, and 'price' holds numbers",
        ),
        (
            rule(REGEX, column="symbol", regex="["),
            "'[' is no regular expression: unterminated",
        ),
        (rule(NOT_NULL, column="id", mostly=2), "less than or equal to 1.0"),
        (
            rule(
                "expect_column_values_to_not_be_null",
                column="id",
                row_condition="simbol=='A'",
                condition_parser="pandas",
            ),
            "there is no column 'simbol'; did you mean symbol?",
        ),
        (
            rule(BETWEEN, column="id", min_value=parameter("previous_row")),
            "'previous_row' is not known; did you mean previous_rows?",
        ),
        (rule(BETWEEN, column="id", min_value=parameter("previous_verified.it.min")), "there is no column 'it'"),
        (
            rule(BETWEEN, column="id", min_value=parameter("previous_verified.symbol.mean")),
            "'symbol' holds text, of which no mean is kept",
        ),
        (rule(BETWEEN, column="id", min_value=parameter("previous_verified.symbol.max")), "of which no max is kept"),
        (rule(BETWEEN, column="id", min_value=parameter("backup_timestamp * 2")), "a time * a number has no meaning"),
        (
            sql("SELECT * FROM {batch} WHERE prise < 0"),
            'Referenced column "prise" not found in FROM clause! Candidate bindings: "price"',
        ),
        (sql('SELECT * FROM {batch} JOIN "books"."fils" USING (id)'), "Table with name fils does not exist!"),
        (sql("SELECT * FROM {batch} WHERE symbol < 0"), "Cannot compare values of type VARCHAR"),
        (sql("DELETE FROM {batch}"), "SELECT"),
        (sql("SELECT * FRM {batch}"), "syntax error"),
    ],
)
def test_what_is_wrong_with_an_expectation(
    backup: BackupMetadata, tmp_path: Path, expectation: dict[str, Any], said: str
) -> None:
    good = rule("expect_column_to_exist", column="id")
    (fault,) = check_suites([written(tmp_path, suite(good, expectation))], backup).faults
    assert said in fault.sentence
    assert fault.sentence.startswith(expectation["type"])
    assert (fault.suite, fault.number) == ("s", 1)
    assert str(fault).startswith(f"{tmp_path / 'suite.json'}, suite 's', expectations.1: ")


@pytest.mark.parametrize(
    "expectation",
    [
        rule(BETWEEN, column="price", min_value="0.01", max_value=parameter("previous_verified.price.max * 2")),
        rule(
            BETWEEN,
            column="at",
            min_value=parameter("backup_timestamp - 3d"),
            max_value=parameter("backup_timestamp + 5m"),
        ),
        rule(BETWEEN, column="day", min_value="2026-01-01", max_value=parameter("backup_timestamp + 1d")),
        rule(BETWEEN, column="my column", min_value=parameter("previous_verified['my column'].min")),
        rule("expect_column_max_to_be_between", column="at", min_value=parameter("previous_verified.at.max")),
        rule("expect_table_row_count_to_be_between", min_value=parameter("previous_rows * 0.9")),
        rule("expect_column_values_to_be_unique", column="id", row_condition="symbol=='A'", condition_parser="pandas"),
        sql("SELECT * FROM {batch} WHERE price * amount < 0 OR \"at\" > now() OR symbol LIKE 'x%'"),
        sql("SELECT t.* FROM {batch} t ANTI JOIN books.fills f ON f.trade = t.id"),
        sql("SELECT * FROM ledger.orders WHERE odd < 5 OR odd LIKE 'x' OR id < 0.5 -- {batch}"),
    ],
)
def test_what_is_right_is_not_named(backup: BackupMetadata, tmp_path: Path, expectation: dict[str, Any]) -> None:
    found = check_suites([written(tmp_path, suite(expectation))], backup)
    assert found.faults == []
    assert [(one.name, about) for _, one, about in found.suites] == [("s", ["books/trades"])]


def test_all_faults_of_all_files_are_named(backup: BackupMetadata, tmp_path: Path) -> None:
    wrong = rule(BETWEEN, column="prise", min_value=1)
    files = [
        written(tmp_path, suite(wrong, wrong), suite(wrong, name="S"), name="a.json"),
        written(tmp_path, {"name": "no suite"}, name="b.json"),
        str(tmp_path / "none.json"),
        written(tmp_path, suite(wrong, name="lost", collection="books/trade"), name="c.json"),
        written(tmp_path, suite(wrong, name="two", collection="books/*"), name="d.json"),
    ]
    found = check_suites(files, backup)
    assert [(Path(one.file).name, one.suite, one.number) for one in found.faults] == [
        ("a.json", "s", 0),
        ("a.json", "s", 1),
        ("a.json", "S", None),
        ("a.json", "S", 0),
        ("b.json", "", None),
        ("none.json", "", None),
        ("c.json", "lost", None),
        ("d.json", "two", 0),
        ("d.json", "two", 0),
    ]
    texts = [one.sentence for one in found.faults]
    assert "there is another suite of this name" in texts[2]
    assert "collection: Field required" in texts[4]
    assert "No such file" in texts[5]
    assert "there is no collection 'books/trade'; did you mean books/trades?" in texts[6]
    assert "of books/fills; there are id, trade" in texts[8]


@pytest.mark.parametrize(
    ("fields", "column", "faults"),
    [
        ({"collection": "ledger/orders"}, "note", 1),
        ({"collection": "ledger/orders", "types": {"note": "decimal"}}, "note", 0),
        ({"collection": "ledger/orders", "types": {"note": "decimal", "noted": "date"}}, "note", 1),
        ({"collection": "ledger/orders"}, "odd", 0),  # only values tell
        ({"collection": "cache/db0"}, "value", 0),
        ({"collection": "cache/db0"}, "price", 1),
        ({"collection": "cache/db0", "keys": "quote:*", "format": "json"}, "price", 0),
    ],
)
def test_columns_and_types_are_those_that_the_suite_sees(
    backup: BackupMetadata, tmp_path: Path, fields: dict[str, Any], column: str, faults: int
) -> None:
    mean = rule(MEAN, column=column, min_value=1)
    assert len(check_suites([written(tmp_path, suite(mean, **fields))], backup).faults) == faults


def test_without_a_backup_suites_are_looked_at_as_far_as_they_go(tmp_path: Path) -> None:
    missing, unknown = rule(BETWEEN, column="nothing", min_value=1), rule("expect_much", column="id")
    found = check_suites([written(tmp_path, suite(missing, unknown, sql("SELECT * FROM {batch} WHERE x")))], None)
    assert [(one.number, "there is no such expectation" in one.sentence) for one in found.faults] == [(1, True)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shop = Shop(tmp_path / "shop", encrypted=False)
    shop.fill(1)
    return shop


def warnings(shop: Shop, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "flows.proving.suite_warnings"):
        shop.back_up()
    return [record.getMessage() for record in caplog.records if record.name == "flows.proving.suite_warnings"]


def test_a_backup_is_made_whatever_is_wrong_with_its_suites_and_says_so(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = rule(BETWEEN, column="prise", min_value=1)
    shop.plan = shop.plan.model_copy(
        update={"quality": [written(tmp_path, suite(*[wrong] * 7, collection="ledger/orders"))]}
    )
    assert warnings(shop, caplog) == []  # there is nothing yet that its columns could be compared with
    for _ in range(2):  # until it is mended
        said = warnings(shop, caplog)
        assert len(said) == 6
        assert "there is no column 'prise'; did you mean price?" in said[0]
        assert said[5] == "quality suites: 2 more faults; `lastgood quality check` names them"
    Path(shop.plan.quality[0]).unlink()
    assert "No such file" in warnings(shop, caplog)[0]
    assert len(shop.ids) == 4


def test_suites_that_nothing_was_wrong_with_are_looked_at_again_when_they_change(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[object] = []
    monkeypatch.setattr(
        "flows.proving.suite_warnings.check_suites",
        lambda files, backup: (looks.append(backup), check_suites(files, backup))[1],
    )
    good, wrong = rule(BETWEEN, column="price", min_value=1), rule(BETWEEN, column="prise", min_value=1)
    shop.plan = shop.plan.model_copy(update={"quality": [written(tmp_path, suite(good, collection="ledger/orders"))]})
    assert [warnings(shop, caplog) for _ in range(4)] == [[]] * 4
    assert len(looks) == 2  # without a backup, and with the first
    written(tmp_path, suite(wrong, collection="ledger/orders"))
    assert len(warnings(shop, caplog)) == 1


def test_nothing_about_suites_stops_a_backup(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("flows.proving.suite_warnings.check_suites", fails)
    shop.plan = shop.plan.model_copy(update={"quality": [written(tmp_path, suite())]})
    assert warnings(shop, caplog) == ["the quality suites could not be looked at (RuntimeError: a bug)"]


def test_a_plan_without_suites_is_not_looked_at(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.proving.suite_warnings.check_suites", None)
    warn_of_suites(shop.plan)
