"""What `deploy` and `approve` show on a terminal of 80 columns: whole times, zones and ids."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from deployments.deploy import Deployed
from flows.cli.commands import approve
from flows.cli.commands.deploy import _table
from flows.cli.tables import Table

LORD_HOWE = "30 2 * * * (Australia/Lord_Howe)"
WEEKLY = "FREQ=WEEKLY;BYDAY=SU;BYHOUR=4;BYMINUTE=0;BYSECOND=0 (UTC)"
DONE = [
    Deployed("backup/differential-trading", LORD_HOWE, datetime(2026, 12, 1, 15, 30, tzinfo=UTC), "made"),
    Deployed("verify/weekly-trading", WEEKLY, datetime(2026, 12, 6, 4, 0, tzinfo=UTC), "updated"),
    Deployed("retention/daily-trading", None, None, "updated"),
    Deployed("backup/full-before", None, None, "removed"),
]


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table.on_terminal())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_narrow_terminal_breaks_no_word_of_a_schedule() -> None:
    said = shown(_table(DONE, changes=False))
    assert "(Australia/Lord_Howe)" in said
    for word in (*WEEKLY.replace(";", "; ").split(), "15:30:00 UTC", "by hand", "removed"):
        assert word in said


@pytest.mark.parametrize("changes", [True, False])
def test_a_pipe_has_a_line_a_deployment(changes: bool) -> None:
    lines = _table(DONE, changes).plain().splitlines()
    assert len(lines) == 1 + len(DONE)
    assert ("made" in lines[1]) is changes


def test_runs_that_wait_are_shown_whole_or_by_the_beginning_of_their_ids() -> None:
    begun = SimpleNamespace(timestamp=datetime(2026, 12, 1, 15, 30, tzinfo=UTC))
    run: Any = SimpleNamespace(id="8d0ce3d5-59e2-4083-8a32-3354f616e4f0", name="restore FUL of trading", state=begun)
    assert run.id in approve._table([run], approve._WHOLE_ID).plain()
    (line,) = shown(approve._table([run], approve._BEGINNING)).splitlines()[1:]
    assert line.split() == ["8d0ce3d5", "restore", "FUL", "of", "trading", "2026-12-01", "15:30:00", "UTC"]
