"""What runs tell in Prefect's feed of events, and what the server's automations do with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError
from blocks.plan.plan import load_plan, read_plan
from deployments.automations import AT_MOST_EVERY
from deployments.deploy import deploy
from flows import backup, restore, retention, verify
from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan, wait_for
from tests.e2e.test_deploy import there
from tests.faults.damage import flip
from tests.receivers import HttpReceiver, http_receiver, silent_port

pytestmark = pytest.mark.timeout(400)


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


def test_runs_tell_of_their_beginning_and_their_end(prefect: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "told", name="told")
    # the first in a process that ends at once
    words = [sys.executable, "-c", "import sys; from flows import backup; backup(sys.argv[1], 'full')", str(plan.path)]
    subprocess.run(words, cwd=ROOT, env=prefect.environment(), capture_output=True, check=True)
    assert [one["event"] for one in named(prefect, "told", 2)] == [
        "lastgood.backup.started",
        "lastgood.backup.completed",
    ]
    plan.execute("DELETE FROM orders WHERE id <= 3")
    incremental = backup(str(plan.path))
    verify(str(plan.path), deep=False)
    restore(str(plan.path), "latest", mode="preview")
    restore(str(plan.path), "latest", mode="exact")
    damage(plan)
    with pytest.raises(CorruptionDetected):
        verify(str(plan.path), incremental.backup_id, deep=False)
    retention(str(plan.path))
    plan.ledger.unlink()
    with pytest.raises(LastgoodError):
        backup(str(plan.path))
    found = named(prefect, "told", 14)
    assert [one["event"].removeprefix("lastgood.") for one in found] == [
        "backup.started", "backup.completed", "backup.started", "backup.completed",
        "verification.started", "backup.verified", "restore.started", "restore.completed",
        "verification.started", "backup.corrupted", "retention.started", "retention.completed",
        "backup.started", "backup.failed",
    ]  # fmt: skip

    full, _, emergency = plan.backups()
    made = found[3]
    assert made["resource"]["prefect.resource.id"] == f"lastgood.backup.{incremental.backup_id}"
    assert {"lastgood.plan": "told", "lastgood.counts": "yes"}.items() <= made["resource"].items()
    related = roles(made)
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
    restored = roles(found[7])
    backups = [f"lastgood.backup.{one.backup_id}" for one in (incremental, emergency)]
    assert [restored["backup"], restored["emergency-backup"]] == backups
    corrupted = found[9]
    assert corrupted["resource"]["lastgood.told"] == "no"
    assert (corrupted["payload"]["status"], corrupted["payload"]["error"]) == ("corrupted", "CorruptionDetected")
    assert corrupted["payload"]["hint"]
    failed = found[-1]
    assert failed["resource"]["prefect.resource.id"] == "lastgood.plan.told"
    assert "ledger" in failed["payload"]["message"]
    assert "correct horse" not in json.dumps(found)


def roles(event: dict[str, Any]) -> dict[str, str]:
    return {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}


def automations(prefect: Prefect, plan: str) -> dict[str, dict[str, Any]]:
    found = prefect.post("/automations/filter", automations={"tags": {"all_": [plan]}})
    return {one["name"].removeprefix(f"lastgood: {plan}: "): one for one in found}


def deployed(plan: SmallPlan) -> dict[str, str]:
    done = deploy([str(plan.path)], f"pool-of-{plan.name}")
    return {one.name: one.change for one in done.automations}


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


def test_automations_follow_the_plan_and_are_left_alone_where_nothing_changed(prefect: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "watched", name="watched")
    names = [f"lastgood: watched: {what}" for what in (OVERDUE, FAILED, FULL)]
    assert deployed(plan) == dict.fromkeys(names, "made")
    found = automations(prefect, "watched")
    # two times of an incremental every 15 minutes
    assert found[OVERDUE]["trigger"]["within"] == 1800
    assert found[FULL]["actions"][0]["deployment_id"] == there(prefect, "pool-of-watched")["backup/full-watched"]["id"]
    assert found[FULL]["trigger"]["within"] == AT_MOST_EVERY.total_seconds()
    assert deployed(plan) == dict.fromkeys(names, "kept")
    assert automations(prefect, "watched") == found
    weekly = there(prefect, "pool-of-watched")["verify/weekly-watched"]["id"]
    run = prefect.post(f"/deployments/{weekly}/create_flow_run")["id"]
    prefect.post(f"/flow_runs/{run}/set_state", state={"type": "CRASHED", "name": "Crashed"}, force=True)
    wait_for("the crash to be told", lambda: fired(prefect, found[FAILED]) or None)
    say(plan, objectives={"rpo": "1h"})
    assert deployed(plan) == dict.fromkeys(names, "kept") | {names[0]: "updated"}
    assert automations(prefect, "watched")[OVERDUE]["trigger"]["within"] == 3600
    off = dict.fromkeys(("full", "differential", "incremental"), False)
    say(plan, objectives={}, schedules=off)
    assert deployed(plan) == dict.fromkeys(names, "kept") | {names[0]: "removed"}
    assert automations(prefect, "watched").keys() == {FAILED, FULL}
    say(plan, name="rewatched")
    assert set(deployed(plan).values()) == {"made", "removed"}
    assert not automations(prefect, "watched")
    assert automations(prefect, "rewatched").keys() == {FAILED, FULL}


def by_automation(prefect: Prefect, deployment: str) -> list[dict[str, Any]] | None:
    runs = [one for one in prefect.runs_of(deployment) if (one["created_by"] or {}).get("type") == "AUTOMATION"]
    return runs or None


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
        say(plan, objectives={"rpo": "15s"}, notifications=targets)
        deployed(plan)
        watching = automations(prefect, "late")
        made = backup(str(plan.path), "full")
        ended = made.timestamp + timedelta(seconds=15)

        def late() -> bool | None:
            found = [datetime.fromisoformat(one["occurred"]) for one in fired(prefect, watching[OVERDUE])]
            return any(moment > ended for moment in found) or None

        wait_for("that it is overdue", late)
        letter = wait_for("its notification", lambda: told.requests or None)[-1].json
        assert letter["subject"] == "lastgood: no good backup of late for 15 seconds"
        assert "The last one that counts was at 20" in letter["body"]

        damage(plan)
        told.requests.clear()
        with pytest.raises(CorruptionDetected):
            verify(str(plan.path), deep=False)
        told.statuses = [500]
        with pytest.raises(CorruptionDetected):
            verify(str(plan.path), deep=False)
        wait_for("the notifications", lambda: told.requests[2:] or None)
        # by the run, by the run in vain, and so by the server
        bad, failed = "lastgood: a backup of late is bad", "lastgood: a verification of late failed"
        assert [one.json["subject"] for one in told.requests] == [bad, bad, failed]
        assert "error: backup FUL_" in told.requests[2].json["body"]
        wait_for("the events", lambda: (fired(prefect, watching[FAILED]) and fired(prefect, watching[FULL])) or None)
        assert len(fired(prefect, watching[FAILED])) == 1
        corrupted = [one for one in events(prefect, "late") if one["event"] == "lastgood.backup.corrupted"]
        assert [one["resource"]["lastgood.told"] for one in corrupted] == ["yes", "no"]
        assert wait_for("the full", lambda: by_automation(prefect, "full-late"))
        assert len(fired(prefect, watching[FULL])) == 1


def test_a_saved_plan_keeps_who_is_told(prefect: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "kept", name="kept")
    mail = {"type": "email", "to": "ops@b.example", "sender": "me@b.example", "server": "mail.example"}
    say(plan, notifications=[mail, {"type": "slack", "url_env": "SLACK_URL", "when": ["completed"]}])
    document = read_plan(plan.path).save("kept", overwrite=True, _sync=True)
    assert load_plan("kept").notifications == read_plan(plan.path).notifications
    prefect.delete(f"/block_documents/{document}")


def test_a_block_that_is_not_there_is_said_before_anything_is_made(prefect: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "blockless", name="blockless")
    say(plan, notifications=[{"type": "block", "block": "slack-webhook/nobody"}])
    with pytest.raises(ConfigurationError, match="no block slack-webhook/nobody"):
        deployed(plan)
    assert not there(prefect, "pool-of-blockless")


def test_a_block_of_another_kind_is_said_before_anything_is_made(prefect: Prefect, tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "misblocked", name="misblocked")
    say(plan, notifications=[{"type": "block", "block": "secret/no-channel"}])
    document = Secret(value="x").save("no-channel", overwrite=True, _sync=True)
    with pytest.raises(ConfigurationError, match="secret/no-channel sends no notifications"):
        deployed(plan)
    assert not there(prefect, "pool-of-misblocked")
    prefect.delete(f"/block_documents/{document}")


SILENT = """
import os, sys
from blocks.plan.plan import read_plan
from flows.reporting.events import RunEvents
from flows.reporting.lifecycle import Operation, Verb
from pathlib import Path
run = Operation(read_plan(Path(sys.argv[1])), Verb.BACKUP, "full", seconds=1.0)
RunEvents().started(run)
RunEvents().ended(run)
print("told", flush=True)
os._exit(0)  # what is left would be waited for by Prefect
"""


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    plan = SmallPlan(tmp_path / "silent", name="silent")
    with silent_port() as port:
        environment = os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-c", SILENT, str(plan.path)]
        told = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout) == (0, "told\n"), told.stderr
