"""What lines add up to is the same however they are read, and no line can harm it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.reporting.journal_totals import Totals
from tests.flows.reporting.journal_support import PLACE, REPOSITORY, ended, numbers_of, operations, started

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
    totals = fed(first, second, started("c", repository=None))
    # of what could not be read it is not known which one it was of
    assert numbers_of_repository(totals, "first") == numbers_of_repository(totals, "second") == 2
    assert numbers_of_repository(totals, None) == 2


def numbers_of_repository(totals: Totals, repository_id: str | None) -> int:
    return totals.of(PLACE, repository_id, "books").counts["started", "backup", "incremental"]
