"""The list command: a plan's backups. It needs no Prefect server and no data key."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from blocks.errors import CorruptionDetected
from blocks.plan.suspicion import is_unsettled
from blocks.records import BackupStatus, BackupType
from blocks.repository.leases import LeaseRecord
from blocks.repository.summaries import BackupSummary
from blocks.repository.verdict import Verdict
from flows.cli import options
from flows.cli.output import note, say, say_json, say_lines, warn
from flows.cli.render import backup_json, chain_text, changed, lease_json, proof_letters, proof_text, status_text
from flows.cli.running import open_plan
from flows.cli.tables import Column, Table, grid
from flows.cli.times import parse_time
from flows.pipeline.doubts import settled
from flows.reporting.moments import ago, local_time
from flows.reporting.units import human_bytes

Known = tuple[BackupSummary, Verdict]
"""A backup, and what is known of it."""


def list_backups_arguments(command: ArgumentParser) -> None:
    """Declare what `list` takes."""
    options.plan(command)
    options.value(command, "--last", "N", "Only the newest N of those that are wanted.", type=options.count)
    options.kind(command, "--type", BackupType, "Only backups of this type.", dest="backup_type")
    options.values(command, "--tag", "GLOB", "Only backups with such a tag; may be repeated.", dest="tags")
    options.value(command, "--since", "TIME", "Only backups of state since then: 2026-01-02, '3 days ago', yesterday.")
    options.flag(command, "--wide", "All columns, also on a terminal that has no room for them.")
    options.json(command)


def list_backups(
    plan: str,
    *,
    last: int | None,
    backup_type: BackupType | None,
    tags: Sequence[str],
    since: str | None,
    wide: bool,
    json: bool,
) -> int:
    """List a plan's backups, oldest first; exit code 8 where a manifest is damaged."""
    now = datetime.now(UTC)
    begin = parse_time(since, now) if since is not None else None
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    listing, lease = repository.listing(opened.name), repository.current_lease(opened.name)
    verdicts = repository.verdicts(opened.name, listing.backups)
    wanted = [made for made in listing.backups if _is_wanted(made, backup_type, tags, begin)]
    backups = [(made, verdicts[made.backup_id]) for made in wanted[-last if last is not None else None :]]
    said = settled(repository, opened.name, [made for made, _ in backups])
    for sentence in repository.damaged_lease(opened.name):
        warn(sentence)
    if lost := repository.rolled_back(opened.name):
        warn(f"{lost}; `lastgood check` reports more")
    if json:
        say_json(
            {
                "plan": opened.name,
                "repository": repository.url,
                "backups": [backup_json(made, verdict, said) for made, verdict in backups],
                "in_progress": lease_json(lease) if lease is not None else None,
                "findings": list(listing.findings),
            }
        )
    elif not listing.backups and not listing.findings and lease is None:
        note(f"plan {opened.name} has no backups yet: run `lastgood backup {plan}`")
    elif not backups and lease is None:
        note(f"none of the {len(listing.backups)} backups of plan {opened.name} is such a one")
    else:
        say_lines(_wide_table(backups, said, lease, now), lambda: _short_table(backups, said, lease, now), wide)
        if lease is not None:
            say(f"\nin progress: {lease.purpose} by {lease.holder}, begun {ago(lease.acquired_at, now)}")
    if not json:
        for finding in listing.findings:
            note(f"damaged: {finding}")
    return CorruptionDetected.exit_code if listing.findings else 0


def _is_wanted(made: BackupSummary, kind: BackupType | None, tags: Sequence[str], since: datetime | None) -> bool:
    return (
        (kind is None or made.backup_type is kind)
        and (not tags or any(fnmatchcase(tag, glob) for tag in made.tags for glob in tags))
        and (since is None or made.timestamp >= since)
    )


def _wide_table(backups: Sequence[Known], said: Container[str], lease: LeaseRecord | None, now: datetime) -> Table:
    """Show all of backups, oldest first, and the one in the making last."""
    table = grid(
        "id",
        "type",
        "when",
        ">age",
        ">rows",
        ">changed",
        ">size",
        ">stored",
        "status",
        "proof",
        "proved",
        "chain",
        "tags",
    )
    for made, verdict in backups:
        table.add_row(
            made.backup_id,
            made.backup_type.value,
            local_time(made.timestamp),
            ago(made.timestamp, now),
            f"{made.rows:,}",
            changed(made.upserts, made.tombstones),
            human_bytes(made.size_bytes),
            human_bytes(made.size_stored),
            status_text(verdict.shown_status, is_unsettled(made, said)),
            proof_text(verdict),
            max((local_time(stands.verified_at) for stands in verdict.axes.values()), default=""),
            chain_text(made),
            " ".join(made.tags),
        )
    if lease is not None and lease.backup_id is not None:
        when, age = local_time(lease.acquired_at), ago(lease.acquired_at, now)
        kind, in_progress = lease.purpose.removesuffix(" backup"), status_text(BackupStatus.IN_PROGRESS)
        table.add_row(lease.backup_id, kind, when, age, "", "", "", "", in_progress)
    return table


def _short_table(backups: Sequence[Known], said: Container[str], lease: LeaseRecord | None, now: datetime) -> Table:
    """Show backups for a terminal: without what their ids say (type and time) and what `show` has."""
    table = Table(
        [
            Column("id"),
            Column("age", number=True),
            Column("rows", number=True, spare=2),
            Column("size", number=True, spare=3),
            Column("stored", number=True, spare=1),
            Column("status"),
            Column("BRDQ"),
            Column("tags"),
        ]
    )
    for made, verdict in backups:
        table.add_row(
            made.backup_id,
            ago(made.timestamp, now),
            f"{made.rows:,}",
            human_bytes(made.size_bytes),
            human_bytes(made.size_stored),
            status_text(verdict.shown_status, is_unsettled(made, said)),
            proof_letters(verdict),
            " ".join(made.tags),
        )
    if lease is not None and lease.backup_id is not None:
        in_progress = status_text(BackupStatus.IN_PROGRESS)
        table.add_row(lease.backup_id, ago(lease.acquired_at, now), "", "", "", in_progress)
    return table


COMMAND = options.Command("List a plan's backups.", list_backups_arguments, list_backups)
