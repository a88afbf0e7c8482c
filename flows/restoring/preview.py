"""What a restore would do: its change list, counted; writes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack

import pyarrow as pa

from blocks.errors import RestoreRefused, SourceUnavailable, TemporaryFolderUnusable, UnsupportedState
from blocks.sources.target import RestoreMode
from blocks.sources.view import View
from flows.pipeline.results import CollectionResult, RestoreResult
from flows.restoring.change_list import ChangeList
from flows.restoring.records import RecordChanges, record_changes
from flows.restoring.targets import open_targets


def preview_restore(
    changes: ChangeList, started: float, taken_back: Mapping[str, pa.LargeBinaryArray]
) -> RestoreResult:
    """Count, for each selected collection, the rows a restore would add, change and remove.

    What would make the restore refuse is looked for, too, and said as a note.

    Args:
        changes: The restore's change list; its mode is the one that is previewed.
        started: When the command began, by the monotonic clock, in seconds.
        taken_back: `_key`s (large_binary) by full name of a collection that only the restore which is taken back added.
    """
    notes, results = list[str](), list[CollectionResult]()
    with ExitStack() as opened:
        for name in changes.sources:
            view = _look(changes, name, opened, notes)
            results += map(_counted, record_changes(changes, name, view, taken_back))
    target = changes.chain.target
    return RestoreResult(
        plan=changes.plan.name,
        backup_id=target.backup_id,
        timestamp=target.timestamp,
        mode=RestoreMode.PREVIEW,
        previewed=changes.wanted.mode,
        collections=results,
        places=changes.shown_places,
        notes=notes + _warnings(changes),
        seconds=round(time.monotonic() - started, 3),
    )


def _look(changes: ChangeList, name: str, opened: ExitStack, notes: list[str]) -> View | None:
    place = changes.sources[name].place
    source = changes.plan.sources[name] if place is None else changes.plan.sources[name].at(place)
    try:
        return opened.enter_context(source.view())
    except (SourceUnavailable, UnsupportedState) as exc:
        notes.append(f"{name}: nothing there that can be read ({exc.message})")
        return None


def _counted(found: RecordChanges) -> CollectionResult:
    return CollectionResult(
        collection=found.collection,
        rows=found.rows,
        added=len(found.added),
        changed=len(found.changed),
        removed=len(found.deleted) + found.replaced,
        samples=found.samples,
        live=found.live,
    )


def _warnings(changes: ChangeList) -> list[str]:
    """Say what a restore would say before its first write, and whether it would be refused."""
    try:
        with open_targets(changes) as targets:
            return list(targets.notes)
    except (RestoreRefused, SourceUnavailable, UnsupportedState, TemporaryFolderUnusable) as exc:
        return [f"a restore would be refused: {exc.message}"]
