"""The verify command: prove that a backup can be restored and is good data."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from blocks.errors import LastgoodError
from blocks.host.log_lines import told_of
from blocks.plan.plan import BackupPlan
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Verification
from flows.cli import options
from flows.cli.due import verify_due
from flows.cli.manner import manner
from flows.cli.output import note, say, say_json, say_sentence, warn
from flows.cli.render import outcome_text, status_text
from flows.cli.running import open_plan, run_reference, run_verb
from flows.cli.tables import Styled, fields
from flows.pipeline.progress import Progress
from flows.proving.failure import failure, unproved
from flows.reporting.evidence import plan_evidence
from flows.reporting.moments import local_time
from flows.reporting.page_files import check_page, write_page
from flows.reporting.proof_page import proof_page
from flows.reporting.units import human_seconds
from flows.reporting.wording import AXES, DEPTHS, known
from flows.restoring.places import check_output
from flows.verify import make_verification
from flows.verify import verify as verify_flow


def verify_arguments(command: ArgumentParser) -> None:
    """Declare what `verify` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.flag(command, "--deep", "Also restore to a scratch folder and compare that.")
    options.flag(command, "--due", "Prove what is due: the latest backup deeply, and others in turn (prove_within).")
    options.flag(command, "--all", "Prove all backups, whenever they were proved.")
    options.value(command, "--report", "FILE", "Also write what was proved as a page of HTML.", type=Path)
    options.no_server(command)
    options.json(command)


def verify(
    plan: str,
    backup: str,
    *,
    deep: bool,
    due: bool,
    all: bool,
    report: Path | None,
    no_server: bool,
    json: bool,
) -> None:
    """Prove that a backup can be restored: fetch, open, merge, compare every row, run the quality suites."""
    if due or all:
        return verify_due(plan, backup, report, everything=all, no_server=no_server, json=json)
    if report is not None:
        check_page(report)
    opened = open_plan(plan)
    if report is not None:
        check_output(opened, report)
    parameters = {"plan": run_reference(plan), "backup": backup, "deep": deep}
    try:
        result = run_verb(verify_flow, lambda progress: _proved(opened, backup, deep, progress), no_server, parameters)
    except LastgoodError as exc:
        if failed := unproved(exc):  # else it failed before anything was proved
            _show(failed, json)
            _warn(failed, json)
            _report_failure(opened, failed, report)
        raise
    if isinstance(result, Verification):
        if json or not manner().quiet:
            _show(result, json)
        _warn(result, json)
        _write_report(opened, result, report)


def _write_report(plan: BackupPlan, result: Verification, report: Path | None) -> None:
    if report is not None:
        write_page(report, proof_page(plan_evidence(plan, result.backup_id, result)))
        note(f"report: {report}")


def _report_failure(plan: BackupPlan, failed: Verification, report: Path | None) -> None:
    """Write the report of a verification that failed; that, and not what is wrong with a file, is the error."""
    try:
        _write_report(plan, failed, report)
    except LastgoodError as exc:
        warn(exc.message)


def _proved(plan: BackupPlan, backup: str, deep: bool, progress: Progress) -> Verification:
    result = make_verification(plan, backup, deep, progress)
    if error := failure(result):
        raise error
    return result


def _show(result: Verification, json: bool) -> None:
    if json:
        say_json(result.model_dump(mode="json", include=set(Verification.model_fields) - {"format_version"}))
        return
    stands = known(result)
    say(
        fields(
            [
                ("backup", result.backup_id),
                ("status", status_text(stands.status or result.status)),
                ("how", "restored to a scratch folder and compared" if result.deep else "compared with its index"),
                *((AXES[axis], _found(result, axis, stands)) for axis in Axis),
                ("rows", f"{result.rows:,}"),
                ("expectations", f"{result.expectations:,}"),
                ("restored in", "" if result.restore_seconds is None else human_seconds(result.restore_seconds)),
                ("took", human_seconds(result.seconds)),
            ]
        )
    )
    for finding in result.findings:
        say_sentence(f"found: {finding}")


def _warn(result: Verification, json: bool) -> None:
    """Print the warnings, which JSON has already."""
    with told_of("verification", result.backup_id):
        for warning in () if json else result.warnings:
            warn(warning)


def _found(result: Verification, axis: Axis, stands: Verdict) -> str | Styled:
    """Say what this verification came to on an axis, and what stands where that is something else."""
    found = result.results.get(axis.value)
    outcome = CheckOutcome.UNTRIED if found is None else found.outcome
    depth = DEPTHS.get(found.depth, "") if found else ""
    said = "not tried" if outcome is CheckOutcome.UNTRIED else f"{outcome.value}{depth and f', {depth}'}"
    before = stands.axes.get(axis)
    if before is None or before.sequence == (result.sequence or 0) or before.outcome is outcome:
        return Styled(said, outcome_text(outcome).style)
    when, how = local_time(before.verified_at), DEPTHS.get(before.depth, "")
    more = f"{said}; {before.outcome.value} by verification {before.sequence} of {when}{how and f' ({how})'}"
    return Styled(more, outcome_text(before.outcome).style)


COMMAND = options.Command("Prove that a backup can be restored and is good data.", verify_arguments, verify)
