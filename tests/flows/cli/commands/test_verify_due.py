"""verify --due and --all: what is printed, and with which exit code."""

from __future__ import annotations

import pytest

from tests.flows.cli.desk import Desk
from tests.flows.flow_support import blobs, flip


def say(desk: Desk, **fields: str) -> None:
    """Add fields to the plan."""
    text = desk.plan.read_text()
    desk.plan.write_text(text + "\n" + "\n".join(f"{name}: {value}" for name, value in fields.items()) + "\n")


def test_what_was_proved_and_what_recovery_costs_is_printed(desk: Desk) -> None:
    first = desk.backup()
    desk.sql("update orders set price = price + 1")
    second = desk.backup()
    say(desk, prove_within="30d")
    told = desk.done("verify", "PLAN", "--due").out
    assert second in told
    assert first not in told
    assert "the newest backup" in told
    assert "1 scratch restore" in told
    assert "between backups" in told
    shown = desk.done("show", "PLAN", "latest").out
    assert "1 scratch restore" in shown
    all_of_them = desk.done("verify", "PLAN", "--all", "--json").json
    assert [(one["backup_id"], one["kind"], one["status"]) for one in all_of_them["proofs"]] == [
        (second, "whole", "verified"),
        (first, "whole", "verified"),
    ]
    assert all_of_them["recovery"]["rto"]["restores"] == 3
    assert desk.done("show", "PLAN", "latest", "--json").json["recovery"]["rpo"]["backups"] == 1


def test_damage_is_printed_with_all_that_was_proved(desk: Desk) -> None:
    first, second = desk.backup(), desk.backup("--type", "full")
    made = desk.manifest(first)
    flip(desk.objects(first)[0].parent, blobs(made)[0])
    ran = desk.run("verify", "PLAN", "--all")
    assert ran.code == 8
    assert second in ran.out
    assert "corrupted" in ran.out
    assert first in ran.err


@pytest.mark.parametrize("words", [("--due",), ("--all",), ("--due", "--all")])
def test_several_proofs_and_one_backup_do_not_go_together(desk: Desk, words: tuple[str, ...]) -> None:
    made = desk.backup()
    ran = desk.run("verify", "PLAN", made, *words)
    assert ran.code == 2
    assert "prove several backups" in ran.err


def test_a_page_is_of_one_backup(desk: Desk) -> None:
    ran = desk.run("verify", "PLAN", "--due", "--report", "page.html")
    assert ran.code == 2
    assert "lastgood proof PLAN BACKUP --out FILE" in ran.err
