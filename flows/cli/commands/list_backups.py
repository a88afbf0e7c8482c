"""The list command: a plan's backups. It needs no Prefect server and no data key."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.errors import CorruptionDetected
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.leases import LeaseRecord
from flows.cli import options
from flows.cli.output import Table, grid, note, say, say_json
from flows.cli.render import backup_json, chain_text, changed, lease_json, status_text
from flows.cli.running import open_plan
from flows.reporting.units import human_bytes, human_time


def list_backups_arguments(command: ArgumentParser) -> None:
    """Declare what `list` takes."""
    options.plan(command)
    options.json(command)


def list_backups(plan: str, *, json: bool) -> int:
    """List a plan's backups, oldest first; exit code 8 where a manifest is damaged."""
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    survey, lease = repository.survey(opened.name, shown=True), repository.current_lease(opened.name)
    statuses = repository.statuses(opened.name, survey.backups)
    backups = [(made, statuses[made.backup_id]) for made in survey.backups]
    warnings = [*repository.damaged_lease(opened.name)]
    if lost := repository.rolled_back(opened.name):
        warnings.append(f"{lost}; `lastgood check` reports more")
    if json:
        say_json(
            {
                "plan": opened.name,
                "repository": repository.url,
                "backups": [backup_json(made, status) for made, status in backups],
                "in_progress": lease_json(lease) if lease is not None else None,
                "findings": list(survey.findings),
                "warnings": list(warnings),
            }
        )
    elif not backups and not survey.findings and lease is None:
        note(f"plan {opened.name} has no backups yet: run `lastgood backup {plan}`")
    else:
        say(_backups_table(backups, lease))
        if lease is not None and lease.backup_id is None:
            say(f"\nin progress: {lease.purpose} by {lease.holder} since {human_time(lease.acquired_at)}")
    for warning in warnings:
        note(f"warning: {warning}")
    for finding in survey.findings:
        note(f"damaged: {finding}")
    return CorruptionDetected.exit_code if survey.findings else 0


def _backups_table(backups: Sequence[tuple[BackupMetadata, BackupStatus]], lease: LeaseRecord | None) -> Table:
    """Show backups, oldest first, and the one in the making last."""
    table = grid("id", "type", "when (UTC)", ">rows", ">changed", ">size", ">stored", "status", "chain")
    table.columns[0].whole = True
    for made, status in backups:
        table.add_row(
            made.backup_id,
            made.backup_type.value,
            f"{made.timestamp:%Y-%m-%d %H:%M:%S}",
            f"{made.rows:,}",
            changed(made.upserts, made.tombstones),
            human_bytes(made.size_bytes),
            human_bytes(made.size_stored),
            status_text(status),
            chain_text(made),
        )
    if lease is not None and lease.backup_id is not None:
        kind = lease.purpose.removesuffix(" backup")
        moment = f"{lease.acquired_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            lease.backup_id, kind, moment, "", "", "", "", status_text(BackupStatus.IN_PROGRESS), lease.holder
        )
    return table


COMMAND = options.Command("List a plan's backups.", list_backups_arguments, list_backups)
