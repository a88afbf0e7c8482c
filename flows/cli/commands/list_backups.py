"""The list command: a plan's backups. It needs no Prefect server and no data key."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.errors import CorruptionDetected
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.leases import LeaseRecord
from blocks.repository.verdict import Verdict
from flows.cli import options
from flows.cli.output import Column, Table, grid, narrow, note, say, say_json
from flows.cli.render import backup_json, chain_text, changed, lease_json, proof_text, status_text
from flows.cli.running import open_plan
from flows.reporting.units import human_bytes, human_time

WIDE_COLUMNS = 160
"""A terminal of fewer columns would fold the whole table inside of words."""


def list_backups_arguments(command: ArgumentParser) -> None:
    """Declare what `list` takes."""
    options.plan(command)
    options.json(command)


def list_backups(plan: str, *, json: bool) -> int:
    """List a plan's backups, oldest first; exit code 8 where a manifest is damaged."""
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    survey, lease = repository.survey(opened.name, shown=True), repository.current_lease(opened.name)
    verdicts = repository.verdicts(opened.name, survey.backups)
    backups = [(made, verdicts[made.backup_id]) for made in survey.backups]
    warnings = [*repository.damaged_lease(opened.name)]
    if lost := repository.rolled_back(opened.name):
        warnings.append(f"{lost}; `lastgood check` reports more")
    if json:
        say_json(
            {
                "plan": opened.name,
                "repository": repository.url,
                "backups": [backup_json(made, verdict) for made, verdict in backups],
                "in_progress": lease_json(lease) if lease is not None else None,
                "findings": list(survey.findings),
                "warnings": list(warnings),
            }
        )
    elif not backups and not survey.findings and lease is None:
        note(f"plan {opened.name} has no backups yet: run `lastgood backup {plan}`")
    else:
        short = narrow(WIDE_COLUMNS)
        say(_short_table(backups, lease) if short else _backups_table(backups, lease))
        if lease is not None and (lease.backup_id is None or short):
            say(f"\nin progress: {lease.purpose} by {lease.holder} since {human_time(lease.acquired_at)}")
    for warning in warnings:
        note(f"warning: {warning}")
    for finding in survey.findings:
        note(f"damaged: {finding}")
    return CorruptionDetected.exit_code if survey.findings else 0


def _backups_table(backups: Sequence[tuple[BackupMetadata, Verdict]], lease: LeaseRecord | None) -> Table:
    """Show backups, oldest first, and the one in the making last."""
    table = grid(
        "id", "type", "when (UTC)", ">rows", ">changed", ">size", ">stored", "status", "proof", "proved (UTC)", "chain"
    )
    table.columns[0].whole = True
    for made, verdict in backups:
        table.add_row(
            made.backup_id,
            made.backup_type.value,
            f"{made.timestamp:%Y-%m-%d %H:%M:%S}",
            f"{made.rows:,}",
            changed(made.upserts, made.tombstones),
            human_bytes(made.size_bytes),
            human_bytes(made.size_stored),
            status_text(verdict.status or BackupStatus.COMPLETED),
            proof_text(verdict),
            max((f"{stands.verified_at:%Y-%m-%d %H:%M}" for stands in verdict.axes.values()), default=""),
            chain_text(made),
        )
    if lease is not None and lease.backup_id is not None:
        kind = lease.purpose.removesuffix(" backup")
        moment = f"{lease.acquired_at:%Y-%m-%d %H:%M:%S}"
        in_progress = status_text(BackupStatus.IN_PROGRESS)
        table.add_row(lease.backup_id, kind, moment, "", "", "", "", in_progress, "", "", lease.holder)
    return table


def _short_table(backups: Sequence[tuple[BackupMetadata, Verdict]], lease: LeaseRecord | None) -> Table:
    """Show backups for a narrow terminal: without what their ids say (type and time) and what `show` has."""
    table = Table(
        [
            Column("id", whole=True),
            Column("rows", number=True, whole=True),
            Column("size", number=True, whole=True),
            Column("status", whole=True),
            Column("proof", whole=True),
        ]
    )
    for made, verdict in backups:
        words = proof_text(verdict).split()
        lines = [" ".join(words[n : n + 2]) for n in range(0, len(words), 2)]
        status = status_text(verdict.status or BackupStatus.COMPLETED)
        table.add_row(made.backup_id, f"{made.rows:,}", human_bytes(made.size_bytes), status, "\n".join(lines))
    if lease is not None and lease.backup_id is not None:
        table.add_row(lease.backup_id, "", "", status_text(BackupStatus.IN_PROGRESS))
    return table


COMMAND = options.Command("List a plan's backups.", list_backups_arguments, list_backups)
