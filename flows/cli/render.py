"""How several commands show a backup: in words, as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Container

from pydantic import JsonValue

from blocks.plan.suspicion import is_unsettled
from blocks.records import BackupMetadata, BackupStatus, SourceState
from blocks.repository.leases import LeaseRecord
from blocks.repository.summaries import Shown
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Depth
from flows.cli.tables import Styled, Table, grid
from flows.reading.recovery import Recovery
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes
from flows.reporting.wording import AXES, DEPTHS

_STYLES = {
    BackupStatus.VERIFIED: "green",
    BackupStatus.CORRUPTED: "bold red",
    BackupStatus.IN_PROGRESS: "yellow",
}

_OUTCOME_STYLES = {CheckOutcome.GOOD: "green", CheckOutcome.BAD: "bold red", CheckOutcome.UNPROVEN: "yellow"}

_SHORT = {Axis.BYTES: "bytes", Axis.RESTORABLE: "restore", Axis.DEFINITIONS: "defs", Axis.QUALITY: "quality"}
_MARKS = {CheckOutcome.GOOD: "+", CheckOutcome.BAD: "-", CheckOutcome.UNPROVEN: "?", CheckOutcome.UNTRIED: ""}


def status_text(status: BackupStatus, suspicious: bool = False) -> Styled:
    """Write a status in its colour, and whether the backup is suspicious."""
    if suspicious:
        return Styled(f"{status.value}, suspicious", _STYLES[status] if status is BackupStatus.CORRUPTED else "yellow")
    return Styled(status.value, _STYLES.get(status, ""))


def proof_text(verdict: Verdict) -> str:
    """Write what is known of a backup on each axis that was tried: `bytes+ restore- quality?`.

    `objects+` in the place of `bytes+`: every object was read, and no row was compared.
    """
    words = []
    for axis, stands in sorted(verdict.axes.items(), key=lambda one: list(Axis).index(one[0])):
        objects = axis is Axis.BYTES and stands.depth == Depth.OBJECTS
        words.append(f"{'objects' if objects else _SHORT[axis]}{_MARKS[stands.outcome]}")
    return " ".join([*words, *(["unread"] if verdict.doubt else [])])


def proof_letters(verdict: Verdict) -> str:
    """Write the same in five places, an axis each and one for doubt: `+-?.`; what was never tried is a point."""
    marks = [_MARKS[verdict.outcome(axis)] or "." for axis in Axis] if verdict.axes else []
    return "".join([*marks, *(["!"] if verdict.doubt else [])])


def proof_table(verdict: Verdict) -> Table:
    """Show what is known of a backup, an axis a line."""
    table = grid("proof", "outcome", "how deep", "when", ">number")
    for axis in Axis:
        if (stands := verdict.axes.get(axis)) is None:
            table.add_row(AXES[axis], "not tried")
            continue
        table.add_row(
            AXES[axis],
            outcome_text(stands.outcome),
            DEPTHS.get(stands.depth, stands.depth),
            local_time(stands.verified_at),
            f"{stands.sequence}",
        )
    return table


def outcome_text(outcome: CheckOutcome) -> Styled:
    """Write what a proof came to in its colour."""
    return Styled(outcome.value, _OUTCOME_STYLES.get(outcome, ""))


def proof_json(verdict: Verdict) -> dict[str, JsonValue]:
    """Return what is known of a backup on each axis, by its name."""
    untried: JsonValue = {"outcome": CheckOutcome.UNTRIED.value}
    return {
        axis.value: verdict.axes[axis].model_dump(mode="json") if axis in verdict.axes else untried for axis in Axis
    }


def changed(upserts: int, tombstones: int) -> str:
    """Write how many rows a backup stored and how many deletions."""
    return f"+{upserts:,} −{tombstones:,}"


def chain_text(made: Shown) -> str:
    """Say what a backup depends on."""
    return f"{len(made.chain_ids)} deep on {made.base}" if made.base else "stands alone"


def backup_json(made: Shown, verdict: Verdict, settled: Container[str] = frozenset()) -> dict[str, JsonValue]:
    """Return what `list` says of one backup; `settled` are the ids of suspicious ones that persons accepted."""
    return {
        "id": made.backup_id,
        "type": made.backup_type.value,
        "requested_type": made.requested_type.value,
        "promoted_because": made.promoted_because,
        "clock_doubt": made.clock_doubt,
        "suspicious": is_unsettled(made, settled),
        "suspicions": list(made.suspicions),
        "timestamp": made.timestamp.isoformat(),
        "rows": made.rows,
        "upserts": made.upserts,
        "tombstones": made.tombstones,
        "size_bytes": made.size_bytes,
        "size_compressed": made.size_compressed,
        "size_stored": made.size_stored,
        "duration_seconds": made.backup_duration_seconds,
        "status": verdict.shown_status.value,
        "proof": proof_json(verdict),
        "proof_doubt": verdict.doubt,
        "base": made.base,
        "chain": [*made.chain_ids],
        "whole": made.whole,
        "tags": list(made.tags),
        "retention_days": made.retention_days,
    }


def recovery_rows(measured: Recovery) -> list[tuple[str, Styled | str]]:
    """Say what recovery costs, as measured."""
    return [*measured.texts()]


def lease_json(lease: LeaseRecord) -> dict[str, JsonValue]:
    """Return who holds a plan's lease."""
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
        stored = sum(p.segment.stored_bytes for p in c.parts if p.segment)
        key = ", ".join(c.key) + (f" (only {', '.join(c.selected_keys)})" if c.selected_keys else "")
        row = (f"{c.rows:,}", changed(c.upserts, c.tombstones), str(len(c.parts)), human_bytes(stored), key)
        table.add_row(c.name, *row)
    return table


def held_log(source: SourceState) -> str | None:
    """Say how much log a server kept for the replication slot of a source when it was backed up; None without one."""
    match source.definition.get("slot"):
        case {"name": str(name), "held_bytes": int(held)}:
            return f"replication slot {name} held back {human_bytes(held)} of the server's log"
    return None
