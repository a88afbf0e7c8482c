"""`verify --due`: what is due is proved, what was proved and did not change is not read again, what is left is told."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import BackupNotFound, CorruptionDetected, ObjectUnreadable, Partial, QualityFailed
from blocks.plan.proof import ProofKind
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata
from blocks.storage.local import LocalTier
from blocks.verification import Axis, AxisResult, CheckOutcome, Depth
from flows.proving.due import DueResult
from flows.proving.proof_records import ProofRecords
from flows.retention import apply_retention
from flows.verify import make_due, make_verification
from tests.flows.flow_support import (
    CORRUPTED,
    DIFFERENTIAL,
    FULL,
    INCREMENTAL,
    SNAPSHOT,
    VERIFIED,
    Shop,
    blobs,
    flip,
    store_apart,
)

DAY = timedelta(days=1)
WHOLE, OWN = ProofKind.WHOLE, ProofKind.OWN


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, prove_within=30 * DAY)
    shop.fill()
    return shop


def chain(shop: Shop, links: int) -> list[BackupMetadata]:
    """Make a full and some incrementals: each changes a row, deletes one, and changes a file."""
    made = [shop.back_up(FULL)]
    for n in range(1, links + 1):
        shop.db.execute("UPDATE orders SET price = ? WHERE id > 30", (n,))
        shop.db.execute("DELETE FROM orders WHERE id = ?", (n,))
        (shop.tree / "a.bin").write_bytes(bytes([n]) * 3000)
        made.append(shop.back_up(INCREMENTAL))
    return made


def run(shop: Shop, at: timedelta = timedelta(0), everything: bool = False) -> DueResult:
    result, wrong = make_due(shop.plan, everything, now=datetime.now(UTC) + at)
    assert wrong is None
    return result


def kinds(result: DueResult) -> dict[str, ProofKind]:
    return {proof.backup_id: proof.kind for proof in result.proofs}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that were read of the packs of each backup, by its id."""
    counted: Counter[str] = Counter()
    get = LocalTier.get

    def counting(
        self: LocalTier, name: str, offset: int = 0, length: int | None = None, limit: int | None = None
    ) -> bytes:
        data = get(self, name, offset, length, limit)
        if name.endswith(".pack"):
            counted[name.split("/")[2]] += len(data)
        return data

    monkeypatch.setattr(LocalTier, "get", counting)
    return counted


def test_a_full_with_24_incrementals_is_proved_without_reading_the_full_for_each(
    shop: Shop, reads: Counter[str]
) -> None:
    made = chain(shop, 24)
    full, newest = made[0], made[-1]
    reads.clear()
    result = run(shop, 31 * DAY)
    assert kinds(result) == {newest.backup_id: WHOLE, full.backup_id: WHOLE} | {
        link.backup_id: OWN for link in made[1:-1]
    }
    assert {proof.verification.status for proof in result.proofs} == {VERIFIED}
    # once with the newest chain, once by itself; references to files of the full cost a little more
    assert reads[full.backup_id] < 2.2 * full.size_stored
    for link in made[1:-1]:
        assert reads[link.backup_id] < 2.2 * link.size_stored
    assert result.overdue == []
    reads.clear()
    assert kinds(run(shop, 32 * DAY)) == {newest.backup_id: WHOLE}
    assert reads[full.backup_id] < 1.2 * full.size_stored


def test_a_proof_by_reference_names_the_verifications_that_it_stands_on(shop: Shop) -> None:
    full, middle, newest = chain(shop, 2)
    make_verification(shop.plan, full.backup_id, deep=False)
    result = run(shop, 31 * DAY)
    assert [proof.backup_id for proof in result.proofs] == [newest.backup_id, full.backup_id, middle.backup_id]
    told = shop.repository.verifications("trading", middle.backup_id)[-1]
    assert told.stands_on == {full.backup_id: 2}
    assert told.results[Axis.BYTES].outcome is CheckOutcome.GOOD
    assert told.results[Axis.BYTES].depth == Depth.ROWS
    assert {told.results[axis].outcome for axis in Axis if axis is not Axis.BYTES} == {CheckOutcome.UNTRIED}
    assert told.run_at == shop.repository.verifications("trading", newest.backup_id)[-1].run_at
    assert told.rows == middle.upserts + middle.tombstones


def test_each_kind_of_backup_is_proved_in_its_way_and_all_of_them_with_all(shop: Shop) -> None:
    full, first = chain(shop, 1)
    snapshot, differential = shop.back_up(SNAPSHOT), shop.back_up(DIFFERENTIAL)
    second = shop.back_up(FULL)
    assert kinds(run(shop)) == {second.backup_id: WHOLE}
    expected = {
        full.backup_id: WHOLE, first.backup_id: OWN, snapshot.backup_id: WHOLE, differential.backup_id: OWN,
        second.backup_id: WHOLE,
    }  # fmt: skip
    assert kinds(run(shop, 31 * DAY)) == expected
    assert kinds(run(shop, 31 * DAY)) == {second.backup_id: WHOLE}
    assert kinds(run(shop, 31 * DAY, everything=True)) == expected


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("victim", [0, 1])
def test_damage_is_recorded_and_the_others_are_proved_all_the_same(
    shop: Shop, victim: int, index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_apart(monkeypatch)
    made = chain(shop, 2)
    later = shop.back_up(FULL)
    flip(shop.objects(made[victim]), blobs(made[victim], index)[0])
    result, wrong = make_due(shop.plan, now=datetime.now(UTC) + 31 * DAY)
    assert isinstance(wrong, CorruptionDetected)
    assert made[victim].backup_id in wrong.message
    found = {proof.backup_id: proof.verification.status for proof in result.proofs}
    whole = {later.backup_id: VERIFIED} | {one.backup_id: VERIFIED for one in made[:victim]}
    assert found == whole | {made[victim].backup_id: CORRUPTED}
    # what depends on it cannot be proved, and by now is late
    assert result.overdue == [one.backup_id for one in made[victim + 1 :]]
    again, wrong = make_due(shop.plan, now=datetime.now(UTC) + 32 * DAY)
    assert wrong is None
    assert kinds(again) == {later.backup_id: WHOLE}
    assert again.left_out == [one.backup_id for one in made[victim:]]
    assert f"{made[victim].backup_id}" in again.warnings[0]


def test_what_cannot_be_read_is_told_and_the_others_are_proved_all_the_same(shop: Shop) -> None:
    full, victim, last = chain(shop, 2)
    later = shop.back_up(FULL)
    pack = next(shop.objects(victim).glob("*.pack"))
    pack.unlink()
    os.mkfifo(pack)
    result, wrong = make_due(shop.plan, now=datetime.now(UTC) + 31 * DAY)
    assert isinstance(wrong, ObjectUnreadable)
    assert list(kinds(result)) == [later.backup_id, full.backup_id]
    assert victim.backup_id in result.findings[0]
    assert result.overdue == [victim.backup_id, last.backup_id]
    assert shop.repository.verifications("trading", victim.backup_id) == []


def test_damage_that_cannot_be_recorded_keeps_what_depends_on_it_from_being_proved(shop: Shop) -> None:
    full = chain(shop, 1)[0]
    good = make_verification(shop.plan, full.backup_id)
    records = ProofRecords(shop.repository, "trading", shop.repository.backups("trading"))
    assert records.known(datetime.now(UTC)).proved.keys() == records.numbers.keys() == {full.backup_id}
    bad = AxisResult(outcome=CheckOutcome.BAD, depth=Depth.ROWS.value, findings=("it is bad",))
    records.add(good.model_copy(update={"results": {Axis.BYTES.value: bad}, "sequence": None}))
    assert records.numbers == {}


def test_what_was_written_since_its_proof_is_read_again(shop: Shop) -> None:
    full, middle, newest = chain(shop, 2)
    run(shop, 31 * DAY)
    pack = next(shop.objects(full).glob("*.pack"))
    later = pack.stat().st_mtime + 3600
    os.utime(pack, (later, later))  # put back from a copy, say
    assert kinds(run(shop, 31 * DAY)) == {newest.backup_id: WHOLE, full.backup_id: WHOLE}
    assert middle.backup_id not in kinds(run(shop, 31 * DAY))


def test_what_lacks_an_object_is_read_at_once_and_found(shop: Shop) -> None:
    full = chain(shop, 1)[0]
    later = shop.back_up(FULL)
    run(shop, 31 * DAY)
    next(shop.objects(full).glob("*.pack")).unlink()
    result, wrong = make_due(shop.plan, now=datetime.now(UTC) + 31 * DAY)
    assert isinstance(wrong, CorruptionDetected)
    assert list(kinds(result)) == [later.backup_id, full.backup_id]


def test_a_budget_that_will_not_do_is_told_with_numbers_and_exit_code_11(shop: Shop) -> None:
    made = chain(shop, 2)
    later = shop.back_up(FULL)
    shop.plan = shop.plan.model_copy(update={"prove_budget": later.size_stored})
    result, wrong = make_due(shop.plan, now=datetime.now(UTC) + 31 * DAY)
    assert kinds(result) == {later.backup_id: WHOLE}
    assert result.overdue == [one.backup_id for one in made]
    assert isinstance(wrong, Partial)
    assert wrong.exit_code == 11
    assert wrong.message == f"plan trading: {', '.join(result.overdue)} are not proved within 30 days"
    (warning,) = result.warnings
    assert warning.startswith("prove_budget is ")
    assert "to prove all within 30 days, a run every 7 days has to read " in warning


def test_a_time_that_is_over_leaves_the_rest_to_the_next_run(shop: Shop) -> None:
    made = chain(shop, 2)
    shop.plan = shop.plan.model_copy(update={"prove_budget": timedelta(microseconds=1)})
    result, wrong = make_due(shop.plan, now=datetime.now(UTC) + 31 * DAY)
    assert list(kinds(result)) == [made[-1].backup_id]
    assert isinstance(wrong, Partial)
    assert result.overdue == [one.backup_id for one in made[:-1]]


def test_a_jump_of_the_clock_does_not_make_backups_proved(shop: Shop) -> None:
    made = chain(shop, 1)
    later = shop.back_up(FULL)
    run(shop, 400 * DAY)  # the clock was ahead
    result = run(shop, 31 * DAY)
    assert set(kinds(result)) == {one.backup_id for one in (*made, later)}
    assert "still to come" in result.warnings[0]
    assert set(kinds(run(shop, 32 * DAY))) == {later.backup_id}


def test_bad_data_of_the_newest_does_not_keep_others_from_being_proved(tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    expected = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "price", "min_value": 0}}
    suite.write_text(json.dumps({"name": "s", "collection": "ledger/orders", "expectations": [expected]}))
    shop = Shop(tmp_path, prove_within=30 * DAY, quality=[str(suite)])
    shop.fill()
    old = shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = -1 WHERE id = 1")
    new = shop.back_up(FULL)
    result, wrong = make_due(shop.plan, now=datetime.now(UTC) + 31 * DAY)
    assert isinstance(wrong, QualityFailed)
    assert list(kinds(result)) == [new.backup_id, old.backup_id]


def test_without_prove_within_the_newest_alone_is_proved(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(BackupNotFound):
        make_due(shop.plan)
    shop.fill()
    made = chain(shop, 1)
    assert kinds(run(shop, 400 * DAY)) == {made[-1].backup_id: WHOLE}


def test_what_retention_keeps_stays_proved_and_restores(shop: Shop, tmp_path: Path) -> None:
    """Runs of proofs and of retention in turn, over weeks without a new backup: one that was restored is held."""
    shop.plan = shop.plan.model_copy(update={"retention": RetentionPolicy(full="2d", incremental="1d")})
    made = chain(shop, 2)
    newest = shop.back_up(FULL)
    run(shop)
    shop.back_up(INCREMENTAL)
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    for week in range(1, 4):
        apply_retention(shop.plan, now=datetime.now(UTC) + 7 * week * DAY, accept_clock=True)
        verified = [b for b in shop.repository.backups("trading") if shop.repository.status(b) is VERIFIED]
        assert newest.backup_id in [b.backup_id for b in verified]
    assert not {one.backup_id for one in made} & set(shop.ids)
    shop.restore(newest, to=str(tmp_path / "to"))
