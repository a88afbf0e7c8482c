"""The verify command: prove that a backup can be restored and is good data."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime

from pydantic import JsonValue

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError, QualityFailed
from blocks.plan.plan import BackupPlan
from blocks.verification import Verification
from flows.cli import options
from flows.cli.output import fields, grid, note, say, say_json
from flows.cli.render import recovery_rows, status_text
from flows.cli.running import open_plan, run_reference, run_verb
from flows.pipeline.progress import Progress
from flows.proving.due import DueResult
from flows.reporting.units import human_seconds
from flows.verify import NotAllProved, failure, make_due, make_verification, unproved
from flows.verify import verify as verify_flow


def verify_arguments(command: ArgumentParser) -> None:
    """Declare what `verify` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.flag(command, "--deep", "Also restore to a scratch folder and compare that.")
    options.flag(command, "--due", "Prove what is due: the latest backup deeply, and others in turn (prove_within).")
    options.flag(command, "--all", "Prove all backups, whenever they were proved.")
    options.no_server(command)
    options.json(command)


def verify(
    plan: str,
    backup: str,
    *,
    deep: bool,
    due: bool,
    all: bool,
    no_server: bool,
    json: bool,
) -> None:
    """Prove that a backup can be restored: fetch, open, merge, compare every row, run the quality suites."""
    if due or all:
        return _verify_due(plan, backup, everything=all, no_server=no_server, json=json)
    opened, began = open_plan(plan), datetime.now(UTC)
    parameters = {"plan": run_reference(plan), "backup": backup, "deep": deep}
    try:
        result = run_verb(verify_flow, lambda progress: _proved(opened, backup, deep, progress), no_server, parameters)
    except (CorruptionDetected, QualityFailed) as exc:
        if failed := unproved(exc) or _recorded(opened, backup, began):
            _show(failed, json)
        raise
    if isinstance(result, Verification):
        _show(result, json)


def _verify_due(plan: str, backup: str, *, everything: bool, no_server: bool, json: bool) -> None:
    if backup != "latest":
        raise ConfigurationError(
            "--due and --all prove several backups",
            hint="Name a backup, or write one of them: lastgood verify PLAN --due.",
        )
    opened = open_plan(plan)
    parameters = {"plan": run_reference(plan), "due": True, "everything": everything}
    try:
        result = run_verb(verify_flow, lambda progress: _due(opened, everything, progress), no_server, parameters)
    except LastgoodError as exc:
        if isinstance(exc.__cause__, NotAllProved):
            show_due(exc.__cause__.result, json)
        raise
    show_due(result, json)


def _due(plan: BackupPlan, everything: bool, progress: Progress) -> DueResult:
    result, wrong = make_due(plan, everything, progress)
    if wrong:
        raise wrong
    return result


def show_due(result: DueResult | Verification, json: bool) -> None:
    """Print what a run of `verify --due` did."""
    if not isinstance(result, DueResult):
        return
    if json:
        say_json(due_json(result))
        return
    table = grid("backup", "how", "why", "status", ">rows", ">took", "findings")
    for proof in result.proofs:
        one = proof.verification
        table.add_row(
            proof.backup_id,
            proof.kind.value,
            proof.why,
            status_text(one.status),
            f"{one.rows:,}",
            human_seconds(one.seconds),
            "\n".join(one.findings),
        )
    say(table)
    say(fields(recovery_rows(result.recovery)))
    for finding in result.findings:
        say(f"found: {finding}")
    for backup_id in result.overdue:
        say(f"overdue: {backup_id}")
    for warning in result.warnings:
        note(f"warning: {warning}")


def due_json(result: DueResult) -> JsonValue:
    """Return what a run of `verify --due` did, as it is printed with `--json`."""
    proofs = [
        {"kind": proof.kind.value, "why": proof.why}
        | proof.verification.model_dump(mode="json", exclude={"format_version"})
        for proof in result.proofs
    ]
    return result.model_dump(mode="json") | {"proofs": proofs}


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
