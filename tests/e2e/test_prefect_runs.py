"""Runs as they are seen in Prefect: their stages, their artifacts, and two of them at once on one plan."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from itertools import pairwise
from pathlib import Path

import pytest
from prefect import flow, task

from blocks.errors import CorruptionDetected, HookFailed, QualityFailed, RepositoryLocked
from blocks.records import BackupMetadata
from flows import backup, restore, retention, undo, verify
from flows.reporting.markdown import plain
from flows.reporting.units import human_bytes
from tests.e2e.prefect_support import Prefect, SmallPlan, wait_for

STAGES = ["collect", "normalize", "diff", "compress", "encrypt", "store"]
TASKS = 2 * len(STAGES) + 3 + 1
"""Of two small parts, which are compressed, encrypted and stored together at the end; and the record."""


def test_a_backup_leaves_its_numbers_its_collections_and_a_link_to_its_base(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    full = backup(str(small_plan.path), "full")
    full_run = prefect.newest_run("backup", small_plan)["id"]
    small_plan.execute("DELETE FROM orders WHERE id <= 3")
    small_plan.execute("UPDATE orders SET quantity = 7 WHERE id = 50")
    made = backup(str(small_plan.path), "incremental")
    found = prefect.artifacts(prefect.newest_run("backup", small_plan)["id"])

    summary = found["backup-shop"]
    assert (summary["type"], summary["description"]) == ("markdown", made.backup_id)
    for line in (
        f"# Incremental backup `{made.backup_id}`",
        f"| repository | {plain(str(small_plan.folder / 'backups'))} |",
        f"| base | {full.backup_id} |",
        f"| rows | {made.rows} |",
        "| changed | 1 upserts, 3 tombstones |",
    ):
        assert line in summary["data"]

    table = found["collections-shop"]
    assert table["type"] == "table"
    assert '"collection": "ledger/orders", "rows": 97, "upserts": 1, "tombstones": 3' in table["data"]

    link = found["base-shop"]["data"]
    assert link == f"[{made.backup_id} depends on {full.backup_id}]({prefect.server.ui_url}/runs/flow-run/{full_run})"


@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("failing", [False, True])
def test_what_the_hooks_of_a_run_say_is_in_its_log_and_a_table(
    prefect: Prefect, small_plan: SmallPlan, failing: bool
) -> None:
    end = "exit 7" if failing else "true"
    tell = [["sh", "-c", "echo $LASTGOOD_OUTCOME"]]
    hooks = {"backup": {"before": [["sh", "-c", f"echo flushed; {end}"]], "after": tell}}
    small_plan.path.write_text(f"{small_plan.path.read_text()}\nhooks: {json.dumps(hooks)}\n")
    with pytest.raises(HookFailed) if failing else nullcontext():
        backup(str(small_plan.path), "full")
    run = prefect.newest_run("backup", small_plan)
    table = json.loads(prefect.artifacts(run["id"])["hooks-shop"]["data"])
    assert [(row["in the plan"], row["exit code"], row["output"]) for row in table] == [
        ("hooks.backup.before", 7 if failing else 0, "flushed"),
        ("hooks.backup.after", 0, "failed" if failing else "completed"),
    ]
    lines = [line.partition(": ")[2] for line in said(prefect, run["id"])]  # each begins with the backup's id
    assert "hook sh: flushed" in lines
    assert any(line.startswith(f"hook sh (hooks.backup.before): exit code {7 if failing else 0}") for line in lines)


def test_a_plan_that_says_so_is_verified_in_a_run_inside_of_that_of_the_backup(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    small_plan.path.write_text(f"{small_plan.path.read_text()}\nverify_after_backup: deep\n")
    made = backup(str(small_plan.path), "full")
    outer, inner = prefect.newest_run("backup", small_plan), prefect.newest_run("verify", small_plan)
    parent = prefect.get(f"/task_runs/{inner['parent_task_run_id']}")
    assert parent["flow_run_id"] == outer["id"]
    assert (inner["parameters"]["backup"], inner["state_type"], outer["state_type"]) == (
        made.backup_id, "COMPLETED", "COMPLETED",
    )  # fmt: skip


def test_a_base_that_prefect_does_not_know_is_linked_to_the_backups_of_the_plan(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    backup(str(small_plan.path), "full")
    for artifact in prefect.artifacts(prefect.newest_run("backup", small_plan)["id"]).values():
        prefect.delete(f"/artifacts/{artifact['id']}")
    backup(str(small_plan.path), "incremental")
    link = prefect.artifacts(prefect.newest_run("backup", small_plan)["id"])["base-shop"]["data"]
    assert link.endswith("(/artifacts/key/backup-shop)")


def test_a_run_is_named_after_its_plan_and_not_after_a_file(prefect: Prefect, small_plan: SmallPlan) -> None:
    file = small_plan.path.rename(small_plan.folder / "trading.yaml")
    backup(str(file), "full")
    assert prefect.newest_run("backup", small_plan)["name"] == "full backup of shop"


def test_a_full_backup_has_no_link(prefect: Prefect, small_plan: SmallPlan) -> None:
    backup(str(small_plan.path), "full")
    assert prefect.artifacts(prefect.newest_run("backup", small_plan)["id"]).keys() == {
        "backup-shop",
        "collections-shop",
    }


def test_verification_and_retention_leave_their_findings(prefect: Prefect, small_plan: SmallPlan) -> None:
    made = backup(str(small_plan.path), "full")
    verify(str(small_plan.path), deep=False)
    found = prefect.artifacts(prefect.newest_run("verify", small_plan)["id"])
    assert found.keys() == {"verification-shop", "report-shop"}
    report = found["report-shop"]["data"]
    assert (found["report-shop"]["description"], report.splitlines()[0]) == ("✓ good", "# shop: ✓ good")
    [kept] = re.findall(r"The page is `([^`]*)`", report)
    assert kept.endswith("/shop/report.html")
    before = Path(kept).read_text()
    assert made.backup_id in before
    told = found["verification-shop"]["data"]
    assert f"# Proved in part: `{made.backup_id}`" in told
    assert "| Stored bytes | good | every row compared |" in told
    [page] = re.findall(r"The page of results is `([^`]*)`", told)
    assert f"Backup <code>{made.backup_id}</code> of plan <b>shop</b>" in Path(page).read_text()
    verify(str(small_plan.path), due=True)
    told = prefect.artifacts(prefect.newest_run("verify", small_plan)["id"])["proofs-shop"]
    assert f'"backup": "{made.backup_id}", "how": "whole"' in told["data"]
    assert "1 scratch restore: " in told["description"]
    retention(str(small_plan.path), dry_run=True)
    found = prefect.artifacts(prefect.newest_run("retention", small_plan)["id"])
    assert "| goes at the next run | 0 backups |" in found["report-shop"]["data"]
    assert Path(kept).read_text() != before
    table = found["retention-shop"]["data"]
    assert f'"backup": "{made.backup_id}", "decision": "kept"' in table


def test_a_verification_that_fails_leaves_its_expectations_and_a_link_to_its_page(
    prefect: Prefect, small_plan: SmallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    expectation = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "max_value": 900}}
    suite = {"name": "sizes", "collection": "ledger/orders", "expectations": [expectation]}
    (small_plan.folder / "sizes.json").write_text(json.dumps(suite))
    small_plan.path.write_text(small_plan.path.read_text() + "quality: [./sizes.json]\n")
    made = backup(str(small_plan.path), "full")
    monkeypatch.setenv("LASTGOOD_REPORTS", str(small_plan.folder / "reports"))
    monkeypatch.setenv("LASTGOOD_REPORTS_URL", "https://desk.example/proofs")
    with pytest.raises(QualityFailed):
        verify(str(small_plan.path), deep=False)
    found = prefect.artifacts(prefect.newest_run("verify", small_plan)["id"])
    assert f"# Not good: `{made.backup_id}`" in found["verification-shop"]["data"]
    [page] = (small_plan.folder / "reports" / "shop").glob("FUL_*.html")
    assert "✗</span> Not good</h1>" in page.read_text()
    link = f"[What was proved of {made.backup_id}](https://desk.example/proofs/shop/{page.name})"
    assert found["proof-shop"]["data"] == link
    assert found["page-shop"]["data"] == "[How shop stands](https://desk.example/proofs/shop/report.html)"
    assert "## Open warnings" in found["report-shop"]["data"]


def test_a_preview_leaves_what_it_counted(prefect: Prefect, small_plan: SmallPlan) -> None:
    made = backup(str(small_plan.path), "full")
    small_plan.execute("DELETE FROM orders WHERE id <= 3")
    restore(str(small_plan.path))
    told = prefect.artifacts(prefect.newest_run("restore", small_plan)["id"])["restore-shop"]["data"]
    assert f"# Restore of `{made.backup_id}` (preview)" in told
    assert "| collection | rows | added | changed | removed |" in told
    assert "| ledger/orders | 100 | 3 | 0 | 0 |" in told
    assert "Undo" not in told


def test_a_restore_and_its_undo_leave_what_they_did_and_the_command_that_takes_it_back(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    plan = small_plan.path.rename(small_plan.folder / "my plan.yaml")

    def told(flow: str) -> list[str]:
        run = prefect.newest_run(flow, small_plan)["id"]
        lines: list[str] = prefect.artifacts(run)["restore-shop"]["data"].splitlines()
        models = small_plan.folder / "state" / "models"
        assert f"to ledger: live, {small_plan.ledger}, models: live, {models}; took" in lines[1]
        assert f"Undo with `lastgood undo '{plan}' --yes`" in lines
        assert "| collection | rows |" in lines
        return lines

    made = backup(str(plan), "full")
    small_plan.execute("DELETE FROM orders WHERE id <= 3")
    restored = restore(str(plan), mode="exact")
    lines = told("restore")
    assert lines[0] == f"# Restore of `{made.backup_id}` (exact)"
    assert "| ledger/orders | 100 |" in lines
    assert f"What was there before is in the backup `{restored.rescue_id}`." in lines
    undone = undo(str(plan))
    lines = told("undo")
    assert lines[0] == f"# Restore of `{restored.rescue_id}` (exact)"
    assert "| ledger/orders | 97 |" in lines
    assert f"What was there before is in the backup `{undone.rescue_id}`." in lines


def test_the_stages_of_each_part_follow_each_other_and_the_record_follows_all(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    made = backup(str(small_plan.path), "full")
    run = prefect.newest_run("backup", small_plan)["id"]

    def recorded() -> dict[str, dict[str, str | None]] | None:
        tasks = prefect.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        done = [task for task in tasks if task["state_type"] == "COMPLETED"]
        return {task["name"]: task for task in done} if len(done) == TASKS else None

    tasks = wait_for("the record of all stages", recorded)
    names = {task["id"]: name for name, task in tasks.items()}

    def before(name: str) -> set[str]:
        inputs = [i for group in tasks[name]["task_inputs"].values() for i in group]  # type: ignore[union-attr]
        return {names[i["id"]] for i in inputs if i["input_type"] == "task_run"}

    parts = ["ledger/orders#0", "models/tree#0"]
    (together,) = (name.removeprefix("store ") for name in tasks if re.fullmatch("store .* and 1 more", name))
    for part in parts:
        for earlier, later in pairwise(STAGES):
            assert before(f"{later} {part}") == {f"{earlier} {part}"}
    for earlier, later in pairwise(STAGES[-3:]):  # both are small, and are stored together
        assert before(f"{later} {together}") == {f"{earlier} {together}"}
    assert before(f"record {made.backup_id}") == {f"store {part}" for part in (*parts, together)}


def test_a_command_has_sent_all_of_its_run_when_it_ends(prefect: Prefect, small_plan: SmallPlan) -> None:
    script = "import sys; from lastgood import main; sys.exit(main())"
    words = [sys.executable, "-c", script, "backup", str(small_plan.path), "--type", "full", "--json"]
    done = subprocess.run(words, cwd=small_plan.folder, env=prefect.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["id"]
    run = prefect.newest_run("backup", small_plan)
    assert run["state_type"] == "COMPLETED"
    of_run = {"flow_run_id": {"any_": [run["id"]]}}

    def recorded() -> list[str] | None:
        tasks = prefect.post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
        done = [task["name"] for task in tasks if task["state_type"] == "COMPLETED"]
        return done if len(done) == TASKS else None

    assert f"record {made}" in wait_for("the record of all stages", recorded)
    lines = [log["message"].removeprefix(f"{made}: ") for log in prefect.post("/logs/filter", logs=of_run)]
    assert [line for line in lines if "Finished in state" in line] == ["Finished in state Completed()"]
    assert {line.partition(":")[0] for line in lines if ": " in line} >= {
        "plan",
        "base",
        "rows",
        "bytes",
        "place",
        "took",
    }
    assert prefect.artifacts(run["id"])["backup-shop"]["description"] == made


def said(prefect: Prefect, run: str) -> list[str]:
    """What a run has in its log in the UI, once that has arrived."""

    def arrived() -> list[str] | None:
        logs = prefect.post("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        ended = [log for log in logs if log["name"] == "prefect.flow_runs" and "Finished in state" in log["message"]]
        return [log["message"] for log in logs] if ended else None

    return wait_for("the log", arrived)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> None:
    """Let runs of this process log as they do elsewhere; tests have only warnings otherwise."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        caplog.set_level(logging.INFO, name)


@pytest.mark.usefixtures("logged")
def test_the_log_of_a_run_says_what_it_did_and_nothing_of_each_task(prefect: Prefect, small_plan: SmallPlan) -> None:
    full = backup(str(small_plan.path), "full")
    small_plan.execute("DELETE FROM orders WHERE id <= 3")
    made = backup(str(small_plan.path), "incremental")
    lines = said(prefect, prefect.newest_run("backup", small_plan)["id"])
    assert all(line.startswith(f"{made.backup_id}: ") for line in lines[1:-1])
    lines = [line.removeprefix(f"{made.backup_id}: ") for line in lines]
    assert lines[1:6] == [
        "plan: shop, incremental backup",
        f"base: {full.backup_id}",
        f"rows: {made.rows}, of which 0 written and 3 deleted",
        f"bytes: {human_bytes(made.size_bytes)}, stored {human_bytes(made.size_stored)}",
        f"place: {small_plan.folder / 'backups'}",
    ]
    assert lines[6].startswith("took: ")
    assert [line.partition(":")[0] for line in lines[7:-1]] == [*STAGES, "record"]
    assert re.fullmatch(r"collect: 98 rows, [\d.]+ KiB, \d\.\d s", lines[7])
    assert "Finished in state Completed()" in lines[-1]
    restore(str(small_plan.path), mode="merge", collections=["ledger/*"])
    lines = said(prefect, prefect.newest_run("restore", small_plan)["id"])
    assert f"{made.backup_id}: place: ledger at live, {small_plan.ledger}" in lines
    assert f"{made.backup_id}: rows: 97 restored" in lines
    verify(str(small_plan.path), deep=False)
    lines = said(prefect, prefect.newest_run("verify", small_plan)["id"])
    assert f"{made.backup_id}: plan: shop, quick verification: verified" in lines
    assert f"{made.backup_id}: stored bytes: good, every row compared" in lines


@pytest.mark.usefixtures("logged")
def test_what_the_layers_below_warn_of_is_in_the_log_of_the_run_without_secrets(
    prefect: Prefect, small_plan: SmallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        logging.getLogger("blocks.planted").warning("the disk of redis://:geheim@cache makes noises")
        # of a pool, say, that was not told whose work it does
        beside = threading.Thread(target=logging.getLogger("blocks.planted").warning, args=("a server is slow",))
        beside.start()
        beside.join()
        raise RuntimeError("postgresql://bot:geheim@db.example/books does not answer")

    monkeypatch.setattr(type(small_plan.plan.sources["ledger"]), "view", fails)
    with pytest.raises(RuntimeError):
        backup(str(small_plan.path), "full")
    run = prefect.newest_run("backup", small_plan)
    assert run["state"]["message"] == "unexpected RuntimeError: postgresql://bot@db.example/books does not answer"
    lines = said(prefect, run["id"])
    assert any(re.fullmatch(r"FUL_\w+: the disk of redis://@cache makes noises", line) for line in lines)
    assert any(re.fullmatch(r"FUL_\w+: a server is slow", line) for line in lines)
    assert "postgresql://bot@db.example/books does not answer" in "\n".join(lines)
    assert "geheim" not in "\n".join(lines)


@pytest.mark.usefixtures("logged")
def test_tasks_of_others_keep_their_lines(prefect: Prefect, small_plan: SmallPlan) -> None:
    @task
    def theirs() -> None:
        pass

    @flow(name="somebody-elses")
    def other() -> None:
        backup(str(small_plan.path), "full")
        theirs()

    other()
    (run,) = prefect.post("/flow_runs/filter", flows={"name": {"any_": ["somebody-elses"]}})
    assert said(prefect, run["id"]).count("Finished in state Completed()") == 2


@pytest.mark.usefixtures("logged")
def test_a_stage_that_fails_is_said_with_its_hint_and_without_a_traceback(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    backup(str(small_plan.path), "full")
    for pack in (small_plan.folder / "backups").rglob("*.pack"):
        pack.write_bytes(bytes(len(pack.read_bytes())))
    small_plan.execute("DELETE FROM orders")
    with pytest.raises(CorruptionDetected) as failed:
        restore(str(small_plan.path), mode="exact")
    run = prefect.newest_run("restore", small_plan)
    assert run["state"]["message"].startswith(f"error: {failed.value.message}")
    lines = said(prefect, run["id"])
    of_tasks = [line for line in lines if line.startswith("Finished in state")][:-1]
    assert of_tasks
    assert all("CorruptionDetected" in line for line in of_tasks)  # and nothing of those that waited for them
    assert "Traceback" not in "\n".join(lines)


def test_of_two_runs_at_once_the_second_waits(prefect: Prefect, small_plan: SmallPlan) -> None:
    def run() -> BackupMetadata:
        made: BackupMetadata = backup(str(small_plan.path), "full", wait_seconds=60)
        return made

    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(copy_context().run, run) for _ in range(2)]
        made = sorted((r.result() for r in runs), key=lambda m: m.sequence)
    assert [m.sequence for m in made] == [1, 2]
    assert made[0].fencing_token < made[1].fencing_token
    assert made[1].previous is not None
    assert made[1].previous.backup_id == made[0].backup_id
    assert [m.backup_id for m in small_plan.backups()] == [m.backup_id for m in made]


@pytest.mark.usefixtures("logged")
def test_of_two_runs_at_once_one_that_may_not_wait_is_refused_and_leaves_nothing(
    prefect: Prefect, small_plan: SmallPlan
) -> None:
    repository = small_plan.plan.repository.unlock(small_plan.plan.encryption)
    with (
        repository.lease("shop", "full backup", holder="another machine"),
        pytest.raises(RepositoryLocked, match="another machine") as refused,
    ):
        backup(str(small_plan.path), "full")
    run = prefect.newest_run("backup", small_plan)
    assert run["state_type"] == "FAILED"
    words = f"error: {refused.value.message}\nhint: {refused.value.hint.replace('shop', str(small_plan.path), 1)}"
    assert run["state"]["message"] == words
    assert said(prefect, run["id"]).count(words) == 1
    assert "Traceback" not in "".join(said(prefect, run["id"]))
    assert small_plan.backups() == []
    assert not (small_plan.folder / "backups" / "backups").exists()
