"""Where a Prefect server answers, a command's run is recorded there, and all else is as without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from tests.flows.cli.desk import Desk


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    fast = {
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE: 50,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE: 50,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL: 1,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(fast), prefect_test_harness(server_startup_timeout=60):
        yield


@pytest.fixture
def no_server(server: None) -> None:
    """In this module the desk does find a server."""


def runs() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs()


def test_every_verb_leaves_a_run_and_the_same_output(desk: Desk) -> None:
    before = {run.id for run in runs()}
    made = desk.done("backup", "PLAN", "--tag", "recorded", "--verbose")
    assert "not recorded" not in made.err
    assert "/runs/flow-run/" in made.err
    assert "ledger/orders" in made.out
    assert desk.done("verify", "PLAN", "--json").json["status"] == "verified"
    assert desk.done("retention", "PLAN", "--json").json["dry_run"] is False
    desk.sql("delete from orders")
    restored = desk.done("restore", "PLAN", "--yes")
    assert str(desk.plan) in restored.out
    assert desk.sql("select count(*) from orders") == [(200,)]
    fresh = [run for run in runs() if run.id not in before]
    assert sorted(run.name.partition(" ")[0] for run in fresh) == ["incremental", "restore", "retention", "verify"]
    assert {run.state_name for run in fresh} == {"Completed"}
    # and not plan.yaml, as its file is called
    assert {run.name.rpartition(" of ")[2] for run in fresh} == {"trading"}


def test_an_error_inside_a_run_has_its_own_exit_code_and_no_traceback(desk: Desk) -> None:
    made = desk.backup("--no-server")
    victim = desk.objects(made, "*.pack")[0]
    victim.chmod(0o600)
    victim.write_bytes(victim.read_bytes()[:-1])
    before = {run.id for run in runs()}
    ran = desk.run("verify", "PLAN")
    assert ran.code == 8
    assert victim.name in ran.err
    assert "Traceback" not in ran.err
    assert "corrupted" in ran.out
    assert [run.state_name for run in runs() if run.id not in before] == ["Failed"]


def test_no_server_means_no_run(desk: Desk) -> None:
    before = len(runs())
    desk.backup("--no-server")
    desk.done("verify", "PLAN", "--no-server")
    desk.done("list", "PLAN")
    assert len(runs()) == before


def test_a_saved_plan_is_found_by_its_name(desk: Desk) -> None:
    saved = desk.done("plan", "save", "PLAN", "--json").json
    assert saved["block"] == "backup-plan/trading"
    made = desk.done("backup", "trading", "--json").json["id"]
    assert made in desk.done("list", "trading").out
    desk.done("plan", "save", "PLAN", "--name", "second")
    before = {run.id for run in runs()}
    desk.done("backup", "second")
    assert [run.name for run in runs() if run.id not in before] == ["incremental backup of trading"]
    assert made in desk.done("list", "second").out
    assert desk.run("plan", "save", "PLAN", "--name", "not_a_name").code == 2
    ran = desk.run("list", "unknown")
    assert ran.code == 2
    assert "unknown" in ran.err
