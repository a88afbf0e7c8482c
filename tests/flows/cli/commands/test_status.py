"""The status command: how plans stand, what to do, and exit codes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from blocks.plan.plan import load_plan
from flows.reading.status import Health, plan_status
from tests.flows.cli.desk import Desk


def test_a_plan_is_stale_then_unproved_then_good_then_damaged(desk: Desk) -> None:
    ran = desk.run("status", "PLAN")
    assert (ran.code, "There is no good backup" in ran.out) == (13, True)
    made = desk.backup()
    ran = desk.run("status", "PLAN")
    assert ran.code == 13
    assert "unproved" in ran.out
    assert f"lastgood verify {desk.plan} --deep" in ran.out
    desk.done("verify", "PLAN")
    ran = desk.done("status")  # the plan of this folder
    assert made in ran.out
    assert "Nothing: the last good backup is from" in ran.out
    desk.objects(made, "*.pack")[0].write_bytes(b"damaged")
    assert desk.run("verify", "PLAN").code == 8
    ran = desk.run("status", "PLAN", "--json")
    assert ran.code == 8
    assert ran.json["plans"][0]["health"] == "damaged"
    assert made in ran.json["plans"][0]["to_do"]


USUAL = "{full: 24h, differential: off, incremental: 15m, verify: 1w}"
DAILY = "{full: 24h, differential: off, incremental: off}"
BY_HAND = "{full: off, differential: off, incremental: off, verify: VERIFY}"


@pytest.mark.parametrize(
    ("schedules", "later", "health", "said"),
    [
        (USUAL, timedelta(minutes=10), Health.GOOD, "Nothing"),
        (USUAL, timedelta(minutes=45), Health.STALE, "look why the scheduled runs fail"),
        (DAILY, timedelta(hours=20), Health.GOOD, "Nothing"),
        (DAILY, timedelta(days=3), Health.STALE, "for 3 d"),
        (BY_HAND.replace("VERIFY", "1d"), timedelta(days=3), Health.UNPROVED, "Prove"),
        (BY_HAND.replace("VERIFY", "off"), timedelta(days=3), Health.GOOD, "Nothing"),
    ],
)
def test_age_is_seen_against_the_schedule_of_the_plan(
    desk: Desk, schedules: str, later: timedelta, health: Health, said: str
) -> None:
    desk.plan.write_text(f"{desk.plan.read_text()}schedules: {schedules}\n")
    desk.backup()
    desk.done("verify", "PLAN")
    found = plan_status(load_plan(str(desk.plan)), "p.yaml", datetime.now(UTC) + later)
    assert (found.health, said in found.to_do or said in str(found)) == (health, True)
    assert (found.overdue_since is not None) is (health is Health.STALE)


def test_a_run_that_failed_is_said_until_one_of_its_type_succeeds(desk: Desk) -> None:
    desk.backup()
    desk.done("verify", "PLAN")
    shutil.move(desk.database, desk.folder / "elsewhere.db")
    assert desk.run("backup", "PLAN").code not in (0, 2)
    shutil.move(desk.folder / "elsewhere.db", desk.database)
    ran = desk.done("status", "PLAN")
    assert "Look why the incremental backup of" in ran.out
    assert desk.done("status", "PLAN", "--json").json["plans"][0]["last_failed"]["type"] == "incremental"
    later = datetime.now(UTC) + timedelta(days=8)
    assert plan_status(load_plan(str(desk.plan)), "p.yaml", later).last_failed is None
    desk.backup("--type", "full")
    assert "Look why" in desk.done("status", "PLAN").out
    desk.backup()
    ran = desk.done("status", "PLAN")
    assert ("Nothing: the last good" in ran.out, "failed" in ran.out) == (True, False)


def test_one_plan_that_cannot_be_read_hides_no_other(desk: Desk) -> None:
    desk.backup()
    other = desk.folder / "another.yaml"
    other.write_text(desk.plan.read_text().replace("./backups", "./not-there"))
    (desk.folder / "compose.yaml").write_text("services: {web: {}}\n")
    (desk.folder / "broken.yaml").write_text("a: [")
    ran = desk.run("status", "--json")
    assert ran.code == 4
    here, there = ran.json["plans"]
    assert (here["health"], here["error"]["kind"], here["error"]["code"]) == ("unknown", "RepositoryUnavailable", 4)
    assert there["last_good"]["type"] == "full"
    ran = desk.run("status")
    assert "error: another.yaml" in ran.err
    assert "unproved" in ran.out


def test_a_folder_without_plans_is_said(desk: Desk) -> None:
    shutil.move(desk.plan, desk.folder / "plan.txt")
    ran = desk.run("status")
    assert ran.code == 2
    assert "no plan in this folder" in ran.err


def test_room_growth_and_who_holds_the_plan_are_shown(desk: Desk) -> None:
    desk.backup()
    plan = load_plan(str(desk.plan))
    with plan.repository.unlock(plan.encryption).lease("trading", "retention", holder="host:1"):
        ran = desk.run("status", "PLAN", "--json")
    (found,) = ran.json["plans"]
    assert found["held_by"]["purpose"] == "retention"
    assert found["free_bytes"] > 0
    assert found["grown_7_days"] == found["grown_30_days"] == found["size_stored"] > 0
