"""Tables of backups and of what was done with them, each beside the JSON that says the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from blocks.lease import LeaseRecord
from blocks.manifest import BackupMetadata, BackupStatus, Verification
from flows.cli.table import Column, Styled, Table
from flows.units import human_bytes, human_seconds

_STYLES = {
    BackupStatus.VERIFIED: "green",
    BackupStatus.CORRUPTED: "bold red",
    BackupStatus.IN_PROGRESS: "yellow",
}


def grid(*headers: str) -> Table:
    """Make a table; a header that begins with `>` is that of a column of numbers."""
    return Table([Column(header.removeprefix(">"), number=header.startswith(">")) for header in headers])


def fields(rows: Iterable[tuple[str, str | Styled]]) -> Table:
    """Make a table of names and values; a row without a value is left out."""
    table = Table([Column(style="bold", whole=True), Column()], headed=False)
    for name, value in rows:
        if value:
            table.add_row(name, value)
    return table


def backups_table(backups: Sequence[tuple[BackupMetadata, BackupStatus]], lease: LeaseRecord | None) -> Table:
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


def status_text(status: BackupStatus) -> Styled:
    """Write a status in its colour."""
    return Styled(status.value, _STYLES.get(status, ""))


def changed(upserts: int, tombstones: int) -> str:
    """Write how many rows a backup stored and how many deletions."""
    return f"+{upserts:,} −{tombstones:,}"


def chain_text(made: BackupMetadata) -> str:
    """Say what a backup stands on."""
    return f"{len(made.chain)} deep on {made.base}" if made.base else "stands alone"


def backup_json(made: BackupMetadata, status: BackupStatus) -> dict[str, JsonValue]:
    """Return what `list` says of one backup."""
    return {
        "id": made.backup_id,
        "type": made.backup_type.value,
        "requested_type": made.requested_type.value,
        "promoted_because": made.promoted_because,
        "timestamp": made.timestamp.isoformat(),
        "rows": made.rows,
        "upserts": made.upserts,
        "tombstones": made.tombstones,
        "size_bytes": made.size_bytes,
        "size_compressed": made.size_compressed,
        "size_stored": made.size_stored,
        "duration_seconds": made.backup_duration_seconds,
        "status": status.value,
        "base": made.base,
        "chain": [link.backup_id for link in made.chain],
        "whole": made.whole,
        "tags": list(made.tags),
        "retention_days": made.retention_days,
    }


def lease_json(lease: LeaseRecord | None) -> JsonValue:
    """Return who holds a plan's lease."""
    if lease is None:
        return None
    return {
        "backup_id": lease.backup_id,
        "purpose": lease.purpose,
        "holder": lease.holder,
        "since": lease.acquired_at.isoformat(),
        "expires_at": lease.expires_at.isoformat(),
    }


def collections_table(made: BackupMetadata) -> Table:
    """Show the collections of a backup."""
    table = grid("collection", ">rows", ">changed", ">parts", ">stored", "key")
    for c in made.collections:
        stored = sum(p.segment.data.size_bytes + p.segment.index.size_bytes for p in c.parts if p.segment)
        key = ", ".join(c.key) + (f" (only {', '.join(c.selected_keys)})" if c.selected_keys else "")
        row = (f"{c.rows:,}", changed(c.upserts, c.tombstones), str(len(c.parts)), human_bytes(stored), key)
        table.add_row(c.name, *row)
    return table


def verifications_table(verifications: Sequence[Verification]) -> Table:
    """Show the verifications of a backup, oldest first."""
    table = grid("verified (UTC)", "how", "status", ">rows", ">expectations", ">took", "findings")
    for one in verifications:
        table.add_row(
            f"{one.verified_at:%Y-%m-%d %H:%M:%S}",
            "deep" if one.deep else "compared",
            status_text(one.status),
            f"{one.rows:,}",
            str(one.expectations),
            human_seconds(one.seconds),
            "\n".join(one.findings),
        )
    return table
