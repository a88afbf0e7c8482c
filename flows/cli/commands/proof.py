"""The proof command: a page of what was proved of a backup, from records alone. It needs no Prefect server."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from flows.cli import options
from flows.cli.output import say
from flows.cli.running import open_plan
from flows.reporting.evidence import plan_evidence
from flows.reporting.page_files import check_page, write_page
from flows.reporting.proof_page import proof_page
from flows.restoring.places import check_output


def proof_arguments(command: ArgumentParser) -> None:
    """Declare what `proof` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.value(command, "--out", "FILE", "Where to write the page.", required=True, type=Path)


def proof(plan: str, backup: str, *, out: Path) -> None:
    """Write what was proved of a backup as one page of HTML, from the records of its verifications; nothing is read."""
    check_page(out)
    opened = open_plan(plan)
    check_output(opened, out)
    evidence = plan_evidence(opened, backup)
    write_page(out, proof_page(evidence))
    say(f"what was proved of {evidence.backup.backup_id} is told in {out}")


COMMAND = options.Command("Write what was proved of a backup as a page of HTML.", proof_arguments, proof)
