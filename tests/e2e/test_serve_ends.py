"""`lastgood serve` that is told to end while a run is under way: the run is cancelled, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.prefect_support import DEADLINE_SECONDS, ROOT, Prefect, SmallPlan, end, wait_for

HOOK = "import os, sys, time; open(sys.argv[1], 'x').write(f'{os.getpid()} {os.getppid()}'); time.sleep(3600)"
"""Says which process it is and which one started it, and then does not end."""
DEFAULT = "import signal; [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)]\n"
"""As from a terminal: what runs tests may have them ignored."""
SERVE = f"{DEFAULT}import sys; from lastgood import main; sys.exit(main())"


@pytest.fixture
def told(small_plan: SmallPlan) -> Iterator[Path]:
    """Where a hook of the plan, which runs before anything is read, says that it has begun; it ends with the test."""
    told = small_plan.folder / "told"
    plan = yaml.safe_load(small_plan.path.read_text())
    plan["hooks"] = {"before": [{"command": [sys.executable, "-c", HOOK, str(told)], "timeout_seconds": 3600}]}
    small_plan.path = small_plan.folder / "trading.yaml"
    small_plan.path.write_text(yaml.safe_dump(plan))
    yield told
    for process in _processes(told) or ():
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_cancels_a_run_ends_its_hook_and_gives_back_its_lease(
    prefect: Prefect, small_plan: SmallPlan, told: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    log = tmp_path / "serve.log"
    with log.open("wb") as out:
        serving = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", str(small_plan.path)],
            cwd=tmp_path,
            env=prefect.environment() | {"PYTHONPATH": str(ROOT), "PREFECT_RUNNER_POLL_FREQUENCY": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        run = _run(prefect, "full-shop", small_plan)
        hook, flow = wait_for("the hook", lambda: _processes(told))
        os.kill(serving.pid, ending)
        assert serving.wait(DEADLINE_SECONDS) == 0, log.read_text()
    finally:
        end(serving)
    ended = prefect.finished(run)
    assert (ended["state_type"], ended["state_name"]) == ("CANCELLED", "Cancelled"), log.read_text()
    assert ended["name"] == "full backup of shop"
    assert not _lives(hook)
    assert not _lives(flow)
    _assert_nothing_stays(small_plan)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_of_a_flow_that_is_told_to_end_gives_back_its_lease(
    prefect: Prefect, small_plan: SmallPlan, told: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    """As a worker's or a scheduler's process: Prefect has not asked for it."""
    script = f"{DEFAULT}from flows.backup import backup; backup({str(small_plan.path)!r}, 'full')"
    with prefect.background(tmp_path / "run.log", "-c", script) as running:
        hook, flow = wait_for("the hook", lambda: _processes(told))
        assert flow == running.pid
        running.send_signal(ending)
        assert running.wait(DEADLINE_SECONDS) == -signal.SIGTERM, (tmp_path / "run.log").read_text()
    assert not _lives(hook)
    assert prefect.newest_run("backup", small_plan)["state_type"] == "CRASHED"
    _assert_nothing_stays(small_plan)


def _assert_nothing_stays(small_plan: SmallPlan) -> None:
    repository = small_plan.plan.repository.unlock(small_plan.plan.encryption)
    (lease,) = (small_plan.folder / "backups" / "locks" / "shop").iterdir()
    assert json.loads(lease.read_text())["released"]
    with repository.lease("shop", "full backup", holder="another machine"):
        pass
    assert small_plan.backups() == []
    assert not (small_plan.folder / "backups" / "backups").exists()


def _run(prefect: Prefect, deployment: str, plan: SmallPlan) -> str:
    """Ask for a run of a deployment as soon as it is there, and of this plan: the server knew it before."""

    def found() -> dict[str, Any] | None:
        made = prefect.post("/deployments/filter", deployments={"name": {"any_": [deployment]}})
        return next((one for one in made if one["parameters"]["plan"] == str(plan.path)), None)

    deployed = wait_for(f"the deployment {deployment}", found)
    run: str = prefect.post(f"/deployments/{deployed['id']}/create_flow_run", state={"type": "SCHEDULED"})["id"]
    return run


def _processes(told: Path) -> tuple[int, int] | None:
    words = told.read_text().split() if told.exists() else []
    return (int(words[0]), int(words[1])) if len(words) == 2 else None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
