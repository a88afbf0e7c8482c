"""The quality commands: what `check` prints, and suites that `suggest` writes and that hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.cli.desk import Desk

SUITE = {
    "name": "orders",
    "collection": "ledger/orders",
    "expectations": [{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}}],
}


def name_suite(desk: Desk, suite: Any) -> None:
    (desk.folder / "suite.json").write_text(json.dumps(suite))
    desk.plan.write_text(desk.plan.read_text() + "quality: [./suite.json]\n")


def test_check_shows_each_suite_and_that_nothing_is_wrong(desk: Desk) -> None:
    assert desk.done("quality", "check", "PLAN").err.endswith("the plan names no file under `quality`\n")
    name_suite(desk, SUITE)
    ran = desk.done("quality", "check", "PLAN")
    assert ran.err == "there is no backup yet, so collections and columns were not looked at\n"
    made = desk.backup()
    ran = desk.done("quality", "check", "PLAN")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["suite", "collection", "expectations", "file"],
        ["orders", "ledger/orders", "1", str(desk.folder / "suite.json")],
        ["nothing", "is", "wrong"],
    ]
    assert desk.done("quality", "check", "PLAN", "--json").json == {
        "plan": "trading",
        "backup_id": made,
        "suites": [
            {
                "suite": "orders",
                "file": str(desk.folder / "suite.json"),
                "collections": ["ledger/orders"],
                "expectations": 1,
            }
        ],
        "faults": [],
    }


def test_check_names_all_faults_and_exits_2(desk: Desk) -> None:
    desk.backup()
    wrong = [{"type": "expect_column_values_to_be_unique", "kwargs": {"column": name}} for name in ("it", "symbul")]
    name_suite(desk, SUITE | {"expectations": wrong})
    ran = desk.run("quality", "check", "PLAN")
    assert ran.code == 2
    assert "expectations.0: expect_column_values_to_be_unique: there is no column 'it'" in ran.out
    assert "there is no column 'symbul'; did you mean symbol?" in ran.out
    assert "nothing is wrong" not in ran.out
    assert ran.err == "2 faults in 1 files\n"
    faults = desk.run("quality", "check", "PLAN", "--json").json["faults"]
    assert [(one["suite"], one["number"]) for one in faults] == [("orders", 0), ("orders", 1)]
    assert "warning: quality suite: " in desk.done("backup", "PLAN").err


@pytest.mark.parametrize("file", ["orders.yaml", "orders.yml", "orders.json"])
def test_a_suggested_suite_is_a_file_that_check_accepts_and_verify_proves(desk: Desk, file: str) -> None:
    desk.backup()
    desk.sql("insert into orders select id + 200, symbol, price, note from orders where id <= 20")
    desk.backup()
    ran = desk.done("quality", "suggest", "PLAN", "ledger/orders", "--out", file)
    assert (ran.out, "read them" in ran.err) == ("", True)
    desk.plan.write_text(desk.plan.read_text() + f"quality: [./{file}]\n")
    desk.done("quality", "check", "PLAN")
    verified = desk.done("verify", "PLAN", "--json").json
    assert verified["expectations"] > 5
    assert verified["warnings"] == []
    desk.sql("update orders set price = price * 100")
    desk.backup()
    assert desk.run("verify", "PLAN").code == 9


def test_a_suggestion_is_printed_where_no_file_is_named(desk: Desk) -> None:
    desk.backup()
    suite = yaml.safe_load(desk.done("quality", "suggest", "PLAN", "ledger/orders", "--history", "0").out)
    assert (suite["name"], suite["collection"]) == ("ledger/orders", "ledger/orders")
    assert "S1" not in json.dumps(suite)
    shown = yaml.safe_load(desk.done("quality", "suggest", "PLAN", "ledger/orders", "--values").out)
    sets = [one["kwargs"]["value_set"] for one in shown["expectations"] if one["type"].endswith("_in_set")]
    assert sets == [["S0", "S1", "S2", "S3", "S4"]]


def test_numbers_of_verified_backups_are_not_computed_again(desk: Desk) -> None:
    name_suite(desk, SUITE)
    made = desk.backup()
    desk.done("verify", "PLAN")
    profile = desk.done("show", "PLAN", made, "--json").json["verifications"][0]["profile"]
    assert profile["ledger/orders"]["columns"]["price"] == {
        "nulls": 0,
        "distinct": 200,
        "minimum": 1.5,
        "maximum": 200.5,
        "mean": 101.0,
    }
    desk.sql("delete from orders where id > 190")
    desk.backup()
    for path in desk.objects(made, "*.pack"):
        path.rename(path.with_suffix(".away"))  # nothing of it can be read
    ran = desk.run("quality", "suggest", "PLAN", "ledger/positions")
    assert ran.code == 8
    for path in desk.objects(made, "*.away"):
        path.rename(path.with_suffix(".pack"))
    suite = yaml.safe_load(desk.done("quality", "suggest", "PLAN", "ledger/orders").out)
    assert "200.5 in 2 backups" in json.dumps(suite)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ledger/order"], 6, "holds no collection 'ledger/order'; did you mean ledger/orders?"),
        (["ledger/orders", "--history", "-1"], 2, "--history -1 is no number of backups"),
        (["ledger/orders", "--out", "orders.txt"], 2, "Let it end in .yaml, .yml or .json"),
        (["ledger/orders", "--out", "there.yaml"], 2, "there.yaml exists; it is not written over"),
        (["ledger/orders", "--out", "none/orders.yaml"], 2, "none/orders.yaml cannot be written: No such file"),
        (["ledger/orders", "--backup", "FUL_1999"], 6, "FUL_1999"),
        (["ledger/orders", "--format", "xml"], 2, "invalid choice"),
    ],
)
def test_what_cannot_be_suggested(desk: Desk, words: list[str], code: int, said: str) -> None:
    desk.backup()
    there = Path("there.yaml")
    there.write_text("mine")
    ran = desk.run("quality", "suggest", "PLAN", *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert there.read_text() == "mine"
