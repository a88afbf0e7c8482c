"""A restore that a person approves: in the UI by Chromium, by command, and not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.exceptions import FailedRun

from blocks.errors import BackupNotFound, ConfigurationError, RestoreRefused
from flows import backup, restore, undo
from flows.cli.commands.approve import approve
from flows.pipeline.results import RestoreResult
from tests.e2e.browser import browser
from tests.e2e.prefect_support import Prefect, SmallPlan, wait_for
from tests.e2e.restore_form import ask_for_orders, damage, deployed, paused_runs, say

pytestmark = pytest.mark.timeout(300)


@contextmanager
def waiting(prefect: Prefect, small: SmallPlan, **wanted: Any) -> Iterator[tuple[str, Future[RestoreResult]]]:
    """Restore in a thread, until that waits for a person; give the id of the run."""
    flow, others = wanted.pop("flow", restore), wanted.pop("beside", ())

    def work() -> RestoreResult:
        asked = {"approve_within": "60s"} | ({"mode": "exact", "approve": True} if flow is restore else {})
        return flow(str(small.path), **asked | wanted)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(copy_context().run, work)

        def paused() -> str | None:
            if done.done():
                done.result()
            return next((run for run in paused_runs(prefect, flow.name, small) if run not in others), None)

        yield wait_for("the pause", paused), done


def answered(prefect: Prefect, run: str, **answer: object) -> tuple[int, dict[str, Any]]:
    """Answer a run as the Resume form does."""
    url = f"{prefect.server.api_url}/flow_runs/{run}/resume"
    answer = httpx.post(url, json={"run_input": answer}, trust_env=False)  # type: ignore[assignment]
    return answer.status_code, answer.json()  # type: ignore[attr-defined]


def test_an_analyst_fills_the_form_and_a_person_approves_what_they_see(
    prefect: Prefect, small_plan: SmallPlan, tmp_path: Path
) -> None:
    say(small_plan, name="desk", schedules=dict.fromkeys(("full", "differential", "incremental"), "off"))
    say(small_plan, preview_values=["ledger/*"])
    made = backup(str(small_plan.path), "full")
    before = small_plan.quantities()
    damage(small_plan)
    (small_plan.folder / "state" / "models" / "one.bin").write_bytes(b"other")
    with (
        prefect.background(tmp_path / "serve.log", "-m", "lastgood", "serve", str(small_plan.path)),
        browser(tmp_path / "chromium", height=1100) as page,
    ):
        deployment = wait_for("the deployment", lambda: deployed(prefect, "by-hand-desk"))
        run = ask_for_orders(prefect, small_plan, page, deployment)
        shown = prefect.artifacts(run)["approval-desk"]
        page.open(f"{prefect.server.ui_url}/v2/artifacts/artifact/{shown['id']}")
        page.see("What would be lost")
        told = page.text()
        for words in (made.backup_id, "1 record goes and 1 record gets other values", str(small_plan.ledger)):
            assert words in told
        assert "\t".join(("50", "changed", "quantity", "7", "500")) in told
        assert "models/tree" not in told
        assert small_plan.quantities() != before
        page.open(f"{prefect.server.ui_url}/v2/runs/flow-run/{run}")
        page.see("Job Variables")
        page.click_on("button[aria-haspopup=menu]")
        page.click("Resume", "[role=menuitem]")
        page.see("3 records added, 1 changed, 1 removed")
        page.switch("Approve")
        page.fill_labelled("Note", "as | agreed")
        page.fill_labelled("Your name", "Ada")
        page.click("Resume", "[role=dialog] button")
        assert prefect.finished(run)["state_type"] == "COMPLETED"
    assert small_plan.quantities() == before
    assert (small_plan.folder / "state" / "models" / "one.bin").read_bytes() == b"other"
    told = prefect.artifacts(run)["restore-desk"]["data"]
    assert "Approved by Ada at 20" in told
    assert "UTC: as \\| agreed." in told
    assert "was written to between" not in told


def test_a_rejection_by_command_writes_nothing_and_says_by_whom(
    prefect: Prefect, small_plan: SmallPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    say(small_plan, approve_restores=True)
    made = backup(str(small_plan.path), "full")
    damage(small_plan)
    there = small_plan.quantities()
    with waiting(prefect, small_plan, approve=False) as (run, done):
        approve(None, reject=False, note="", by=None, json=True)
        assert run in {one["run"] for one in json.loads(capsys.readouterr().out)["waiting"]}
        shown = prefect.artifacts(run)["approval-shop"]["data"]
        assert "| 50 | changed | quantity |" in shown
        assert "| 500 | removed | id, quantity |" in shown
        with pytest.raises(BackupNotFound, match="'nobody'"):
            approve("nobody", reject=True, note="", by=None, json=False)
        approve(run[:13], reject=True, note="not today", by="Grace", json=False)
        assert f"rejected: run restore latest of shop ({run})" in capsys.readouterr().out
        with pytest.raises(RestoreRefused, match="was rejected by Grace: not today; nothing was written"):
            done.result()
    assert prefect.finished(run)["state_type"] == "FAILED"
    assert small_plan.quantities() == there
    assert [one.backup_id for one in small_plan.backups()] == [made.backup_id]


def test_an_answer_without_the_word_is_not_taken_and_what_changed_meanwhile_is_said(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    backup(str(small_plan.path), "full")
    before = small_plan.quantities()
    damage(small_plan)
    with waiting(prefect, small_plan) as (run, done):
        for wrong in ({}, {"note": "yes"}, {"approve": "perhaps"}):
            _, body = answered(prefect, run, **wrong)
            assert body["status"] == "REJECT"
        with pytest.raises(ConfigurationError, match="may be any of"):
            ambiguous(prefect, small_plan, run)
        small_plan.execute("INSERT INTO orders VALUES (501, 1)")
        backup(str(small_plan.path), "incremental")  # another one is the latest now
        assert answered(prefect, run, approve=True)[1]["status"] == "ACCEPT"
        result = done.result()
    assert small_plan.quantities() == before
    assert result.approved is not None
    assert result.approved.by == "somebody in the Prefect UI"
    assert result.notes[0] == (
        "ledger/orders was written to between preview and restore: 3 to add, 1 to change, 1 to remove then, "
        "3 to add, 1 to change, 2 to remove when it was approved"
    )


def ambiguous(prefect: Prefect, small: SmallPlan, other: str) -> None:
    """Approve by a name that two runs have."""
    with waiting(prefect, small, beside=[other]) as (run, done):
        try:
            approve("restore latest of shop", reject=False, note="", by=None, json=False)
        finally:
            approve(run, reject=True, note="", by=None, json=False)
            with pytest.raises(RestoreRefused, match="was rejected"):
                done.result()


def test_nobody_answers_in_time_and_nothing_is_written(prefect: Prefect, small_plan: SmallPlan) -> None:
    made = backup(str(small_plan.path), "full")
    damage(small_plan)
    there = small_plan.quantities()
    words = f"nobody approved the restore of {made.backup_id} within 2 seconds|never resumed"
    # the server may end the run first, in words of its own
    ended = pytest.raises((RestoreRefused, FailedRun), match=words)
    with waiting(prefect, small_plan, approve_within="2s") as (run, done), ended:
        done.result()
    assert prefect.finished(run)["state_type"] == "FAILED"
    assert small_plan.quantities() == there
    with pytest.raises(ConfigurationError, match="approve_within 'soon'"):
        restore(str(small_plan.path), mode="exact", approve_within="soon")


def test_a_backup_that_is_gone_when_it_is_approved_is_not_replaced_by_another_one(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    backup(str(small_plan.path), "full")
    made = backup(str(small_plan.path), "incremental")
    backup(str(small_plan.path), "full")
    damage(small_plan)
    there = small_plan.quantities()
    with waiting(prefect, small_plan, backup=made.backup_id) as (run, done):
        (gone,) = [path for path in (small_plan.folder / "backups").rglob(made.backup_id) if path.is_dir()]
        shutil.rmtree(gone)
        answered(prefect, run, approve=True)
        with pytest.raises(BackupNotFound, match=f"backup {made.backup_id}, which was previewed and approved, is not"):
            done.result()
    assert small_plan.quantities() == there


def test_a_plan_that_asks_for_it_has_undos_approved_too(prefect: Prefect, small_plan: SmallPlan) -> None:
    backup(str(small_plan.path), "full")
    damage(small_plan)
    there = small_plan.quantities()
    restore(str(small_plan.path), mode="exact")
    say(small_plan, approve_restores=True)
    with waiting(prefect, small_plan, flow=undo) as (run, done):
        approve(run, reject=False, note="", by="Ada", json=False)
        assert done.result().approved is not None
    assert small_plan.quantities() == there
    assert "Approved by Ada" in prefect.artifacts(run)["restore-shop"]["data"]


def test_a_preview_waits_for_nobody(prefect: Prefect, small_plan: SmallPlan) -> None:
    backup(str(small_plan.path), "full")
    assert restore(str(small_plan.path), approve=True).approved is None
