"""The preview of a restore that waits for a person, in Markdown: what would change, and what would be lost."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.sources.target import RestoreMode
from flows.pipeline.results import Approved, CollectionResult, RecordSample, RestoreResult
from flows.reporting.markdown import plain, table
from flows.reporting.units import human_time

_OTHER = ("gets other values", "get other values")


def summary(preview: RestoreResult) -> str:
    """Say in a sentence what a restore would do; for the form that a person approves it with."""
    added, changed, removed = _totals(preview.collections)
    where = ", ".join(f"{source}: {place}" for source, place in preview.places.items())
    return (
        f"Restore `{preview.backup_id}` of plan {plain(preview.plan)}, state as of {human_time(preview.timestamp)}, to "
        f"{plain(where)}: {added:,} records added, {changed:,} changed, {removed:,} removed."
    )


def approval_markdown(preview: RestoreResult, kept: bool) -> str:
    """Describe what a restore would do, for a person who approves it or does not.

    Args:
        preview: Its preview, with samples.
        kept: Whether what is there now is backed up first.
    """
    exact = preview.previewed is RestoreMode.EXACT
    how = "exact: what the backup does not hold is removed" if exact else "merge: what the backup does not hold stays"
    facts = [
        ("plan", plain(preview.plan)),
        ("backup", f"`{preview.backup_id}`"),
        ("state as of", human_time(preview.timestamp)),
        ("mode", how),
        *((f"{plain(source)} goes to", plain(place)) for source, place in preview.places.items()),
    ]
    parts = [
        "# May this be restored?",
        summary(preview),
        "\n".join(f"- {name}: {value}" for name, value in facts),
        "## What would change",
        table(["collection", "rows", "added", "changed", "removed"], [_counts(c) for c in preview.collections]),
        "## What would be lost",
        *_lost(preview.collections, kept),
        *_samples(preview.collections),
    ]
    if preview.notes:
        parts += ["## To be known", "\n".join(f"- {plain(note)}" for note in preview.notes)]
    return "\n\n".join(parts)


def approved_line(approved: Approved) -> str:
    """Say who approved, when, and why."""
    note = f": {plain(approved.note)}" if approved.note else ""
    return f"Approved by {plain(approved.by)} at {human_time(approved.at)}{note}."


def _totals(collections: Sequence[CollectionResult]) -> tuple[int, int, int]:
    return (
        sum(c.added or 0 for c in collections),
        sum(c.changed or 0 for c in collections),
        sum(c.removed or 0 for c in collections),
    )


def _counts(one: CollectionResult) -> list[str]:
    return [plain(one.collection), *(f"{n or 0:,}" for n in (one.rows, one.added, one.changed, one.removed))]


def _lost(collections: Sequence[CollectionResult], kept: bool) -> list[str]:
    lines = []
    for one in collections:
        what = [
            f"{n:,} record{'' if n == 1 else 's'} {single if n == 1 else several}"
            for n, single, several in ((one.removed, "goes", "go"), (one.changed, *_OTHER))
            if n
        ]
        if what:
            lines.append(f"- {plain(one.collection)}: {' and '.join(what)}")
    if not lines:
        return ["Nothing that is there now."]
    back = "It is backed up first, and `lastgood undo` brings it back." if kept else "**Nothing brings it back.**"
    return ["\n".join(lines), back]


def _samples(collections: Sequence[CollectionResult]) -> list[str]:
    parts = []
    for one in collections:
        if not one.samples:
            continue
        shown = any(f.before is not None or f.after is not None for s in one.samples for f in s.fields)
        header = ["record", "change", "field", *(["now", "restored"] if shown else [])]
        parts += [f"### {plain(one.collection)}", table(header, [r for s in one.samples for r in _rows(s, shown)])]
        if not shown:
            parts.append("Values are not shown: `preview_values` of the plan does not name this collection.")
    return ["## Some of the records", *parts] if parts else []


def _rows(sample: RecordSample, shown: bool) -> list[list[str]]:
    record = [plain(sample.key), sample.kind]
    if not shown:
        return [[*record, ", ".join(plain(field.name) for field in sample.fields) or "—"]]
    return [
        [
            *record,
            plain(field.name),
            *("—" if v is None else plain(v) or "(empty)" for v in (field.before, field.after)),
        ]
        for field in sample.fields
    ]
