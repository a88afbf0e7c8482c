"""The backup command where its plan says `verify_after_backup`, and as a dry run."""

from __future__ import annotations

import json

from tests.flows.cli.desk import Desk

BROKEN = {
    "name": "few",
    "collection": "ledger/orders",
    "expectations": [{"type": "expect_table_row_count_to_equal", "kwargs": {"value": 1}}],
}


def test_the_command_shows_the_backup_and_ends_as_the_verification(desk: Desk) -> None:
    plan = desk.plan.read_text() + "verify_after_backup: deep\n"
    desk.plan.write_text(plan)
    made = desk.done("backup", "PLAN", "--json").json
    assert (made["status"], made["proof"]["restorable"]["outcome"]) == ("verified", "good")
    assert "restore+" in desk.done("backup", "PLAN", "--verbose").out
    assert "restore+" in desk.done("backup", "PLAN").out
    (desk.folder / "q.json").write_text(json.dumps(BROKEN))
    desk.plan.write_text(plan + "quality: [q.json]\n")
    ran = desk.run("backup", "PLAN", "--json")
    assert ran.code == 9
    assert ran.json["proof"]["quality"]["outcome"] == "bad"
    assert f"the backup {ran.json['id']} is there" in ran.err
    assert ran.json["id"] in desk.done("list", "PLAN").out


def test_a_dry_run_says_what_would_be_made_and_that_nothing_was(desk: Desk) -> None:
    ran = desk.done("backup", "PLAN", "--dry-run", "--verbose")
    assert "would make  full" in ran.out
    assert "nothing was written" in ran.err
    assert desk.done("list", "PLAN", "--json").json["backups"] == []
    desk.backup()
    desk.sql("delete from orders where id = 7")
    found = desk.done("backup", "PLAN", "--dry-run", "--json").json
    changed = {one["collection"]: (one["rows"], one["upserts"], one["tombstones"]) for one in found["collections"]}
    assert found["backup_type"] == "incremental"
    assert changed["ledger/orders"] == (199, 0, 1)
    assert changed["ledger/positions"] == (2, 0, 0)
