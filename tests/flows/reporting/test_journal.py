"""What an operation notes of itself: how it ended, and what it was about."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import (
    CorruptionDetected,
    CouldNotBeTried,
    LastgoodError,
    NotRestorable,
    Partial,
    QualityFailed,
    RepositoryLocked,
)
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline.results import ObjectNotRebuilt, RestoreResult
from flows.reporting.journal import outcome
from flows.reporting.journal_files import journal_folder, segment
from flows.reporting.lifecycle import Operation, Verb
from flows.verify import make_verification
from tests.plans import plan_of


@pytest.fixture
def plan(tmp_path: Path) -> BackupPlan:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO orders VALUES (1)")
    database.close()
    return plan_of(tmp_path, ledger=SQLiteSource(path=str(tmp_path / "ledger.sqlite")))


def noted() -> list[dict[str, Any]]:
    return [json.loads(line) for line in segment(journal_folder(), 1).read_text().splitlines()]


@pytest.mark.parametrize(
    ("error", "shortfall", "expected"),
    [
        (None, None, "completed"),
        (RepositoryLocked("held"), None, "failed"),
        (KeyboardInterrupt(), None, "failed"),
        (Partial("half"), None, "partial"),
        (None, CorruptionDetected("bytes"), "bad"),
        (None, NotRestorable("restore"), "bad"),
        (None, QualityFailed("rows"), "bad"),
        (None, CouldNotBeTried("no room"), "partial"),
    ],
)
def test_an_outcome_is_that_of_the_error_or_of_what_was_found(
    plan: BackupPlan, error: BaseException | None, shortfall: LastgoodError | None, expected: str
) -> None:
    assert outcome(Operation(plan, Verb.VERIFICATION, "deep", error=error, shortfall=shortfall)) == expected


def test_a_restore_that_left_something_out_is_partial(plan: BackupPlan) -> None:
    left = [ObjectNotRebuilt(source="ledger", name="a view", reason="it breaks")]
    result = RestoreResult.model_construct(mode=RestoreMode.EXACT, not_rebuilt=left)
    assert outcome(Operation(plan, Verb.RESTORE, "exact", result=result)) == "partial"


def test_a_backup_that_depends_on_damage_is_found_bad(plan: BackupPlan) -> None:
    full = make_backup(plan, BackupType.FULL)
    make_backup(plan, BackupType.INCREMENTAL)
    assert plan.repository.folder is not None
    pack = next((plan.repository.folder / "backups" / "books" / full.backup_id).glob("*.pack"))
    pack.chmod(0o600)
    pack.write_bytes(bytes(pack.stat().st_size))
    make_verification(plan, deep=False)
    last = noted()[-1]
    assert (last["event"], last["outcome"], last["error"]) == ("ended", "bad", "CorruptionDetected")


def test_lines_name_the_operation_and_hold_no_secrets_and_no_values(plan: BackupPlan) -> None:
    made = make_backup(plan, BackupType.FULL)
    first, last = noted()
    assert first["id"] == last["id"]
    assert {name: last[name] for name in ("plan", "verb", "type", "outcome", "backup", "repository")} == {
        "plan": "books",
        "verb": "backup",
        "type": "full",
        "outcome": "completed",
        "backup": made.backup_id,
        "repository": plan.repository.unlock(plan.encryption).repository_id,
    }
    assert set(first) == {"event", "id", "at", "plan", "place", "repository", "verb", "type", "process", "host"} - (
        {"host"} - set(first)
    )
    assert last["made"]["rows"] == made.rows
