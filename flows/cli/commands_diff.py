"""The diff command: what changed between two backups, down to the field."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from pydantic import JsonValue

from blocks.errors import BackupNotFound
from blocks.selection import Selection
from flows.chain import Chain
from flows.cli import options
from flows.cli.console import note, say, say_json
from flows.cli.planning import open_plan
from flows.cli.render import grid
from flows.cli.table import Styled
from flows.cli.values import pair_text, value_json
from flows.compare import Absent, ChangeKind, CollectionDiff, FieldChange, RowChange, compare_backups

_SIGNS = {ChangeKind.ADDED: ("+", "green"), ChangeKind.REMOVED: ("−", "red"), ChangeKind.CHANGED: ("~", "yellow")}


def diff_arguments(command: ArgumentParser) -> None:
    """Declare what `diff` takes."""
    options.plan(command)
    options.backup(command, "first")
    options.backup(command, "second")
    options.selection(command)
    options.value(
        command,
        "--limit",
        "N",
        "Changed rows shown of each collection, else 20; 0 for all.",
        type=int,
        default=20,
    )
    options.json(command)


def diff(
    plan: str,
    first: str,
    second: str,
    *,
    collection: Sequence[str],
    key: Sequence[str],
    limit: int,
    json: bool,
) -> None:
    """Show what changed from the first backup to the second: keys added, removed and changed, and their fields."""
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    chains = [Chain(repository, repository.find(opened.name, one)) for one in (first, second)]
    before, after = chains
    selection = Selection(tuple(collection), tuple(key))
    found = compare_backups(before, after, selection, limit or None)
    # each collection is shown when it is compared: a big diff need not fit into memory
    results = list(found) if json else [_say_changes(one) for one in found]
    if not results:
        raise BackupNotFound(f"neither backup holds a collection {' or '.join(selection.collections)}")
    ids = before.target.backup_id, after.target.backup_id
    if json:
        say_json({"plan": opened.name, "a": ids[0], "b": ids[1], "collections": [_diff_json(one) for one in results]})
        return
    say(f"from {ids[0]} to {ids[1]}\n")
    table = grid("collection", ">added", ">removed", ">changed", "")
    for one in results:
        counts = (f"{one.counts[kind]:,}" for kind in (ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.CHANGED))
        table.add_row(one.collection, *counts, f"only in {one.only_in}" if one.only_in else "")
    say(table)
    if not any(one.total for one in results):
        note("nothing changed")


def _say_changes(result: CollectionDiff) -> CollectionDiff:
    for change in result.changes:
        sign, style = _SIGNS[change.kind]
        say(Styled(f"{sign} {result.collection} {_name(change)}", style))
        if change.kind is ChangeKind.CHANGED:
            for one in change.fields:
                say("    {}: {} → {}".format(one.name, *pair_text(one.old, one.new)))
    if hidden := result.total - len(result.changes):
        say(f"  … and {hidden:,} more of {result.collection} (--limit 0 shows all)")
    if result.total:
        say("")
    result.changes = []
    return result


def _name(change: RowChange) -> str:
    """Write a row's key: its label, and the key columns that the label leaves out."""
    parts = change.label.split(":")
    rest = [str(v) for v in change.key.values() if not isinstance(v, bytes | bytearray) and str(v) not in parts]
    return change.label + (f" [{', '.join(rest)}]" if rest and len(change.key) > 1 else "")


def _diff_json(result: CollectionDiff) -> JsonValue:
    return {
        "collection": result.collection,
        "only_in": result.only_in,
        "added": result.counts[ChangeKind.ADDED],
        "removed": result.counts[ChangeKind.REMOVED],
        "changed": result.counts[ChangeKind.CHANGED],
        "changes": [_change_json(change) for change in result.changes],
    }


def _change_json(change: RowChange) -> JsonValue:
    return {
        "change": change.kind.value,
        "label": change.label,
        "key": {name: value_json(value) for name, value in change.key.items()},
        "fields": {one.name: _field_json(one) for one in change.fields},
    }


def _field_json(one: FieldChange) -> JsonValue:
    sides = {"old": one.old, "new": one.new}
    return {side: value_json(value) for side, value in sides.items() if not isinstance(value, Absent)}
