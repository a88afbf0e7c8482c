"""`lastgood deploy`: the deployments of plans in a work pool; and prefect.yaml, whose templates name no plan."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.host.passwords import PATTERN
from deployments.deploy import MARK
from deployments.watch import LOST_RUNS, lost_runs
from tests.e2e.prefect_support import Prefect, SmallPlan, wait_for
from tests.e2e.prefect_yaml import EVERY, written
from tests.e2e.warm import Warm

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def warm(prefect_server: Prefect, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Runs commands of this server's clients."""
    with Warm(tmp_path_factory.mktemp("warm"), prefect_server.environment()) as made:
        yield made


def deployed(warm: Warm, plan: SmallPlan, pool: str) -> dict[str, dict[str, Any]]:
    done = warm.done("lastgood", "deploy", str(plan.path), "--pool", pool, "--json")
    assert done.returncode == 0, done.stderr
    return {one["deployment"]: one for one in json.loads(done.stdout)["deployments"]}


def said(plan: SmallPlan, name: str | None = None, **schedules: object) -> None:
    text = yaml.safe_load(plan.path.read_text())
    text |= {"name": name or text["name"], "schedules": schedules}
    plan.path.write_text(yaml.safe_dump(text))


def there(prefect: Prefect, pool: str) -> dict[str, dict[str, Any]]:
    found = prefect.post("/deployments/filter", work_pools={"name": {"any_": [pool]}})
    flows = {flow["id"]: flow["name"] for flow in prefect.post("/flows/filter")}
    return {f"{flows[one['flow_id']]}/{one['name']}": one for one in found}


def test_it_makes_what_the_plan_says_and_removes_what_it_does_not_say_any_more(
    prefect_server: Prefect, warm: Warm, tmp_path: Path
) -> None:
    plan, pool = SmallPlan(tmp_path / "mill", name="mill"), "pool-of-mill"
    said(plan, full={"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, incremental=False, differential="2h")
    made = deployed(warm, plan, pool)
    assert made["backup/full-mill"]["schedule"] == "30 2 * * * (Europe/Berlin)"
    following = datetime.fromisoformat(made["backup/full-mill"]["next_run"])
    assert timedelta(0) < following - datetime.now(UTC) <= timedelta(days=1)
    assert made["backup/differential-mill"]["schedule"] == "every 2 hours"
    assert (made["backup/incremental-mill"]["schedule"], made["restore/by-hand-mill"]["next_run"]) == (None, None)
    now = there(prefect_server, pool)
    assert now.keys() == made.keys()
    assert len(made) == 7
    for address, one in now.items():
        assert one["parameters"]["plan"] == str(plan.path)
        assert {MARK, "mill"} <= set(one["tags"])
        queues = address.partition("/")[0] in ("backup", "restore", "undo")
        assert one["concurrency_options"]["collision_strategy"] == ("ENQUEUE" if queues else "CANCEL_NEW")
        assert one["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    (of_full,) = now["backup/full-mill"]["schedules"]
    assert of_full["schedule"] == {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "day_or": True}

    said(plan, full="12h")
    again = deployed(warm, plan, pool)
    assert {one["change"] for one in again.values()} == {"updated"}
    now = there(prefect_server, pool)
    assert [s["schedule"]["interval"] for s in now["backup/full-mill"]["schedules"]] == [43200]
    assert [s["schedule"]["interval"] for s in now["backup/incremental-mill"]["schedules"]] == [900]
    said(plan, full=False)
    deployed(warm, plan, pool)
    assert there(prefect_server, pool)["backup/full-mill"]["schedules"] == []

    said(plan, name="windmill")
    renamed = deployed(warm, plan, pool)
    assert {one["change"] for address, one in renamed.items() if address.endswith("-mill")} == {"removed"}
    assert all(address.endswith("-windmill") for address in there(prefect_server, pool))
    of_lost = [one for one in prefect_server.post("/automations/filter") if one["name"] == LOST_RUNS]
    assert len(of_lost) == 1


@pytest.mark.parametrize(
    ("schedules", "words"),
    [
        ({"full": "* * * *"}, ["schedules.full.cron", "4 fields"]),
        ({"verify": {"interval": "1d", "timezone": "Mars"}}, ["schedules.verify.timezone", "'Mars'"]),
        ({"incremental": "30s"}, ["schedules.incremental.interval", "once a minute"]),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_made(
    prefect_server: Prefect, warm: Warm, tmp_path: Path, schedules: dict[str, object], words: list[str]
) -> None:
    plan = SmallPlan(tmp_path / "sick", name="sick")
    said(plan, **schedules)
    done = warm.done("lastgood", "deploy", str(plan.path), "--pool", "pool-of-sick")
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert not there(prefect_server, "pool-of-sick")


def test_a_cron_schedule_really_has_times_on_the_server(prefect_server: Prefect, warm: Warm, tmp_path: Path) -> None:
    plan, pool = SmallPlan(tmp_path / "clock", name="clock"), "pool-of-clock"
    said(plan, full={"cron": "*/20 * * * *", "timezone": "Asia/Kolkata"}, incremental=False, differential=False)
    deployed(warm, plan, pool)

    def scheduled() -> list[dict[str, Any]] | None:
        return prefect_server.runs_of("full-clock") or None

    runs = wait_for("scheduled runs", scheduled)
    times = [datetime.fromisoformat(one["expected_start_time"]) for one in runs]
    assert all(time.minute % 10 == 0 and (time.minute + 30) % 20 == 0 for time in times)


def processes_of(flow_run: str) -> list[int]:
    """The processes that Prefect started for a run, and theirs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if flow_run.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def differ(one: dict[str, Any], other: dict[str, Any], of_trigger: str) -> bool:
    """Whether the triggers of two automations differ in something; what is listed has no order."""
    values = (automation["trigger"][of_trigger] for automation in (one, other))
    left, right = (sorted(value) if isinstance(value, list) else value for value in values)
    return bool(left != right)


def test_a_run_whose_worker_was_killed_with_it_is_ended(prefect_server: Prefect, warm: Warm, tmp_path: Path) -> None:
    plan, pool = SmallPlan(tmp_path / "lost", name="lost"), "pool-of-lost"
    text = yaml.safe_load(plan.path.read_text())
    text |= {"hooks": {"before": [{"command": ["sleep", "600"], "timeout_seconds": 900}]}}
    plan.path.write_text(yaml.safe_dump(text))
    deployed(warm, plan, pool)
    (automation,) = (one for one in prefect_server.post("/automations/filter") if one["name"] == LOST_RUNS)
    assert automation["trigger"]["within"] == 90
    of_full = there(prefect_server, pool)["backup/full-lost"]
    asked = prefect_server.post(f"/deployments/{of_full['id']}/create_flow_run")
    # the same for this run alone, and sooner: runs of other tests say that they live every half minute
    soon = lost_runs(timedelta(seconds=10)).model_dump(mode="json", exclude_unset=True)
    of_this_run = {"match": {"prefect.resource.id": f"prefect.flow-run.{asked['id']}"}}
    narrowed = prefect_server.post(
        "/automations/", **soon | {"name": f"of {asked['id']}", "trigger": soon["trigger"] | of_this_run}
    )
    assert {one for one in automation["trigger"] if differ(narrowed, automation, one)} == {"id", "match", "within"}
    assert narrowed["actions"][0].keys() == automation["actions"][0].keys()
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool],
        cwd=tmp_path, env=prefect_server.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def heard() -> object:
            running = prefect_server.get(f"/flow_runs/{asked['id']}")["state_type"] == "RUNNING"
            resource = f"prefect.flow-run.{asked['id']}"
            events = {"any_resource": {"id": [resource]}, "event": {"name": ["prefect.flow-run.heartbeat"]}}
            return (running and prefect_server.post("/events/filter", filter=events)["total"]) or None

        wait_for("a sign of life", heard)
    finally:
        worker.kill()
        for process in processes_of(asked["id"]):
            os.kill(process, signal.SIGKILL)
        worker.wait()
    ended = prefect_server.finished(asked["id"], within=240)
    prefect_server.delete(f"/automations/{narrowed['id']}")
    assert (ended["state_type"], "its process is gone" in ended["state"]["message"]) == ("CRASHED", True)


@pytest.fixture(scope="module")
def templates(prefect_server: Prefect) -> dict[str, dict[str, Any]]:
    """What `prefect deploy --all` makes of prefect.yaml."""
    prefect_server.command("work-pool", "create", "lastgood", "--type", "process", "--overwrite")
    prefect_server.command("--no-prompt", "deploy", "--all")
    return there(prefect_server, "lastgood")


def test_deploy_all_makes_templates_that_run_nothing(templates: dict[str, dict[str, Any]]) -> None:
    assert EVERY.keys() <= templates.keys()
    for address, span in EVERY.items():
        made, wanted = templates[address], written()[address]
        assert made["paused"]
        assert [timedelta(seconds=s["schedule"]["interval"]) for s in made["schedules"]] == ([span] if span else [])
        assert (made["description"], made["tags"]) == (wanted["description"], wanted["tags"])
        assert "plan" not in made["parameters"]
        assert made["global_concurrency_limit"] is None


def test_forms_offer_types_and_modes_as_choices_and_times_as_times(templates: dict[str, dict[str, Any]]) -> None:
    backup = templates["backup/incremental"]["parameter_openapi_schema"]
    types = ["full", "differential", "incremental", "snapshot", "emergency"]
    assert backup["definitions"]["BackupType"]["enum"] == types
    assert backup["required"] == ["plan"]
    assert "YAML plan" in backup["properties"]["plan"]["description"]
    restore = templates["restore/by-hand"]["parameter_openapi_schema"]
    assert restore["definitions"]["RestoreMode"]["enum"] == ["preview", "merge", "exact"]
    assert {"type": "string", "format": "date-time"} in restore["properties"]["at"]["anyOf"]
    for globs in ("collections", "keys"):  # a list from the start, and not a choice between a list and nothing
        assert (restore["properties"][globs]["type"], restore["properties"][globs]["items"]) == (
            "array",
            {"type": "string"},
        )
    order = sorted(restore["properties"], key=lambda name: restore["properties"][name]["position"])
    assert order[:8] == ["plan", "backup", "at", "mode", "collections", "keys", "approve", "approve_within"]
    assert restore["properties"]["approve"]["title"] == "Wait for an approval"
    assert restore["properties"]["to"]["not"] == {"type": "string", "pattern": PATTERN}
