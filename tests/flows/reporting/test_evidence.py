"""What reports are made of: few records, in the order of their backups, expectations matched by what they are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from blocks.records import BackupMetadata
from blocks.repository.verdict import Verdict, standings_of
from blocks.verification import Axis, Verification
from flows.reporting.charts import history_chart, line_chart
from flows.reporting.evidence import (
    MOST_VERIFICATIONS,
    Evidence,
    collection_trends,
    compared,
    read_evidence,
    rule_histories,
)
from flows.verify import make_verification
from tests.flows.flow_support import FULL, Shop
from tests.flows.reporting.records import (
    BAD,
    BROKEN,
    HOLDS,
    PROVED,
    UNTRIED,
    backup,
    evidence,
    profile,
    rule,
    verification,
)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill(5)
    return shop


def test_the_records_of_a_backup_and_of_those_before_it_are_read_in_the_order_of_backups(shop: Shop) -> None:
    first, second, third = (shop.back_up(FULL) for _ in range(3))
    made = [make_verification(shop.plan, one.backup_id, deep=False) for one in (second, third, first, second)]
    repository = shop.repository
    found = read_evidence(repository, repository.manifest("trading", second.backup_id))
    assert found.result is not None
    assert found.result.verified_at == made[3].verified_at
    order = sorted((first, second), key=lambda one: one.backup_id[4:])
    whose = [one.backup_id for one in found.history if one.backup_id != third.backup_id]
    assert whose == [one.backup_id for one in order for _ in range(2 if one is second else 1)]
    never = shop.back_up(FULL)
    found = read_evidence(repository, repository.manifest("trading", never.backup_id))
    assert found.result is None


class Records:
    """A repository that has verifications on record, and counts what is asked."""

    def __init__(self, records: list[Verification]) -> None:
        self.records = records

    def newest_verifications(self, plan: str, most: int, until: str) -> list[Verification]:
        assert (plan, most) == ("trading", MOST_VERIFICATIONS)
        return [one for one in self.records if one.backup_id[4:] <= until[4:]]

    def verdict(self, of: BackupMetadata) -> Verdict:
        return Verdict(standings_of([one for one in self.records if one.backup_id == of.backup_id], "0" * 64))


def read(records: list[Verification], day: int, result: Verification | None = None) -> Evidence:
    return read_evidence(Records(records), backup(day), result)  # type: ignore[arg-type]


def test_verifications_of_one_backup_stand_in_the_order_of_their_numbers_not_of_clocks() -> None:
    ahead = verification(0, sequence=1, verified_at=verification(5).verified_at)
    records = [verification(1), ahead, verification(0, sequence=2)]
    found = read(records, 1)
    assert [(one.backup_id, one.sequence) for one in found.history] == [
        ("FUL_20260301_040000_9f3a", 1),
        ("FUL_20260301_040000_9f3a", 2),
        ("FUL_20260302_040000_9f3a", 1),
    ]


def test_a_result_that_is_not_recorded_is_the_end_of_its_history_and_one_that_is_counts_once() -> None:
    records = [verification(0), verification(1, sequence=1), verification(1, sequence=2)]
    recorded = records[1]
    assert read(records, 1, recorded).history == (records[0], recorded)
    unrecorded = verification(1, sequence=None).model_copy(update={"verified_at": verification(2).verified_at})
    assert read(records, 1, unrecorded).history == (*records, unrecorded)


def test_a_record_of_objects_that_were_read_for_another_backup_counts_no_rows_and_hides_no_expectation() -> None:
    first = verification(0, rules=[rule()], sequence=1)
    axes = {**dict.fromkeys(PROVED, UNTRIED), "bytes": BAD}
    objects = verification(0, axes=axes, findings={"bytes": ["a pack is cut off"]}, sequence=2, rows=0)
    stored = objects.results["bytes"].model_copy(update={"depth": "objects"})
    objects = objects.model_copy(update={"results": {**objects.results, "bytes": stored}})
    found = read([first, objects], 0)
    assert (found.result, found.verdict.outcome(Axis.BYTES)) == (first, BAD)
    assert [compared(one) for one in found.history] == [1000, None]
    assert read([objects], 0).result == objects


def test_a_repository_reads_the_newest_records_of_the_newest_backups_by_one_listing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [shop.back_up(FULL) for _ in range(2)]
    for one in made:
        for _ in range(3):
            make_verification(shop.plan, one.backup_id, deep=False)
    repository = shop.repository
    listed: list[str] = []
    read_objects: list[str] = []
    tier = repository._tier
    real_list, real_get = type(tier).list, type(tier).get
    monkeypatch.setattr(type(tier), "list", lambda self, prefix: listed.append(prefix) or real_list(self, prefix))
    monkeypatch.setattr(
        type(tier), "get", lambda self, name, *a, **k: read_objects.append(name) or real_get(self, name, *a, **k)
    )
    newest = max(made, key=lambda one: one.backup_id[4:])
    found = repository.newest_verifications("trading", 4, until=newest.backup_id)
    assert listed == ["verifications/trading/"]
    assert len(found) == len(read_objects) == 4


def test_an_expectation_is_the_same_one_where_all_but_its_outcome_is() -> None:
    twice = [rule(HOLDS), rule(BROKEN, unexpected=500)]
    past = verification(0, rules=[*twice, rule(columns=("quantity",))])
    now = verification(1, rules=[rule(BROKEN, unexpected=10), rule(HOLDS), rule(columns=("symbol",))])
    histories = rule_histories(evidence(now, [past]))
    assert [each.outcomes for each in histories] == [(HOLDS, BROKEN), (BROKEN, HOLDS), (None, HOLDS)]
    assert [each.values for each in histories] == [(0.0, 0.01), (0.5, 0.0), (None, 0.0)]


def test_what_is_drawn_is_the_observed_number_where_there_is_one() -> None:
    days = [
        verification(day, rules=[rule(observed=value)]) for day, value in enumerate([3, "text", True, 10**400, 4.5])
    ]
    [history] = rule_histories(evidence(days[-1], days[:-1]))
    assert (history.values, history.measure) == ((3.0, None, None, None, 4.5), "observed value")


def test_a_collection_is_compared_with_the_backup_before_not_with_the_verification_before() -> None:
    before = verification(0, profile={"ledger/orders": profile(10)})
    again = verification(1, sequence=1, profile={"ledger/orders": profile(12)})
    now = verification(1, sequence=2, profile={"ledger/orders": profile(12)})
    [trend] = collection_trends(evidence(now, [before, again], backup(1, {"ledger/orders": 12})))
    assert (trend.rows, trend.before, trend.history, trend.changes) == (12, 10, (10, 12, 12), ())


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1.0, 2.0, 3.0], "M3.5 17L10.5 10L17.5 3"),
        ([5.0, 5.0], "M3.5 10L10.5 10"),
        ([1.0, None, 2.0, 3.0], "M3.5 17M17.5 10L24.5 3"),
        ([-1.7e308, 1.7e308], "M3.5 17L10.5 3"),
        ([1.0, math.nan, math.inf, 2.0], "M3.5 17M24.5 3"),
        ([1.0, None], None),
        ([], None),
    ],
)
def test_lines_have_gaps_and_stay_within_their_drawing(values: list[float | None], line: str | None) -> None:
    chart = line_chart(values, "x")
    assert (chart.line if chart else None) == line


def test_marks_of_outcomes_are_told_apart_by_their_form() -> None:
    chart = history_chart([HOLDS, BROKEN, None], [None, None, None], "x")
    assert dict(chart.marks) == {"holds": "M1 11h5v5h-5z", "broken": "M8 0h5v16h-5z", "none": "M15 15h5v1h-5z"}
    assert (chart.width, chart.height, chart.line, chart.end) == (21, 16, "", None)
