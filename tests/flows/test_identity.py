"""A plan's name is bound to its sources: another one makes a full, and is neither overwritten nor removed unasked."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.errors import NotConfirmed, RestoreRefused
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.sources.files import FilesSource
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline import manifest
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.undo import make_undo
from flows.verify import make_verification
from tests.flows.flow_support import EXACT, FULL, INCREMENTAL, MERGE, SNAPSHOT, Shop, picture

MONTHS_LATER = timedelta(days=100)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.fill(10)
    return shop


@pytest.fixture
def staging(shop: Shop) -> BackupPlan:
    """A copy of the plan, under the same name, whose state is another one."""
    folder = shop.folder / "staging"
    shutil.copytree(shop.folder / "state", folder, symlinks=True)
    with sqlite3.connect(folder / "ledger.db") as connection:
        connection.execute("UPDATE orders SET symbol = 'staging'")
    connection.close()
    (folder / "models" / "a.bin").write_bytes(b"staging")
    return moved(shop.plan, folder)


def moved(plan: BackupPlan, folder: Path) -> BackupPlan:
    sources = {"ledger": SQLiteSource(path=str(folder / "ledger.db"), part_size_bytes=800)}
    return plan.model_copy(update={"sources": {**sources, "models": FilesSource(url=str(folder / "models"))}})


def restore(plan: BackupPlan, backup: BackupMetadata, **options: object) -> list[str]:
    return make_restore(plan, RestoreRequest(backup.backup_id, **options)).notes  # type: ignore[arg-type]


def test_each_backup_knows_its_sources(shop: Shop) -> None:
    for kind in (FULL, INCREMENTAL, SNAPSHOT):
        made = shop.repository.manifest("trading", shop.back_up(kind).backup_id)
        assert {s.name: s.identity for s in made.sources} == {n: s.identity() for n, s in shop.plan.sources.items()}
    assert shop.back_up(INCREMENTAL).promoted_because is None


def test_another_source_makes_a_full_and_is_said(shop: Shop, staging: BackupPlan) -> None:
    first = shop.back_up(FULL)
    made = make_backup(staging, INCREMENTAL)
    assert made.backup_type is FULL
    said = str(made.promoted_because)
    assert said.startswith(f"source ledger is another database than that of {first.backup_id}: place ")
    assert str(shop.folder / "staging" / "ledger.db") in said
    assert str(shop.database) in said
    (warning,) = made.source("models").warnings
    assert warning.startswith(f"Source models is another folder than that of {first.backup_id}: place ")
    # from now on it is the newest
    assert make_backup(staging, INCREMENTAL).base == made.backup_id
    # also where a full was asked for
    assert shop.back_up(FULL).source("ledger").warnings != ()
    assert shop.back_up(FULL).source("ledger").warnings == ()


def test_a_database_that_was_replaced_and_a_path_through_a_link_are_the_same_source(shop: Shop) -> None:
    full = shop.back_up(FULL)
    shop.db.close()
    shutil.copy(shop.database, shop.folder / "new.db")
    (shop.folder / "new.db").replace(shop.database)
    (shop.folder / "link").symlink_to(shop.folder / "state")
    made = make_backup(moved(shop.plan, shop.folder / "link"), INCREMENTAL)
    assert (made.base, made.promoted_because) == (full.backup_id, None)
    restore(moved(shop.plan, shop.folder / "link"), full)


@pytest.fixture
def unknowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups as they were before sources were known."""
    real = manifest._source_state
    monkeypatch.setattr(manifest, "_source_state", lambda *args: real(*args).model_copy(update={"identity": {}}))


@pytest.mark.usefixtures("unknowing")
def test_backups_that_do_not_know_their_sources_say_nothing(shop: Shop, staging: BackupPlan) -> None:
    full = shop.back_up(FULL)
    assert make_backup(staging, INCREMENTAL).promoted_because is None
    restore(staging, full)
    apply_retention(staging)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_copied_plan_does_not_put_its_rows_into_the_others(
    shop: Shop, staging: BackupPlan, mode: RestoreMode
) -> None:
    """Rows of staging came into production, by the latest backup of a plan that somebody had copied."""
    shop.back_up(FULL)
    of_staging = make_backup(staging, FULL)
    before = shop.picture()
    with pytest.raises(RestoreRefused) as refused:
        shop.restore("latest", mode)
    assert refused.value.exit_code == 10
    message = refused.value.message
    assert message.startswith(f"source ledger is another database than that of {of_staging.backup_id}: place ")
    assert "which the restore would overwrite" in message
    assert "--adopt" in refused.value.hint
    assert f"a restore would be refused: {message}" in shop.restore("latest", mode, preview=True).notes
    assert shop.picture() == before
    assert [b.backup_type for b in shop.repository.backups("trading")] == [FULL, FULL]


def test_who_says_so_overwrites_another_source_and_can_take_that_back(shop: Shop, staging: BackupPlan) -> None:
    shop.back_up(FULL)
    of_staging = make_backup(staging, FULL)
    before = shop.picture()
    notes = restore(shop.plan, of_staging, adopt=True)
    assert any("another database" in note and "--adopt" in note for note in notes)
    assert shop.rows("SELECT DISTINCT symbol FROM orders") == [("staging",)]
    # the backup before it is of this source
    make_undo(shop.plan)
    assert shop.picture() == before


def test_another_place_is_nobodys(shop: Shop, staging: BackupPlan, tmp_path: Path) -> None:
    made = shop.back_up(FULL)
    restore(staging, made, to=str(tmp_path / "to"))
    assert make_verification(staging, made.backup_id, deep=True).status == "verified"


@pytest.mark.parametrize("there", ["nothing", "empty"])
def test_after_a_loss_a_new_place_is_restored_unasked(shop: Shop, there: str) -> None:
    """Who restores after a disaster finds another machine, and nothing on it."""
    made, state = shop.back_up(FULL), shop.picture()
    folder = shop.folder / "new"
    (folder / "models").mkdir(parents=True)
    if there == "nothing":
        (folder / "models").rmdir()
    else:
        sqlite3.connect(folder / "ledger.db").close()
        (folder / "ledger.db").touch()
    plan = moved(shop.plan, folder)
    notes = restore(plan, made)
    assert picture(folder / "ledger.db", folder / "models") == state
    assert any("another" in note for note in notes) is (there == "empty")
    assert make_backup(plan, INCREMENTAL).backup_type is FULL


def test_two_hosts_with_one_plan_name_do_not_remove_each_others_backups(shop: Shop, staging: BackupPlan) -> None:
    ours = [shop.back_up(kind).backup_id for kind in (FULL, INCREMENTAL)]
    theirs = make_backup(staging, FULL)
    later = theirs.timestamp + MONTHS_LATER
    for plan, other in ((staging, ours[-1]), (shop.plan, theirs.backup_id)):
        with pytest.raises(NotConfirmed) as refused:
            apply_retention(plan, now=later, accept_clock=True)
        assert refused.value.exit_code == 10
        assert f"another database than that of {other}" in refused.value.message
        assert "--adopt" in refused.value.hint
    assert shop.ids == [*ours, theirs.backup_id]
    (note, *_) = apply_retention(staging, dry_run=True).notes
    assert f"another database than that of {ours[-1]}" in note
    assert "(2 of 3 backups)" in note
    assert "--adopt" in note


def test_what_was_adopted_once_is_the_plans_own_until_another_comes(shop: Shop, staging: BackupPlan) -> None:
    """State was moved, or its server upgraded: a person says so once, and schedules go on."""
    shop.back_up(FULL)
    first = shop.back_up(INCREMENTAL)
    make_backup(staging, FULL)
    assert apply_retention(staging, adopt=True).removed == []
    (said,) = shop.repository.expiries("trading")
    assert said.accepted is not None
    assert (said.removed, said.accepted.sequence, said.accepted.newest) == ((), 3, None)
    assert apply_retention(staging).notes == []
    restore(staging, first)
    make_backup(staging, INCREMENTAL)
    assert apply_retention(staging).notes == []
    assert len(shop.repository.expiries("trading")) == 1
    assert shop.repository.audit("trading") == []
    with pytest.raises(NotConfirmed):
        apply_retention(shop.plan)
    other = shop.back_up(FULL)
    with pytest.raises(NotConfirmed, match=other.backup_id):
        apply_retention(staging)


def test_a_source_that_is_not_there_is_no_other_one(shop: Shop, staging: BackupPlan) -> None:
    shop.back_up(FULL)
    shutil.rmtree(shop.folder / "staging")
    assert apply_retention(staging).notes == []


def test_sources_are_asked_only_where_backups_know_theirs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(SQLiteSource, "identity", lambda self: asked.append(self.path) or {})
    shop.back_up(FULL)
    asked.clear()
    apply_retention(shop.plan)
    assert asked == []
