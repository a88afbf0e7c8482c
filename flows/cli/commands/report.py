"""The report command: how plans stand, as one page of HTML. It needs no Prefect server and no data key."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.errors import LastgoodError
from flows.cli import options
from flows.cli.exit import note_error_of
from flows.cli.output import say
from flows.cli.running import open_plan
from flows.reporting.page_files import check_page, write_page
from flows.restoring.places import check_output

if TYPE_CHECKING:  # no other command waits for what makes the page
    from flows.reporting.report_facts import PlanFacts

DEFAULT_FILE = Path("lastgood-report.html")


def report_arguments(command: ArgumentParser) -> None:
    """Declare what `report` takes."""
    command.add_argument(
        "plans", metavar="PLAN", nargs="+", help="Paths of YAML plans, or names of saved Backup Plan blocks."
    )
    text = f"Where to write the page; {DEFAULT_FILE} in this folder where it is not given."
    options.value(command, "--out", "FILE", text, default=DEFAULT_FILE, type=Path)


def report(plans: Sequence[str], *, out: Path) -> int:
    """Write how plans stand, what there is of them and what to do now as one page of HTML, from records alone.

    A plan that cannot be looked at is on the page with the reason; the exit code is then that of its error.
    """
    check_page(out)
    from flows.reporting.report_page import headline, report_page

    now = datetime.now(UTC)
    found = [_looked_at(reference, out, now) for reference in plans]
    facts = [one for one, _ in found]
    write_page(out, report_page(facts, now))
    say(headline(facts)[1])
    say(f"all else is told in {out}")
    return next((error.exit_code for _, error in found if error is not None), 0)


def _looked_at(reference: str, out: Path, now: datetime) -> tuple[PlanFacts, LastgoodError | None]:
    """Return what is told of a plan, and why it could not be looked at: the others are told all the same.

    Raises:
        ConfigurationError: The page would lie in the plan's repository or live state.
    """
    from flows.reading.report import read_facts

    try:
        plan = open_plan(reference)
    except LastgoodError as exc:
        return _unread(reference, exc)
    check_output(plan, out)
    try:
        return read_facts(plan, reference, now), None
    except LastgoodError as exc:
        return _unread(reference, exc)


def _unread(reference: str, error: LastgoodError) -> tuple[PlanFacts, LastgoodError]:
    from flows.reading.report import unread

    note_error_of(reference, error)
    return unread(reference, error), error


COMMAND = options.Command("Write how plans stand as a page of HTML.", report_arguments, report)
