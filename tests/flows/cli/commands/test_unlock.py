"""unlock."""

from __future__ import annotations

import pytest

from blocks.plan.plan import read_plan
from blocks.repository.block import Repository
from tests.flows.cli.desk import Desk


def repository(desk: Desk) -> Repository:
    plan = read_plan(desk.plan)
    return plan.repository.unlock(plan.encryption)


def test_nobody_holds_a_plan_that_was_never_leased_or_given_back(desk: Desk) -> None:
    for _ in range(2):
        for words in ([], ["--yes"]):
            ran = desk.done("unlock", "PLAN", *words)
            assert (ran.out, "nobody holds plan trading" in ran.err) == ("", True)
            assert desk.done("unlock", "PLAN", "--json", *words).json == {
                "plan": "trading",
                "held": None,
                "broken": False,
                "warnings": [],
            }
        desk.backup()


def test_the_holder_is_shown_and_without_a_word_nothing_is_broken(desk: Desk) -> None:
    with repository(desk).lease("trading", "full backup", holder="host:1") as lease:
        lease.work_on("FUL_20260102_030405_9f3a")
        ran = desk.run("unlock", "PLAN")
        assert ran.code == 10
        for fact in ("host:1", "full backup", "FUL_20260102_030405_9f3a", "another machine", "UTC"):
            assert fact in ran.out
        assert "it was not broken" in ran.err
        assert "--yes" in ran.err
        shown = desk.run("unlock", "PLAN", "--json")
        assert shown.code == 10
        assert shown.json["held"].keys() == {
            "backup_id", "purpose", "holder", "since", "expires_at", "process", "expired",
        }  # fmt: skip
        assert (shown.json["held"]["process"], shown.json["held"]["expired"]) == ("unknown", False)
        lease.check()


def test_with_yes_the_next_run_can_take_the_plan(desk: Desk) -> None:
    held = repository(desk).lease("trading", "full backup", holder="host:1")
    held.__enter__()
    assert desk.run("backup", "PLAN").code == 5
    ran = desk.done("unlock", "PLAN", "--yes")
    assert "host:1" in ran.out
    assert "the lease is broken" in ran.err
    desk.backup()
    held.__exit__(None, None, None)
    desk.backup()


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("", 10), ("no", 10)])
def test_on_a_terminal_one_is_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    monkeypatch.setattr("flows.cli.commands.unlock.interactive", lambda: True)
    monkeypatch.setattr("builtins.input", lambda *_: answer)
    with repository(desk).lease("trading", "full backup", holder="host:1"):
        assert desk.run("unlock", "PLAN").code == code
        assert (repository(desk).current_lease("trading") is None) is (code == 0)


def test_a_refused_run_is_told_of_unlock_with_the_plan_as_it_was_typed(desk: Desk) -> None:
    with repository(desk).lease("trading", "full backup", holder="host:1"):
        assert f"`lastgood unlock {desk.plan}`" in desk.run("backup", "PLAN").err
