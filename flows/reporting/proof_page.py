"""One page of what was proved of a backup: HTML with all that it needs inside, made from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blocks.verification import Axis, CheckOutcome, RuleOutcome, Verification
from flows.reporting.charts import Chart, history_chart, line_chart
from flows.reporting.evidence import CollectionTrend, Evidence, RuleHistory, collection_trends, compared, rule_histories
from flows.reporting.html_pages import bounded, environment
from flows.reporting.units import human_seconds, human_time
from flows.reporting.wording import (
    AXES,
    COUNTED,
    DEPTHS,
    OUTCOMES,
    RULE_OUTCOMES,
    clipped,
    examples_text,
    findings,
    float_text,
    headline,
    is_finding,
    known,
    overall,
    percent,
    sentence,
    share_text,
    unproved,
    value_text,
    verified_text,
    warnings,
)

MAX_BYTES = 300_000
"""A page is never larger: it is sent by mail, and kept for every run."""
_TEMPLATE = "proof_page.html.jinja"
_MARKS = {CheckOutcome.GOOD: "✓", CheckOutcome.BAD: "✗", CheckOutcome.UNPROVEN: "?", CheckOutcome.UNTRIED: "–"}
_RULE_MARKS = {RuleOutcome.HOLDS: "✓", RuleOutcome.BROKEN: "✗", RuleOutcome.UNJUDGED: "?"}


@dataclass(frozen=True)
class _Bounds:
    """How much of each list is shown; how much there is more is said."""

    lines: int = 100
    rules: int = 200
    collections: int = 100
    changes: int = 8
    names: int = 30

    def halved(self) -> _Bounds:
        return _Bounds(**{name: max(1, bound // 2) for name, bound in asdict(self).items()})


def proof_page(evidence: Evidence) -> str:
    """Make the page, of less than `MAX_BYTES` bytes in UTF-8."""
    template = environment().get_template(_TEMPLATE)
    bounds = _Bounds()
    while len((page := template.render(_view(evidence, bounds))).encode()) >= MAX_BYTES:
        bounds = bounds.halved()
    return page


def _view(evidence: Evidence, bounds: _Bounds) -> dict[str, Any]:
    """Return what the template shows."""
    backup, result, verdict = evidence.backup, evidence.result, evidence.verdict
    return {
        "backup": backup,
        "state_as_of": human_time(backup.timestamp),
        "result": result,
        "how": verified_text(result) if result else "",
        "outcome": overall(verdict).value,
        "mark": _MARKS[overall(verdict)],
        "headline": headline(verdict),
        "sentence": sentence(verdict),
        "axes": [_axis(axis, evidence) for axis in Axis],
        "findings": bounded(findings(result, verdict) if result else [], bounds.lines),
        "warnings": bounded(warnings(result) if result else [], bounds.lines),
        "unproved": bounded(unproved(result, verdict), bounds.lines),
        "unwatched": bounded(_unwatched(evidence), bounds.names),
        "rules": bounded([_rule(each) for each in _worst_first(rule_histories(evidence))], bounds.rules),
        "counts": _counts(result),
        "collections": bounded([_collection(one, bounds) for one in collection_trends(evidence)], bounds.collections),
        "history": [_verification(one) for one in reversed(evidence.history)],
        "numbers": _numbers(result) if result else [],
    }


def _axis(axis: Axis, evidence: Evidence) -> dict[str, str]:
    verdict, result = evidence.verdict, evidence.result
    came_to, stands = verdict.outcome(axis), verdict.axes.get(axis)
    said = {"name": AXES[axis].capitalize(), "outcome": came_to.value, "mark": _MARKS[came_to]}
    said |= {"word": OUTCOMES[came_to], "depth": DEPTHS.get(verdict.depth(axis), verdict.depth(axis))}
    if stands is None:
        return said | {"when": "", "now": ""}
    here = result.results.get(axis.value) if result is not None else None
    now = ""
    if axis is Axis.BYTES and verdict.bad_base is not None:
        now = f"{verdict.bad_base}, which it depends on"
    elif result is not None and result.sequence and stands.sequence != result.sequence:
        now = f"from verification {stands.sequence:,}" + (f"; this time: {OUTCOMES[here.outcome]}" if here else "")
    return said | {"when": human_time(stands.verified_at), "now": now}


def _unwatched(evidence: Evidence) -> list[str]:
    """Return the collections that no suite says anything of; nothing where no suite was evaluated at all."""
    watched = {rule.collection for rule in evidence.result.rules} if evidence.result else set()
    return [c.name for c in evidence.backup.collections if c.name not in watched] if watched else []


def _worst_first(rules: Sequence[RuleHistory]) -> list[RuleHistory]:
    """Put what does not hold before what does, since a long list is cut; else the order of the suites stays."""

    def badness(each: RuleHistory) -> int:
        return 0 if is_finding(each.rule) else 1 if each.rule.outcome is not RuleOutcome.HOLDS else 2

    return sorted(rules, key=badness)


def _rule(each: RuleHistory) -> dict[str, Any]:
    rule, counted = each.rule, each.counted
    said = [f"{counted[came_to]} {word}" for came_to, word in COUNTED.items() if counted[came_to]]
    line = [value for value in each.values if value is not None]
    spread = ""
    if len(line) > 1:
        text = percent if each.measure.startswith("share") else float_text
        least, most = text(min(line)), text(max(line))
        spread = f"always {least}" if least == most else f"{least} to {most}"
    label = f"Of {len(each.outcomes)} verifications: {', '.join(said)}."
    return {
        "rule": rule,
        "columns": ", ".join(rule.columns),
        "outcome": rule.outcome.value,
        "mark": _RULE_MARKS[rule.outcome],
        "word": RULE_OUTCOMES[rule.outcome],
        "severity": clipped(rule.severity, 20),
        "observed": "" if rule.observed is None else clipped(value_text(rule.observed), 80),
        "bound": clipped(rule.bound, 120),
        "share": share_text(rule),
        "examples": examples_text(rule),
        "chart": history_chart(each.outcomes, each.values, label + (f" {each.measure}: {spread}." if spread else "")),
        "said": ", ".join(said),
        "spread": spread,
    }


def _counts(result: Verification | None) -> str:
    rules = result.rules if result else ()
    said = []
    for came_to, word in COUNTED.items():
        if number := sum(rule.outcome is came_to for rule in rules):
            said.append(f"{number:,} {word}")
    return ", ".join(said)


def _collection(trend: CollectionTrend, bounds: _Bounds) -> dict[str, Any]:
    known_rows = [rows for rows in trend.history if rows is not None]
    chart: Chart | None = None
    if known_rows:
        label = f"Rows over {len(known_rows)} verifications: {min(known_rows):,} to {max(known_rows):,}."
        chart = line_chart(trend.history, label)
    return {
        "name": trend.name,
        "rows": f"{trend.rows:,}",
        "before": "" if trend.before is None else f"{trend.before:,}",
        "difference": "" if trend.before is None else f"{trend.rows - trend.before:+,}".replace("-", "−"),
        "chart": chart,
        "changes": bounded(trend.changes, bounds.changes),
    }


def _verification(one: Verification) -> dict[str, Any]:
    came_to = overall(known(one))
    return {
        "backup": one.backup_id,
        "when": human_time(one.verified_at),
        "outcome": came_to.value,
        "mark": _MARKS[came_to],
        "word": headline(known(one)),
        "findings": len(findings(one)),
        "rows": "" if (rows := compared(one)) is None else f"{rows:,}",
        "restored": "" if one.restore_seconds is None else human_seconds(one.restore_seconds),
    }


def _numbers(result: Verification) -> list[tuple[str, str]]:
    restored = "" if result.restore_seconds is None else human_seconds(result.restore_seconds)
    said = [
        ("rows compared", f"{result.rows:,}"),
        ("expectations evaluated", f"{result.expectations:,}"),
        ("verification took", human_seconds(result.seconds)),
        ("restore took", restored),
        ("restored to", result.place or ""),
        ("suites", ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(result.suites.items())[:20])),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(result.tool_versions.items()))),
        ("SHA-256 of the manifest", result.manifest_sha256),
    ]
    return [(name, text) for name, text in said if text]
