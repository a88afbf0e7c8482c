"""The report of plans: what to do first, each plan with what that rests on, and nothing on it can do anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest

from blocks.errors import RepositoryUnavailable
from flows.reading.report import Recorded, facts_of, unread
from flows.reporting.report_facts import Growth, Mark, Objective, PlanFacts
from flows.reporting.report_markdown import report_markdown
from flows.reporting.report_page import MAX_BYTES, report_page
from tests.flows.reporting.html_check import Page
from tests.flows.reporting.report_records import (
    NOW,
    history,
    plan,
    recorded,
    typical,
    verdicts,
    verifications,
    with_plan,
)

HOSTILE = "</td><script>alert('1')</script><img src=x onerror=\"alert(2)\">\x1b[31m\u202edrow & {{ 7*7 }} ]]> <!--"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recorded], PlanFacts]:
    opened = plan(tmp_path_factory.mktemp("plan"))
    return lambda found: facts_of(opened, "trading.yaml", found, NOW)


@cache
def good() -> Recorded:
    made = history(20)
    ids = [one.backup_id for one in made]
    return recorded(made, verdicts(made, ids), (), list(verifications(made, ids[-5:])))


def read(*plans: PlanFacts) -> Page:
    """Make a page, which must be well-formed, small, and load nothing."""
    written = report_page(plans, NOW)
    page = Page(written)
    assert page.faults == []
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form"})
    assert re.findall(r"(?:https?:)//[a-z]", written) == []
    assert len(written.encode()) < MAX_BYTES
    return page


def test_a_good_plan_says_first_that_nothing_is_to_do(facts: Callable[[Recorded], PlanFacts]) -> None:
    page = read(facts(good()))
    assert page.headings[0] == (1, "✓ Nothing: the last good backup is from 1 h ago.")
    assert "trading: good. As of 2026-06-30 09:40:00 UTC." in page.text
    assert (
        "RPO newest good state 1 hour ✓ met target 2 hours; the last 31 backups were 1 hour apart at most" in page.text
    )
    assert "RTO time of a restore 1.0 minutes ✓ met" in page.text.replace("1 minutes", "1.0 minutes")
    assert "Verified the last time 40 min ago ✓ found good" in page.text
    assert "Open warnings" not in page.text
    assert page.row("Restore")[1:4] == ["✓ good", "really restored", "40 min ago"]


def test_what_is_wrong_and_what_is_odd_is_told_with_what_hangs_on_it(facts: Callable[[Recorded], PlanFacts]) -> None:
    page = read(facts(typical()))
    assert "3 open warnings" in page.text
    assert re.search(r"✗ DIF_\w+: its stored bytes are bad, .*; 5 that depend on it cannot be restored", page.text)
    assert re.search(r"✗ FUL_\w+: its data are bad, .* 73 of 2,737 prices are negative", page.text)
    assert re.search(r"! FUL_\w+: ledger/orders holds 1,204 rows, and held 48,817", page.text)
    assert re.search(r"\(1, '! Look at what is suspicious about FUL_", str(page.headings[0]))
    held = [cells for cells in page.words if "which is suspicious" in cells]
    assert len(held) == 1
    marks = [cells[5] for cells in page.rows if re.match("(FUL|DIF|INC)_", cells[0]) and len(cells) == 6]
    assert {mark.split(" its")[0].split(" ledger")[0] for mark in marks} == {
        "verified", "not verified", "suspicious", "not as expected", "corrupted",
    }  # fmt: skip


def test_when_there_was_no_good_backup_is_told_only_of_times_of_which_nothing_was_removed(
    facts: Callable[[Recorded], PlanFacts],
) -> None:
    said = re.findall(r"No good backup until [^:]*:\d\d UTC: [0-9.]+ \w+ old", read(facts(typical())).text)
    assert said == ["No good backup until 27 Jun 21:40 UTC: 7 hours old"] * 3
    assert "the newest good backup was older than the RPO" not in read(facts(good())).text


def test_what_a_person_accepted_is_no_longer_suspicious(facts: Callable[[Recorded], PlanFacts]) -> None:
    page = read(facts(typical(settled=True)))
    assert page.headings[0] == (1, "✓ Nothing: the last good backup is from 1 h ago.")
    assert "trading: good; 2 open warnings" in page.text
    assert "suspicious" not in page.text


def test_each_window_of_the_timeline_tells_in_words_what_it_shows(facts: Callable[[Recorded], PlanFacts]) -> None:
    page = read(facts(typical()))
    week, month, quarter, stored = page.labels
    assert week.startswith("Backups of the last 7 days: 21 differential, 7 full, ")
    assert "6 corrupted" in week
    assert "1 suspicious" in month
    assert "60 full" in quarter
    assert stored.startswith("Stored over time: ")


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (Objective(timedelta(hours=3), timedelta(hours=2), ""), "3 hours ✗ missed target 2 hours"),
        (Objective(timedelta(hours=1), timedelta(hours=2), "", True), "1 hour ✓ met by the schedules 2 hours"),
        (Objective(timedelta(seconds=4.2), None, "said"), "4.2 s – no target no target is set; said"),
        (Objective(None, timedelta(minutes=5), "said"), "– – not measured target 5 minutes; said"),
        (Objective(None, None, ""), "– – not measured no target is set"),
    ],
)
def test_what_is_measured_stands_against_its_target(
    facts: Callable[[Recorded], PlanFacts], objective: Objective, told: str
) -> None:
    page = read(replace(facts(good()), rpo=objective))
    assert f"RPO newest good state {told}" in page.text


DAY = timedelta(days=1)
GROWS = Growth([(NOW - 30 * DAY, 0), (NOW, 30 * 2**30)], False, 2.0**30, 30, None, NOW)


@pytest.mark.parametrize(
    ("growth", "told"),
    [
        (GROWS, "not known"),
        (replace(GROWS, free=50 * 2**30), "about 19 August 2026, in 50 days"),
        (replace(GROWS, free=2**43), "in more than ten years"),
        (replace(GROWS, free=2**60), "not as it goes now"),
        (replace(GROWS, free=2**30, per_day=-1.0), "not as it goes now"),
        (replace(GROWS, free=2**30, per_day=None), "too early to tell"),
    ],
)
def test_when_no_room_is_left_is_told_as_far_as_it_is_known(
    facts: Callable[[Recorded], PlanFacts], growth: Growth, told: str
) -> None:
    page = read(replace(facts(good()), growth=growth))
    assert page.row("no room left")[1] == told
    if growth.per_day == 2.0**30:
        assert page.row("in 90 days")[1] == "120.0 GiB"
        assert "30.0 GiB now, 60.0 GiB in 30 days, 120.0 GiB in 90 days." in page.labels[-1]


def test_an_empty_plan_and_one_that_cannot_be_read_have_a_page(facts: Callable[[Recorded], PlanFacts]) -> None:
    page = read(facts(recorded([])))
    assert page.headings[0] == (1, "! There is no good backup: run lastgood backup trading.yaml .")
    assert "Backups There is none yet." in page.text
    assert page.labels == []
    error = RepositoryUnavailable("the repository s3://desk does not answer", hint="Is the network there?")
    page = read(unread("trading", error))
    told = "It cannot be looked at: the repository s3://desk does not answer. Is the network there?"
    assert page.headings == [(1, f"✗ {told}"), (2, "trading ✗ not readable")]
    assert read().headings == [(1, "✗ There is no plan to look at.")]


def test_several_plans_begin_with_a_list_of_them_the_worst_first(facts: Callable[[Recorded], PlanFacts]) -> None:
    fine, none = facts(good()), with_plan(facts(recorded([])), "models")
    lost = unread("reports", RepositoryUnavailable("it is gone"))
    page = read(fine, none, lost, with_plan(fine, "risk"))
    assert page.headings[0] == (1, "✗ reports: It cannot be looked at: it is gone.")
    assert "4 plans: 1 not readable, 1 late, 2 good." in page.text
    listed = [(cells[0], cells[1]) for cells in page.rows if len(cells) == 7][1:]
    assert listed == [
        ("reports", "✗ not readable"), ("models", "! late"), ("trading", "✓ good"), ("risk", "✓ good"),
    ]  # fmt: skip
    assert read(fine, with_plan(fine, "risk")).headings[0] == (1, "✓ Nothing: all 2 plans are good.")


def test_names_and_sentences_that_are_code_are_only_shown(facts: Callable[[Recorded], PlanFacts]) -> None:
    found = facts(typical())
    marked = [replace(one, why=(HOSTILE,), mark=Mark.SUSPICIOUS) for one in found.backups]
    bad = replace(found, plan=HOSTILE, to_do=f"`{HOSTILE}`", repository=HOSTILE, wrong=[HOSTILE], odd=[HOSTILE] * 3)
    written = report_page([replace(bad, backups=marked), unread(HOSTILE, RepositoryUnavailable(HOSTILE))], NOW)
    page = Page(written)
    assert page.faults == []
    assert "<script" not in written
    assert "{{ 7*7 }}" in page.text
    assert "\\x1b[31m\\u202edrow" in page.text
    assert not {"\x1b", "\u202e"} & set(written)


def test_whatever_is_on_record_the_page_stays_below_the_bound(facts: Callable[[Recorded], PlanFacts]) -> None:
    found = facts(typical())
    long = "<" * 3_000
    marked = [replace(one, why=(long,) * 9, mark=Mark.SUSPICIOUS) for one in found.backups]
    read(replace(found, plan=long, to_do=long, repository=long, wrong=[long] * 99, odd=[long] * 99, backups=marked))


def test_ten_thousand_backups_stay_below_the_bound(facts: Callable[[Recorded], PlanFacts]) -> None:
    many = facts(recorded(history(104.2, every=timedelta(minutes=15))))
    assert len(many.backups) >= 10_000
    assert "And 9,9" in read(many).text


def test_a_hundred_plans_stay_below_the_bound(facts: Callable[[Recorded], PlanFacts]) -> None:
    found = facts(typical())
    page = read(*(with_plan(found, f"plan {number}") for number in range(100)))
    assert "100 plans: 100 suspicious" in page.text
    assert len([cells for cells in page.rows if cells[0].startswith("plan ")]) == 100
    told = sum(level == 2 for level, _ in page.headings) - 1
    assert told >= 10
    assert f"More is told of the first {told} below" in page.text


def test_the_same_facts_make_the_same_page(facts: Callable[[Recorded], PlanFacts]) -> None:
    found = facts(typical())
    assert report_page([found], NOW) == report_page([found], NOW)


def test_the_artifact_tells_the_same_in_some_lines(facts: Callable[[Recorded], PlanFacts]) -> None:
    lines = report_markdown(facts(typical()), NOW).splitlines()
    assert lines[0] == "# trading: ! suspicious"
    assert lines[1].startswith(
        "Look at what is suspicious about FUL_20260627_094000_0559: ledger/orders holds 1,204 rows"
    )
    rpo = "1 hour, ✓ met; target 2 hours; the last 31 backups were 1 hour apart at most"
    assert f"| RPO, newest good state | {rpo} |" in lines
    assert sum(line.startswith("- ") for line in lines) == 3
    assert lines[-1] == "As of 2026-06-30 09:40:00 UTC."
    assert "run `lastgood accept trading.yaml FUL_20260627_094000_0559`; until then" in lines[1]
    hostile = report_markdown(replace(facts(good()), to_do="<b>*x*</b>", odd=["<i>"]), NOW)
    assert "&lt;b&gt;\\*x\\*&lt;/b&gt;" in hostile
    assert "- &lt;i&gt;" in hostile
    many = replace(facts(good()), wrong=["x"] * 25)
    assert "- and 15 more" in report_markdown(many, NOW)


def test_the_templates_are_part_of_the_package() -> None:
    folder = Path(__file__).parents[3] / "flows" / "reporting"
    assert {path.suffix for path in folder.glob("*.jinja")} == {".jinja"}
    assert all((folder / f"report_page.{kind}.jinja").is_file() for kind in ("html", "css"))
