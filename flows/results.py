"""What the verbs give back; plain records, so that they print as JSON."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from blocks.sources.base import RestoreMode


class CollectionResult(BaseModel):
    """What a restore did, or would do, to one collection; counts are rows."""

    collection: str
    rows: int
    added: int | None = None
    changed: int | None = None
    removed: int | None = None


class RestoreResult(BaseModel):
    """The outcome of a restore or of its preview."""

    plan: str
    backup_id: str
    timestamp: datetime
    mode: RestoreMode
    collections: list[CollectionResult]
    places: dict[str, str]
    rescue_id: str | None = None
    """The emergency backup of the live state as it was before."""
    undo: str | None = None
    """The command that brings the state from before back."""
    notes: list[str] = []
    seconds: float

    @property
    def rows(self) -> int:
        """Rows restored."""
        return sum(c.rows for c in self.collections)


class Outgoing(BaseModel):
    """One backup that retention decided about."""

    backup_id: str
    remove: bool
    reason: str
    size_stored: int


class RetentionResult(BaseModel):
    """The outcome of a retention run, or of its dry run; sizes in bytes."""

    plan: str
    dry_run: bool
    decisions: list[Outgoing]
    swept: list[str]

    @property
    def removed(self) -> list[Outgoing]:
        """The backups that went, or would go."""
        return [d for d in self.decisions if d.remove]
