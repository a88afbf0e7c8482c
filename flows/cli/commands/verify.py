"""The verify command: prove that a backup can be restored and is good data."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import CorruptionDetected, LastgoodError, QualityFailed
from blocks.plan.plan import BackupPlan
from blocks.verification import Verification
from flows.cli import options
from flows.cli.output import fields, note, say, say_json
from flows.cli.render import status_text
from flows.cli.running import open_plan, run_reference, run_verb
from flows.pipeline.progress import Progress
from flows.reporting.evidence import plan_evidence
from flows.reporting.page_files import check_page, write_page
from flows.reporting.proof_page import proof_page
from flows.reporting.units import human_seconds
from flows.verify import failure, make_verification, unproved
from flows.verify import verify as verify_flow


def verify_arguments(command: ArgumentParser) -> None:
    """Declare what `verify` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.flag(command, "--deep", "Also restore to a scratch folder and compare that.")
    options.value(command, "--report", "FILE", "Also write what was proved as a page of HTML.", type=Path)
    options.no_server(command)
    options.json(command)


def verify(plan: str, backup: str, *, deep: bool, report: Path | None, no_server: bool, json: bool) -> None:
    """Prove that a backup can be restored: fetch, open, merge, compare every row, run the quality suites."""
    if report is not None:
        check_page(report)
    opened, began = open_plan(plan), datetime.now(UTC)
    parameters = {"plan": run_reference(plan), "backup": backup, "deep": deep}
    try:
        result = run_verb(verify_flow, lambda progress: _proved(opened, backup, deep, progress), no_server, parameters)
    except (CorruptionDetected, QualityFailed) as exc:
        if failed := unproved(exc) or _recorded(opened, backup, began):
            _show(failed, json)
            _report_failure(opened, failed, report)
        raise
    _show(result, json)
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
        note(f"warning: {exc.message}")


def _proved(plan: BackupPlan, backup: str, deep: bool, progress: Progress) -> Verification:
    result = make_verification(plan, backup, deep, progress)
    if error := failure(result):
        raise error
    return result


def _recorded(plan: BackupPlan, backup: str, since: datetime) -> Verification | None:
    """Return what a failed verification left, so that all its findings are shown."""
    repository = plan.repository.unlock(plan.encryption)
    try:
        found = repository.verifications(plan.name, repository.find(plan.name, backup).backup_id)
    except LastgoodError:
        return None  # it failed before there was a backup to verify; that error is shown
    return found[-1] if found and found[-1].verified_at >= since else None


def _show(result: Verification, json: bool) -> None:
    if json:
        say_json(result.model_dump(mode="json", exclude={"format_version"}))
        return
    say(
        fields(
            [
                ("backup", result.backup_id),
                ("status", status_text(result.status)),
                ("how", "restored to a scratch folder and compared" if result.deep else "compared with its index"),
                ("rows", f"{result.rows:,}"),
                ("expectations", f"{result.expectations:,}"),
                ("took", human_seconds(result.seconds)),
            ]
        )
    )
    for finding in result.findings:
        say(f"found: {finding}")
    for warning in result.warnings:
        note(f"warning: {warning}")


COMMAND = options.Command("Prove that a backup can be restored and is good data.", verify_arguments, verify)
