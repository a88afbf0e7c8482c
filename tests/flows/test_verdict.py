"""What verifications conclude: whose damage it is, what stands, and what bases, restores and checks make of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    NotRestorable,
    ObjectUnreadable,
    QualityFailed,
)
from blocks.records import BackupMetadata
from blocks.repository.verdict import Verdict
from blocks.sources.sqlite.rebuild import Rebuild
from blocks.verification import Axis, CheckOutcome, Depth
from flows.check import check_repository
from flows.proving.failure import Reported, failure
from flows.verify import make_verification
from lastgood import BackupManager
from lastgood import restore_latest as restore_newest
from tests.flows.flow_support import (
    COMPLETED,
    CORRUPTED,
    DIFFERENTIAL,
    FULL,
    INCREMENTAL,
    VERIFIED,
    Shop,
    blobs,
    flip,
    store_apart,
)

GOOD, BAD, UNPROVEN = CheckOutcome.GOOD, CheckOutcome.BAD, CheckOutcome.UNPROVEN
BYTES, RESTORABLE = Axis.BYTES, Axis.RESTORABLE


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    store_apart(monkeypatch)
    shop = Shop(tmp_path)
    shop.fill()
    return shop


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let a database not be built as long as this holds a word, which is what the error says."""
    words, whole = list[str](), Rebuild.create_rest

    def build(self: Rebuild, *args: object) -> None:
        if words:
            raise NotRestorable(words[0])
        whole(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Rebuild, "create_rest", build)
    return words


def verdict(shop: Shop, made: BackupMetadata) -> Verdict:
    return shop.repository.verdict(made)


def chain(shop: Shop) -> list[BackupMetadata]:
    """Make a full, a differential and an incremental, each with changes of its own."""
    made = [shop.back_up(FULL)]
    for n, kind in enumerate((DIFFERENTIAL, INCREMENTAL)):
        shop.db.execute(f"UPDATE orders SET price = price + {n + 1} WHERE id IN (1, 20, 40)")
        shop.db.execute(f"UPDATE positions SET quantity = {n}")
        made.append(shop.back_up(kind))
    return made


def test_damage_of_a_full_that_an_incremental_shows_is_that_of_the_full_and_of_all_on_it(shop: Shop) -> None:
    full, differential, incremental = chain(shop)
    other = shop.back_up(INCREMENTAL)
    flip(shop.objects(full), blobs(full)[1])
    result = make_verification(shop.plan, incremental.backup_id, deep=False)
    assert (result.status, isinstance(failure(result), CorruptionDetected)) == (CORRUPTED, True)
    owner = verdict(shop, full)
    assert (owner.bad_bytes, owner.bad_base, owner.depth(BYTES)) == (True, None, Depth.OBJECTS)
    assert blobs(full)[1].name in owner.axes[BYTES].findings[0]
    assert verdict(shop, incremental).bad_base is None, "its own verification found it"
    for dependent in (differential, other):
        assert verdict(shop, dependent).bad_base == full.backup_id
        assert shop.repository.verifications("trading", dependent.backup_id) == []
    (record,) = shop.repository.verifications("trading", full.backup_id)
    assert (record.status, record.sequence, record.deep) == (CORRUPTED, 1, False)
    assert shop.repository.statuses("trading", shop.repository.backups("trading")) == dict.fromkeys(shop.ids, CORRUPTED)


@pytest.mark.parametrize("kind", [DIFFERENTIAL, INCREMENTAL])
def test_the_next_backup_after_damage_of_a_base_is_a_full(shop: Shop, kind: object) -> None:
    full, _, incremental = chain(shop)
    flip(shop.objects(full), blobs(full)[0])
    make_verification(shop.plan, incremental.backup_id, deep=False)
    made = shop.back_up(kind)  # type: ignore[arg-type]
    assert made.backup_type is FULL
    assert made.promoted_because == f"base {full.backup_id} failed its verification"


def test_one_pass_finds_all_damage_of_a_chain_and_charges_each_to_its_owner(shop: Shop) -> None:
    full, differential, incremental = chain(shop)
    data = blobs(full)
    flip(shop.objects(full), data[0])
    (shop.objects(full) / data[2].name).unlink()
    flip(shop.objects(differential), blobs(differential, index=True)[0])
    result = make_verification(shop.plan, incremental.backup_id)
    mine = result.results["bytes"].findings
    charged = {one.backup_id: verdict(shop, one).axes[BYTES].findings for one in (full, differential)}
    assert len(charged[full.backup_id]) == 2
    assert all(any(blob.name in said for said in charged[full.backup_id]) for blob in (data[0], data[2]))
    assert len(charged[differential.backup_id]) == 1
    assert set(mine) == {*charged[full.backup_id], *charged[differential.backup_id]}
    assert result.results["restorable"].outcome is UNPROVEN  # not all of it came
    assert "not all of it could be read" in result.warnings[0]


def test_damage_that_is_mended_heals_owner_and_dependents_by_one_verification(shop: Shop) -> None:
    full, differential, incremental = chain(shop)
    victim = blobs(full)[0]
    flip(shop.objects(full), victim)
    make_verification(shop.plan, incremental.backup_id, deep=False)
    flip(shop.objects(full), victim)
    result = make_verification(shop.plan, incremental.backup_id, deep=False)
    assert (failure(result), result.warnings) == (None, ())
    assert [verdict(shop, one).bad_bytes for one in (full, differential, incremental)] == [False] * 3
    assert [verdict(shop, one).status for one in (full, incremental)] == [COMPLETED, VERIFIED]
    assert shop.back_up(INCREMENTAL).base == incremental.backup_id


def test_what_only_a_verification_of_the_base_itself_outdoes_is_said(shop: Shop) -> None:
    full, _, incremental = chain(shop)
    victim = blobs(full)[0]
    flip(shop.objects(full), victim)
    make_verification(shop.plan, full.backup_id, deep=False)
    flip(shop.objects(full), victim)
    result = make_verification(shop.plan, incremental.backup_id, deep=False)
    (warning,) = result.warnings
    assert warning.startswith(f"{full.backup_id}, which it depends on, is to be verified itself: ")
    error = failure(result)
    assert isinstance(error, CorruptionDetected), "as `list` says"
    assert f"it is good, but {warning}" in error.message
    assert verdict(shop, incremental).bad_base == full.backup_id
    make_verification(shop.plan, full.backup_id, deep=False)
    assert verdict(shop, incremental).status is VERIFIED


@pytest.mark.parametrize("what", ["flipped", "gone"])
def test_damage_of_a_manifest_below_is_that_of_the_backup_below(shop: Shop, what: str) -> None:
    full, differential, incremental = chain(shop)
    manifest = shop.objects(differential) / "manifest"
    data = bytearray(manifest.read_bytes())
    data[len(data) // 2] ^= 1
    manifest.write_bytes(data)
    if what == "gone":
        manifest.unlink()
    flip(shop.objects(incremental), blobs(incremental)[0])
    result = make_verification(shop.plan, incremental.backup_id)
    assert result.status is CORRUPTED
    assert any(differential.backup_id in finding for finding in result.findings)
    assert any(blobs(incremental)[0].name in finding for finding in result.findings), "objects are read all the same"
    link = next(one for one in incremental.chain if one.backup_id == differential.backup_id)
    assert shop.repository.own_verdict("trading", link).bad_bytes
    assert not verdict(shop, full).bad_bytes


@pytest.mark.parametrize("deep", [True, False])
def test_what_cannot_be_read_is_unproven_and_never_bad(shop: Shop, deep: bool) -> None:
    full, _, incremental = chain(shop)
    victim = shop.objects(full) / blobs(full)[0].name
    kept = victim.read_bytes()
    victim.unlink()
    os.mkfifo(victim)
    result = make_verification(shop.plan, incremental.backup_id, deep)
    assert (result.status, result.findings) == (COMPLETED, ())
    assert result.results["bytes"].outcome is UNPROVEN
    assert isinstance(error := failure(result), ObjectUnreadable)
    assert victim.name in error.message
    assert shop.repository.verifications("trading", full.backup_id) == []
    assert not verdict(shop, incremental).bad
    victim.unlink()
    victim.write_bytes(kept)
    assert failure(make_verification(shop.plan, incremental.backup_id, deep)) is None


def test_a_shallow_verification_does_not_outdo_a_restore_that_failed(shop: Shop, fails: list[str]) -> None:
    made = shop.back_up()
    fails.append("no such function")
    result = make_verification(shop.plan)
    assert isinstance(error := failure(result), NotRestorable)
    assert "no such function" in error.message
    assert (result.results["bytes"].outcome, result.results["restorable"].outcome) == (GOOD, BAD)
    fails.clear()
    shallow = make_verification(shop.plan, deep=False)
    assert (shallow.status, shallow.findings) == (VERIFIED, ())
    assert verdict(shop, made).status is CORRUPTED
    assert isinstance(error := failure(shallow), NotRestorable)
    assert "nothing new was found, and what was found before stands: a restore of it fails" in error.message
    assert "--deep" in error.hint
    assert failure(make_verification(shop.plan)) is None
    assert verdict(shop, made).status is VERIFIED


def test_a_backup_that_cannot_be_restored_is_a_base_all_the_same(shop: Shop, fails: list[str]) -> None:
    made = shop.back_up()
    fails.append("no such function")
    make_verification(shop.plan)
    assert verdict(shop, made).status is CORRUPTED
    assert shop.back_up().base == made.backup_id


def test_suites_run_and_the_bytes_are_proved_where_a_restore_fails(
    shop: Shop, fails: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(
        "name: orders\ncollection: ledger/orders\nexpectations:\n"
        "- {type: expect_column_values_to_be_between, kwargs: {column: price, max_value: 3}}\n"
    )
    shop.plan = shop.plan.model_copy(update={"quality": [str(path)]})
    made = shop.back_up()
    fails.append("no such function")
    result = make_verification(shop.plan)
    outcomes = {axis: result.results[axis.value].outcome for axis in (BYTES, RESTORABLE, Axis.QUALITY)}
    assert outcomes == {BYTES: GOOD, RESTORABLE: BAD, Axis.QUALITY: BAD}
    assert isinstance(failure(result), NotRestorable)
    assert set(result.suites) == {"orders"}
    fails.clear()
    assert isinstance(failure(make_verification(shop.plan)), QualityFailed)
    without = shop.plan.model_copy(update={"quality": []})
    result = make_verification(without)
    assert result.findings == ()
    assert isinstance(error := failure(result), QualityFailed)
    assert "orders" in error.hint
    assert verdict(shop, made).outcome(Axis.QUALITY) is BAD


def test_a_result_of_a_clock_that_is_ahead_hides_no_damage(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop.back_up()

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=3)

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["flows.verify"], "datetime", Ahead)  # the flow has its name in the package
        assert make_verification(shop.plan, deep=False).status is VERIFIED
    flip(shop.objects(made), blobs(made)[0])
    result = make_verification(shop.plan, deep=False)
    assert (result.sequence, result.status) == (2, CORRUPTED)
    assert result.verified_at > datetime.now(UTC) + timedelta(hours=2)
    assert verdict(shop, made).status is CORRUPTED


def test_the_newest_backup_that_is_gone_fails_the_verification_of_the_one_before(shop: Shop) -> None:
    before, newest = shop.back_up(), shop.back_up()
    for path in shop.objects(newest).iterdir():
        path.unlink()
    result = make_verification(shop.plan)
    assert (result.backup_id, result.status, result.findings) == (before.backup_id, VERIFIED, ())
    assert isinstance(result, Reported)
    assert newest.backup_id in (result.lost or "")
    assert isinstance(error := failure(result), CorruptionDetected)
    assert newest.backup_id in error.message
    assert verdict(shop, before).status is VERIFIED, "it is no fault of this one"
    shop.repository.accept_head("trading")
    assert failure(make_verification(shop.plan)) is None


def test_a_check_that_reads_data_feeds_the_same_axis(shop: Shop) -> None:
    full, _, incremental = chain(shop)
    victim = blobs(full)[0]
    flip(shop.objects(full), victim)
    checked = check_repository(shop.plan, 1.0)
    assert [victim.name in finding for finding in checked.findings] == [True]
    assert verdict(shop, full).depth(BYTES) == Depth.OBJECTS
    assert verdict(shop, incremental).bad_base == full.backup_id
    assert shop.back_up(DIFFERENTIAL).backup_type is FULL
    flip(shop.objects(full), victim)
    again = check_repository(shop.plan, 1.0)
    assert again.findings == []
    assert again.actions == [f"recorded that all objects of {full.backup_id} are what was stored"]
    assert not verdict(shop, incremental).bad
    assert check_repository(shop.plan, 1.0).actions == []


def test_a_check_does_not_heal_what_a_comparison_of_rows_has_found(shop: Shop) -> None:
    made = shop.back_up()
    victim = blobs(made)[0]
    flip(shop.objects(made), victim)
    make_verification(shop.plan, deep=False)
    flip(shop.objects(made), victim)
    (finding,) = check_repository(shop.plan, 1.0).findings
    assert finding.startswith(f"{made.backup_id} failed its verification of ")
    assert verdict(shop, made).bad_bytes


def test_a_check_names_a_verification_that_was_removed(shop: Shop) -> None:
    made = shop.back_up()
    for _ in range(3):
        make_verification(shop.plan, deep=False)
    folder = shop.folder / "repository" / "verifications" / "trading" / made.backup_id
    sorted(folder.iterdir())[1].unlink()
    (finding,) = check_repository(shop.plan).findings
    assert finding == f"verifications of {made.backup_id} are gone, which nothing removes: number 2"


def test_a_restore_of_a_bad_backup_says_so_before_it_writes(
    shop: Shop, fails: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = shop.back_up()
    fails.append("no such function")
    make_verification(shop.plan)
    fails.clear()
    sentence = f"{made.backup_id}: a restore of it fails, found "
    assert any(note.startswith(sentence) for note in shop.restore(preview=True).notes)
    assert sentence not in caplog.text
    shop.db.execute("DELETE FROM orders")
    result = shop.restore()
    assert any(note.startswith(sentence) for note in result.notes)
    assert sentence in caplog.text
    assert result.rows == made.rows


def test_latest_verified_is_the_newest_that_was_restored_and_found_good(shop: Shop, fails: list[str]) -> None:
    first = shop.back_up()
    with pytest.raises(BackupNotFound, match="was restored in a verification and found good") as none:
        shop.restore("latest verified")
    assert "--deep" in none.value.hint
    make_verification(shop.plan)
    second = shop.back_up()
    make_verification(shop.plan, deep=False)
    third = shop.back_up()
    fails.append("no such function")
    make_verification(shop.plan)
    fails.clear()
    assert [verdict(shop, one).status for one in (first, second, third)] == [VERIFIED, VERIFIED, CORRUPTED]
    assert shop.restore("latest verified", preview=True).backup_id == first.backup_id
    assert shop.restore("latest verified", at=second.timestamp, preview=True).backup_id == first.backup_id
    with pytest.raises(BackupNotFound, match="as old as"):
        shop.restore("latest verified", at=first.timestamp - timedelta(days=1), preview=True)
    assert restore_newest(shop.plan, verified=True).backup_id == first.backup_id
    assert restore_newest(shop.plan, FULL, verified=True).backup_id == first.backup_id
    assert BackupManager(shop.plan).restore_latest_backup("full", verified=True).backup_id == first.backup_id
    with pytest.raises(BackupNotFound, match="no incremental backup that was restored"):
        restore_newest(shop.plan, INCREMENTAL, verified=True)
    assert restore_newest(shop.plan, INCREMENTAL).backup_id == second.backup_id


def test_a_word_that_names_a_backup_is_not_given_with_a_time(shop: Shop) -> None:
    made = shop.back_up()
    with pytest.raises(ConfigurationError, match="either a backup or a time"):
        shop.restore(made, at=made.timestamp, preview=True)
