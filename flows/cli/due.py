"""`verify --due` and `verify --all`: several proofs in one run, and what they say of recovery."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from blocks.errors import ConfigurationError, LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.verification import Verification
from flows.cli.output import say, say_json, say_sentence, warn
from flows.cli.render import recovery_rows, status_text
from flows.cli.running import open_plan, run_reference, run_verb
from flows.cli.tables import fields, grid
from flows.pipeline.progress import Progress
from flows.proving.due import DueResult, MadeProof, NotAllProved
from flows.reporting.units import human_seconds
from flows.verify import make_due
from flows.verify import verify as verify_flow


def verify_due(plan: str, backup: str, report: Path | None, *, everything: bool, no_server: bool, json: bool) -> None:
    """Prove what is due, or all, and print what came of it, also where not all is good."""
    if report is not None:
        raise ConfigurationError(
            "--report writes the page of one backup, and --due and --all prove several",
            hint="Write it afterwards: lastgood proof PLAN BACKUP --out FILE.",
        )
    if backup != "latest":
        raise ConfigurationError(
            f"--due and --all prove several backups, and {backup} is one",
            hint="Name a backup, or write one of them: lastgood verify PLAN --due.",
        )
    opened = open_plan(plan)
    parameters = {"plan": run_reference(plan), "due": True, "everything": everything}
    try:
        result = run_verb(verify_flow, lambda progress: _proved(opened, everything, progress), no_server, parameters)
    except LastgoodError as exc:
        if isinstance(exc.__cause__, NotAllProved):
            _show(exc.__cause__.result, json)
        raise
    if isinstance(result, DueResult):
        _show(result, json)


def _proved(plan: BackupPlan, everything: bool, progress: Progress) -> DueResult:
    result, wrong = make_due(plan, everything, progress)
    if wrong:
        raise wrong
    return result


def _show(result: DueResult, json: bool) -> None:
    if json:
        say_json(_json(result))
        return
    table = grid("backup", "how", "why", "status", ">rows", ">took")
    table.columns[0].whole = True
    for proof in result.proofs:
        one = proof.verification
        seconds = human_seconds(one.seconds)
        table.add_row(proof.backup_id, proof.kind.value, proof.why, status_text(one.status), f"{one.rows:,}", seconds)
    say(table)
    say("")
    say(fields(recovery_rows(result.recovery)))
    for proof in result.proofs:
        for finding in proof.verification.findings:
            say_sentence(f"found: {proof.backup_id}: {finding}")
    for finding in result.findings:
        say_sentence(f"found: {finding}")
    for backup_id in result.overdue:
        say(f"overdue: {backup_id}")
    for warning in result.warnings:
        warn(warning)


def _json(result: DueResult) -> dict[str, JsonValue]:
    return result.model_dump(mode="json") | {"proofs": [_proof_json(proof) for proof in result.proofs]}


def _proof_json(proof: MadeProof) -> dict[str, JsonValue]:
    told = proof.verification.model_dump(mode="json", include=set(Verification.model_fields) - {"format_version"})
    return {"kind": proof.kind.value, "why": proof.why} | told
