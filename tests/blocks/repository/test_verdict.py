"""The rules of what stands after several verifications, as tables of histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from blocks.records import BackupStatus
from blocks.repository.verdict import (
    Verdict,
    depending,
    numbered,
    results_of,
    standing_after,
    standings_of,
)
from blocks.verification import Axis, AxisResult, CheckOutcome, Depth, Standing, Verification

GOOD, BAD, UNPROVEN, UNTRIED = CheckOutcome.GOOD, CheckOutcome.BAD, CheckOutcome.UNPROVEN, CheckOutcome.UNTRIED
BYTES, RESTORABLE, QUALITY = Axis.BYTES, Axis.RESTORABLE, Axis.QUALITY
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OURS, OTHER = "a" * 64, "b" * 64


def record(
    axis: Axis = BYTES,
    outcome: CheckOutcome = GOOD,
    depth: Depth | str = Depth.ROWS,
    suites: str = "",
    hours: float = 0,
    manifest: str = OURS,
    **fields: object,
) -> Verification:
    findings = ("wrong",) if outcome is BAD else ()
    warnings = ("no room",) if outcome is UNPROVEN else ()
    return Verification(
        plan="trading", backup_id="FUL_20260301_120000_0000", manifest_sha256=manifest,
        verified_at=START + timedelta(hours=hours), deep=False, status=BackupStatus.COMPLETED, rows=1, expectations=0,
        seconds=0.1, suites=dict.fromkeys(suites.split(), "hash"),
        results={axis.value: AxisResult(outcome=outcome, depth=str(depth), findings=findings, warnings=warnings)},
        **fields,
    )  # fmt: skip


def after(*records: Verification) -> dict[Axis, Standing]:
    stands: dict[Axis, Standing] = {}
    for number, one in enumerate(records, 1):
        stands = standing_after(stands, one, number)
    return stands


OBJECTS, ROWS, RESTORED = Depth.OBJECTS, Depth.ROWS, Depth.RESTORED


@pytest.mark.parametrize(
    ("history", "outcome", "depth", "number"),
    [
        ([(GOOD, ROWS)], GOOD, ROWS, 1),
        ([(GOOD, ROWS), (BAD, OBJECTS)], BAD, OBJECTS, 2),
        ([(BAD, ROWS), (GOOD, ROWS)], GOOD, ROWS, 2),
        ([(BAD, OBJECTS), (GOOD, ROWS)], GOOD, ROWS, 2),
        ([(BAD, ROWS), (GOOD, OBJECTS)], BAD, ROWS, 1),
        ([(BAD, RESTORED), (GOOD, ROWS)], BAD, RESTORED, 1),
        ([(BAD, RESTORED), (BAD, OBJECTS), (GOOD, OBJECTS)], BAD, RESTORED, 2),
        ([(BAD, RESTORED), (BAD, OBJECTS), (GOOD, RESTORED)], GOOD, RESTORED, 3),
        ([(GOOD, RESTORED), (GOOD, ROWS)], GOOD, RESTORED, 1),
        ([(GOOD, ROWS), (GOOD, ROWS)], GOOD, ROWS, 2),
        ([(GOOD, ROWS), (GOOD, RESTORED)], GOOD, RESTORED, 2),
        ([(GOOD, ROWS), (UNPROVEN, RESTORED)], GOOD, ROWS, 1),
        ([(BAD, ROWS), (UNPROVEN, RESTORED)], BAD, ROWS, 1),
        ([(BAD, ROWS), (UNTRIED, "")], BAD, ROWS, 1),
        ([(UNTRIED, ""), (UNPROVEN, "")], UNPROVEN, "", 2),
        ([(UNPROVEN, ""), (UNPROVEN, ROWS)], UNPROVEN, ROWS, 2),
        ([(UNPROVEN, RESTORED), (GOOD, OBJECTS)], GOOD, OBJECTS, 2),
        ([(UNPROVEN, RESTORED), (BAD, OBJECTS)], BAD, OBJECTS, 2),
        ([(GOOD, RESTORED), (BAD, ROWS), (GOOD, ROWS)], GOOD, ROWS, 3),
    ],
)
@pytest.mark.parametrize("axis", list(Axis))
def test_the_worst_stands_until_an_equal_or_stronger_proof(
    axis: Axis,
    history: list[tuple[CheckOutcome, Depth]],
    outcome: CheckOutcome,
    depth: Depth,
    number: int,
) -> None:
    stands = after(*(record(axis, *one) for one in history))[axis]
    assert (stands.outcome, stands.depth, stands.sequence) == (outcome, depth, number)
    assert stands.findings == {BAD: ("wrong",), UNPROVEN: ("no room",), GOOD: ()}[outcome]


def test_an_axis_that_was_never_tried_is_not_there() -> None:
    assert after(record(outcome=UNTRIED, depth="")) == {}
    assert Verdict().outcome(BYTES) is UNTRIED


@pytest.mark.parametrize(
    ("history", "outcome", "suites"),
    [
        ([(BAD, "a b"), (GOOD, "a")], BAD, "a b"),
        ([(BAD, "a b"), (GOOD, "")], BAD, "a b"),
        ([(BAD, "a"), (GOOD, "b")], BAD, "a"),
        ([(BAD, "a"), (GOOD, "a")], GOOD, "a"),
        ([(BAD, "a"), (GOOD, "b a")], GOOD, "a b"),
        ([(BAD, "a"), (BAD, "b"), (GOOD, "b")], BAD, "a b"),
        ([(BAD, "a"), (BAD, "b"), (GOOD, "a b")], GOOD, "a b"),
        ([(GOOD, "a b"), (GOOD, "a")], GOOD, "a b"),
        ([(GOOD, "a"), (GOOD, "a b")], GOOD, "a b"),
        ([(GOOD, "a b"), (BAD, "a"), (GOOD, "a")], GOOD, "a"),
        ([(UNPROVEN, "a b"), (GOOD, "a")], GOOD, "a"),
    ],
)
def test_a_run_with_fewer_suites_does_not_heal(
    history: list[tuple[CheckOutcome, str]], outcome: CheckOutcome, suites: str
) -> None:
    stands = after(*(record(QUALITY, one, suites=names) for one, names in history))[QUALITY]
    assert (stands.outcome, " ".join(stands.suites)) == (outcome, suites)


def test_suites_are_asked_for_by_name_whatever_is_in_them_by_now() -> None:
    changed = record(QUALITY, GOOD, suites="a").model_copy(update={"suites": {"a": "another hash"}})
    assert after(record(QUALITY, BAD, suites="a"), changed)[QUALITY].outcome is GOOD


def test_suites_matter_to_quality_only() -> None:
    assert after(record(BYTES, BAD, suites="a b"), record(BYTES, GOOD))[BYTES].outcome is GOOD


def test_axes_do_not_touch_each_other() -> None:
    stands = after(record(RESTORABLE, BAD, RESTORED), record(BYTES, GOOD, ROWS), record(QUALITY, GOOD, ROWS))
    assert {axis: one.outcome for axis, one in stands.items()} == {RESTORABLE: BAD, BYTES: GOOD, QUALITY: GOOD}


def test_the_number_tells_the_order_and_no_clock() -> None:
    ahead = record(outcome=GOOD, hours=3, sequence=1)
    later = record(outcome=BAD, hours=0, sequence=2)
    assert standings_of([later, ahead], OURS)[BYTES].outcome is BAD
    assert [number for number, _ in numbered([later, ahead])] == [1, 2]


def test_records_of_earlier_versions_come_first_by_time() -> None:
    first, second = record(hours=1), record(hours=2)
    third = record(hours=0, sequence=3)
    assert [one.verified_at.hour - 12 for _, one in numbered([third, second, first])] == [1, 2, 0]
    assert [number for number, _ in numbered([third, second, first])] == [1, 2, 3]


def old(status: BackupStatus, deep: bool, findings: tuple[str, ...] = (), expectations: int = 0) -> Verification:
    changes = {"results": {}, "status": status, "deep": deep, "findings": findings, "expectations": expectations}
    return record().model_copy(update=changes)


@pytest.mark.parametrize(
    ("one", "found"),
    [
        (old(BackupStatus.VERIFIED, False), {BYTES: (GOOD, ROWS)}),
        (old(BackupStatus.VERIFIED, True), {BYTES: (GOOD, ROWS), RESTORABLE: (GOOD, RESTORED)}),
        (old(BackupStatus.VERIFIED, False, expectations=2), {BYTES: (GOOD, ROWS), QUALITY: (GOOD, ROWS)}),
        (old(BackupStatus.COMPLETED, False, ("low",)), {BYTES: (GOOD, ROWS), QUALITY: (BAD, ROWS)}),
        (old(BackupStatus.CORRUPTED, False, ("torn",)), {BYTES: (BAD, ROWS)}),
        (old(BackupStatus.CORRUPTED, True, ("torn",)), {BYTES: (BAD, ROWS), RESTORABLE: (BAD, RESTORED)}),
    ],
)
def test_what_a_record_of_earlier_versions_says(
    one: Verification, found: dict[Axis, tuple[CheckOutcome, Depth]]
) -> None:
    assert {axis: (result.outcome, result.depth) for axis, result in results_of(one).items()} == found


def test_an_axis_of_a_later_version_is_left_out() -> None:
    later = record().model_copy(update={"results": {"colour": AxisResult(outcome=BAD)}})
    assert results_of(later) == {}


def test_a_verification_of_another_manifest_says_nothing() -> None:
    assert standings_of([record(outcome=BAD, manifest=OTHER, sequence=1)], OURS) == {}
    mixed = [record(outcome=BAD, sequence=1), record(outcome=GOOD, manifest=OTHER, sequence=2)]
    assert standings_of(mixed, OURS)[BYTES].outcome is BAD


def test_what_a_removed_record_had_found_bad_stands_in_those_after_it() -> None:
    first = record(outcome=GOOD, sequence=1)
    bad = record(outcome=BAD, depth=RESTORED, sequence=2)
    stands = after(first, bad)
    third = record(outcome=GOOD, sequence=3, standing={axis.value: one for axis, one in stands.items()})
    assert standings_of([first, third], OURS)[BYTES].outcome is BAD
    # nor does a record that did not know of a bad one, made at the same moment, heal it
    unknowing = record(outcome=GOOD, sequence=2, standing={"bytes": after(first)[BYTES]})
    assert standings_of([first, bad, unknowing], OURS)[BYTES].outcome is BAD


@pytest.mark.parametrize(
    ("axes", "status", "good", "restored"),
    [
        ({}, BackupStatus.COMPLETED, False, False),
        ({BYTES: (GOOD, ROWS)}, BackupStatus.VERIFIED, True, False),
        ({BYTES: (GOOD, OBJECTS)}, BackupStatus.COMPLETED, False, False),
        ({BYTES: (UNPROVEN, ROWS)}, BackupStatus.COMPLETED, False, False),
        ({BYTES: (GOOD, ROWS), RESTORABLE: (GOOD, RESTORED)}, BackupStatus.VERIFIED, True, True),
        ({BYTES: (GOOD, ROWS), RESTORABLE: (UNPROVEN, "")}, BackupStatus.VERIFIED, True, False),
        ({BYTES: (GOOD, ROWS), RESTORABLE: (BAD, RESTORED)}, BackupStatus.CORRUPTED, False, False),
        ({BYTES: (GOOD, ROWS), QUALITY: (BAD, ROWS)}, BackupStatus.COMPLETED, False, False),
        (
            {BYTES: (GOOD, ROWS), RESTORABLE: (GOOD, RESTORED), Axis.DEFINITIONS: (BAD, RESTORED)},
            BackupStatus.COMPLETED,
            False,
            False,
        ),
        ({BYTES: (BAD, ROWS), RESTORABLE: (GOOD, RESTORED)}, BackupStatus.CORRUPTED, False, False),
    ],
)
def test_what_the_axes_amount_to(
    axes: dict[Axis, tuple[CheckOutcome, str]], status: BackupStatus, good: bool, restored: bool
) -> None:
    verdict = Verdict(after(*(record(axis, *one) for axis, one in axes.items())))
    assert (verdict.status, verdict.good, verdict.restored) == (status, good, restored)


def test_a_record_that_does_not_open_leaves_the_status_unknown_unless_it_is_bad() -> None:
    assert Verdict(after(record()), "a record does not open").status is None
    assert not Verdict(after(record()), "a record does not open").good
    assert Verdict(after(record(outcome=BAD)), "a record does not open").status is BackupStatus.CORRUPTED


def test_what_depends_on_bad_bytes_has_bad_bytes() -> None:
    good, bad = Verdict(after(record())), Verdict(after(record(outcome=BAD)))
    restore_fails = Verdict(after(record(RESTORABLE, BAD, RESTORED)))
    found = depending(good, [("FUL_1", bad), ("DIF_2", Verdict())])
    assert found.bad_bytes
    assert found.sentences()[0].endswith(": it depends on FUL_1, whose bytes are bad: wrong")
    assert depending(Verdict(), [("FUL_1", bad)]).status is BackupStatus.CORRUPTED
    assert depending(bad, [("FUL_1", bad)]) == bad  # its own finding is told
    assert depending(good, [("FUL_1", restore_fails)]) == good
    assert depending(good, []) == good
