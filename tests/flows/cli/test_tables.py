"""Tables for files and pipes, beside those for terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.cli.tables import Column, Styled, Table, fields, grid


def shown(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table.on_terminal())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def table() -> Table:
    table = grid("name", ">rows", "findings")
    table.add_row("a/orders", "1,200", "one\n  two, longer")
    table.add_row("b", "7", Styled("gone", "red"))
    table.add_row("名前", "", "")
    table.add_row("ภาษาไทย", "", "a\tb")
    table.add_row("short")
    return table


def test_a_plain_table_is_aligned_and_never_folded(table: Table) -> None:
    table.add_row("x" * 300, "1", "y" * 300)
    lines = table.plain().splitlines()
    assert lines[0].split() == ["name", "rows", "findings"]
    assert lines[-1] == "x" * 300 + "      1  " + "y" * 300
    assert len(lines) == 8
    assert not any(line.endswith(" ") for line in lines)


def test_a_plain_table_is_what_a_wide_terminal_shows(table: Table) -> None:
    assert table.plain().splitlines() == shown(table, 500)
    assert table.plain().splitlines()[1:3] == ["a/orders  1,200  one", "                   two, longer"]
    said = fields([("backup", "FUL_1"), ("left out", ""), ("status", Styled("verified", "green"))])
    assert said.plain().splitlines() == shown(said, 500) == ["backup  FUL_1", "status  verified"]


def test_a_table_without_rows_has_its_headers() -> None:
    assert grid("a", ">b").plain() == "a  b"
    assert fields([]).plain() == ""


def test_a_narrow_terminal_folds_all_but_what_has_to_be_whole() -> None:
    table = Table([Column("id", whole=True), Column("why")])
    table.add_row("FUL_20260101_000000", "because of many words")
    lines = shown(table, 32)
    assert lines[1].startswith("FUL_20260101_000000  because")
    assert len(lines) > 2
