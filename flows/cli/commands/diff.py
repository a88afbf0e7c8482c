"""The diff command: what changed between two backups, down to the field."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser
from base64 import b64encode
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from pydantic import JsonValue

from blocks.errors import BackupNotFound
from blocks.rows.selection import Selection
from flows.cli import options
from flows.cli.output import note, say, say_json
from flows.cli.running import open_plan
from flows.cli.tables import Styled, grid
from flows.pipeline.chain import Chain
from flows.pipeline.hints import nearest
from flows.reading.diff import Absent, CollectionDiff, FieldChange, RowChange, compare_backups
from flows.reading.diff_rows import ChangeKind
from flows.reading.file_changes import ENTRY, FileChange, FileChanges, FileState
from flows.reporting.units import human_bytes

_SIGNS = {ChangeKind.ADDED: ("+", "green"), ChangeKind.REMOVED: ("−", "red"), ChangeKind.CHANGED: ("~", "yellow")}

SHOWN_CHARACTERS = 60
"""Longest text of a value on a terminal."""

JSON_TEXT_CHARACTERS = 64 * 1024
JSON_BINARY_BYTES = 1024
"""Longest values that JSON output carries whole; of longer ones it gives size and SHA-256."""


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
        names = list(dict.fromkeys(one.name for chain in chains for one in chain.target.collections))
        said = nearest(selection.collections[0], names) if selection.collections else ""
        raise BackupNotFound(f"neither backup holds a collection {' or '.join(selection.collections)}{said}")
    ids = before.target.backup_id, after.target.backup_id
    if json:
        say_json({"plan": opened.name, "a": ids[0], "b": ids[1], "collections": [_diff_json(one) for one in results]})
        return
    say(f"from {ids[0]} to {ids[1]}\n")
    table = grid("collection", ">added", ">removed", ">changed", "")
    for one in results:
        told = one.files.counts if one.files is not None else one.counts
        counts = (f"{told[kind]:,}" for kind in (ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.CHANGED))
        table.add_row(one.collection, *counts, f"only in {one.only_in}" if one.only_in else "")
    say(table)
    if not any(one.total for one in results):
        note("nothing changed")


def _say_changes(result: CollectionDiff) -> CollectionDiff:
    if result.files is not None:
        _say_files(result, result.files)
        return result
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


def _say_files(result: CollectionDiff, files: FileChanges) -> None:
    """Say what changed by file; of content that changed in place, where it begins to differ."""
    content: dict[object, list[FieldChange]] = {}
    for change in result.changes:
        if change.kind is ChangeKind.CHANGED and change.key.get("offset") != ENTRY:
            content.setdefault(change.key.get("path"), []).extend(one for one in change.fields if one.name == "data")
    for file in files.changes:
        sign, style = _SIGNS[file.kind]
        say(Styled(f"{sign} {result.collection} {path_text(file.path)}  {_file_text(file)}", style))
        for one in content.get(file.path, []):
            say("    {}: {} → {}".format(one.name, *pair_text(one.old, one.new)))
    if hidden := files.total - len(files.changes):
        say(f"  … and {hidden:,} more of {result.collection} (--limit 0 shows all)")
    if files.total:
        say("")
    files.changes, result.changes = [], []


def _file_text(file: FileChange) -> str:
    """Say what a file is, or what of it changed."""
    old, new = file.old, file.new
    if old is None or new is None:
        state = new or old
        return "content" if state is None else "  ".join(text for text in _state_texts(state).values() if text)
    was, now = _state_texts(old), _state_texts(new)
    changed = [f"{name} {was[name] or '—'} → {now[name] or '—'}" for name in was if was[name] != now[name]]
    if file.content and was["size"] == now["size"]:
        changed.append("content")
    return ", ".join(changed)


def _state_texts(state: FileState) -> dict[str, str]:
    size = "" if state.size is None else f"{state.size:,} B"
    return {
        "kind": "" if state.kind == "file" else state.kind or "",
        "size": size,
        "modified": "" if state.mtime_ns is None else time_text(state.mtime_ns),
        "mode": "" if state.mode is None else f"{state.mode:04o}",
        "owner": "" if state.uid is None else f"{state.uid}:{state.gid}",
        "target": "" if state.target is None else path_text(state.target),
    }


def time_text(nanoseconds: int) -> str:
    """Write a time in nanoseconds since 1970 as ISO 8601 in UTC, with what it has of a second."""
    seconds, rest = divmod(nanoseconds, 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime(1970, 1, 1) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def path_text(path: bytes) -> str:
    r"""Write a path as `--key` takes it: `\xff` for bytes that are no UTF-8; `.` for the tree itself."""
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n") or "."


def _files_json(files: FileChanges | None) -> JsonValue:
    if files is None:
        return None
    return {
        "added": files.counts[ChangeKind.ADDED],
        "removed": files.counts[ChangeKind.REMOVED],
        "changed": files.counts[ChangeKind.CHANGED],
        "changes": [
            {
                "change": one.kind.value,
                "path": one.path.decode("utf-8", "backslashreplace"),
                "old": _state_json(one.old),
                "new": _state_json(one.new),
                "content": one.content,
            }
            for one in files.changes
        ],
    }


def _state_json(state: FileState | None) -> JsonValue:
    if state is None:
        return None
    return {
        "kind": state.kind,
        "size": state.size,
        "modified": None if state.mtime_ns is None else time_text(state.mtime_ns),
        "mode": None if state.mode is None else f"{state.mode:04o}",
        "uid": state.uid,
        "gid": state.gid,
        "target": None if state.target is None else state.target.decode("utf-8", "backslashreplace"),
    }


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
        "files": _files_json(result.files),
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


def pair_text(old: object, new: object) -> tuple[str, str]:
    """Write a value before and after; of long texts, the piece where they begin to differ."""
    one, two = _text(old), _text(new)
    if len(one) <= SHOWN_CHARACTERS and len(two) <= SHOWN_CHARACTERS:
        return one, two
    start = 0
    if not isinstance(old, Absent) and not isinstance(new, Absent):
        length = min(len(one), len(two))
        first = next((n for n in range(length) if one[n] != two[n]), length)
        start = first - 10 if first > SHOWN_CHARACTERS - 20 else 0
    return _cut(one, start), _cut(two, start)


def value_json(value: object) -> JsonValue:
    """Write a value as JSON; what JSON has no form for becomes an object that names its form."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else {"float": repr(value)}
    if isinstance(value, str):
        if len(value) <= JSON_TEXT_CHARACTERS:
            return value
        return {"characters": len(value), "sha256": _sha256(value.encode("utf-8", "surrogatepass"))}
    if isinstance(value, bytes | bytearray):
        if len(value) <= JSON_BINARY_BYTES:
            return {"base64": b64encode(value).decode("ascii")}
        return {"bytes": len(value), "sha256": _sha256(value)}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)


def _text(value: object) -> str:
    if isinstance(value, Absent):
        return "—"
    if value is None:
        return "NULL"
    if isinstance(value, bytes | bytearray):
        return _binary_text(bytes(value))
    if isinstance(value, datetime | date | time | Decimal):
        return str(value)
    return repr(value)


def _binary_text(value: bytes) -> str:
    """Show bytes that are short text as text, all others by their size and digest."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if len(value) <= JSON_TEXT_CHARACTERS and text.replace("\n", "").replace("\t", "").isprintable() and text:
        return f"b{text!r}"
    return f"{human_bytes(len(value))} sha256 {_sha256(value)[:12]}" if value else "b''"


def _cut(text: str, start: int) -> str:
    piece = text[start : start + SHOWN_CHARACTERS]
    return ("…" if start else "") + piece + ("…" if start + SHOWN_CHARACTERS < len(text) else "")


def _sha256(value: bytes | bytearray) -> str:
    return hashlib.sha256(value).hexdigest()


COMMAND = options.Command("Show what changed between two backups, down to the field.", diff_arguments, diff)
