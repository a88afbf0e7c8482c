"""docs/proof.md, as it is written from what was found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.proof.campaign import ALONE, CAREFUL, LEVELS, Found
from tests.proof.forgeries import FORGERIES, Forgery
from tests.proof.planted import BOOKS, CACHE, FEEDS, LEDGER, Fault

PROOF = Path(__file__).parents[2] / "docs" / "proof.md"
INTRODUCTION = Path(__file__).with_name("introduction.md")
STORES = {
    "PostgreSQL": BOOKS,
    "SQLite": LEDGER,
    "Redis": CACHE,
    "Files": FEEDS,
}

_COUNTED = tuple(f"| {store} | " for store in (*STORES, "all"))
_CHANGING = (
    (re.compile(r"\b(FUL|DIF|INC|SNA|EME)_\d{8}_\d{6}_[0-9a-f]{4}\b"), r"\1_…"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?UTC|Z|[+-]\d\d(:?\d\d)?)?"), "…"),
    (re.compile(r"\d{8}T\d{6}\.\d{6}Z"), "…"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "…"),
    (re.compile(r"bytes \d+ to \d+"), "bytes … to …"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "…"),
    (re.compile(r"\b[0-9a-f]{32,64}\b"), "…"),
)
"""What is another one each time: ids, times, sizes of sealed blobs, ports and digests."""


@dataclass(frozen=True)
class Results:
    """What was found.

    Attributes:
        faults: By the name of a fault and a level what was said.
        forgeries: By the name of a forgery what was said on the machine that made the backups, and on another one.
    """

    faults: Mapping[str, Mapping[str, Sequence[Found]]]
    forgeries: Mapping[str, tuple[Sequence[Found], Sequence[Found]]]


def settled(sentence: str) -> str:
    """Leave out of a sentence what is another one each time, and what a table does not take."""
    for pattern, by in _CHANGING:
        sentence = pattern.sub(by, sentence)
    return sentence.replace("|", "\\|").replace("\n", " ")


def best(found: Sequence[Found]) -> Found | None:
    """The sentence that says most: a finding rather than a warning, and of these the first."""
    return min(found, key=lambda one: not one.bad, default=None)


def _by(found: Sequence[Found]) -> str:
    """What finds it, in a cell: the rule, or the axis of a check that has none; in italics where it only warns."""
    one = best(found)
    if one is None:
        return "–"
    name = f"`{one.rule}`" if one.rule and one.rule != one.axis else one.axis
    return name if one.bad else f"*{name}*"


def render(results: Results) -> str:
    """Write the whole document."""
    return "\n".join([INTRODUCTION.read_text().rstrip(), "", *_counts(results), *_live(results), *_forged(results)])


def without_suggested(text: str) -> str:
    """Leave out of the document what the suggested suites found, which `make test` does not try."""
    lines = text.splitlines()
    column = lines.index(f"| fault | {' | '.join(LEVELS)} | what it says |")
    cells = [line.split(" | ") if number > column else [line] for number, line in enumerate(lines)]
    kept = [" | ".join((*some[:2], *some[3:])) if len(some) == 5 else " | ".join(some) for some in cells]
    return "\n".join(line for line in kept if not line.startswith(_COUNTED))


def _counts(results: Results) -> list[str]:
    lines = ["## How many are found", "", f"| faults of | planted | {' | '.join(LEVELS)} |", "|---|---|---|---|---|"]
    everything: dict[str, Sequence[Fault]] = {**STORES, "all": [one for some in STORES.values() for one in some]}
    for store, faults in everything.items():
        counts = [sum(bool(results.faults[fault.name][level]) for fault in faults) for level in LEVELS]
        lines.append(f"| {store} | {len(faults)} | {' | '.join(map(str, counts))} |")
    here = sum(bool(here) for here, _ in results.forgeries.values())
    elsewhere = sum(bool(elsewhere) for _, elsewhere in results.forgeries.values())
    lines += ["", "| forgeries | done | on the machine that made the backups | on another one |", "|---|---|---|---|"]
    return [*lines, f"| | {len(results.forgeries)} | {here} | {elsewhere} |", ""]


def _live(results: Results) -> list[str]:
    lines = []
    for store, faults in STORES.items():
        lines += [f"## What went wrong in {store}", ""]
        lines += [f"| fault | {' | '.join(LEVELS)} | what it says |", "|---|---|---|---|---|"]
        lines += [_line(fault, results.faults[fault.name]) for fault in faults]
        lines.append("")
    return lines


def _line(fault: Fault, found: Mapping[str, Sequence[Found]]) -> str:
    # in the words of the checks that need no suite, or else of the careful one
    first = best(found[ALONE]) or best(found[CAREFUL])
    says = settled(first.sentence) if first else f"Cannot be known: {fault.unknowable}"
    return f"| {fault.what} | {' | '.join(_by(found[level]) for level in LEVELS)} | {says} |"


def _forged(results: Results) -> list[str]:
    lines = ["## What a writer with keys did to the repository", ""]
    lines += ["| forgery | on the machine that made the backups | on another one | what it says |", "|---|---|---|---|"]
    return [*lines, *(_forged_line(one, *results.forgeries[one.name]) for one in FORGERIES), ""]


def _forged_line(forgery: Forgery, here: Sequence[Found], elsewhere: Sequence[Found]) -> str:
    first = best(elsewhere) or best(here)
    says = settled(first.sentence) if first else ""
    if not elsewhere:
        where = "Elsewhere it" if here else "It"
        says = f"{says}{' ' if says else ''}{where} cannot be known: {forgery.unknowable}"
    return f"| {forgery.what} | {_who(here)} | {_who(elsewhere)} | {says} |"


def _who(found: Sequence[Found]) -> str:
    """Which commands and axes say so."""
    names = {f"`{one.axis}`" if one.axis == "check" else one.axis: one.bad for one in reversed(found)}
    return ", ".join(name if bad else f"*{name}*" for name, bad in sorted(names.items())) or "–"
