"""RetentionPolicy: how long backups of each type are kept, and which may never go.

`decide` is pure: it knows only what it is given, and removes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from pydantic import ConfigDict, Field

from blocks.plan.durations import Age, Duration
from blocks.plan.suspicion import is_unsettled
from blocks.prefect_compat import LastgoodBlock
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome

__all__ = ["Decision", "Duration", "RetentionPolicy", "Verdicts", "decide"]

BEFORE_RESTORE = "before-restore"
"""Tag of the emergency backups that a restore in place makes first, and that its undo needs."""

RESTORED = "restored="
"""Begins the tag of such a backup that names the backup which was restored: an undo asks it what that has added."""

Verdicts = Mapping[str, Verdict | None]
"""What is known of backups by id: None where it is not known; who is not named was never verified."""

_ALWAYS_THERE = {"files": 1}
"""Rows that a source of a type has when it is empty: of a tree, its root. That is no record of anything."""


@dataclass(frozen=True)
class Decision:
    """What retention does with one backup, and why."""

    backup: BackupMetadata
    remove: bool
    reason: str


class RetentionPolicy(LastgoodBlock):
    """How long backups of each type are kept.

    A backup is removed when it is older than its type allows, unless a backup that is kept depends on it, or an undo
    for which an emergency backup is kept may need it. Whatever
    their age, these never go: the newest good full backups, the newest good and the newest verified backup, the newest
    that is good in all that was proved of any backup (its restore, its definitions, its data), and for every source the
    newest good backup that holds it and the newest that holds records of it. A suspicious backup, and the newest good
    one before it that is not, stay until a person has accepted it.

    Example:
        ```python
        from blocks.plan.retention import RetentionPolicy

        RetentionPolicy.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Retention Policy"
    _block_type_slug = "retention-policy"

    model_config = ConfigDict(hide_input_in_errors=True)

    full: Age = Field(default=timedelta(days=90), description="How long full backups are kept, such as 90d or 6mo.")
    differential: Age = Field(default=timedelta(days=30), description="How long differential backups are kept.")
    incremental: Age = Field(default=timedelta(days=7), description="How long incremental backups are kept.")
    snapshot: Age = Field(default=timedelta(days=7), description="How long named snapshots are kept.")
    emergency: Age = Field(default=timedelta(days=180), description="How long emergency backups are kept.")
    keep_last: int = Field(default=1, ge=1, description="Number of newest good full backups that never expire.")
    sweep_grace: Duration = Field(
        default=timedelta(hours=24), description="Age after which objects of unfinished backups are removed as garbage."
    )

    def age_limit(self, kind: BackupType) -> timedelta:
        """Return how long backups of a type are kept."""
        limit: timedelta = getattr(self, kind.value)
        return limit

    def decide(
        self,
        backups: Sequence[BackupMetadata],
        now: datetime,
        verdicts: Verdicts | None = None,
        settled: Collection[str] = (),
    ) -> list[Decision]:
        """Decide about each backup of one plan; see `decide`."""
        return decide(backups, self, now, verdicts or {}, settled)


def decide(
    backups: Sequence[BackupMetadata],
    policy: RetentionPolicy,
    now: datetime,
    verdicts: Verdicts,
    settled: Collection[str] = (),
) -> list[Decision]:
    """Decide about each backup of one plan.

    Args:
        backups: All committed backups in the order of their sequence; clocks may say otherwise.
        policy: How long each type is kept.
        now: The time to decide at, with a time zone.
        verdicts: What is known of them.
        settled: Ids of the suspicious ones that a person accepted.
    """
    keep = _Holds(backups, verdicts, settled).collect(policy.keep_last)
    for backup in backups:
        age, limit = _age(backup, now), policy.age_limit(backup.backup_type)
        if age < limit:
            keep.setdefault(backup.backup_id, f"{_text(age)} old, kept for {_text(limit)}")
    for backup in reversed(backups):
        if backup.backup_id in keep:
            for link in backup.chain:
                keep.setdefault(link.backup_id, f"{backup.backup_id} depends on it")
            if (restored := restored_before(backup)) is not None:
                keep.setdefault(restored, f"an undo of its restore, which {backup.backup_id} is for, may need it")
    return [_decision(backup, keep, policy, now) for backup in backups]


def restored_before(backup: BackupMetadata) -> str | None:
    """Return the id of the backup whose restore an emergency backup was made before; None for all others."""
    if backup.backup_type is not BackupType.EMERGENCY or BEFORE_RESTORE not in backup.tags:
        return None
    return next((tag.removeprefix(RESTORED) for tag in backup.tags if tag.startswith(RESTORED)), None)


def _decision(backup: BackupMetadata, keep: dict[str, str], policy: RetentionPolicy, now: datetime) -> Decision:
    if backup.backup_id in keep:
        return Decision(backup, remove=False, reason=keep[backup.backup_id])
    age, limit = _age(backup, now), policy.age_limit(backup.backup_type)
    kind = backup.backup_type.value
    return Decision(backup, remove=True, reason=f"{_text(age)} old, {kind} backups are kept for {_text(limit)}")


def _age(backup: BackupMetadata, now: datetime) -> timedelta:
    """Return how old a backup is; one from the future, of another clock, is new."""
    return max(timedelta(0), now - backup.timestamp)


class _Holds:
    """Finds the backups that stay whatever their age, each with a reason; the first reason found counts."""

    def __init__(self, backups: Sequence[BackupMetadata], verdicts: Verdicts, settled: Collection[str]) -> None:
        self._backups, self._verdicts, self._settled = backups, verdicts, settled
        sound = {b.backup_id for b in backups if self._status(b.backup_id) in _SOUND}
        self._good = [
            b for b in backups if b.backup_id in sound and _complete(b) and {k.backup_id for k in b.chain} <= sound
        ]
        self._good_ids = {b.backup_id for b in self._good}
        self._keep: dict[str, str] = {}

    def collect(self, keep_last: int) -> dict[str, str]:
        good = _of_plan(self._good)
        fulls = [b for b in self._backups if b.backup_type is BackupType.FULL]
        good_fulls = [b for b in good if b.backup_type is BackupType.FULL]
        self._hold(good_fulls[-keep_last:], f"among the newest {keep_last} full backups")
        if not good_fulls:
            self._hold(fulls, "no full backup is known to be good")
        self._hold(good[-1:], "the newest backup")
        self._hold([b for b in good if self._verified(b)][-1:], "the newest verified backup")
        self._hold([b for b in good if self._proved(b)][-1:], "the newest backup that is good in all that was proved")
        self._hold_sources()
        self._hold_for_undo()
        self._hold_before_suspicious()
        unknown = [b for b in self._backups if self._status(b.backup_id) is None]
        self._hold(unknown, "it is not known whether it is good; `lastgood check` says why")
        return self._keep

    def _hold_sources(self) -> None:
        records = {b.backup_id: records_of(b) for b in self._backups}
        for source in dict.fromkeys(name for held in records.values() for name in held):
            holders = [b for b in self._backups if source in records[b.backup_id]]
            self._hold_newest(holders, f"source {source}")
            self._hold_newest([b for b in holders if records[b.backup_id][source]], f"records of source {source}")

    def _hold_newest(self, holders: Sequence[BackupMetadata], what: str) -> None:
        good = [b for b in holders if b.backup_id in self._good_ids]
        # an emergency backup holds the state that somebody wanted to get away from: only where there is no other
        newest = (_of_plan(good) or good)[-1:]
        self._hold(newest, f"the newest good backup that holds {what}")
        if not newest:
            self._hold(holders, f"no good backup holds {what}")

    def _hold_for_undo(self) -> None:
        proved = [n for n, b in enumerate(self._backups) if self._is_proved_full(b)]
        last = proved[-1] if proved else -1
        needed = [
            b for b in self._backups[last + 1 :] if b.backup_type is BackupType.EMERGENCY and BEFORE_RESTORE in b.tags
        ]
        self._hold(needed, "an undo of a restore may need it until a later full backup is verified")

    def _hold_before_suspicious(self) -> None:
        last: list[BackupMetadata] = []
        for backup in self._backups:
            if is_unsettled(backup, self._settled):
                # with it the sign would go, and with that what keeps the one before
                self._hold([backup], "it is suspicious, and nobody has accepted it")
                self._hold(last, f"the newest good backup before {backup.backup_id}, which is suspicious")
            elif backup.backup_id in self._good_ids and backup.is_regular:
                last = [backup]

    def _proved(self, backup: BackupMetadata) -> bool:
        """Whether nothing is wrong, and all is good that any backup was found good in."""
        return self._verified(backup) and self._good_axes(backup) >= self._proved_axes

    @cached_property
    def _proved_axes(self) -> frozenset[Axis]:
        """The axes of the verified backup that is good on most of them, the newest of such."""
        verified = [self._good_axes(b) for b in reversed(_of_plan(self._good)) if self._verified(b)]
        return max(verified, key=len, default=frozenset())

    def _good_axes(self, backup: BackupMetadata) -> frozenset[Axis]:
        verdict = self._verdict(backup.backup_id) or Verdict()
        return frozenset(axis for axis in Axis if verdict.outcome(axis) is CheckOutcome.GOOD)

    def _is_proved_full(self, backup: BackupMetadata) -> bool:
        return backup.backup_type is BackupType.FULL and self._verified(backup)

    def _hold(self, backups: Iterable[BackupMetadata], reason: str) -> None:
        for backup in backups:
            self._keep.setdefault(backup.backup_id, reason)

    def _verified(self, backup: BackupMetadata) -> bool:
        return self._status(backup.backup_id) is BackupStatus.VERIFIED

    def _status(self, backup_id: str) -> BackupStatus | None:
        verdict = self._verdict(backup_id)
        return None if verdict is None else verdict.status

    def _verdict(self, backup_id: str) -> Verdict | None:
        return self._verdicts.get(backup_id, Verdict())


_SOUND = (BackupStatus.COMPLETED, BackupStatus.VERIFIED)


def records_of(backup: BackupMetadata) -> dict[str, int]:
    """Return for each source that a backup holds how many records it holds of it; an empty folder has none."""
    empty = {source.name: _ALWAYS_THERE.get(source.type, 0) for source in backup.sources}
    # a manifest may be as it is stored, without the collections that are as in its base; the count of a source is in it
    counted = {s.name: max(0, s.rows - empty[s.name]) for s in backup.sources if s.rows is not None}
    found = dict.fromkeys(empty, 0)
    for c in backup.collections:
        found[c.source] = found.get(c.source, 0) + max(0, c.rows - empty.get(c.source, 0))
    return found | counted


def _complete(backup: BackupMetadata) -> bool:
    """Return whether it holds all of its sources: an emergency backup may be narrowed to what is critical."""
    return backup.whole and not any(c.selected_keys for c in backup.collections)


def _of_plan(backups: Iterable[BackupMetadata]) -> list[BackupMetadata]:
    return [b for b in backups if b.is_regular]


def _text(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
