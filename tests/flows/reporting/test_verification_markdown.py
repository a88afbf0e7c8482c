"""What a run shows of a verification, good or bad: verdict, axes, findings, expectations and a trend."""

from __future__ import annotations

from base64 import b64decode
from xml.etree import ElementTree

from flows.reporting.verification_markdown import MOST_RULES, expectation_rows, verification_markdown
from tests.flows.reporting.records import BAD, BROKEN, PROVED, UNJUDGED, UNTRIED, evidence, rule, verification

SENTENCE = "ledger/orders: 30 of 1,000 values of price are not between 1 and 100 (3 %)"


def test_a_good_verification_says_so_in_words_and_in_a_table() -> None:
    result = verification(rules=[rule()])
    lines = verification_markdown(result, evidence(result), ["It is there."]).splitlines()
    assert lines[0] == "# Proved good: `FUL_20260301_040000_9f3a`"
    assert lines[2].startswith("Of plan trading, state as of 2026-03-01 04:00:00 UTC: its stored bytes are what was")
    assert lines[4].endswith("took 2.5 s, the restore 1.2 s.")
    assert lines[6] == "It is there."
    assert "| Restore | good | really restored | 2026-03-01 05:00:00 UTC |" in lines
    assert "Nothing was found wrong." in lines
    assert "| `FUL_20260301_040000_9f3a` | Proved good | 0 | 1,000 | 1.2 s |" in lines


def test_a_bad_verification_has_its_findings_and_broken_rules() -> None:
    rules = [rule(), rule(BROKEN, examples=("order:17",)), rule(UNJUDGED), rule(BROKEN, severity="info")]
    axes = {**PROVED, "quality": BAD, "definitions": UNTRIED}
    result = verification(axes=axes, rules=rules, findings={"quality": [SENTENCE]})
    lines = verification_markdown(result, None).splitlines()
    assert lines[0] == "# Not good: `FUL_20260301_040000_9f3a`"
    assert lines[2].startswith("Of plan trading: its data are not as expected; its stored bytes are")
    assert lines[lines.index("## Findings") + 2] == f"- {SENTENCE}"
    assert lines[lines.index("## Warnings") + 2] == f"- {SENTENCE}"
    assert "- Definitions: this was not looked at" in lines
    assert "- Quality of data: ledger/orders: expect_column_values_to_be_between on price: no rows" in lines
    table = [line for line in lines if "| ledger/orders | expect_column_values_to_be_between on price |" in line]
    assert [line.split(" | ")[0] for line in table] == ["| broken", "| not judged", "| broken (info)"]


def test_names_cannot_become_markup_or_another_row() -> None:
    hostile = "a|b`c`<b>*d*\n# [x](http://evil.example) ![y](z) & ~~e~~"
    result = verification(
        axes={**PROVED, "quality": BAD},
        rules=[rule(BROKEN, collection=hostile, sentence=hostile, bound=hostile)],
        findings={"quality": [hostile]},
    )
    told = verification_markdown(result, None)
    assert "a\\|b\\`c\\`&lt;b&gt;\\*d\\*\\\\x0a\\# \\[x\\](http" in told
    assert "![" not in told.replace("!\\[", "")
    assert "<b>" not in told
    rows = [line for line in told.splitlines() if line.startswith("| broken")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [7]


def test_the_trend_is_an_image_of_rows_and_findings_and_a_table_of_the_newest() -> None:
    bad = verification(7, axes={**PROVED, "bytes": BAD}, findings={"bytes": ["x"] * 40})
    history = [bad if day == 7 else verification(day) for day in range(30)]
    lines = verification_markdown(history[-1], evidence(history[-1], history[:-1])).splitlines()
    [image] = [line for line in lines if line.startswith("![Rows (line) and findings (bars) of the last 30")]
    drawn = ElementTree.fromstring(b64decode(image.partition("base64,")[2].rstrip(")")))
    line, bars, none = (path.get("d") or "" for path in drawn)
    assert (line.count("L"), bars.count("z"), none.count("z")) == (29, 1, 29)
    table = [line for line in lines if line.startswith("| `FUL_")]
    assert [row.split("`")[1] for row in table] == [one.backup_id for one in reversed(history[-10:])]


def test_long_lists_are_cut_and_counted() -> None:
    rules = [rule(BROKEN, sentence=f"wrong {n}") for n in range(2_000)]
    result = verification(axes={**PROVED, "quality": BAD}, rules=rules)
    told = verification_markdown(result, None)
    assert told.count("And 1,950 more.") == 2
    assert len(told) < 40_000
    assert len(expectation_rows(result)) == MOST_RULES


def test_the_table_of_expectations_has_all_of_them_those_that_do_not_hold_first() -> None:
    rows = expectation_rows(verification(rules=[rule(), rule(BROKEN, observed=0.5), rule(UNJUDGED, severity="info")]))
    assert [row["outcome"] for row in rows] == ["broken", "not judged", "holds"]
    assert rows[0] == {
        "outcome": "broken",
        "collection": "ledger/orders",
        "columns": "price",
        "expectation": "expect_column_values_to_be_between",
        "observed": "0.5",
        "expected": "between 1 and 100",
        "rows not as expected": "30 of 1,000 (3 %)",
        "severity": "critical",
        "suite": "orders",
    }


def test_without_history_there_is_no_image() -> None:
    assert "![" not in verification_markdown(verification(rules=[rule()]), None)
