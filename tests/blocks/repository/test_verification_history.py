"""Verifications as a chain of numbered records: wrong clocks, removed and doubled records, and what is known then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.crypto.stream import ObjectKind
from blocks.errors import ObjectUnreadable
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository import rollback_guard
from blocks.repository.history import History
from blocks.repository.rollback_guard import LastVerification, VerificationMemory
from blocks.storage.local import LocalTier
from blocks.verification import Axis, AxisResult, CheckOutcome, Depth, Verification
from tests.blocks.repository_support import HOUR, PLAN, START, Shelf, chain_of_three, expire, verification

GOOD, BAD = CheckOutcome.GOOD, CheckOutcome.BAD
BYTES = Axis.BYTES


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def found(
    shelf: Shelf,
    backup: BackupMetadata,
    outcome: CheckOutcome = GOOD,
    depth: Depth = Depth.ROWS,
    at: datetime = START,
    axis: Axis = BYTES,
) -> Verification:
    """Make the result of a verification that tried one axis."""
    findings = ("torn",) if outcome is BAD else ()
    result = AxisResult(outcome=outcome, depth=depth.value, findings=findings)
    return verification(shelf, backup, at=at).model_copy(update={"results": {axis.value: result}})


def record(shelf: Shelf, backup: BackupMetadata, *outcomes: CheckOutcome, **fields: object) -> list[Verification]:
    return [
        shelf.repository.record_verification(found(shelf, backup, outcome, **fields))  # type: ignore[arg-type]
        for outcome in outcomes
    ]


def names_of(shelf: Shelf, backup: BackupMetadata) -> list[Path]:
    return sorted((shelf.root / "verifications" / PLAN / backup.backup_id).iterdir())


def forget(shelf: Shelf) -> None:
    """Be a machine that has seen nothing of this plan's verifications."""
    VerificationMemory(shelf.repository.repository_id).path(PLAN).unlink(missing_ok=True)


def test_each_record_follows_the_one_before_and_says_what_stands(shelf: Shelf) -> None:
    backup = shelf.back_up()
    first, second, third = record(shelf, backup, GOOD, BAD, GOOD)
    assert [one.sequence for one in (first, second, third)] == [1, 2, 3]
    assert first.previous is None
    assert None not in (second.previous, third.previous)
    assert [one.standing["bytes"].outcome for one in (first, second, third)] == [GOOD, BAD, GOOD]
    assert [one.standing["bytes"].sequence for one in (first, second, third)] == [1, 2, 3]
    assert shelf.repository.verifications(PLAN, backup.backup_id) == [first, second, third]
    assert shelf.repository.audit(PLAN) == []


def test_only_the_newest_record_is_read(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = shelf.back_up()
    record(shelf, backup, BAD, GOOD, GOOD)
    read: list[str] = []
    whole = LocalTier.get

    def get(self: LocalTier, name: str, *args: object, **more: object) -> bytes:
        read.append(name)
        return whole(self, name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalTier, "get", get)
    verdicts = shelf.open().verdicts(PLAN, [backup])
    assert verdicts[backup.backup_id].outcome(BYTES) is GOOD
    assert [name.rpartition("/")[2] for name in read if name.startswith("verifications/")] == [
        names_of(shelf, backup)[-1].name
    ]


@pytest.mark.parametrize("spoiled", [[0], [1], [0, 1]], ids=str)
def test_a_record_that_was_spoiled_on_its_way_is_not_missed_for_ever(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, spoiled: list[int]
) -> None:
    backup = shelf.back_up()
    record(shelf, backup, BAD)
    reads, whole = iter(range(9)), LocalTier.get

    def get(self: LocalTier, name: str, *args: object, **more: object) -> bytes:
        data = whole(self, name, *args, **more)  # type: ignore[arg-type]
        wrong = name.startswith("verifications/") and next(reads) in spoiled
        return data[:-1] + bytes([data[-1] ^ 1]) if wrong else data

    with monkeypatch.context() as patch:
        patch.setattr(LocalTier, "get", get)
        record(shelf, backup, GOOD, axis=Axis.QUALITY)
    assert shelf.open().audit(PLAN) == []
    assert shelf.open().status(backup) is BackupStatus.CORRUPTED, "what was found before stands"
    record(shelf, backup, GOOD, axis=Axis.QUALITY)
    assert shelf.open().audit(PLAN) == []
    assert shelf.open().status(backup) is BackupStatus.CORRUPTED


@pytest.mark.parametrize("behind", [timedelta(hours=3), timedelta(days=800), timedelta(microseconds=1)])
def test_a_verifier_whose_clock_is_ahead_hides_no_later_result(shelf: Shelf, behind: timedelta) -> None:
    backup = shelf.back_up()
    (ahead,) = record(shelf, backup, GOOD, at=START + behind)
    (later,) = record(shelf, backup, BAD, at=START)
    assert later.verified_at == ahead.verified_at + timedelta(microseconds=1)
    assert names_of(shelf, backup)[-1].name == f"{later.verified_at:%Y%m%dT%H%M%S.%fZ}"
    assert shelf.open().status(backup) is BackupStatus.CORRUPTED
    assert shelf.repository.audit(PLAN) == []


def test_a_name_of_the_end_of_all_time_keeps_nothing_from_being_recorded(shelf: Shelf) -> None:
    backup = shelf.back_up()
    (first,) = record(shelf, backup, GOOD)
    last = names_of(shelf, backup)[0]
    shutil.copy(last, last.with_name(f"{datetime.max.replace(tzinfo=UTC):%Y%m%dT%H%M%S.%fZ}"))
    (second,) = record(shelf, backup, BAD, at=START + HOUR)
    assert (second.sequence, second.verified_at) == (3, START + HOUR)
    assert shelf.open().status(backup) is BackupStatus.CORRUPTED
    assert first.sequence == 1


def test_records_of_earlier_versions_are_counted_first_and_say_what_they_said(shelf: Shelf) -> None:
    backup = shelf.back_up()
    corrupted = verification(shelf, backup, BackupStatus.CORRUPTED, START + HOUR)
    for old in (verification(shelf, backup), corrupted.model_copy(update={"findings": ("torn",)})):
        put_as_before(shelf, old)
    verdict = shelf.open().verdict(backup)
    assert {axis: one.outcome for axis, one in verdict.axes.items()} == {BYTES: BAD, Axis.RESTORABLE: BAD}
    (third,) = record(shelf, backup, GOOD, at=START)
    assert third.sequence == 3
    assert third.verified_at > START + HOUR
    verdict = shelf.open().verdict(backup)
    assert verdict.outcome(BYTES) is GOOD
    assert verdict.outcome(Axis.RESTORABLE) is BAD  # which only a deep one outdoes
    assert verdict.axes[Axis.RESTORABLE].sequence == 2
    assert shelf.repository.audit(PLAN) == []
    names_of(shelf, backup)[0].unlink()
    assert shelf.repository.audit(PLAN) == [gone(backup, "2")], "it is counted, and has no number of its own"


def put_as_before(shelf: Shelf, one: Verification) -> None:
    """Store a record as earlier versions did: without a number."""
    repository = shelf.repository
    sealed = repository._catalogue.seal(one, ObjectKind.VERIFICATION, PLAN, one.backup_id)
    name = f"verifications/{PLAN}/{one.backup_id}/{one.verified_at:%Y%m%dT%H%M%S.%fZ}"
    repository._tier.put(name, sealed, exclusive=True)


def gone(backup: BackupMetadata, numbers: str) -> str:
    return f"verifications of {backup.backup_id} are gone, which nothing removes: number {numbers}"


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize(
    ("removed", "missed"), [([0], "1"), ([1], "2"), ([2], "3"), ([0, 1], "1, 2"), ([1, 3], "2, 4"), ([0, 2], "1, 3")]
)
def test_a_record_that_was_removed_before_others_is_missed_and_what_it_found_stands(
    shelf: Shelf, removed: list[int], missed: str, seen: bool
) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD)
    record(shelf, backup, BAD, depth=Depth.RESTORED)
    record(shelf, backup, GOOD, GOOD, GOOD)
    if not seen:
        forget(shelf)
    paths = names_of(shelf, backup)
    for number in removed:
        paths[number].unlink()
    repository = shelf.open()
    assert repository.audit(PLAN) == [gone(backup, missed)]
    assert repository.status(backup) is BackupStatus.CORRUPTED
    (next_one,) = record(shelf, backup, GOOD)
    assert next_one.sequence == 6
    assert next_one.standing["bytes"].outcome is BAD
    assert shelf.repository.audit(PLAN) == [gone(backup, missed)]


@pytest.mark.parametrize("left", [0, 1])
def test_that_the_last_records_were_removed_is_known_to_a_machine_that_saw_them(shelf: Shelf, left: int) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD, BAD)
    for path in names_of(shelf, backup)[left:]:
        path.unlink()
    (finding,) = shelf.open().audit(PLAN)
    assert finding.startswith(f"the last verification of {backup.backup_id} that this machine has seen (number 2) is")
    assert shelf.open().audit(PLAN) == [finding], "it is not forgotten by being said"
    shelf.repository.accept_head(PLAN)
    assert shelf.open().audit(PLAN) == []


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_removal_of_the_last_records_is_missed_also_after_more_verifications(shelf: Shelf, left: int) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD, GOOD, BAD)
    for path in names_of(shelf, backup)[left:]:
        path.unlink()
    record(shelf, backup, GOOD, GOOD, GOOD, GOOD)
    (finding,) = shelf.repository.audit(PLAN)
    assert finding.startswith(f"the last verification of {backup.backup_id} that this machine has seen (number 3) is")


def test_what_others_recorded_in_between_keeps_nothing_from_being_remembered(shelf: Shelf) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD)
    memory = VerificationMemory(shelf.repository.repository_id)
    mine = memory.read(PLAN)
    record(shelf, backup, GOOD)
    memory.replace(PLAN, mine)  # as if another machine had recorded it
    record(shelf, backup, GOOD)
    assert memory.read(PLAN)[backup.backup_id].sequence == 3


def test_another_record_in_the_place_of_the_last_one_is_noticed(shelf: Shelf) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD)
    before = names_of(shelf, backup)[0].read_bytes()
    record(shelf, backup, BAD)
    names_of(shelf, backup)[1].unlink()
    memory = VerificationMemory(shelf.repository.repository_id)
    seen = memory.read(PLAN)
    record(shelf, backup, GOOD)
    memory.replace(PLAN, seen)  # another machine made it
    assert names_of(shelf, backup)[0].read_bytes() == before
    assert any("gone or another one" in finding for finding in shelf.open().audit(PLAN))


def test_what_another_machine_records_is_remembered_by_a_check(shelf: Shelf) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD, BAD)
    forget(shelf)
    assert shelf.open().audit(PLAN) == []
    names_of(shelf, backup)[1].unlink()
    assert len(shelf.open().audit(PLAN)) == 1


def test_verifications_of_removed_backups_are_forgotten(shelf: Shelf) -> None:
    first, second = shelf.back_up(), shelf.back_up()
    record(shelf, first, GOOD)
    record(shelf, second, GOOD)
    memory = VerificationMemory(shelf.repository.repository_id)
    assert set(memory.read(PLAN)) == {first.backup_id, second.backup_id}
    expire(shelf, first)
    assert shelf.open().audit(PLAN) == []
    assert set(memory.read(PLAN)) == {second.backup_id}


def test_the_memory_is_bounded_and_keeps_the_newest(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback_guard, "MOST_VERIFICATIONS", 3)
    memory = VerificationMemory(shelf.repository.repository_id)
    for n in range(5):
        memory.remember(PLAN, {f"b{n}": LastVerification(sequence=n, sha256="0")})
    memory.remember(PLAN, {"b2": LastVerification(sequence=9, sha256="1")})
    assert list(memory.read(PLAN)) == ["b3", "b4", "b2"]


def test_a_memory_that_cannot_be_read_or_written_only_remembers_nothing(shelf: Shelf) -> None:
    backup = shelf.back_up()
    path = VerificationMemory(shelf.repository.repository_id).path(PLAN)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    record(shelf, backup, GOOD)
    path.unlink()
    path.mkdir()
    record(shelf, backup, GOOD)
    assert shelf.open().status(backup) is BackupStatus.VERIFIED
    assert shelf.repository.audit(PLAN) == []


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_bytes(b"")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1]), to_folder])
def test_where_the_newest_does_not_open_older_ones_say_what_is_known_and_the_status_is_not(
    shelf: Shelf, damage: Callable[[Path], object]
) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD, GOOD)
    damage(names_of(shelf, backup)[-1])
    verdict = shelf.open().verdict(backup)
    assert (verdict.status, verdict.outcome(BYTES)) == (None, GOOD)
    assert verdict.doubt is not None
    assert shelf.open().status(backup) is BackupStatus.COMPLETED


def test_where_the_newest_does_not_open_what_was_bad_before_is_bad(shelf: Shelf) -> None:
    backup = shelf.back_up()
    record(shelf, backup, BAD, GOOD)
    newest = names_of(shelf, backup)[-1]
    newest.write_bytes(b"garbage")
    assert shelf.open().status(backup) is BackupStatus.CORRUPTED
    (third,) = record(shelf, backup, GOOD)
    assert third.sequence == 3
    assert shelf.open().status(backup) is BackupStatus.VERIFIED
    (finding,) = shelf.repository.audit(PLAN)
    assert newest.name in finding


def test_two_that_are_recorded_at_once_are_both_kept_and_the_worse_one_stands(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD)
    other, whole = shelf.open(), History._append
    waiting = [found(shelf, backup, BAD)]

    def append(self: History, name: str, sealed: bytes) -> bool:
        if waiting:
            other.record_verification(waiting.pop())
        return whole(self, name, sealed)

    monkeypatch.setattr(History, "_append", append)
    (late,) = record(shelf, backup, GOOD, at=START + HOUR)
    assert (late.sequence, late.standing["bytes"].outcome) == (2, GOOD)  # it knew nothing of the other
    assert [one.sequence for one in shelf.repository.verifications(PLAN, backup.backup_id)] == [1, 2, 2]
    assert shelf.open().status(backup) is BackupStatus.CORRUPTED
    assert shelf.repository.audit(PLAN) == []
    (after,) = record(shelf, backup, GOOD, at=START + HOUR)
    assert after.sequence == 4
    assert shelf.open().status(backup) is BackupStatus.VERIFIED
    assert shelf.repository.audit(PLAN) == []


def test_a_standing_that_does_not_follow_from_what_was_found_is_noticed(shelf: Shelf) -> None:
    """As a writer with a fault, or one that was stolen, could store it."""
    backup = shelf.back_up()
    (bad,) = record(shelf, backup, BAD)
    (path,) = names_of(shelf, backup)
    healed = bad.standing["bytes"].model_copy(update={"outcome": GOOD})
    path.unlink()
    put_as_before(shelf, bad.model_copy(update={"standing": {"bytes": healed}}))
    forget(shelf)
    (finding,) = shelf.open().audit(PLAN)
    assert "number 1" in finding
    assert "does not follow" in finding


def test_what_depends_on_a_backup_with_bad_bytes_is_bad_though_nobody_verified_it(shelf: Shelf) -> None:
    full, differential, incremental = chain_of_three(shelf)
    alone = shelf.back_up()
    record(shelf, incremental, GOOD)
    record(shelf, differential, BAD, depth=Depth.OBJECTS)
    repository = shelf.open()
    everything = repository.verdicts(PLAN, [full, differential, incremental, alone])
    one_by_one = {b.backup_id: repository.verdict(b) for b in (full, differential, incremental, alone)}
    assert one_by_one == everything
    assert [everything[b.backup_id].bad_bytes for b in (full, differential, incremental, alone)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert everything[incremental.backup_id].bad_base == differential.backup_id
    assert f"it depends on {differential.backup_id}" in everything[incremental.backup_id].sentences()[0]
    record(shelf, differential, GOOD, depth=Depth.OBJECTS)
    assert shelf.open().status(incremental) is BackupStatus.VERIFIED


def test_verifications_that_cannot_be_listed_leave_the_status_unknown(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = shelf.back_up()
    record(shelf, backup, GOOD)

    def refuse(*_: object) -> None:
        raise ObjectUnreadable("an I/O error")

    repository = shelf.open()
    monkeypatch.setattr(LocalTier, "list", refuse)
    assert repository.verdict(backup).status is None
    assert repository.verdicts(PLAN, [backup])[backup.backup_id].doubt == "an I/O error"


def test_verifications_of_another_manifest_are_noticed_also_by_a_machine_that_never_saw_them(shelf: Shelf) -> None:
    backup = chain_of_three(shelf)[-1]
    other = found(shelf, backup).model_copy(update={"manifest_sha256": "0" * 64})
    shelf.repository.record_verification(other)
    forget(shelf)
    (finding,) = shelf.repository.audit(PLAN)
    assert finding == (
        f"1 verifications of {backup.backup_id} are of another manifest than the one that is there: it was swapped"
    )
