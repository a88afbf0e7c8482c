"""What was proved of a backup, in words: the same in the page of results and in the artifact of a run."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from blocks.records import BackupStatus
from blocks.verification import Axis, CheckOutcome, Depth, RuleOutcome, RuleResult, Standing, Verification
from flows.reporting.units import human_seconds, human_time

GOOD, BAD, UNPROVEN, UNTRIED = CheckOutcome.GOOD, CheckOutcome.BAD, CheckOutcome.UNPROVEN, CheckOutcome.UNTRIED

AXES = {
    Axis.BYTES: "Stored bytes",
    Axis.RESTORABLE: "Restore",
    Axis.DEFINITIONS: "Definitions",
    Axis.QUALITY: "Quality of data",
}
OUTCOMES = {GOOD: "good", BAD: "bad", UNPROVEN: "not proved", UNTRIED: "not looked at"}
DEPTHS = {
    "": "",
    Depth.OBJECTS.value: "every object",
    Depth.ROWS.value: "every row",
    Depth.RESTORED.value: "restored and read",
}
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


def known(result: Verification | None) -> dict[Axis, Standing]:
    """Return what is known of a backup on each axis after a verification; of none, nothing was looked at.

    Where the record of the verification says no more, it is what that verification found by itself.
    """
    return {axis: _known(result, axis) for axis in Axis} if result is not None else {}


def _known(result: Verification, axis: Axis) -> Standing:
    if axis.value in result.standing:
        return result.standing[axis.value]
    if axis.value in result.results:
        found = result.results[axis.value]
        outcome, depth, findings = found.outcome, found.depth, found.findings
    else:
        outcome, depth = _before_axes(result, axis)
        findings = result.findings if outcome is BAD else ()
    return Standing(
        outcome=outcome, depth=depth, sequence=result.sequence or 0, verified_at=result.verified_at, findings=findings
    )


def _before_axes(result: Verification, axis: Axis) -> tuple[CheckOutcome, str]:
    """Read a record that knows no axes: it says one status, and whether the verification was a deep one."""
    damaged = result.status is BackupStatus.CORRUPTED
    if axis is Axis.BYTES:
        return BAD if damaged else GOOD, Depth.ROWS.value
    if axis is Axis.RESTORABLE and result.deep and result.status is BackupStatus.VERIFIED:
        return GOOD, Depth.RESTORED.value
    if axis is Axis.QUALITY and not damaged and (result.expectations or result.findings):
        return BAD if result.findings else GOOD, Depth.ROWS.value
    return UNTRIED, ""


def outcome(axes: Mapping[Axis, Standing], axis: Axis) -> CheckOutcome:
    """Return what is known on one axis."""
    return axes[axis].outcome if axis in axes else UNTRIED


def overall(axes: Mapping[Axis, Standing]) -> CheckOutcome:
    """Return what four axes amount to: bad where one is, good where all are, else what was proved in part."""
    outcomes = {outcome(axes, axis) for axis in Axis}
    if BAD in outcomes:
        return BAD
    if len(outcomes) == 1:
        return outcomes.pop()
    return UNPROVEN


def headline(axes: Mapping[Axis, Standing]) -> str:
    """Return the verdict in two or three words."""
    return _HEADLINES[overall(axes)]


def sentence(axes: Mapping[Axis, Standing]) -> str:
    """Say what is wrong, what was proved and what was not, in this order, as the rest of a sentence."""
    outcomes = {axis: outcome(axes, axis) for axis in Axis}
    order = (BAD, GOOD, UNPROVEN, UNTRIED)
    phrases = [_PHRASES[axis, said] for said in order for axis, came_to in outcomes.items() if came_to is said]
    wrong = sum(came_to is BAD for came_to in outcomes.values())
    listed = [", ".join(group) for group in (phrases[:wrong], phrases[wrong:]) if group]
    return "; ".join(listed)


def findings(result: Verification, axes: Mapping[Axis, Standing] | None = None) -> list[str]:
    """Return all that is wrong, a sentence each; what other verifications found, and still stands, comes last.

    Args:
        result: A verification.
        axes: What is known; None for what is known after that verification.
    """
    stood = known(result) if axes is None else axes
    earlier = [each for each in stood.values() if each.sequence != (result.sequence or 0)]
    stands = [(each.sequence, text) for each in earlier if each.outcome is BAD for text in each.findings]
    return [
        *_with_rules(result.findings, [rule for rule in result.rules if is_finding(rule)]),
        *(f"{text} (found by verification {number:,})" for number, text in stands if text not in result.findings),
    ]


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


def unproved(result: Verification | None, axes: Mapping[Axis, Standing]) -> list[tuple[str, str]]:
    """Return what is not proved and why: axes that are neither good nor bad, and expectations that judge nothing."""
    found: list[tuple[str, str]] = []
    rules = result.rules if result is not None else ()
    broken = {f"{r.severity}: {rule_text(r)}" for r in rules if r.outcome is RuleOutcome.BROKEN}
    for axis in Axis:
        came_to = outcome(axes, axis)
        if came_to not in (UNPROVEN, UNTRIED):
            continue
        said = result.results.get(axis.value) if result is not None else None
        reasons = [text for text in said.warnings if text not in broken] if said and came_to is UNPROVEN else []
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
