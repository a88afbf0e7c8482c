"""A verification as a run shows it in the Prefect UI: Markdown, and a table of its expectations."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.repository.verdict import Verdict
from blocks.verification import Axis, RuleOutcome, RuleResult, Verification
from flows.reporting.charts import image
from flows.reporting.evidence import Evidence, compared
from flows.reporting.markdown import markdown_text, table
from flows.reporting.units import human_seconds, human_time
from flows.reporting.wording import (
    AXES,
    DEPTHS,
    OUTCOMES,
    RULE_OUTCOMES,
    clipped,
    findings,
    headline,
    known,
    rule_name,
    sentence,
    share_text,
    unproved,
    value_text,
    verified_text,
    warnings,
)

MOST_LINES = 50
MOST_RULES = 1_000
MOST_TRENDED = 10
"""How many verifications the table of the trend has."""


def verification_markdown(result: Verification, evidence: Evidence | None, more: Sequence[str] = ()) -> str:
    """Describe a verification, good or bad, in Markdown.

    Args:
        result: The verification.
        evidence: What is on record beside it; None where that cannot be read.
        more: Paragraphs that come first, in Markdown.
    """
    as_of = f", state as of {human_time(evidence.backup.timestamp)}" if evidence else ""
    verdict = evidence.verdict if evidence else known(result)
    paragraphs = [
        f"# {headline(verdict)}: `{result.backup_id}`",
        f"Of plan {markdown_text(result.plan)}{as_of}: {sentence(verdict)}.",
        verified_text(result),
        *more,
        _axes_table(verdict),
        "## Findings",
        _list(findings(result, verdict)) or "Nothing was found wrong.",
    ]
    if odd := _list(warnings(result)):
        paragraphs += ["## Warnings", odd]
    if reasons := unproved(result, verdict):
        paragraphs += ["## Not proved", _list([f"{what.capitalize()}: {why}" for what, why in reasons])]
    failed = [rule for rule in result.rules if rule.outcome is not RuleOutcome.HOLDS]
    if failed:
        paragraphs += ["## Expectations that do not hold", _rules_table(failed)]
    return "\n\n".join([*paragraphs, "## Trend", *_trend(evidence.history if evidence else (result,))])


def expectation_rows(result: Verification) -> list[dict[str, str]]:
    """Return the expectations of a verification for a table, those that do not hold first; not more than a thousand."""
    rules = sorted(result.rules, key=lambda rule: rule.outcome is RuleOutcome.HOLDS)
    return [
        {
            "outcome": RULE_OUTCOMES[rule.outcome],
            "collection": clipped(rule.collection),
            "columns": clipped(", ".join(rule.columns)),
            "expectation": clipped(rule.rule),
            "observed": _observed(rule),
            "expected": clipped(rule.bound),
            "rows not as expected": share_text(rule),
            "severity": rule.severity,
            "suite": clipped(rule.suite),
        }
        for rule in rules[:MOST_RULES]
    ]


def _axes_table(verdict: Verdict) -> str:
    rows = []
    for axis in Axis:
        depth, stands = verdict.depth(axis), verdict.axes.get(axis)
        when = human_time(stands.verified_at) if stands else ""
        rows.append((AXES[axis].capitalize(), OUTCOMES[verdict.outcome(axis)], DEPTHS.get(depth, depth), when))
    return _table(("what", "outcome", "how deep", "when"), rows)


def _rules_table(rules: Sequence[RuleResult]) -> str:
    rows = [(_outcome(r), r.collection, rule_name(r), _observed(r), r.bound, share_text(r)) for r in rules[:MOST_LINES]]
    header = ("outcome", "collection", "expectation", "observed", "expected", "rows not as expected")
    return _table(header, rows) + _more(len(rules))


def _outcome(rule: RuleResult) -> str:
    word = RULE_OUTCOMES[rule.outcome]
    return word if rule.severity == "critical" else f"{word} ({rule.severity})"


def _observed(rule: RuleResult) -> str:
    return "" if rule.observed is None else clipped(value_text(rule.observed))


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(one, 1_000)}" for one in sentences[:MOST_LINES]) + _more(len(sentences))


def _more(total: int) -> str:
    return f"\n\nAnd {total - MOST_LINES:,} more." if total > MOST_LINES else ""


def _trend(history: Sequence[Verification]) -> list[str]:
    """Return an image and a table of rows and findings."""
    rows = [compared(one) for one in history]
    wrong = [len(findings(one)) for one in history]
    shown = [
        (
            f"`{one.backup_id}`",
            headline(known(one)),
            f"{count:,}",
            "" if (here := compared(one)) is None else f"{here:,}",
            "" if one.restore_seconds is None else human_seconds(one.restore_seconds),
        )
        for one, count in list(zip(history, wrong, strict=True))[: -MOST_TRENDED - 1 : -1]
    ]
    told = f"Rows (line) and findings (bars) of the last {len(history)} verifications, in the order of their backups"
    trend = table(("backup", "verdict", "findings", "rows", "restored in"), shown)
    return [f"![{told}]({image(rows, wrong)})", f"{told}.", trend] if len(history) > 1 else [trend]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(header, [[markdown_text(cell) for cell in row] for row in rows])
