"""`import lastgood` beside Prefect: inside of flow runs, with saved plans, and with schedules of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

import lastgood
from blocks.errors import ConfigurationError
from deployments.server import running_server
from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan, wait_for
from tests.e2e.shared_server import SharedServer


@pytest.mark.usefixtures("prefect")
def test_inside_of_somebody_elses_flow_run_the_stages_need_none_of_its_threads(small_plan: SmallPlan) -> None:
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def nightly() -> str:
        return lastgood.backup(small_plan.path, "full").backup_id

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    async def nightly_async() -> str:
        return (await lastgood.backup(small_plan.path, "full")).backup_id  # type: ignore[misc,no-any-return]

    made = [nightly(), asyncio.run(nightly_async())]  # type: ignore[arg-type]
    assert [one.backup_id for one in lastgood.list_backups(small_plan.path)] == made


@pytest.mark.usefixtures("prefect")
def test_a_saved_plan_is_used_by_its_name(small_plan: SmallPlan) -> None:
    small_plan.plan.save("shop-of-the-face", overwrite=True, _sync=True)
    made = lastgood.BackupManager("shop-of-the-face").create_backup("full")
    assert [one.backup_id for one in lastgood.list_backups("shop-of-the-face")] == [made.backup_id]
    with pytest.raises(ConfigurationError, match="no saved plan named 'unknown'"):
        lastgood.backup("unknown")


def test_schedules_run_beside_a_program_until_they_are_stopped(prefect: Prefect, tmp_path: Path) -> None:
    manager = lastgood.BackupManager(SmallPlan(tmp_path / "stand", name="stand").path)
    assert not manager.is_running
    manager.start_scheduled_backups()
    try:
        manager.start_scheduled_backups()  # they run already
        assert manager.is_running

        def served() -> bool | None:
            assert manager.is_running
            return bool(prefect.post("/deployments/filter", deployments={"name": {"any_": ["full-stand"]}})) or None

        wait_for("the deployments", served)
    finally:
        manager.stop_scheduled_backups()
    assert not manager.is_running
    manager.stop_scheduled_backups()


STARTED = """
import asyncio, os, sys
import lastgood

manager = lastgood.BackupManager(sys.argv[1])

async def main():
    await manager.start_scheduled_backups()
    assert manager.is_running and "prefect" not in sys.modules
    print("started", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@pytest.mark.usefixtures("prefect_server")
def test_schedules_do_not_outlive_the_program_that_started_them(
    shared_server: SharedServer, small_plan: SmallPlan, tmp_path: Path
) -> None:
    home = tmp_path / "own" / "lastgood" / "prefect"
    shared_server.prepare_home(home)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    program = subprocess.Popen(
        [sys.executable, "-c", STARTED, str(small_plan.path)],
        env=clean | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "own")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"started\n"
    wait_for("the server of the schedules", lambda: running_server(home))
    program.send_signal(signal.SIGKILL)
    program.wait()
    wait_for("the end of that server", lambda: running_server(home) is None or None)
