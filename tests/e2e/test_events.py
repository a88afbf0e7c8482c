"""What runs tell in Prefect's feed of events, and what the server's automations do with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from blocks.errors import LastgoodError
from deployments.automations import AT_MOST_EVERY
from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan, wait_for
from tests.e2e.test_deploy import there
from tests.faults.damage import flip
from tests.receivers import HttpReceiver, http_receiver

pytestmark = pytest.mark.timeout(400)


def lastgood(prefect: Prefect, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lastgood", *words], cwd=ROOT, env=prefect.environment(), capture_output=True, text=True
    )


def say(plan: SmallPlan, **fields: object) -> None:
    text = yaml.safe_load(plan.path.read_text())
    plan.path.write_text(yaml.safe_dump(text | fields))


def events(prefect: Prefect, plan: str) -> list[dict[str, Any]]:
    """Return the events of a plan, oldest first."""
    asked = {
        "event": {"prefix": ["lastgood."]},
        "any_resource": {"id": [f"lastgood.plan.{plan}"]},
        "occurred": {"since": "2026-01-01T00:00:00Z"},
        "order": "ASC",
    }
    found = prefect.post("/events/filter", filter=asked, limit=50)["events"]
    return list(found)


def named(prefect: Prefect, plan: str, count: int) -> list[dict[str, Any]]:
    """Wait until there are so many events of a plan, and return them."""

    def enough() -> list[dict[str, Any]] | None:
        found = events(prefect, plan)
        return found if len(found) >= count else None

    return wait_for(f"{count} events of {plan}", enough)


def damage(plan: SmallPlan) -> None:
    for path in (plan.folder / "backups" / "backups").rglob("*.pack"):
        flip(-1)(path)


def test_commands_that_end_at_once_have_told_the_server_all(prefect_server: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "told", name="told")
    assert lastgood(prefect_server, "backup", str(plan.path), "--type", "full").returncode == 0
    plan.execute("DELETE FROM orders WHERE id <= 3")
    assert lastgood(prefect_server, "backup", str(plan.path)).returncode == 0
    assert lastgood(prefect_server, "verify", str(plan.path)).returncode == 0
    damage(plan)
    assert lastgood(prefect_server, "verify", str(plan.path)).returncode == 8
    assert lastgood(prefect_server, "retention", str(plan.path)).returncode == 0
    plan.ledger.unlink()
    assert lastgood(prefect_server, "backup", str(plan.path)).returncode == 3
    found = named(prefect_server, "told", 12)
    assert [one["event"].removeprefix("lastgood.") for one in found] == [
        "backup.started", "backup.completed", "backup.started", "backup.completed",
        "verification.started", "backup.verified", "verification.started", "backup.corrupted",
        "retention.started", "retention.completed", "backup.started", "backup.failed",
    ]  # fmt: skip

    full, incremental = plan.backups()
    made = found[3]
    assert made["resource"]["prefect.resource.id"] == f"lastgood.backup.{incremental.backup_id}"
    assert {"lastgood.plan": "told", "lastgood.counts": "yes"}.items() <= made["resource"].items()
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in made["related"]}
    assert related["plan"] == "lastgood.plan.told"
    assert related["base"] == f"lastgood.backup.{full.backup_id}"
    assert related["repository"] == f"lastgood.repository.{plan.folder / 'backups'}"
    assert related["flow-run"].startswith("prefect.flow-run.")
    assert related["flow"].startswith("prefect.flow.")
    payload = made["payload"]
    assert (payload["type"], payload["upserts"], payload["tombstones"], payload["base"]) == (
        "incremental", 0, 3, full.backup_id,
    )  # fmt: skip
    assert payload["size_stored"] == incremental.size_stored
    corrupted = found[7]
    assert corrupted["resource"]["lastgood.told"] == "no"
    assert (corrupted["payload"]["status"], corrupted["payload"]["error"]) == ("corrupted", "CorruptionDetected")
    assert corrupted["payload"]["hint"]
    failed = found[-1]
    assert failed["resource"]["prefect.resource.id"] == "lastgood.plan.told"
    assert "ledger" in failed["payload"]["message"]
    assert "correct horse" not in json.dumps(found)


def test_restores_are_told_with_the_backup_of_before(prefect_server: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "restored", name="restored")
    assert lastgood(prefect_server, "backup", str(plan.path)).returncode == 0
    assert lastgood(prefect_server, "restore", str(plan.path), "latest", "--mode", "preview").returncode == 0
    assert lastgood(prefect_server, "restore", str(plan.path), "latest", "--yes").returncode == 0
    found = named(prefect_server, "restored", 4)
    assert [one["event"] for one in found[2:]] == ["lastgood.restore.started", "lastgood.restore.completed"]
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in found[3]["related"]}
    backup, emergency = (f"lastgood.backup.{one.backup_id}" for one in plan.backups())
    assert (related["backup"], related["emergency-backup"]) == (backup, emergency)


def automations(prefect: Prefect, plan: str) -> dict[str, dict[str, Any]]:
    found = prefect.post("/automations/filter", automations={"tags": {"all_": [plan]}})
    return {one["name"].removeprefix(f"lastgood: {plan}: "): one for one in found}


def deploy(prefect: Prefect, plan: SmallPlan) -> dict[str, str]:
    done = lastgood(prefect, "deploy", str(plan.path), "--pool", f"pool-of-{plan.name}", "--json")
    assert done.returncode == 0, done.stderr
    return {one["automation"]: one["change"] for one in json.loads(done.stdout)["automations"]}


def fired(prefect: Prefect, automation: dict[str, Any]) -> list[dict[str, Any]]:
    asked = {
        "event": {"name": ["prefect.automation.triggered"]},
        "resource": {"id": [f"prefect.automation.{automation['id']}"]},
        "occurred": {"since": "2026-01-01T00:00:00Z"},
    }
    return list(prefect.post("/events/filter", filter=asked)["events"])


OVERDUE, FAILED, FULL = (
    "no good backup within the RPO", "a verification failed", "a corrupted backup starts a full",
)  # fmt: skip


def test_automations_follow_the_plan_and_are_left_alone_where_nothing_changed(
    prefect_server: Prefect, tmp_path: Path
) -> None:
    plan = SmallPlan(tmp_path / "watched", name="watched")
    names = [f"lastgood: watched: {what}" for what in (OVERDUE, FAILED, FULL)]
    assert deploy(prefect_server, plan) == dict.fromkeys(names, "made")
    found = automations(prefect_server, "watched")
    # two times of an incremental every 15 minutes
    assert found[OVERDUE]["trigger"]["within"] == 1800
    assert (
        found[FULL]["actions"][0]["deployment_id"]
        == there(prefect_server, "pool-of-watched")["backup/full-watched"]["id"]
    )
    assert found[FULL]["trigger"]["within"] == AT_MOST_EVERY.total_seconds()
    assert deploy(prefect_server, plan) == dict.fromkeys(names, "kept")
    assert automations(prefect_server, "watched") == found
    say(plan, objectives={"rpo": "1h"})
    assert deploy(prefect_server, plan) == dict.fromkeys(names, "kept") | {names[0]: "updated"}
    assert automations(prefect_server, "watched")[OVERDUE]["trigger"]["within"] == 3600
    off = dict.fromkeys(("full", "differential", "incremental"), False)
    say(plan, objectives={}, schedules=off)
    assert deploy(prefect_server, plan) == dict.fromkeys(names, "kept") | {names[0]: "removed"}
    assert automations(prefect_server, "watched").keys() == {FAILED, FULL}
    say(plan, name="rewatched")
    assert {change for change in deploy(prefect_server, plan).values()} == {"made", "removed"}
    assert not automations(prefect_server, "watched")
    assert automations(prefect_server, "rewatched").keys() == {FAILED, FULL}


@contextmanager
def block(prefect: Prefect, name: str) -> Iterator[HttpReceiver]:
    """A notification block on the server, and who it tells."""
    with http_receiver() as told:
        made = CustomWebhookNotificationBlock(
            name="told", url=f"{told.url}/hook", json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        document = made.save(name, overwrite=True, _sync=True)
        yield told
        prefect.delete(f"/block_documents/{document}")


def test_a_backup_that_is_overdue_and_a_verification_that_failed_are_told_by_the_server(
    prefect: Prefect, tmp_path: Path
) -> None:
    plan = SmallPlan(tmp_path / "late", name="late")
    with block(prefect, "late") as told:
        targets = [{"type": "block", "block": "custom-webhook/late"}]
        say(plan, objectives={"rpo": "12s"}, notifications=targets)
        deploy(prefect, plan)
        assert lastgood(prefect, "backup", str(plan.path)).returncode == 0
        watching = automations(prefect, "late")
        (overdue,) = wait_for("that it is overdue", lambda: fired(prefect, watching[OVERDUE]) or None)
        letter = wait_for("its notification", lambda: told.requests or None)[0].json
        assert letter["subject"] == "lastgood: no good backup of late for 12 seconds"
        assert "What to do" in letter["body"]
        made = next(one for one in events(prefect, "late") if one["event"] == "lastgood.backup.completed")
        assert overdue["occurred"] > made["occurred"]

        told.requests.clear()
        damage(plan)
        assert lastgood(prefect, "verify", str(plan.path)).returncode == 8
        (said,) = told.requests  # by the run itself, so that the server need not
        assert said.json["subject"] == "lastgood: a backup of late is bad"
        told.statuses = [500] * 2
        told.requests.clear()
        assert lastgood(prefect, "verify", str(plan.path)).returncode == 8
        wait_for("the server's notification", lambda: told.requests[2:] or None)
        assert told.requests[2].json["subject"] == "lastgood: a verification of late failed"
        assert len(fired(prefect, watching[FAILED])) == 1
        (run,) = wait_for("the full", lambda: prefect.runs_of("full-late") or None)
        assert run["created_by"]["type"] == "AUTOMATION"
        corrupted = [one for one in events(prefect, "late") if one["event"] == "lastgood.backup.corrupted"]
        assert [one["resource"]["lastgood.told"] for one in corrupted] == ["yes", "no"]
        assert len(fired(prefect, watching[FULL])) == 1


def test_a_block_that_is_not_there_is_said_before_anything_is_made(prefect_server: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "blockless", name="blockless")
    say(plan, notifications=[{"type": "block", "block": "slack-webhook/nobody"}])
    done = lastgood(prefect_server, "deploy", str(plan.path), "--pool", "pool-of-blockless")
    assert (done.returncode, "no block slack-webhook/nobody" in done.stderr) == (2, True)
    assert not there(prefect_server, "pool-of-blockless")


def test_a_server_that_went_away_holds_no_backup_up(prefect_server: Prefect, tmp_path: Path) -> None:
    from flows.reporting.events import RunEvents

    assert RunEvents
    assert os.environ
    assert LastgoodError
