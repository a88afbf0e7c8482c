"""docs/cli.md: its examples run, its exit codes and JSON keys are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from blocks import errors
from blocks.crypto.keyring import generate_key_file
from blocks.plan.plan import read_plan
from tests.flows.cli.desk import Desk

TEXT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
DATA = {"key", "fields", "places", "tool_versions"}
"""Keys whose values have keys that come from data."""


def examples() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def section(name: str) -> str:
    return re.split(r"^## ", TEXT.partition(f"\n## {name}\n")[2], flags=re.MULTILINE)[0]


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return {key for one in value for key in keys(one)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {key for name, inner in value.items() if name not in DATA for key in keys(inner)}


def test_every_example_works_in_the_order_of_the_document(empty_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTGOOD_COLLEAGUE", "an entirely different passphrase")
    generate_key_file(empty_desk.folder / "own.key")  # spares each example the stretching of a passphrase
    text = empty_desk.plan.read_text().replace("passphrase_env: LASTGOOD_PASSPHRASE", "key_file: ./own.key")
    (empty_desk.folder / "trading.yaml").write_text(text)
    for line in examples():
        word, *rest = shlex.split(line)
        assert word == "lastgood"
        if rest[0] == "diff":
            empty_desk.sql("update orders set price = price + 1 where id < 50")
            empty_desk.done("backup", "trading.yaml")
        ran = empty_desk.run(*rest)
        assert ran.code == 0, f"{line}: {ran.err}"


def test_every_json_key_is_in_the_document(desk: Desk) -> None:
    printed = {"init": {"url", "repository_id", "recovery_key", "what_to_do"}}
    printed["backup"] = keys(desk.done("backup", "PLAN", "--json").json)
    desk.sql("update orders set price = 0")
    desk.backup()
    for words in (["ls", "latest"], ["ls", "latest", "conf/tree"], ["ls", "latest", "ledger/orders"]):
        printed["ls"] = printed.get("ls", set()) | keys(desk.done(words[0], "PLAN", *words[1:], "--json").json)
    for name, words in {
        "verify": ["--deep"],
        "list": [],
        "show": ["latest"],
        "diff": ["FUL", "latest"],
        "export": ["latest", "ledger/orders", "--to", str(desk.folder / "tables"), "--format", "csv"],
        "query": ["latest", "SELECT 1 AS rows"],
        "restore": ["--mode", "preview"],
        "retention": ["--dry-run"],
        "check": ["--read-data"],
    }.items():
        printed[name] = keys(desk.done(name, "PLAN", *words, "--json").json)
    printed["verify"] |= keys(desk.done("verify", "PLAN", "--due", "--json").json)
    plan = read_plan(desk.plan)
    with plan.repository.unlock(plan.encryption).lease("trading", "backup", holder="host:1"):
        printed["unlock"] = keys(desk.run("unlock", "PLAN", "--json").json)
    printed["key"] = keys(desk.done("key", "list", "PLAN", "--json").json)
    for name, found in printed.items():
        said = section(name) + (section("list") if name in ("backup", "show") else "")
        said += section("verify") if name == "show" else ""
        said += section("list") if name == "unlock" else ""
        said += section("export") if name == "ls" else ""
        assert [key for key in sorted(found) if f"`{key}`" not in said] == [], name


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    table = dict(re.findall(r"^\| (\d+) \|.*\| `(\w+)` \|$", TEXT, flags=re.MULTILINE))
    assert {int(code): name for code, name in table.items()} == {
        getattr(errors, name).exit_code: name for name in table.values()
    }
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    assert codes - {1} == {int(code) for code in table}
