"""docs/api.md: every example and every cell of its table runs, plainly and awaited; and the README's example."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import lastgood
from tests.face_support import ROOT, Application
from tests.test_face import Collected

DOCUMENT = (ROOT / "docs" / "api.md").read_text()
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README + DOCUMENT, re.DOTALL | re.MULTILINE)
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in DOCUMENT.partition("## From the old")[2].partition("What is different")[0].splitlines()
    if line.startswith("|") and "`" in line
][1:]
CALLS = [cell.strip("`") for row in ROWS for cell in row[1:3] if "`" in cell]
VERBS = {
    "create_backup", "restore_from_backup", "restore_latest_backup", "cleanup_old_backups", "test_restore",
    "get_backup_stats", "get_performance_metrics", "start_scheduled_backups", "stop_scheduled_backups", "is_running",
}  # fmt: skip


@pytest.fixture
def application(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Application:
    module = f"documented_{abs(hash(request.node.name)):x}"
    made = Application(tmp_path / "app", module)
    monkeypatch.chdir(made.folder)
    monkeypatch.syspath_prepend(str(made.folder))
    importlib.import_module(module)
    return made


def names(application: Application) -> dict[str, Any]:
    plan = str(application.plan)
    made = lastgood.backup(plan, "full")
    lastgood.restore(plan, made.backup_id)
    lastgood.verify(plan, made.backup_id, deep=True)
    return {"lastgood": lastgood, "plan": plan, "backup_id": made.backup_id, "manager": lastgood.BackupManager(plan)}


def test_the_table_has_every_verb() -> None:
    assert {word for row in ROWS for word in re.findall(r"manager\.(\w+)", row[1])} == VERBS
    functions = {name for name in lastgood.__all__ if inspect.isfunction(getattr(lastgood, name))}
    assert {word for row in ROWS for word in re.findall(r"lastgood\.(\w+)\(", row[2])} == functions - {"lock", "main"}


@pytest.mark.parametrize("row", range(len(ROWS)), ids=lambda n: ROWS[n][0] or ROWS[n][2].strip("`"))
def test_each_row_of_the_table_runs(row: int, application: Application) -> None:
    known = names(application)
    for call in (cell.strip("`") for cell in ROWS[row][1:3] if "`" in cell):
        try:
            plain = eval(call, dict(known))
        finally:
            known["manager"].stop_scheduled_backups()
        assert not inspect.isawaitable(plain)


def test_every_call_of_the_table_can_be_awaited(application: Application) -> None:
    known = names(application)

    async def main() -> None:
        for call in CALLS:
            if "is_running" in call or "[" in call:
                continue
            awaited = eval(call, dict(known))
            assert inspect.isawaitable(awaited), call
            await awaited

    try:
        asyncio.run(main())
    finally:
        known["manager"].stop_scheduled_backups()


def test_the_schedules_run_between_start_and_stop(application: Application) -> None:
    manager = lastgood.BackupManager(application.plan)
    for _ in range(2):
        manager.start_scheduled_backups()
        try:
            assert manager.is_running is True
        finally:
            manager.stop_scheduled_backups()
        assert manager.is_running is False


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_runs(example: str, application: Application) -> None:
    exec(compile(example, "docs/api.md", "exec"), {"__name__": "documented", "lastgood": lastgood})


def test_the_numbers_that_are_documented_are_those_that_are_told(application: Application) -> None:
    collected = Collected()
    manager = lastgood.BackupManager(application.plan, collected)
    manager.create_backup("full")
    manager.cleanup_old_backups()
    with lastgood.lock(application.plan):
        for refused in (lambda: manager.create_backup("full"), manager.cleanup_old_backups):
            with pytest.raises(lastgood.LastgoodError):
                refused()
    documented = set(re.findall(r"^\| `(backup\.[a-z_.]+)` ", DOCUMENT, re.MULTILINE))
    assert documented - set(collected.told) == {"backup.retention.removed_count"}  # nothing was old enough
    assert set(collected.told) <= documented
