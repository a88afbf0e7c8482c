"""What the verbs give back; plain records, so that they print as JSON."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from blocks.sources.target import RestoreMode


class FieldSample(BaseModel):
    """A field of a record before and after a restore, as text; None where it is not there, or may not be shown."""

    name: str
    before: str | None = None
    after: str | None = None


class RecordSample(BaseModel):
    """A record that a restore adds, changes or removes, and the fields that differ."""

    kind: str
    """`added`, `changed` or `removed`."""
    key: str
    fields: list[FieldSample]


class CollectionResult(BaseModel):
    """What a restore did, or would do, to one collection; counts are rows."""

    collection: str
    rows: int
    added: int | None = None
    changed: int | None = None
    removed: int | None = None
    samples: list[RecordSample] = Field(default=[], exclude=True)
    """Some of the records, where a preview was asked for them; never printed, for whoever prints may not see them."""
    live: str = Field(default="", exclude=True)
    """What is there now, as a digest; empty where nothing was compared by record."""


class ObjectNotRebuilt(BaseModel):
    """An object of a backup that a restore left out, because it could not be rebuilt."""

    source: str
    name: str
    reason: str


class Approved(BaseModel):
    """Who let a restore go on, when, and what was said with it."""

    by: str
    at: datetime
    note: str = ""


class RestoreResult(BaseModel):
    """The outcome of a restore or of its preview."""

    plan: str
    backup_id: str
    timestamp: datetime
    mode: RestoreMode
    previewed: RestoreMode | None = None
    """How the restore that a preview counts for would be made; None of a restore."""
    collections: list[CollectionResult]
    places: dict[str, str]
    rescue_id: str | None = None
    """The emergency backup of the live state as it was before."""
    undo: str | None = None
    """The command that brings the state from before back."""
    notes: list[str] = []
    not_rebuilt: list[ObjectNotRebuilt] = []
    """What `keep_going` left out; the restore ends with `Partial` then."""
    scripts: dict[str, str] = {}
    """By source the file with the statements that would rebuild that, where there are any."""
    approved: Approved | None = None
    """Who approved it; None where nobody had to."""
    seconds: float

    @property
    def rows(self) -> int:
        """Rows restored."""
        return sum(c.rows for c in self.collections)


class DecidedBackup(BaseModel):
    """One backup that retention decided about."""

    backup_id: str
    remove: bool
    reason: str
    size_stored: int


class RetentionResult(BaseModel):
    """The outcome of a retention run, or of its dry run; sizes in bytes."""

    plan: str
    dry_run: bool
    decisions: list[DecidedBackup]
    swept: list[str]
    notes: list[str] = []
    """What a person should know: a clock that may be wrong, a removal that is not on record."""

    @property
    def removed(self) -> list[DecidedBackup]:
        """The backups that went, or would go."""
        return [d for d in self.decisions if d.remove]
