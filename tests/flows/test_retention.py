"""The retention flow: what goes is recorded before it goes, and nothing goes in a dry run or in doubt."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import CorruptionDetected, RepositoryLocked
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata
from blocks.sources.target import RestoreMode
from flows import check
from flows.check import check_repository
from flows.proving.objects import CheckedObject
from flows.retention import apply_retention
from flows.undo import make_undo
from flows.verify import make_verification
from tests.flows.flow_support import CORRUPTED, DIFFERENTIAL, EMERGENCY, FULL, INCREMENTAL, SNAPSHOT, Shop, picture

LATER = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.fill(10)
    return shop


def files(shop: Shop) -> set[str]:
    root = shop.folder / "repository"
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "locks" not in p.parts}


def test_a_dry_run_tells_the_same_and_removes_nothing(shop: Shop) -> None:
    for kind in (FULL, INCREMENTAL, SNAPSHOT, FULL):
        shop.back_up(kind)
    before = files(shop)
    dry = apply_retention(shop.plan, dry_run=True, now=LATER)
    assert files(shop) == before
    assert (dry.dry_run, dry.swept) == (True, [])
    real = apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert real.decisions == dry.decisions
    assert len(real.removed) == 3
    assert shop.ids == [d.backup_id for d in real.decisions if not d.remove]


def test_a_dry_run_needs_no_lease_and_a_real_one_does(shop: Shop) -> None:
    shop.back_up()
    with shop.repository.lease("trading", "backup", holder="elsewhere:1"):
        assert apply_retention(shop.plan, dry_run=True).removed == []
        with pytest.raises(RepositoryLocked):
            apply_retention(shop.plan, now=LATER, accept_clock=True)


def test_what_goes_is_gone_as_a_whole_and_on_record(shop: Shop) -> None:
    old, young = shop.back_up(FULL), shop.back_up(FULL)
    link = shop.repository.link(old)
    apply_retention(shop.plan, now=old.timestamp + timedelta(days=100), accept_clock=True)
    assert not [name for name in files(shop) if old.backup_id in name]
    assert not shop.objects(old).exists() or not list(shop.objects(old).iterdir())
    (expiry,) = shop.repository.expiries("trading")
    assert expiry.removed == (link,)
    assert expiry.reasons == {old.backup_id: "100d old, full backups are kept for 90d"}
    assert expiry.head == shop.repository.link(young)
    assert shop.repository.audit("trading") == []


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_goes_while_a_check_looks_is_no_finding_of_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    for kind in (FULL, INCREMENTAL, SNAPSHOT, FULL):
        shop.back_up(kind)
    choose = check.sample

    def after_retention(objects: list[CheckedObject], share: float) -> list[CheckedObject]:
        assert apply_retention(shop.plan, now=LATER, accept_clock=True).removed
        return choose(objects, share)

    with monkeypatch.context() as patch:
        patch.setattr(check, "sample", after_retention)
        result = check_repository(shop.plan, read_share=share)
    assert (result.findings, result.backups) == ([], 4)
    assert check_repository(shop.plan, read_share=1.0).findings == []


def test_nothing_to_remove_leaves_no_record(shop: Shop) -> None:
    shop.back_up()
    assert apply_retention(shop.plan).removed == []
    assert shop.repository.expiries("trading") == []


def test_what_a_kept_backup_stands_on_stays_and_restores(shop: Shop, tmp_path: Path) -> None:
    shop.plan = shop.plan.model_copy(
        update={"retention": RetentionPolicy(full="1d", incremental="1d", differential="999d", emergency="1d")}
    )
    full, middle = shop.back_up(FULL), shop.back_up(INCREMENTAL)
    shop.db.execute("DELETE FROM orders WHERE id = 1")
    state, differential = shop.picture(), shop.back_up(DIFFERENTIAL)
    shop.back_up(EMERGENCY)
    newer = shop.back_up(FULL)
    result = apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [full.backup_id, differential.backup_id, newer.backup_id]
    reasons = {d.backup_id: d.reason for d in result.decisions}
    assert reasons[full.backup_id] == f"{differential.backup_id} depends on it"
    assert middle.backup_id in {d.backup_id for d in result.removed}
    shop.restore(differential, to=str(tmp_path / "to"))
    assert picture(tmp_path / "to" / "ledger" / "ledger.db", tmp_path / "to" / "models" / "tree") == state


def test_the_chain_goes_on_after_its_newest_links_expired(shop: Shop, tmp_path: Path) -> None:
    shop.plan = shop.plan.model_copy(update={"retention": RetentionPolicy(incremental="1d")})
    full = shop.back_up(FULL)
    shop.db.execute("DELETE FROM orders WHERE id = 1")
    shop.back_up(INCREMENTAL)
    shop.back_up(SNAPSHOT)
    apply_retention(shop.plan, now=datetime.now(UTC) + timedelta(days=2), accept_clock=True)
    shop.db.execute("UPDATE orders SET price = 0 WHERE id = 2")
    state, made = shop.picture(), shop.back_up(INCREMENTAL)
    assert (made.base, made.upserts, made.tombstones) == (full.backup_id, 1, 1)
    assert made.sequence == 4
    shop.restore(made, to=str(tmp_path / "to"))
    assert picture(tmp_path / "to" / "ledger" / "ledger.db", tmp_path / "to" / "models" / "tree") == state
    assert shop.repository.audit("trading") == []


def test_in_doubt_nothing_goes(shop: Shop) -> None:
    shop.back_up(FULL)
    damaged = shop.back_up(INCREMENTAL)
    shop.back_up(FULL)
    manifest = shop.objects(damaged) / "manifest"
    manifest.write_bytes(manifest.read_bytes()[::-1])
    before = files(shop)
    for dry_run in (True, False):
        with pytest.raises(CorruptionDetected, match=damaged.backup_id):
            apply_retention(shop.plan, dry_run, LATER, accept_clock=True)
    assert files(shop) == before


def test_what_an_unfinished_backup_left_is_swept_after_the_grace_time(shop: Shop) -> None:
    kept = shop.back_up()
    left = shop.objects(kept).parent / "FUL_20260101_000000_0000"
    left.mkdir()
    for name in ("00000.seg", "00000.idx", "00001.pack"):
        (left / name).write_bytes(b"unfinished")
    assert apply_retention(shop.plan).swept == []
    long_ago = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    for path in (*left.iterdir(), left):
        os.utime(path, (long_ago, long_ago))
    swept = apply_retention(shop.plan).swept
    assert [name for name in swept if "locks" not in name] == [
        "backups/trading/FUL_20260101_000000_0000/00000.idx",
        "backups/trading/FUL_20260101_000000_0000/00000.seg",
        "backups/trading/FUL_20260101_000000_0000/00001.pack",
    ]
    assert shop.ids == [kept.backup_id]
    assert not left.exists()


def test_a_second_run_finds_nothing_to_do(shop: Shop) -> None:
    for _ in range(3):
        shop.back_up(FULL)
    assert len(apply_retention(shop.plan, now=LATER, accept_clock=True).removed) == 2
    assert apply_retention(shop.plan, now=LATER, accept_clock=True).removed == []
    assert len(shop.repository.expiries("trading")) == 1


def corrupt(shop: Shop, backup: BackupMetadata) -> None:
    """Damage an object, and let a verification say so."""
    victim = min(shop.objects(backup).glob("*.pack"))
    victim.write_bytes(victim.read_bytes()[::-1])
    assert make_verification(shop.plan, backup.backup_id, deep=False).status is CORRUPTED


def test_a_corrupted_newest_full_never_costs_the_good_ones(shop: Shop, tmp_path: Path) -> None:
    shop.back_up(FULL)
    state, good = shop.picture(), shop.back_up(FULL)
    corrupt(shop, shop.back_up(FULL))
    apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [good.backup_id]
    shop.restore(good, to=str(tmp_path / "to"))
    assert picture(tmp_path / "to" / "ledger" / "ledger.db", tmp_path / "to" / "models" / "tree") == state


def test_the_empty_fulls_of_an_unmounted_folder_never_cost_the_real_one(shop: Shop) -> None:
    shop.back_up(FULL)
    real = shop.back_up(FULL)
    away = shop.tree.rename(shop.tree.with_name("unmounted"))
    shop.tree.mkdir()
    # else the backup fails, and there is no empty one
    may_be_empty = shop.plan.sources["models"].model_copy(update={"allow_empty": True})
    shop.plan = shop.plan.model_copy(update={"sources": shop.plan.sources | {"models": may_be_empty}})
    shop.back_up(FULL)
    empty = shop.back_up(FULL)
    result = apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [real.backup_id, empty.backup_id]
    reasons = {d.backup_id: d.reason for d in result.decisions}
    assert reasons[real.backup_id] == "the newest good backup that holds records of source models"
    shop.tree.rmdir()
    away.rename(shop.tree)


def test_a_source_that_left_the_plan_keeps_its_last_backup(shop: Shop) -> None:
    last = shop.back_up(FULL)
    narrowed = {"ledger": shop.plan.sources["ledger"]}
    shop.plan = shop.plan.model_copy(update={"sources": narrowed})
    shop.back_up(FULL)
    newest = shop.back_up(FULL)
    apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [last.backup_id, newest.backup_id]


def test_a_backup_that_lacks_objects_neither_counts_nor_goes(shop: Shop) -> None:
    good, lacking = shop.back_up(FULL), shop.back_up(FULL)
    min(shop.objects(lacking).glob("*.pack")).unlink()
    result = apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [good.backup_id, lacking.backup_id]
    assert "it is not known" in result.decisions[1].reason


def test_a_damaged_verification_makes_a_status_that_nobody_can_tell(shop: Shop) -> None:
    good, doubtful = shop.back_up(FULL), shop.back_up(FULL)
    make_verification(shop.plan, doubtful.backup_id, deep=False)
    (record,) = (shop.folder / "repository" / "verifications" / "trading" / doubtful.backup_id).iterdir()
    record.write_bytes(b"damaged")
    apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [good.backup_id, doubtful.backup_id]


def test_where_the_newest_backup_is_gone_without_a_record_nothing_goes(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.back_up(FULL)
    newest = shop.back_up(FULL)
    shop.objects(newest).rename(shop.folder / "not mounted")
    with pytest.raises(CorruptionDetected, match=newest.backup_id):
        apply_retention(shop.plan, now=LATER, accept_clock=True)
    (shop.folder / "not mounted").rename(shop.objects(newest))
    assert len(apply_retention(shop.plan, now=LATER, accept_clock=True).removed) == 2


def test_a_merge_can_be_taken_back_after_the_backup_that_was_merged_has_outlived_its_age(shop: Shop) -> None:
    first = shop.back_up(FULL)
    shop.db.execute("DELETE FROM orders WHERE id = 1")
    shop.restore(first, RestoreMode.MERGE)
    shop.back_up(FULL)
    apply_retention(shop.plan, now=LATER, accept_clock=True)
    make_undo(shop.plan)
    assert shop.rows("SELECT count(*) FROM orders WHERE id = 1") == [(0,)]


def test_what_an_undo_may_need_outlives_its_age(shop: Shop) -> None:
    first = shop.back_up(FULL)
    shop.db.execute("DELETE FROM orders WHERE id = 1")
    undo = shop.restore(first).rescue_id
    last = shop.back_up(FULL)
    apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [first.backup_id, undo, last.backup_id]
    make_verification(shop.plan, last.backup_id, deep=False)
    apply_retention(shop.plan, now=LATER, accept_clock=True)
    assert shop.ids == [last.backup_id]
