"""The page of what was proved: it says it all, of good and of bad, and nothing that it shows can do anything."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.records import BackupStatus
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, Standing
from flows.reporting import proof_page as module
from flows.reporting.evidence import Evidence
from flows.reporting.proof_page import MAX_BYTES, proof_page
from tests.flows.reporting.html_check import Page
from tests.flows.reporting.records import (
    BAD,
    BROKEN,
    GOOD,
    HOLDS,
    PROVED,
    START,
    UNJUDGED,
    UNPROVEN,
    UNTRIED,
    backup,
    evidence,
    profile,
    rule,
    verification,
)

HOSTILE = "</td><script>alert('1')</script><img src=x onerror=\"alert(2)\">\x1b[31m\u202edrow & {{ 7*7 }} ]]> <!--"
SENTENCE = "ledger/orders: 30 of 1,000 values of price are not between 1 and 100 (3 %)"


def read(found: Evidence) -> Page:
    """Make a page, which must be well-formed, small, and load nothing."""
    written = proof_page(found)
    page = Page(written)
    assert page.faults == []
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form"})
    assert re.findall(r"(?:https?:)?//[a-z]", written) == []
    assert len(written.encode()) < MAX_BYTES
    return page


def test_a_good_backup_is_said_to_be_proved_good_on_four_axes() -> None:
    page = read(evidence(verification(rules=[rule()])))
    assert page.headings[0] == (1, "✓ Proved good")
    assert (
        "Backup FUL_20260301_040000_9f3a of plan trading , state as of 2026-03-01 04:00:00 UTC: "
        "its stored bytes are what was stored, it was restored and came back the same, its definitions came back as "
        "they were, its data are as expected." in page.text
    )
    assert page.row("Stored bytes") == ["Stored bytes", "✓ good", "every row compared", "2026-03-01 05:00:00 UTC"]
    assert page.row("Restore") == ["Restore", "✓ good", "really restored", "2026-03-01 05:00:00 UTC"]
    assert "Nothing was found wrong." in page.text
    assert "took 2.5 s, the restore 1.2 s" in page.text
    assert "not proved, and why" not in page.text


def test_a_bad_backup_says_first_what_is_wrong_with_numbers_and_keys() -> None:
    broken = rule(BROKEN, examples=tuple(f"order:{n}" for n in range(7)), observed=12.5)
    found = verification(axes={**PROVED, "quality": BAD}, rules=[broken], findings={"quality": [SENTENCE]})
    page = read(evidence(found))
    assert page.headings[0] == (1, "✗ Not good")
    assert "UTC: its data are not as expected; its stored bytes are what was stored, it was restored" in page.text
    assert f"1 finding , the first: {SENTENCE}" in page.text
    assert f"Findings ✗ {SENTENCE} Expectations" in page.text
    assert page.text.count(SENTENCE) == 2  # in the head, and once among the findings
    cells = page.row("ledger/orders: price")
    assert cells[1:5] == ["✗ broken", "critical", "12.5", "between 1 and 100"]
    assert cells[5] == "30 of 1,000 (3 %) such as order:0, order:1, order:2, order:3, order:4, and 2 more"


def test_a_broken_expectation_that_no_sentence_tells_is_told_all_the_same() -> None:
    page = read(evidence(verification(axes={**PROVED, "quality": BAD}, rules=[rule(BROKEN)])))
    assert f"✗ {SENTENCE}" in page.text


def test_a_broken_expectation_of_lesser_severity_is_a_warning() -> None:
    told = [f"warning: {SENTENCE}", "a difference of definitions"]
    weak = rule(BROKEN, severity="warning")
    page = read(evidence(verification(rules=[weak]).model_copy(update={"warnings": tuple(told)})))
    assert page.headings[0] == (1, "✓ Proved good")
    assert f"Nothing was found wrong. Warnings ! {told[0]} ! {told[1]} Expectations" in page.text
    axes = {**PROVED, "quality": UNPROVEN}
    page = read(evidence(verification(axes=axes, rules=[weak], findings={"quality": [told[0], "no room"]})))
    assert f"Warnings ! {told[0]} What was not proved, and why ? Quality of data : no room Expectations" in page.text


def test_what_was_not_proved_is_said_with_its_reason() -> None:
    axes = {"bytes": GOOD, "restorable": UNPROVEN, "definitions": UNTRIED, "quality": UNPROVEN}
    found = verification(
        axes=axes, rules=[rule(UNJUDGED)], findings={"restorable": ["there is no server program of PostgreSQL 12"]}
    )
    made = backup(0, {"ledger/orders": 1000, "ledger/fills": 7})
    page = read(evidence(found, made=made))
    assert page.headings[0] == (1, "? Proved in part")
    assert "? Restore : there is no server program of PostgreSQL 12" in page.text
    assert "? Definitions : this was not looked at" in page.text
    assert "? Quality of data : ledger/orders: expect_column_values_to_be_between on price: no rows" in page.text
    assert "? No expectation is about ledger/fills ." in page.text
    assert page.row("ledger/orders: price")[1] == "? not judged no rows"
    assert "Warnings" not in page.text  # the reason is said once


def test_without_suites_and_without_a_restore_both_are_said() -> None:
    axes = {"bytes": GOOD, "restorable": UNTRIED, "definitions": UNTRIED, "quality": UNTRIED}
    page = read(evidence(verification(axes=axes, restore_seconds=None)))
    assert "? Restore : it was not restored: `lastgood verify --deep` does that" in page.text
    assert "? Quality of data : no suite of the plan was evaluated" in page.text
    assert "No expectation was evaluated: no suite of the plan says what good data is." in page.text
    assert "No expectation is about" not in page.text


def test_a_backup_that_was_never_verified_is_not_proved() -> None:
    page = read(evidence(None))
    assert page.headings[0] == (1, "– Not proved")
    assert "It was never verified." in page.text
    assert page.row("ledger/orders")[1] == "1,000"


@pytest.mark.parametrize(
    ("status", "deep", "findings", "headline", "outcomes"),
    [
        (BackupStatus.VERIFIED, True, (), "? Proved in part", ["✓ good", "✓ good", "– not tried", "✓ good"]),
        (
            BackupStatus.VERIFIED,
            False,
            (),
            "? Proved in part",
            ["✓ good", "– not tried", "– not tried", "✓ good"],
        ),
        (BackupStatus.CORRUPTED, True, ("x",), "✗ Not good", ["✗ bad"] * 2 + ["– not tried"] * 2),
        (BackupStatus.COMPLETED, False, ("x",), "✗ Not good", ["✓ good"] + ["– not tried"] * 2 + ["✗ bad"]),
    ],
)
def test_records_that_know_no_axes_are_read_as_what_they_meant(
    status: BackupStatus, deep: bool, findings: tuple[str, ...], headline: str, outcomes: list[str]
) -> None:
    said = {"status": status, "deep": deep, "findings": findings, "sequence": None, "expectations": 3}
    old = verification(axes={}).model_copy(update={**said, "standing": {}})
    page = read(evidence(old))
    assert page.headings[0] == (1, headline)
    axes = ["Stored bytes", "Restore", "Definitions", "Quality of data"]
    assert [page.row(axis)[1] for axis in axes] == outcomes


def test_what_was_found_before_and_still_stands_says_where_it_comes_from() -> None:
    before = Standing(outcome=BAD, depth="restored", sequence=3, verified_at=START, findings=("an orphan",))
    found = verification(axes={**PROVED, "restorable": UNTRIED}, sequence=5)
    found = found.model_copy(update={"standing": {**found.standing, "restorable": before}})
    page = read(evidence(found))
    assert page.headings[0] == (1, "✗ Not good")
    assert page.row("Restore")[1] == "✗ bad from verification 3; this time: not tried"
    assert "Findings ✗ an orphan (found by verification 3)" in page.text


def test_damage_of_a_backup_that_it_depends_on_is_said_with_its_id() -> None:
    good = evidence(verification())
    stands = Standing(outcome=BAD, depth="objects", sequence=1, verified_at=START, findings=("it depends on FUL_X",))
    page = read(replace(good, verdict=Verdict({**good.verdict.axes, Axis.BYTES: stands}, bad_base="FUL_X")))
    assert page.headings[0] == (1, "✗ Not good")
    assert page.row("Stored bytes")[1:3] == ["✗ bad FUL_X, which it depends on", "every object read"]
    assert "Findings ✗ it depends on FUL_X Expectations" in page.text


def test_a_record_that_does_not_open_is_said() -> None:
    good = evidence(verification())
    page = read(replace(good, verdict=replace(good.verdict, doubt="a record does not open")))
    assert "What was not proved, and why ? History : a record does not open" in page.text


def test_names_and_sentences_that_are_code_are_only_shown() -> None:
    broken = rule(
        BROKEN,
        suite=HOSTILE,
        collection=f"ledger/{HOSTILE}",
        rule=HOSTILE,
        columns=(HOSTILE,),
        severity=HOSTILE,
        kind=HOSTILE,
        bound=HOSTILE,
        observed=HOSTILE,
        examples=(HOSTILE, "\ud800"),
        sentence=HOSTILE,
    )
    found = verification(
        axes={**PROVED, "quality": BAD, "definitions": UNPROVEN},
        rules=[broken, broken.model_copy(update={"severity": "critical"})],
        findings={"quality": [HOSTILE], "definitions": [HOSTILE]},
        place=HOSTILE,
        tool_versions={HOSTILE: HOSTILE},
        suites={HOSTILE: HOSTILE},
        profile={f"ledger/{HOSTILE}": profile(10, **{HOSTILE: (1, 5.0)})},
    )
    older = verification(0, profile={f"ledger/{HOSTILE}": profile(10, other=(0, 1.0))})
    made = backup(1, {f"ledger/{HOSTILE}": 10})
    written = proof_page(evidence(found.model_copy(update={"backup_id": made.backup_id}), [older], made))
    page = Page(written)
    assert page.faults == []
    assert "script" not in page.tags
    assert "<script" not in written
    assert "{{ 7*7 }}" in page.text
    assert "\\x1b[31m\\u202edrow" in page.text
    assert not {"\x1b", "\u202e", "\ud800"} & set(written)


def test_a_thousand_expectations_are_bounded_the_broken_ones_first_and_the_rest_counted() -> None:
    rules = [rule(HOLDS, columns=(f"c{n}",)) for n in range(1000)]
    rules[990:] = [rule(BROKEN, columns=(f"c{n}",), sentence=f"c{n} is wrong") for n in range(990, 1000)]
    history = [verification(day, rules=rules, axes={**PROVED, "quality": BAD}) for day in range(30)]
    page = read(evidence(history[-1], history[:-1]))
    assert "1,000 expectations: 990 hold, 10 broken." in page.text
    shown = [row[0] for row in page.rows if row[0].startswith("ledger/orders: c")]
    assert [name.split()[1] for name in shown[:11]] == [*(f"c{n}" for n in range(990, 1000)), "c0"]
    assert f"And {1000 - len(shown):,} more; those that do not hold come first" in page.text


def test_whatever_is_on_record_the_page_stays_small() -> None:
    rules = [rule(BROKEN, columns=("<" * 500,) * 3, sentence="<" * 900, bound="<" * 900) for _ in range(500)]
    history = [verification(day, rules=rules, axes={**PROVED, "quality": BAD}) for day in range(30)]
    made = backup(29, {f"ledger/{'<' * 200}{n}": n for n in range(500)})
    read(evidence(history[-1], history[:-1], made))


def test_the_history_of_an_expectation_is_told_in_words_beside_its_drawing() -> None:
    outcomes = [HOLDS, HOLDS, BROKEN, UNJUDGED, BROKEN]
    days = [verification(day, rules=[rule(outcome)]) for day, outcome in enumerate(outcomes)]
    days.insert(2, verification(2, rules=[]).model_copy(update={"sequence": 0}))
    page = read(evidence(days[-1], days[:-1]))
    label = "Of 6 verifications: 2 hold, 2 broken, 1 not judged. share of rows not as expected: 0 % to 3 %."
    assert label in page.labels
    assert page.row("ledger/orders: price")[6] == "2 hold, 2 broken, 1 not judged 0 % to 3 %"


def test_collections_show_their_rows_over_time_and_what_changed_in_their_columns() -> None:
    before = verification(0, profile={"ledger/orders": profile(1000, price=(0, 10.0), note=(5, None), old=(0, None))})
    now = verification(1, profile={"ledger/orders": profile(500, price=(50, 1000.0), note=(2, None), new=(0, None))})
    made = backup(1, {"ledger/orders": 500, "models": 3})
    page = read(evidence(now, [before], made))
    assert page.row("ledger/orders") == [
        "ledger/orders",
        "500",
        "−500",
        "",
        "new: new old: gone price: mean 10 → 1000 price: NULL 0 % → 10 % note: NULL 0.5 % → 0.4 %",
    ]
    assert "Rows over 2 verifications: 500 to 1,000." in page.labels
    assert page.row("models") == ["models", "3", "", "", ""]


def test_verifications_of_the_plan_are_listed_newest_first() -> None:
    bad = verification(1, axes={**PROVED, "bytes": BAD}, findings={"bytes": ["a segment is missing"]})
    last = verification(2)
    page = read(evidence(last, [verification(0), bad]))
    listed = [row for row in page.rows if row[0].startswith("FUL_")]
    assert [(row[0], row[2], row[3]) for row in listed] == [
        ("FUL_20260303_040000_9f3a", "✓ Proved good", "0"),
        ("FUL_20260302_040000_9f3a", "✗ Not good", "1"),
        ("FUL_20260301_040000_9f3a", "✓ Proved good", "0"),
    ]


def test_the_same_records_make_the_same_page() -> None:
    found = evidence(verification(rules=[rule(BROKEN)]))
    assert proof_page(found) == proof_page(found)


def test_the_template_is_part_of_the_package() -> None:
    declared = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'flows = ["reporting/*.jinja"]' in declared
    assert (Path(module.__file__).parent / "proof_page.html.jinja").is_file()
