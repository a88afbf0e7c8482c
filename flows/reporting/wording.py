"""What was proved of a backup, in words: the same in the page of results and in the artifact of a run."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence

from pydantic import JsonValue

from blocks.repository.verdict import Verdict, recorded_standing, standing_after
from blocks.verification import Axis, CheckOutcome, Depth, RuleOutcome, RuleResult, Verification
from flows.reporting.units import human_seconds, human_time

GOOD, BAD, UNPROVEN, UNTRIED = CheckOutcome.GOOD, CheckOutcome.BAD, CheckOutcome.UNPROVEN, CheckOutcome.UNTRIED

AXES = {
    Axis.BYTES: "stored bytes",
    Axis.RESTORABLE: "restore",
    Axis.DEFINITIONS: "definitions",
    Axis.QUALITY: "quality of data",
}
"""What people read for an axis."""
DEPTHS = {
    Depth.OBJECTS.value: "every object read",
    Depth.ROWS.value: "every row compared",
    Depth.RESTORED.value: "really restored",
}
"""And for how deep it was looked at."""
OUTCOMES = {GOOD: "good", BAD: "bad", UNPROVEN: "not proved", UNTRIED: "not tried"}
RULE_OUTCOMES = {RuleOutcome.HOLDS: "holds", RuleOutcome.BROKEN: "broken", RuleOutcome.UNJUDGED: "not judged"}
COUNTED = {RuleOutcome.HOLDS: "hold", RuleOutcome.BROKEN: "broken", RuleOutcome.UNJUDGED: "not judged"}

_PHRASES = {
    (Axis.BYTES, GOOD): "its stored bytes are what was stored",
    (Axis.BYTES, BAD): "its stored bytes are damaged",
    (Axis.BYTES, UNPROVEN): "not all of its stored bytes could be read",
    (Axis.BYTES, UNTRIED): "its stored bytes were not read",
    (Axis.RESTORABLE, GOOD): "it was restored and came back the same",
    (Axis.RESTORABLE, BAD): "it cannot be restored as it was",
    (Axis.RESTORABLE, UNPROVEN): "a restore could not be tried",
    (Axis.RESTORABLE, UNTRIED): "a restore was not tried",
    (Axis.DEFINITIONS, GOOD): "its definitions came back as they were",
    (Axis.DEFINITIONS, BAD): "its definitions are not as they were",
    (Axis.DEFINITIONS, UNPROVEN): "its definitions could not be compared",
    (Axis.DEFINITIONS, UNTRIED): "its definitions were not compared",
    (Axis.QUALITY, GOOD): "its data are as expected",
    (Axis.QUALITY, BAD): "its data are not as expected",
    (Axis.QUALITY, UNPROVEN): "not all of its data could be judged",
    (Axis.QUALITY, UNTRIED): "its data were not judged",
}
_HEADLINES = {BAD: "Not good", GOOD: "Proved good", UNPROVEN: "Proved in part", UNTRIED: "Not proved"}

_LONG_TEXT = 160
_MOST_EXAMPLES = 5


def known(result: Verification | None) -> Verdict:
    """Return what is known of a backup after a verification, as its record says; of none, nothing."""
    if result is None:
        return Verdict()
    return Verdict(recorded_standing(result) or standing_after({}, result, result.sequence or 0))


def overall(verdict: Verdict) -> CheckOutcome:
    """Return what four axes amount to: bad where one is, good where all are, else what was proved in part."""
    outcomes = {verdict.outcome(axis) for axis in Axis}
    if BAD in outcomes:
        return BAD
    return outcomes.pop() if len(outcomes) == 1 else UNPROVEN


def headline(verdict: Verdict) -> str:
    """Return the verdict in two or three words."""
    return _HEADLINES[overall(verdict)]


def sentence(verdict: Verdict) -> str:
    """Say what is wrong, what was proved and what was not, in this order, as the rest of a sentence."""
    order = (BAD, GOOD, UNPROVEN, UNTRIED)
    phrases = [_PHRASES[axis, said] for said in order for axis in Axis if verdict.outcome(axis) is said]
    wrong = len(verdict.bad)
    return "; ".join(", ".join(group) for group in (phrases[:wrong], phrases[wrong:]) if group)


def findings(result: Verification, verdict: Verdict | None = None) -> list[str]:
    """Return all that is wrong, a sentence each; what other verifications found, and still stands, comes last.

    Args:
        result: A verification.
        verdict: What is known; None for what is known after that verification.
    """
    stood = known(result) if verdict is None else verdict
    found = _with_rules(result.findings, [rule for rule in result.rules if is_finding(rule)])
    for axis in stood.bad:
        stands = stood.axes[axis]
        own = stands.sequence == (result.sequence or 0) or (axis is Axis.BYTES and stood.bad_base is not None)
        since = "" if own else f" (found by verification {stands.sequence:,})"
        found += [f"{text}{since}" for text in stands.findings if text not in result.findings]
    return found


def warnings(result: Verification) -> list[str]:
    """Return all that is odd, and broken expectations that are not critical; what was not proved is said elsewhere."""
    weak = [r for r in result.rules if r.outcome is RuleOutcome.BROKEN and not is_finding(r)]
    elsewhere = {reason for _, reason in unproved(result, known(result))}
    return _with_rules([text for text in result.warnings if text not in elsewhere], weak)


def is_finding(rule: RuleResult) -> bool:
    """Whether an expectation makes a verification fail."""
    return rule.outcome is RuleOutcome.BROKEN and rule.severity == "critical"


def _with_rules(sentences: Sequence[str], rules: Sequence[RuleResult]) -> list[str]:
    """Add the expectations that no sentence tells; a severity may stand before it, so that only the end is compared."""
    told = {text for sentence in sentences for text in (sentence, sentence.partition(": ")[2])}
    return [*sentences, *(rule_text(rule) for rule in rules if rule_text(rule) not in told)]


def rule_text(rule: RuleResult) -> str:
    """Say what came of an expectation: its sentence, or where it has none what it is and how it ended."""
    return rule.sentence or f"{rule.collection}: {rule_name(rule)} {RULE_OUTCOMES[rule.outcome]}"


def rule_name(rule: RuleResult) -> str:
    """Name an expectation with its columns."""
    return rule.rule + (f" on {', '.join(rule.columns)}" if rule.columns else "")


def examples_text(rule: RuleResult) -> str:
    """Name some rows that are not as expected, where the plan allows it."""
    shown = [clipped(key, 60) for key in rule.examples[:_MOST_EXAMPLES]]
    more = [f"and {len(rule.examples) - len(shown):,} more"] if len(rule.examples) > len(shown) else []
    return ", ".join([*shown, *more])


def share(rule: RuleResult) -> float | None:
    """Return which part of the rows is not as expected, from 0 to 1; None where they were not counted."""
    if rule.unexpected is None or rule.total is None:
        return None
    return rule.unexpected / rule.total if rule.total else 0.0


def share_text(rule: RuleResult) -> str:
    """Say how many of how many rows are not as expected; nothing where they were not counted."""
    part = share(rule)
    return "" if part is None else f"{rule.unexpected:,} of {rule.total:,} ({percent(part)})"


def percent(part: float) -> str:
    """Write a part of a whole, from 0 to 1; what is little is not rounded to none, nor what is much to all."""
    if 0 < part < 0.0001:
        return "< 0.01 %"
    if 0.9999 < part < 1:
        return "> 99.99 %"
    return f"{part * 100:.2f}".rstrip("0").rstrip(".") + " %"


def value_text(value: JsonValue) -> str:
    """Write a value that was observed."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return float_text(value)
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def float_text(value: float) -> str:
    """Write a number to six digits."""
    if math.isfinite(value) and 1e6 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.6g}"


def clipped(text: str, most: int = _LONG_TEXT) -> str:
    """Cut a long text in its middle, and write out what would not be seen or would turn text around."""
    seen = "".join(_seen(character) for character in (text if len(text) <= most else _cut(text, most)))
    return seen if len(seen) <= 2 * most else _cut(seen, 2 * most)


def _cut(text: str, most: int) -> str:
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def _seen(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    return character


def unproved(result: Verification | None, verdict: Verdict) -> list[tuple[str, str]]:
    """Return what is not proved and why: axes that are neither good nor bad, and expectations that judge nothing."""
    found = [("history", verdict.doubt)] if verdict.doubt is not None else []
    rules = result.rules if result is not None else ()
    broken = {f"{r.severity}: {rule_text(r)}" for r in rules if r.outcome is RuleOutcome.BROKEN}
    for axis in Axis:
        came_to = verdict.outcome(axis)
        if came_to not in (UNPROVEN, UNTRIED):
            continue
        reasons = [text for text in verdict.axes[axis].findings if text not in broken] if axis in verdict.axes else []
        found += [(AXES[axis], reason) for reason in reasons or [_reason(result, axis, came_to)]]
    told = "\n".join(reason for _, reason in found)
    unjudged = [rule for rule in rules if rule.outcome is RuleOutcome.UNJUDGED]
    return found + [(AXES[Axis.QUALITY], rule_text(rule)) for rule in unjudged if rule_text(rule) not in told]


def verified_text(result: Verification) -> str:
    """Say when a verification was made, what it read, and how long it took."""
    number = f" (number {result.sequence:,} of this backup)" if result.sequence else ""
    how = "restored to a scratch store and compared" if result.deep else "compared with its index"
    restored = "" if result.restore_seconds is None else f", the restore {human_seconds(result.restore_seconds)}"
    when = f"Verified {human_time(result.verified_at)}{number}: {result.rows:,} rows {how}"
    return f"{when}; took {human_seconds(result.seconds)}{restored}."


def _reason(result: Verification | None, axis: Axis, outcome: CheckOutcome) -> str:
    if outcome is UNPROVEN:
        return _PHRASES[axis, outcome]
    if result is None:
        return "it was never verified: `lastgood verify` does that"
    if axis is Axis.QUALITY:
        return "no suite of the plan was evaluated"
    if axis is Axis.BYTES or result.deep:
        return "this was not looked at"
    return "it was not restored: `lastgood verify --deep` does that"
