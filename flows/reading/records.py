"""Single records of a backup, and all of them, as JSON or as the content of files; and the keys that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import BackupNotFound, ConfigurationError
from blocks.records import Collection
from blocks.rows.selection import label_text
from flows.pipeline.chain import RestorePart
from flows.reading.contents import Contents, load, loaded
from flows.reading.readable import readable
from flows.reading.values import json_rows

Row = dict[str, JsonValue]


def records(contents: Contents, collection: Collection, keys: Sequence[str] = ()) -> Iterator[Row]:
    """Yield records for JSON, a part at a time: a row, a key of Redis, or an entry of a tree each.

    Args:
        contents: The backup.
        collection: One of its collections.
        keys: Globs over keys; none for all.

    Raises:
        CorruptionDetected: What is stored is damaged.
        WrongKey: The credential is a writer's.
    """
    for part in contents.parts(collection, keys):
        for rows in loaded([part]):
            yield from _as_json(rows, collection, contents.kind(collection))


def record(contents: Contents, collection: Collection, key: str) -> list[Row]:
    """Return the record of a key; several where some keys are shown alike. Little is read where it can be looked up.

    Args:
        contents: The backup.
        collection: One of its collections, of no tree.
        key: The key as it is shown.

    Raises:
        BackupNotFound: There is none.
    """
    tables = _of_key(contents, collection, key)
    return [row for table in tables for row in _as_json(table, collection, contents.kind(collection))]


def file_content(contents: Contents, collection: Collection, path: str) -> Iterator[bytes]:
    """Return what yields the content of one file, a piece at a time; its entry has been found by then.

    Args:
        contents: The backup.
        collection: A tree.
        path: The path as it is shown.

    Raises:
        BackupNotFound: There is no such file.
        ConfigurationError: It is a folder or a symbolic link.
    """
    from blocks.sources.files import readable as files  # only where there are files

    path = path.removeprefix("./").rstrip("/") or path
    tables = _of_key(contents, collection, path)
    first = next(tables)
    for row in files.entries(first).to_pylist():
        if row["kind"] != "file":
            shown = f"a symbolic link to {row['target']!r}" if row["kind"] == "symlink" else "a folder"
            raise ConfigurationError(f"{path!r} of {collection.name} is {shown}", hint="Name a file.")
    return files.content(_with(first, tables))


def file_contents(contents: Contents, collection: Collection, keys: Sequence[str]) -> Iterator[bytes]:
    """Yield the content of all files that some globs choose, one after the other.

    Args:
        contents: The backup.
        collection: A tree.
        keys: Globs over paths.

    Raises:
        BackupNotFound: They choose nothing.
    """
    from blocks.sources.files import readable as files

    tables = loaded(contents.parts(collection, keys))
    first = next(tables, None)
    if first is None:
        raise _no_key(contents, collection, " or ".join(map(repr, keys)))
    yield from files.content(_with(first, tables))


def keys_of(part: RestorePart, kind: str) -> pa.Table:
    """Return the keys of a part, in its order.

    Args:
        part: The part.
        kind: The type of its source.

    Returns:
        `key`, as `--key` takes it; of Redis also `type` and `expires_ms`, of a tree the columns of its entries, whose
        `path` is the key.
    """
    rows = load(part)
    if kind == "files":
        return readable(rows, part.collection, kind)
    if kind == "redis":
        from blocks.sources.redis import readable as redis

        return redis.key_rows(rows)
    if not rows.num_columns:
        return pa.table({"key": pa.array([], pa.large_string())})
    labels = label_text(rows, part.collection.label)
    if pa.types.is_large_binary(labels.type):
        texts = [label.decode("utf-8", "backslashreplace") for label in labels.to_pylist()]
        return pa.table({"key": pa.array(texts, pa.large_string())})
    return pa.table({"key": labels})


def _as_json(rows: pa.Table, collection: Collection, kind: str) -> Iterator[Row]:
    if kind == "redis":
        from blocks.sources.redis import readable as redis

        yield from redis.objects(rows)
        return
    yield from json_rows(readable(rows, collection, kind), frozenset(["value"] if kind == "mapping" else []))


def _of_key(contents: Contents, collection: Collection, key: str) -> Iterator[pa.Table]:
    """Return the rows of a key, a table for each part that has any, of which there is one.

    Raises:
        BackupNotFound: There are none.
    """
    parts = contents.record(collection, key)
    # what a lookup does not find is looked for in all that there is, before anybody is told that it is not there
    for looked_through in (parts, [part.whole() for part in parts if part.wanted is not None]):
        tables = loaded(looked_through)
        if (first := next(tables, None)) is not None:
            return _with(first, tables)
    raise _no_key(contents, collection, repr(key))


def _with(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _no_key(contents: Contents, collection: Collection, key: str) -> BackupNotFound:
    return BackupNotFound(
        f"{collection.name} of backup {contents.backup.backup_id} has no key {key}",
        hint=f"`lastgood ls PLAN BACKUP {collection.name} --key GLOB` shows keys.",
    )
