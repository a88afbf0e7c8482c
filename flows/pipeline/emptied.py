"""What held records in the last backup and holds none now: a source that is gone as a whole, or a collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from blocks.errors import SourceGone
from blocks.plan.suspicion import is_emptying_suspicious
from blocks.plan.suspicion_history import family
from blocks.records import BackupMetadata, BackupType, Collection
from blocks.sources.source import StateSource
from flows.pipeline.attempt import BackupAttempt
from flows.pipeline.messages import spec_of


def check_emptied(attempt: BackupAttempt) -> list[str]:
    """Fail a backup of which a source is gone as a whole, and find the collections that hold nothing any more.

    Of one that was emptied before, or held few rows, or may be empty, or whose place other partitions take, there is
    only a warning. The backup before a restore is made of whatever is there: an emptied place is what people restore.

    Args:
        attempt: A backup whose parts are all stored, and that is not committed.

    Returns:
        A sentence for each of the others, which are suspicious.

    Raises:
        SourceGone: A source held records in the last backup and holds none, and its plan does not say that it may.
    """
    if attempt.backup_type is BackupType.EMERGENCY or (before := _before(attempt)) is None:
        return []
    context, rows = attempt.context, _rows_now(attempt)
    sources = _by_source(rows)
    suspicious: list[str] = []
    for name, had in _held(before).items():
        source = context.plan.sources.get(name)
        if source is None or had <= source.rows_of_nothing:
            continue
        if sources[name] <= source.rows_of_nothing and not source.allow_empty:
            context.notes.failed = name
            raise SourceGone(
                f"source {name} holds no records at all now, and held {had - source.rows_of_nothing} in "
                f"{before.backup_id} ({context.views[name].system})",
                hint="Look whether it is what it was: a file that was emptied, a folder that is not mounted, a client "
                "that answers nothing. If it may be empty, write `allow_empty: true` at the source.",
            )
        may_be_empty = sources[name] <= source.rows_of_nothing
        for collection in _lost(source, before, rows, name):
            held, now = f"{collection.rows:,} rows in {before.backup_id}", _now(collection, rows)
            sentence = f"{collection.name} held {held}, and {now}."
            if not may_be_empty and _is_suspicious(attempt, collection, rows):
                suspicious.append(sentence)
            else:
                context.notes.warn(name, [sentence])
    return suspicious


def _held(before: BackupMetadata) -> dict[str, int]:
    """Return how many records a backup holds by source, which it says itself: its collections may not be known."""
    counted = _by_source(Counter({c.name: c.rows for c in before.collections}))
    return {s.name: counted[s.name] if s.rows is None else s.rows for s in before.sources}


def _rows_now(attempt: BackupAttempt) -> Counter[str]:
    return Counter({c.name: sum(attempt.result(p).rows for p in attempt.parts_of(c)) for c in attempt.collections})


def _by_source(rows: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for collection, count in rows.items():
        found[collection.partition("/")[0]] += count
    return found


def _before(attempt: BackupAttempt) -> BackupMetadata | None:
    """Return the backup to compare with: the base, or where there is none the newest that no restore has made."""
    if attempt.base is not None:
        return attempt.base.target
    repository, plan = attempt.context.repository, attempt.context.plan.name
    types = tuple(kind for kind in BackupType if kind is not BackupType.EMERGENCY)
    return repository.newest(plan, repository.stock(plan, attempt.context.lease), types).backup


def _lost(source: StateSource, before: BackupMetadata, rows: Mapping[str, int], name: str) -> Sequence[Collection]:
    """Return the collections of a source that hold nothing any more, of those that the plan covers."""
    held = (c for c in before.collections if c.source == name and c.rows and not rows.get(c.name))
    return [collection for collection in held if source.covers(spec_of(collection))]


def _is_suspicious(attempt: BackupAttempt, lost: Collection, rows: Mapping[str, int]) -> bool:
    """Whether it is, seeing what it held, whether it was empty before, and whether it is a partition of many."""
    if lost.name not in rows and family(lost.name) in map(family, rows):
        return False
    return is_emptying_suspicious(attempt.context.history, lost.name, lost.rows)


def _now(lost: Collection, rows: Mapping[str, int]) -> str:
    return "holds none now" if lost.name in rows else "is not there now"
