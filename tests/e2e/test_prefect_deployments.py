"""prefect.yaml for real: deployed to a server, run by a process worker, and saying the same as `lastgood serve`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.host.passwords import PATTERN
from deployments.jobs import JOBS, standard_timetable
from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan

EVERY = {
    "backup/full": timedelta(hours=24),
    "backup/differential": timedelta(hours=6),
    "backup/incremental": timedelta(minutes=15),
    "retention/daily": timedelta(days=1),
    "verify/weekly": timedelta(weeks=1),
    "restore/by-hand": None,
    "undo/by-hand": None,
}


def written() -> dict[str, dict[str, Any]]:
    """The deployments of prefect.yaml by the flow's file and their name."""
    found = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    return {f"{d['entrypoint'].rpartition(':')[2]}/{d['name']}": d for d in found}


def test_prefect_yaml_has_the_five_schedules_and_a_restore_by_hand() -> None:
    spans = {
        address: timedelta(seconds=d["schedules"][0]["interval"]) if d.get("schedules") else None
        for address, d in written().items()
    }
    assert spans == EVERY


def test_prefect_yaml_and_serve_say_the_same() -> None:
    deployments, timetable = written(), standard_timetable()
    assert list(deployments) == [job.address for job in JOBS]
    for job in JOBS:
        there = deployments[job.address]
        assert {k: v for k, v in there["parameters"].items() if k != "plan"} == job.parameters
        assert (there["description"], tuple(there["tags"])) == (job.description, job.tags)
        assert there["concurrency_limit"] == {"limit": 1, "collision_strategy": job.at_once.value}
        schedule = timetable.schedules.get(job.address)
        if schedule is None:
            assert "schedules" not in there
            continue
        (here,) = there["schedules"]
        assert (timedelta(seconds=here["interval"]), here["slug"]) == (schedule.interval, schedule.slug)
        assert datetime.fromisoformat(here["anchor_date"]) == schedule.anchor_date


def test_no_two_backups_start_in_the_same_minute() -> None:
    backups = [s for a, s in standard_timetable().schedules.items() if a.startswith("backup/")]
    day = timedelta(days=1)
    starts = [
        {(s.anchor_date + n * s.interval).time() for n in range(day // s.interval)}
        for s in backups
        if s.anchor_date and s.interval
    ]
    assert [len(times) for times in starts] == [1, 4, 96]
    assert not any(one & other for one, other in combinations(starts, 2))


@pytest.fixture(scope="module")
def deployed(prefect_server: Prefect) -> Iterator[Prefect]:
    """A server with everything of prefect.yaml on it, deployed from the command line."""
    prefect_server.command("work-pool", "create", "lastgood", "--type", "process")
    prefect_server.command("--no-prompt", "deploy", "--all")
    yield prefect_server
    for deployment in prefect_server.post("/deployments/filter"):
        prefect_server.delete(f"/deployments/{deployment['id']}")


def test_deploy_all_makes_every_deployment_with_its_schedule_limit_and_tags(deployed: Prefect) -> None:
    flows = {flow["id"]: flow["name"] for flow in deployed.post("/flows/filter")}
    found = {f"{flows[d['flow_id']]}/{d['name']}": d for d in deployed.post("/deployments/filter")}
    assert found.keys() == EVERY.keys()
    for address, span in EVERY.items():
        made, wanted = found[address], written()[address]
        intervals = [timedelta(seconds=s["schedule"]["interval"]) for s in made["schedules"] if s["active"]]
        assert intervals == ([span] if span else [])
        assert (made["work_pool_name"], made["tags"]) == ("lastgood", wanted["tags"])
        assert made["description"] == wanted["description"]
        assert made["global_concurrency_limit"]["limit"] == 1
        strategy = made["concurrency_options"]["collision_strategy"]
        assert strategy == ("ENQUEUE" if address.startswith("backup/") else "CANCEL_NEW")
        assert made["parameters"]["plan"] == "deployments/plans/trading.yaml"


def test_forms_offer_types_and_modes_as_choices_and_times_as_times(deployed: Prefect) -> None:
    backup = deployed.get("/deployments/name/backup/incremental")["parameter_openapi_schema"]
    assert backup["definitions"]["BackupType"]["enum"] == [
        "full",
        "differential",
        "incremental",
        "snapshot",
        "emergency",
    ]
    assert backup["required"] == ["plan"]
    assert "YAML plan" in backup["properties"]["plan"]["description"]
    restore = deployed.get("/deployments/name/restore/by-hand")["parameter_openapi_schema"]
    assert restore["definitions"]["RestoreMode"]["enum"] == ["preview", "merge", "exact"]
    assert {"type": "string", "format": "date-time"} in restore["properties"]["at"]["anyOf"]
    assert {"type": "array", "items": {"type": "string"}} in restore["properties"]["collections"]["anyOf"]
    assert restore["properties"]["to"]["not"] == {"type": "string", "pattern": PATTERN}


def test_a_process_worker_runs_what_the_command_line_asks_for(
    deployed: Prefect, small_plan: SmallPlan, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with deployed.background(log, "-m", "prefect", "worker", "start", "--pool", "lastgood"):
        run = _ask(deployed, "backup/incremental", f"plan={small_plan.path}")
        assert deployed.finished(run)["state_type"] == "COMPLETED", log.read_text()
        small_plan.execute("UPDATE orders SET quantity = 0")
        run = _ask(deployed, "restore/by-hand", f"plan={small_plan.path}", "mode=exact")
        assert deployed.finished(run)["state_type"] == "COMPLETED", log.read_text()
    made = small_plan.backups()[0]
    assert (made.backup_type, made.requested_type) == ("full", "incremental")
    assert small_plan.quantities() == {n: n * 10 for n in range(1, 101)}


def _ask(prefect: Prefect, deployment: str, *parameters: str) -> str:
    words = [word for parameter in parameters for word in ("-p", parameter)]
    printed = prefect.command("deployment", "run", deployment, *words)
    found = re.search(r"UUID: ([0-9a-f-]{36})", printed)
    assert found, printed
    return found[1]
