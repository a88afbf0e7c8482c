"""Each verb tells of its beginning and its end, and nobody who is told can stop it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupMetadata, BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from blocks.telemetry.numbers import OperationNumbers
from flows.backup import make_backup
from flows.reporting import lifecycle
from flows.reporting.lifecycle import Operation
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification

PLAN = """
name: books
sources: {ledger: {type: sqlite, path: ledger.sqlite}}
repository: {url: repository}
encryption: none
"""


class Told:
    """Notes what it is told, and then fails."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str, str | None, bool]] = []

    def started(self, operation: Operation) -> None:
        self._note("started", operation)

    def ended(self, operation: Operation) -> None:
        assert operation.seconds is not None
        self._note("ended", operation)

    def _note(self, moment: str, operation: Operation) -> None:
        outcome = operation.result is not None, operation.error is not None
        assert outcome in ({(False, False)} if moment == "started" else {(True, False), (False, True)})
        self.heard.append((moment, operation.verb.value, operation.kind, operation.backup_id, outcome[1]))
        raise RuntimeError("nobody may notice")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    one = Told()

    def listeners(plan: BackupPlan) -> Sequence[lifecycle.Listener]:
        return (one,)

    monkeypatch.setattr(lifecycle, "listeners", listeners)
    return one


@pytest.fixture
def plan(tmp_path: Path) -> BackupPlan:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL)")
        database.execute("INSERT INTO orders VALUES (1, 2.5)")
    database.close()
    (tmp_path / "plan.yaml").write_text(PLAN)
    made = read_plan(tmp_path / "plan.yaml")
    made.repository.initialize(made.encryption, lambda kit: None)
    return made


def test_each_verb_tells_of_both_moments(plan: BackupPlan, told: Told) -> None:
    made: BackupMetadata = make_backup(plan, BackupType.INCREMENTAL)
    make_verification(plan, deep=False)
    for mode in (RestoreMode.PREVIEW, RestoreMode.EXACT):
        make_restore(plan, RestoreRequest("latest", selection=Selection(), mode=mode))
    apply_retention(plan, dry_run=True)
    apply_retention(plan)
    ended = [one[1:] for one in told.heard if one[0] == "ended"]
    assert ended == [
        ("backup", "incremental", made.backup_id, False),
        ("verification", "quick", made.backup_id, False),
        ("restore", "exact", made.backup_id, False),
        ("retention", "", None, False),
    ]
    assert [one[:3] for one in told.heard] == [(m, *one[:2]) for one in ended for m in ("started", "ended")]


def test_failures_are_told_with_their_error(plan: BackupPlan, told: Told, tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").unlink()
    with pytest.raises(LastgoodError):
        make_backup(plan, BackupType.FULL)
    with pytest.raises(LastgoodError):
        make_verification(plan)
    shutil.rmtree(tmp_path / "repository")
    with pytest.raises(LastgoodError):
        apply_retention(plan)
    ended = [one for one in told.heard if one[0] == "ended"]
    drawn = str(ended[0][3])
    assert drawn.startswith("FUL_")
    assert ended == [
        ("ended", "backup", "full", drawn, True),
        ("ended", "verification", "deep", None, True),
        ("ended", "retention", "", None, True),
    ]


def test_an_operation_has_the_numbers_of_what_it_did_and_of_nothing_else(
    plan: BackupPlan, numbers: list[Operation], tmp_path: Path
) -> None:
    place = plan.repository.tier.place
    made = make_backup(plan, BackupType.FULL)
    make_verification(plan, deep=False)
    with plan.repository.unlock(plan.encryption).lease("books", "another run"), pytest.raises(LastgoodError):
        make_backup(plan, BackupType.FULL)
    (tmp_path / "ledger.sqlite").unlink()
    with pytest.raises(LastgoodError):
        make_backup(plan, BackupType.FULL)
    backup, proof, locked, failed = (one.numbers for one in numbers)

    assert {"collect", "normalize", "diff", "compress", "encrypt", "store", "record"} <= set(backup.stages)
    assert all(seconds > 0 for seconds in backup.stages.values())
    assert [(one.source, one.outcome, one.reads, one.rows) for one in backup.reads] == [("ledger", "ok", 1, made.rows)]
    assert backup.reads[0].size_bytes > 0
    assert {one.tier for one in backup.calls} == {place}
    assert {(one.call, one.outcome) for one in backup.calls} >= {("put", "ok"), ("list", "ok")}
    assert {one.direction: one.size_bytes for one in backup.moved}["written"] > made.size_stored
    assert (backup.lease_wait_seconds, backup.leases_refused) == (0, 0)

    assert "collect" not in proof.stages
    assert not proof.reads
    assert {one.direction: one.size_bytes for one in proof.moved}["read"] >= made.size_stored
    assert (locked.leases_refused, failed.leases_refused) == (1, 0)
    assert [(one.source, one.outcome, one.rows) for one in failed.reads] == [("ledger", "failed", 0)]


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[Operation]:
    """Operations that ended."""
    ended: list[Operation] = []

    class Kept:
        def started(self, operation: Operation) -> None:
            assert operation.numbers == OperationNumbers()

        def ended(self, operation: Operation) -> None:
            ended.append(operation)

    monkeypatch.setattr(lifecycle, "listeners", lambda plan: (Kept(),))
    return ended
