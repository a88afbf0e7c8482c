"""How much of its write-ahead log a server keeps for the replication slot of the backups."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from blocks.sources.postgres.connect import Session

WARN_BYTES = 1024**3
"""Above so much a backup warns, and above half of what the server keeps at most."""

_HELD = """
SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_lsn() END - restart_lsn)::pg_catalog.int8,
       (SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size')
FROM pg_catalog.pg_replication_slots WHERE slot_name = %s AND restart_lsn IS NOT NULL
"""


@dataclass(frozen=True)
class HeldLog:
    """The log that a server keeps for a slot.

    Attributes:
        slot: Name of the replication slot.
        held_bytes: How much it keeps.
        limit_bytes: How much it keeps at most before it gives the slot up; None for any amount.
    """

    slot: str
    held_bytes: int
    limit_bytes: int | None

    def to_manifest(self) -> dict[str, JsonValue]:
        """Write it as JSON."""
        return {"name": self.slot, "held_bytes": self.held_bytes, "limit_bytes": self.limit_bytes}

    def sentence(self, place: str) -> str:
        """Say how much it is."""
        limit = "" if self.limit_bytes is None else f" of {_mebibytes(self.limit_bytes)} (max_slot_wal_keep_size)"
        return f"Replication slot {self.slot} of {place} holds back {_mebibytes(self.held_bytes)}{limit} of log."

    @property
    def is_much(self) -> bool:
        """Whether a backup warns of it."""
        return self.held_bytes > min(WARN_BYTES, (self.limit_bytes or 2 * WARN_BYTES) // 2)


def held_log(session: Session, slot: str) -> HeldLog | None:
    """Ask how much log a slot holds back; None where there is no such slot, or the server has given it up."""
    row = session.execute(_HELD.encode(), (slot,)).fetchone()
    if row is None:
        return None
    held, limit = (int(str(value)) for value in row)
    return HeldLog(slot, max(0, held), None if limit < 0 else limit * 1024**2)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.1f} MiB"
