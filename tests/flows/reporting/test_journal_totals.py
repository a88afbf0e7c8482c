"""What lines add up to is the same however they are read, and no line can harm it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.reporting.journal_totals import Totals
from tests.flows.reporting.journal_support import NOW, PLACE, REPOSITORY, ended, numbers_of, operations, started

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("at", "id", "plan", "place", "verb", "type", "seconds", "outcome", "made", "verified", "removed", "numbers")


def fed(*lines: dict[str, Any]) -> Totals:
    totals = Totals()
    for line in lines:
        totals.feed(json.dumps(line).encode())
    return totals


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_stands_in_the_journal_is_read(line: bytes) -> None:
    Totals().feed(line)


@given(st.sampled_from([started, ended]), st.sampled_from(FIELDS), VALUES)
def test_a_line_with_anything_in_a_field_counts_wholly_or_not_at_all(line: Any, field: str, value: Any) -> None:
    totals = fed(line("a") | {field: value})
    for plan in totals.plans.values():
        begun = sum(count for name, count in plan.counts.items() if name[0] == "started")
        over = sum(count for name, count in plan.counts.items() if name[0] == "ended")
        timed = sum(count for name, count in plan.counts.items() if name[0] == "took_le")
        assert (begun, over) in ((0, 0), (1, 0), (1, 1))
        assert over == timed
    assert Totals.from_json(json.loads(json.dumps(totals.as_json()))) == totals


@settings(max_examples=25)
@given(st.integers(0, 60), st.randoms(use_true_random=False))
def test_totals_that_were_kept_go_on_as_if_they_had_not_been(kept_after: int, chance: Any) -> None:
    told = list(operations(30))
    for line in told:
        if line["event"] == "ended":
            line["seconds"] = chance.random() * 1000
    whole = fed(*told)
    kept = Totals.from_json(json.loads(json.dumps(fed(*told[:kept_after]).as_json())))
    for line in told[kept_after:]:
        kept.feed(json.dumps(line).encode())
    assert kept == whole


def test_an_end_without_its_start_is_a_start_as_well_and_once() -> None:
    assert numbers_of(fed(ended("a"))) == (1, 1, 0)
    # which of two segments is read first is not known
    assert numbers_of(fed(ended("a"), started("a"))) == (1, 1, 0)
    assert fed(ended("a"), started("a")).pending == {}


def test_the_same_start_twice_is_one() -> None:
    assert numbers_of(fed(started("a"), started("a"))) == (1, 0, 0)


def test_operations_without_an_end_do_not_grow_for_ever() -> None:
    totals = fed(*(started(number) for number in range(1500)))
    begun, _, failed = numbers_of(totals)
    assert (begun, failed, len(totals.pending)) == (1500, 500, 1000)


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0, "0.1"), (0.1, "0.1"), (0.100001, "0.25"), (21600, "21600"), (21600.5, "+Inf")]
)
def test_a_value_lies_in_the_bucket_whose_upper_bound_it_does_not_exceed(seconds: float, bound: str) -> None:
    counts = fed(ended("a", seconds=seconds)).of(PLACE, REPOSITORY, "books").counts
    assert {name[3]: count for name, count in counts.items() if name[0] == "took_le"} == {bound: 1}


def test_a_backup_found_bad_is_not_the_newest_good_one_until_it_is_found_good() -> None:
    identity = ended("a")["backup"]
    judged = ended("b", verb="verification", type="quick", backup=identity)
    bad = judged | {"id": "c", "outcome": "bad", "verified": {"status": "corrupted", "rows": 1}}
    good = judged | {"id": "d", "verified": {"status": "verified", "rows": 1, "rto_seconds": 2.5}}
    assert [one.bad for one in fed(ended("a"), bad).of(PLACE, REPOSITORY, "books").backups] == [True]
    plan = fed(ended("a"), bad, good).of(PLACE, REPOSITORY, "books")
    assert [(one.bad, one.verified) for one in plan.backups] == [(False, True)]
    assert [seconds for _, seconds in plan.restores] == [2.5]


def test_a_place_that_held_two_repositories_tells_of_each_its_own() -> None:
    first, second = started("a", repository="first"), started("b", repository="second")
    totals = fed(first, started("c", repository=None), second, started("d", repository=None))
    # lines that name none are of the one that was last named there
    assert [numbers_of_repository(totals, one) for one in ("first", "second", None)] == [2, 2, 2]


def unnamed(line: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Leave out which repository a line is of, as of one in a network while it is not known."""
    return {name: value for name, value in line.items() if name != "repository"} | more


def test_what_was_noted_before_a_repository_was_known_is_of_the_first_one_there() -> None:
    totals = fed(unnamed(started("a")), started("b", repository="first"), started("c", repository="second"))
    assert [numbers_of_repository(totals, one) for one in ("first", "second")] == [2, 1]
    assert {begun.repository for begun in totals.pending.values()} == {"first", "second"}


def test_a_repository_that_is_made_anew_at_its_place_begins_at_zero() -> None:
    """In a network, where the start of a backup does not know which one is there."""
    lines = [unnamed(started("a")), ended("a", repository="old"), unnamed(started("v")), unnamed(ended("v"))]
    lines += [unnamed(started("b")), ended("b", repository="new")]
    totals = fed(*lines)
    assert [numbers_of(totals, repository=one) for one in ("old", "new")] == [(2, 2, 0), (1, 1, 0)]
    assert len(totals.of(PLACE, "new", "books").backups) == 1


def numbers_of_repository(totals: Totals, repository_id: str | None) -> int:
    return totals.of(PLACE, repository_id, "books").counts["started", "backup", "incremental"]


@pytest.mark.parametrize(("ahead", "then"), [("completed", "failed"), ("failed", "completed")])
def test_a_clock_that_was_ahead_hides_nothing_that_came_after(ahead: str, then: str) -> None:
    totals = Totals()
    for number, (how, at) in enumerate([(ahead, NOW + timedelta(days=400)), (then, NOW)]):
        totals.feed(json.dumps(ended(number, at, outcome=how)).encode())
    moments = totals.of(PLACE, REPOSITORY, "books").latest
    named = {"completed": "success", "failed": "failure"}
    assert moments[named[then], "backup", "incremental"] == NOW.timestamp()
    assert moments[named[ahead], "backup", "incremental"] < NOW.timestamp()
