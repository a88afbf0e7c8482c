"""The report of plans as one page of HTML: what to do now, and for each plan what that rests on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from blocks.verification import Axis, CheckOutcome
from blocks.version import VERSION
from flows.reporting.html_pages import Bounded, bounded, environment
from flows.reporting.moments import ago
from flows.reporting.report_facts import UNKNOWN, AxisFacts, Growth, Mark, MarkedBackup, Objective, Outlook, PlanFacts
from flows.reporting.timeline import WORDS, Gap, GrowthChart, gaps, growth_chart, timelines
from flows.reporting.units import human_bytes, human_seconds, human_span, human_time
from flows.reporting.wording import AXES, DEPTHS, OUTCOMES

MAX_BYTES = 500_000
"""A page is never larger."""
AHEAD = (30, 90)
"""After how many days it is told what will be stored."""

_LONG_SENTENCE = 110
"""What is longer is not written in large letters."""
_AT_EASE = 3
"""So many plans fit without any bound."""
_TEMPLATE = "report_page.html.jinja"


@dataclass(frozen=True)
class _Look:
    """How a plan's health is shown: never by its colour alone."""

    word: str
    mark: str
    style: str


_LOOKS = {
    "good": _Look("good", "✓", "good"),
    "unproved": _Look("not proved", "?", "unproven"),
    "suspicious": _Look("suspicious", "!", "unproven"),
    "stale": _Look("late", "!", "bad"),
    "damaged": _Look("damaged", "✗", "bad"),
    UNKNOWN: _Look("not readable", "✗", "bad"),
}
_WORST_FIRST = list(reversed(_LOOKS))
_OUTCOMES = {CheckOutcome.GOOD: "✓", CheckOutcome.BAD: "✗", CheckOutcome.UNPROVEN: "?", CheckOutcome.UNTRIED: "–"}
_NEVER = {"style": "unproven", "mark": "?", "word": "not proved", "said": "no backup was verified"}
_GOOD = {"style": "good", "mark": "✓", "word": "found good"}
_NOT_GOOD = {"style": "bad", "mark": "✗", "word": "not found good"}
_MINUTE = 60
_MARKED = {
    Mark.VERIFIED: "good",
    Mark.COMPLETED: "untried",
    Mark.SUSPICIOUS: "unproven",
    Mark.WRONG: "bad",
    Mark.CORRUPTED: "bad",
}


@dataclass(frozen=True)
class _Bounds:
    """How much is shown; how much there is more is said."""

    listed: int = 500
    plans: int = 100
    rows: int = 60
    lines: int = 20
    coarser: int = 1

    def tighter(self) -> _Bounds:
        return _Bounds(
            # one line of each plan is worth more than all of a few
            listed=self.listed if self.plans > 3 else max(1, self.listed * 2 // 3),
            plans=max(1, self.plans * 3 // 4),
            rows=max(3, self.rows // 2),
            lines=max(3, self.lines // 2),
            coarser=self.coarser * 2,
        )


def report_page(plans: Sequence[PlanFacts], now: datetime) -> str:
    """Make the page, of less than `MAX_BYTES` bytes in UTF-8.

    Args:
        plans: What is told of each.
        now: As of when, aware.
    """
    template = environment().get_template(_TEMPLATE)
    bounds = _Bounds()
    for _ in range(int(math.log2(max(1, len(plans) / _AT_EASE)))):
        bounds = bounds.tighter()
    while len((page := template.render(_view(plans, now, bounds))).encode()) >= MAX_BYTES:
        bounds = bounds.tighter()
    return page


def headline(plans: Sequence[PlanFacts]) -> tuple[str, str]:
    """Return the health of the worst of some plans, and what to do now, in one sentence."""
    worst = min(plans, key=lambda one: _WORST_FIRST.index(one.health), default=None)
    if worst is None:
        return UNKNOWN, "There is no plan to look at."
    if len(plans) == 1:
        return worst.health, worst.to_do
    if worst.health == "good":
        return worst.health, f"Nothing: all {len(plans):,} plans are good."
    return worst.health, f"{worst.plan}: {worst.to_do}"


def health_words(health: str) -> str:
    """Return a plan's health with its mark, in words."""
    return f"{_LOOKS[health].mark} {_LOOKS[health].word}"


def objective_words(objective: Objective) -> str:
    """Return what was measured against what target, and whether that is met, in words."""
    told = _objective(objective)
    return "; ".join(filter(None, (f"{told['value']}, {told['mark']} {told['word']}", told["target"], objective.said)))


def verified_words(facts: PlanFacts, now: datetime) -> str:
    """Return when a backup was verified last, and what came of it, in words."""
    told = _verified(facts, now)
    return f"{told['value']}, {told['mark']} {told['word']}: {told['said']}"


def growth_words(growth: Growth) -> list[tuple[str, str]]:
    """Return what is stored, now and later, each under its name."""
    told = _growth(growth)
    now = ", ".join(filter(None, (told["stored"], told["speed"])))
    later = [(f"stored {when}", size) for when, size in told["later"]]
    return [("stored", now), *later, ("no room left", told["full"])]


def _view(plans: Sequence[PlanFacts], now: datetime, bounds: _Bounds) -> dict[str, Any]:
    """Return what the template shows."""
    health, sentence = headline(plans)
    ordered = sorted(plans, key=lambda one: _WORST_FIRST.index(one.health))
    counted = Counter(one.health for one in ordered)
    several = len(plans) > 1
    told = ", ".join(f"{counted[one]:,} {_LOOKS[one].word}" if several else _LOOKS[one].word for one in counted)
    about = f"{len(plans):,} plans" if len(plans) != 1 else plans[0].plan
    views = [_plan(number, one, now, bounds) for number, one in enumerate(ordered[: bounds.plans], 1)]
    return {
        "look": _LOOKS[health],
        "sentence": pieces(sentence),
        "long": len(sentence) > _LONG_SENTENCE,
        "title": f"{_LOOKS[health].word.capitalize()}: {about}",
        "told": f"{about}: {told}",
        "warnings": _open(sum(len(one.wrong) + len(one.odd) for one in plans)),
        "now": human_time(now),
        "version": VERSION,
        "plans": Bounded(views, len(plans)),
        "listed": bounded([_listed(number, one, now, bounds) for number, one in enumerate(ordered, 1)], bounds.listed),
        "legend": [(mark.value, WORDS[mark]) for mark in Mark if _is_shown(mark, plans)],
    }


def _is_shown(mark: Mark, plans: Sequence[PlanFacts]) -> bool:
    usual = (Mark.VERIFIED, Mark.COMPLETED)
    return mark in usual or any(one.mark is mark for plan in plans for one in plan.backups)


def _open(warnings: int) -> str:
    return f"{warnings:,} open warning{'' if warnings == 1 else 's'}" if warnings else ""


def pieces(sentence: str) -> list[tuple[str, bool]]:
    """Split a sentence into words and commands, which stand between backquotes."""
    return [(piece, bool(number % 2)) for number, piece in enumerate(sentence.split("`")) if piece]


def _late(facts: PlanFacts, now: datetime) -> list[Gap]:
    """Return the times without a good backup, as far as what is there now tells of them."""
    found = gaps(facts.backups, now, facts.rpo.target)
    return [one for one in found if facts.whole_since is None or one.good_at > facts.whole_since]


def _listed(number: int, facts: PlanFacts, now: datetime, bounds: _Bounds) -> dict[str, Any]:
    """Return one line of the list of plans; its name is a link where more of it is told."""
    known, good = facts.health != UNKNOWN, facts.rpo.measured
    return {
        "id": f"plan-{number}" if number <= bounds.plans else "",
        "name": facts.plan,
        "look": _LOOKS[facts.health],
        "to_do": pieces(facts.to_do),
        "newest": "" if not known else "none" if good is None else f"{_length(good)} old",
        "verified": _verified(facts, now)["value"] if known else "",
        "warnings": f"{len(facts.wrong) + len(facts.odd):,}" if known else "",
        "stored": human_bytes(facts.growth.stored) if facts.growth else "",
    }


def _plan(number: int, facts: PlanFacts, now: datetime, bounds: _Bounds) -> dict[str, Any]:
    return {
        "id": f"plan-{number}",
        "name": facts.plan,
        "look": _LOOKS[facts.health],
        "readable": facts.health != UNKNOWN,
        "to_do": pieces(facts.to_do),
        "repository": facts.repository,
        "count": f"{len(facts.backups):,}",
        "rpo": _objective(facts.rpo),
        "rto": _objective(facts.rto),
        "verified": _verified(facts, now),
        "next_due": "" if facts.next_due is None else ago(facts.next_due, now),
        "growth": _growth(facts.growth) if facts.growth else None,
        "timelines": timelines(facts.backups, now, _late(facts, now), bounds.coarser) if facts.backups else [],
        "chosen": _chosen(facts.backups, now),
        "backups": _rows(facts.backups, bounds),
        "wrong": bounded(facts.wrong, bounds.lines),
        "odd": bounded(facts.odd, bounds.lines),
        "axes": [_axis(one, now) for one in facts.axes],
        "outlook": _outlook(facts.outlook, bounds) if facts.outlook else None,
    }


def _objective(objective: Objective) -> dict[str, Any]:
    measured, target = objective.measured, objective.target
    met = objective.met
    where = "by the schedules" if objective.from_schedule else "target"
    shown: dict[str, Any] = {
        "value": "–" if measured is None else _length(measured),
        "target": "no target is set" if target is None else f"{where} {_length(target)}",
        "style": {True: "good", False: "bad", None: "untried"}[met],
        "mark": {True: "✓", False: "✗", None: "–"}[met],
        "word": {True: "met", False: "missed", None: "not measured" if measured is None else "no target"}[met],
        "said": objective.said,
        "filled": None,
        "at": None,
    }
    if measured is not None and target:
        most = max(measured, target)
        shown |= {"filled": round(100 * (measured / most), 1), "at": round(100 * (target / most), 1)}
    return shown


def _verified(facts: PlanFacts, now: datetime) -> dict[str, str]:
    if facts.verified is None:
        return {"value": "never", **_NEVER}
    backup_id, at, good = facts.verified
    return {"value": ago(at, now), **(_GOOD if good else _NOT_GOOD), "said": backup_id}


def _length(length: timedelta) -> str:
    """Write a length of time; what is short, to a tenth of a second."""
    seconds = length.total_seconds()
    return human_seconds(seconds) if seconds < _MINUTE else human_span(length)


def _growth(growth: Growth) -> dict[str, Any]:
    later = {days: size for days in AHEAD if (size := growth.after(days)) is not None}
    said = [(f"in {days} days", human_bytes(size)) for days, size in later.items()]
    speed = ""
    if growth.per_day is not None:
        way = "grows" if growth.per_day >= 0 else "shrinks"
        speed = f"{way} by {human_bytes(abs(growth.per_day))} a day"
    label = f"Stored over time: {human_bytes(growth.stored)} now"
    label += "".join(f", {size} {when}" for when, size in said) + "."
    shown = {days: size for days, size in later.items() if days == AHEAD[0] or growth.days > AHEAD[0] - 1}
    capacity = None if growth.free is None else growth.stored + growth.free
    chart: GrowthChart | None = growth_chart(growth.history, shown, capacity, growth.now, label)
    return {
        "stored": human_bytes(growth.stored),
        "speed": speed,
        "days": f"{growth.days:.0f}",
        "later": said,
        "free": "" if growth.free is None else human_bytes(growth.free),
        "full": _full(growth),
        "estimated": growth.estimated,
        "chart": chart,
    }


def _full(growth: Growth) -> str:
    if growth.free is None:
        return "not known"
    if growth.per_day is None:
        return "too early to tell"
    if (left := growth.full_in) is None:
        return "not as it goes now"
    if left > timedelta(days=3650):
        return "in more than ten years"
    return f"about {growth.now + left:%-d %B %Y}, in {human_span(left)}"


def _chosen(backups: Sequence[MarkedBackup], now: datetime) -> int:
    """Return which window is shown at first: the shortest that shows something."""
    age = timedelta(days=0) if not backups else now - backups[-1].at
    return next((days for days in (7, 30) if age < timedelta(days=days)), 90)


def _rows(backups: Sequence[MarkedBackup], bounds: _Bounds) -> dict[str, Any]:
    """Return the newest backups, and those that something stands against."""
    marked = [one for one in backups if one.mark not in (Mark.VERIFIED, Mark.COMPLETED)][-bounds.rows :]
    chosen = {one.backup_id for one in (*backups[-bounds.rows :], *marked)}
    shown = [one for one in reversed(backups) if one.backup_id in chosen]
    return {"shown": [_row(one) for one in shown], "more": len(backups) - len(shown)}


def _row(one: MarkedBackup) -> dict[str, Any]:
    return {
        "id": one.backup_id,
        "kind": one.kind.value,
        "at": f"{one.at:%Y-%m-%d %H:%M}",
        "base": one.base or "",
        "stored": human_bytes(one.size_stored),
        "mark": one.mark.value,
        "style": _MARKED[one.mark],
        "word": WORDS[one.mark],
        "why": list(one.why[:3]),
    }


def _axis(one: AxisFacts, now: datetime) -> dict[str, str]:
    good = "never" if one.last_good is None else ago(one.last_good, now)
    return {
        "name": AXES[Axis(one.axis)].capitalize(),
        "style": one.outcome.value,
        "mark": _OUTCOMES[one.outcome],
        "word": OUTCOMES[one.outcome],
        "depth": DEPTHS.get(one.depth, one.depth),
        "when": "" if one.at is None else ago(one.at, now),
        "backup": one.backup_id,
        "good": good,
    }


def _outlook(outlook: Outlook, bounds: _Bounds) -> dict[str, Any]:
    return {
        "leaving": [
            {
                "when": one.when,
                "backups": f"{one.backups:,}",
                "kinds": ", ".join(f"{number:,} {kind.value}" for kind, number in sorted(one.counts.items())),
                "stored": human_bytes(one.size_stored),
            }
            for one in outlook.leaving
        ],
        "first": bounded([(_row(one), when, why) for one, when, why in outlook.first], bounds.lines),
        "held": bounded([(_row(one), why) for one, why in reversed(outlook.held)], bounds.lines),
    }
