"""The ls command: what a backup holds. Its collections need no data key, their keys a reader's."""

from __future__ import annotations

import stat
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.records import Collection
from flows.cli import options
from flows.cli.output import note, say, say_json
from flows.cli.running import open_plan
from flows.cli.tables import grid
from flows.reading.contents import Contents
from flows.reading.readable import columns_of
from flows.reading.records import keys_of
from flows.reading.values import json_rows
from flows.reporting.units import human_bytes

SHOWN_KEYS = 100
_COLUMNS_SHOWN = 8
_KINDS = {"dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "file": stat.S_IFREG}


def ls_arguments(command: ArgumentParser) -> None:
    """Declare what `ls` takes."""
    options.plan(command)
    options.backup(command)
    command.add_argument("collection", metavar="COLLECTION", nargs="?", help="Full name of one, for its keys.")
    options.values(command, "--key", "GLOB", "Glob over keys such as position:*; may be repeated.")
    limit = f"Keys shown, else {SHOWN_KEYS}; 0 for all."
    options.value(command, "--limit", "N", limit, type=int, default=SHOWN_KEYS)
    options.value(command, "--last", "N", "Show the last N keys instead of the first.", type=int, default=0)
    options.json(command)


def ls(
    plan: str, backup: str, collection: str | None, *, key: Sequence[str], limit: int, last: int, json: bool
) -> None:
    """Show what a backup holds: its collections with rows, sizes, keys and columns, or the keys of one collection."""
    if limit < 0 or last < 0:
        raise ConfigurationError("a number of keys is not negative")
    if collection is None and (key or last):
        raise ConfigurationError("--key and --last are for the keys of a collection, and none is named")
    opened = open_plan(plan)
    contents = Contents(opened, backup)
    head: dict[str, JsonValue] = {"plan": opened.name, "backup_id": contents.backup.backup_id}
    if collection is None:
        _collections(contents, head, json)
        return
    chosen = contents.collection(collection)
    keys = _last(contents, chosen, key, last) if last else _first(contents, chosen, key, limit)
    shown: list[JsonValue] = []
    count, total, more = 0, last or limit, False
    for table in keys:
        room = table.num_rows if not total else max(total - count, 0)
        more = more or room < table.num_rows
        if json:
            shown += json_rows(table.slice(0, room))
        else:
            _say_keys(table.slice(0, room), contents.kind(chosen))
        count += min(room, table.num_rows)
    if json:
        say_json(head | {"collection": chosen.name, "keys": shown, "more": more})
    if more:
        note("there are more keys (--limit 0 shows all, --key chooses)")


def _collections(contents: Contents, head: dict[str, JsonValue], json: bool) -> None:
    rows = [_collection_json(contents, one) for one in contents.backup.collections]
    if json:
        say_json(head | {"collections": list[JsonValue](rows)})
        return
    table = grid("collection", ">rows", ">bytes", ">stored", "key", "columns")
    for one, row in zip(contents.backup.collections, rows, strict=True):
        size, columns = contents.size(one), columns_of(one, contents.kind(one))
        named = [f"{name} {kind}".strip() for name, kind in columns[:_COLUMNS_SHOWN]]
        more = [f"and {len(columns) - _COLUMNS_SHOWN} more"] if len(columns) > _COLUMNS_SHOWN else []
        key = ", ".join(map(str, row["key"])) if isinstance(row["key"], list) else ""
        cells = (f"{one.rows:,}", human_bytes(size.rows), human_bytes(size.stored), key, ", ".join(named + more))
        table.add_row(one.name, *cells)
    say(table)


def _collection_json(contents: Contents, collection: Collection) -> dict[str, JsonValue]:
    kind, size = contents.kind(collection), contents.size(collection)
    columns = columns_of(collection, kind)
    named = {name for name, _ in columns}
    return {
        "name": collection.name,
        "type": kind,
        "rows": collection.rows,
        "size_bytes": size.rows,
        "size_stored": size.stored,
        "key": [name for name in collection.key if name in named],
        "columns": [list(column) for column in columns],
        "selected_keys": list(collection.selected_keys),
    }


def _first(contents: Contents, collection: Collection, keys: Sequence[str], limit: int) -> Iterator[pa.Table]:
    """Yield keys, part by part, until there is one more than are wanted."""
    left = limit
    for part in contents.parts(collection, keys):
        found = keys_of(part, contents.kind(collection))
        if not found.num_rows:
            continue
        yield found
        left -= found.num_rows
        if limit and left < 0:
            return


def _last(contents: Contents, collection: Collection, keys: Sequence[str], count: int) -> Iterator[pa.Table]:
    """Return the last keys, in their order, reading no more parts than have to be."""
    found: list[pa.Table] = []
    for part in reversed(contents.parts(collection, keys)):
        table = keys_of(part, contents.kind(collection))
        taken = table.slice(max(table.num_rows - count, 0))
        found.insert(0, taken)
        count -= taken.num_rows
        if not count:
            break
    return iter(found)


def _say_keys(keys: pa.Table, kind: str) -> None:
    if kind not in ("files", "redis"):
        for one in keys.column("key").to_pylist():
            say(_in_line(one))
        return
    table = grid("", ">", "", "") if kind == "files" else grid("", "", "")
    table.headed = False
    for row in json_rows(keys):
        if kind == "redis":
            table.add_row(str(row["type"]), _expiry(row["expires_ms"]), _in_line(str(row["key"])))
        else:
            table.add_row(*_file_cells(row))
    say(table)


def _in_line(key: str) -> str:
    """Write a key in one line: one with a line break in it is not taken for two."""
    return key.replace("\n", "\\n")


def _expiry(expires_ms: JsonValue) -> str:
    from blocks.sources.redis.readable import moment  # only where there are keys of Redis

    return f"until {moment(expires_ms)}" if isinstance(expires_ms, int) else "-"


def _file_cells(row: dict[str, JsonValue]) -> tuple[str, ...]:
    """Write an entry as `ls -l` does: mode, size in bytes, time in UTC, path."""
    mode = stat.filemode(_KINDS.get(str(row["kind"]), 0) | int(str(row["mode"] or "0"), 8))
    path = str(row["path"]) or "."
    target = f" -> {row['target']}" if row["kind"] == "symlink" else ""
    size = "" if row["size"] is None else str(row["size"])
    return mode, size, str(row["modified"] or "")[:19].replace("T", " "), _in_line(path + target)


COMMAND = options.Command("Show what a backup holds: collections, or the keys of one.", ls_arguments, ls)
