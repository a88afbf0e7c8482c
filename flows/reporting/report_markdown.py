"""How a plan stands, as Markdown for the Prefect UI."""

from __future__ import annotations

from datetime import datetime

from flows.reporting.markdown import markdown_text
from flows.reporting.report_facts import PlanFacts
from flows.reporting.report_page import growth_words, health_words, objective_words, pieces, verified_words
from flows.reporting.units import human_time

MOST_LINES = 10
"""So many warnings are told; the rest is counted."""


def report_markdown(facts: PlanFacts, now: datetime) -> str:
    """Describe how a plan stands.

    Args:
        facts: What is told of it.
        now: As of when, aware.
    """
    rows = [
        ("RPO, newest good state", objective_words(facts.rpo)),
        ("RTO, time of a restore", objective_words(facts.rto)),
        ("verified", verified_words(facts, now)),
        ("backups", f"{len(facts.backups):,}"),
        *(growth_words(facts.growth) if facts.growth else ()),
    ]
    if facts.outlook is not None:
        rows += [(f"goes {one.when}", f"{one.backups:,} backups") for one in facts.outlook.leaving]
    wrong = [*facts.wrong, *facts.odd]
    told = [f"- {markdown_text(sentence, 300)}" for sentence in wrong[:MOST_LINES]]
    if len(wrong) > MOST_LINES:
        told.append(f"- and {len(wrong) - MOST_LINES:,} more")
    to_do = "".join(
        f"`{' '.join(text.split())}`" if command else markdown_text(text, 600) for text, command in pieces(facts.to_do)
    )
    lines = [f"# {markdown_text(facts.plan)}: {health_words(facts.health)}", to_do, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in rows]
    lines += ["", "## Open warnings", *told] if told else []
    return "\n".join([*lines, "", f"As of {human_time(now)}."])
