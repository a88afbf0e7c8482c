"""A plan whose backups have format 1: a new chain of format 2 begins, and the old ones stay what they are."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.plan.plan import BackupPlan
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.rows.selection import Selection
from flows.backup import make_backup
from flows.check import check_repository
from flows.pipeline.chain import Chain
from flows.reading.diff import compare_backups
from flows.reading.diff_rows import ChangeKind
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.flows.flow_support import DIFFERENTIAL, FULL, INCREMENTAL
from tests.format_support import make_plan
from tests.test_golden import PASSPHRASE, Shelf, check_restored, encryption_of

NAME = "hybrid"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(1, tmp_path)


@pytest.fixture
def plan(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> BackupPlan:
    """The plan of a golden repository, whose state is live as in its newest backup."""
    monkeypatch.setenv("LASTGOOD_GOLDEN_PASSPHRASE", PASSPHRASE)
    plan = make_plan(shelf.folder / NAME, encryption_of(NAME))
    check_restored(shelf, plan, NAME, shelf.newest(NAME))
    (shelf.folder / "restored" / "ledger" / "ledger.db").rename(shelf.folder / NAME / "ledger.db")
    (shelf.folder / "restored" / "models" / "tree").rename(shelf.folder / NAME / "models")
    shutil.rmtree(shelf.folder / "restored")
    return plan


def differences(plan: BackupPlan, before: str, after: str) -> dict[str, dict[ChangeKind, int]]:
    """Count what differs between two backups, by collection; those that are the same are left out."""
    repository = plan.repository.unlock(plan.encryption)
    old, new = (Chain(repository, repository.find(plan.name, one)) for one in (before, after))
    found = compare_backups(old, new, Selection())
    return {one.collection: {kind: n for kind, n in one.counts.items() if n} for one in found if one.total}


def backups(plan: BackupPlan) -> list[BackupMetadata]:
    return plan.repository.unlock(plan.encryption).backups(plan.name)


@pytest.mark.parametrize("kind", [INCREMENTAL, DIFFERENTIAL])
def test_the_next_backup_is_a_full_of_format_2_that_says_why(plan: BackupPlan, shelf: Shelf, kind: BackupType) -> None:
    before = backups(plan)
    assert {one.format_version for one in before} == {1}
    made = make_backup(plan, kind)
    assert (made.backup_type, made.requested_type, made.format_version, made.base) == (FULL, kind, 2, None)
    assert "has format 1, and format 2 is written" in str(made.promoted_because)
    assert made.sequence == before[-1].sequence + 1
    assert made.previous is not None
    assert made.previous.backup_id == shelf.newest(NAME)
    later = make_backup(plan, INCREMENTAL)
    assert (later.backup_type, later.base, later.promoted_because) == (INCREMENTAL, made.backup_id, None)
    assert backups(plan) == [*before, made, later]
    assert check_repository(plan, 1.0).findings == []


def test_backups_of_both_formats_are_restored_verified_and_compared(plan: BackupPlan, shelf: Shelf) -> None:
    made = make_backup(plan, INCREMENTAL)
    for number, backup_id in enumerate(shelf.in_order(NAME)):
        check_restored(shelf, plan, NAME, backup_id, f"restored {number}")
        assert make_verification(plan, backup_id, deep=number == 0).status is BackupStatus.VERIFIED
    assert make_verification(plan, made.backup_id, deep=True).status is BackupStatus.VERIFIED
    assert differences(plan, shelf.newest(NAME), made.backup_id) == {}


def test_the_diff_of_two_formats_is_that_of_their_rows(plan: BackupPlan, shelf: Shelf) -> None:
    database = sqlite3.connect(shelf.folder / NAME / "ledger.db")
    (table, key) = next(
        (name, columns[0])
        for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        if (columns := [c[1] for c in database.execute(f'PRAGMA table_info("{name}")') if c[5]])
        and len(columns) == 1
        and database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] > 3
    )
    with database:
        (least,) = database.execute(f'SELECT min("{key}") FROM "{table}"').fetchone()
        database.execute(f'DELETE FROM "{table}" WHERE "{key}" = ?', [least])
    database.close()
    made = make_backup(plan, INCREMENTAL)
    name = f"ledger/{table}"
    assert differences(plan, shelf.newest(NAME), made.backup_id) == {name: {ChangeKind.REMOVED: 1}}
    assert differences(plan, made.backup_id, shelf.newest(NAME)) == {name: {ChangeKind.ADDED: 1}}


def test_retention_removes_what_has_format_1(plan: BackupPlan, shelf: Shelf) -> None:
    made = make_backup(plan, INCREMENTAL)
    make_verification(plan, made.backup_id)  # else the newest one that is known to be good stays
    limit = timedelta(days=1)
    kept = plan.model_copy(
        update={"retention": RetentionPolicy(**{kind.value: limit for kind in BackupType}, keep_last=1)}
    )
    result = apply_retention(kept, now=datetime.now(UTC) + timedelta(days=900), accept_clock=True)
    assert {one.backup_id for one in result.removed} == set(shelf.in_order(NAME))
    assert backups(plan) == [made]
    assert not list((shelf.folder / NAME / "backups").rglob("*.seg"))
    assert make_backup(plan, INCREMENTAL).base == made.backup_id
    assert check_repository(plan, 1.0).findings == []
