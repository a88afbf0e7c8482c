"""Collections of a backup as files that others read: Parquet, CSV and JSON lines.

Rows are written part by part, so that memory is bounded however large a collection is. A file has a temporary name
until it is whole, and is then there at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import ConfigurationError, NotConfirmed
from blocks.records import Collection
from flows.reading.contents import Contents
from flows.reading.readable import columns_of, tables
from flows.reading.typed import TypedColumns
from flows.reading.values import csv_line, csv_lines, json_rows

_LONGEST_NAME = 200
"""Bytes of a file's name without its ending."""
_GROUP_BYTES = 64 * 1024 * 1024
"""Most Arrow bytes of a row group."""


class Format(StrEnum):
    """What is written; the value is what people type, and the ending of the files."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


@dataclass(frozen=True)
class ExportedFile:
    """One file that was written.

    Attributes:
        collection: Full name of the collection.
        path: The file.
        rows: How many there are.
        size_bytes: Its size.
        columns: By name the type of each column: Arrow's of Parquet, else that which the source declared.
        notes: What is to be known of it, each a sentence.
    """

    collection: str
    path: Path
    rows: int
    size_bytes: int
    columns: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportRequest:
    """What is exported.

    Attributes:
        folder: Where the files go; it is made where it is missing.
        format: What they are.
        collections: Names or globs; none for all.
        keys: Globs over keys; none for all.
        overwrite: Whether files that are there are replaced.
    """

    folder: Path
    format: Format
    collections: Sequence[str] = ()
    keys: Sequence[str] = ()
    overwrite: bool = False


@dataclass
class _Written:
    rows: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def export(contents: Contents, request: ExportRequest) -> Iterator[ExportedFile]:
    """Write a file for each collection, and yield it when it is whole.

    Args:
        contents: The backup.
        request: What is written, and where to.

    Raises:
        BackupNotFound: A collection is not there.
        NotConfirmed: A file is there already; nothing was written.
        ConfigurationError: The folder cannot be written.
        CorruptionDetected: What is stored is damaged; files that are whole stay.
        WrongKey: The credential is a writer's.
    """
    chosen = contents.chosen(request.collections)
    contents.chain.open_data({})
    paths = dict(zip([one.name for one in chosen], file_names([one.name for one in chosen]), strict=True))
    paths_of = {name: request.folder / f"{stem}.{request.format}" for name, stem in paths.items()}
    if not request.overwrite and (there := [str(path) for path in paths_of.values() if os.path.lexists(path)]):
        raise NotConfirmed(
            f"{', '.join(there[:3])}{' and others' if len(there) > 3 else ''} would be overwritten",
            hint="Name another folder, or say --overwrite.",
        )
    with _said_as("made"):
        request.folder.mkdir(parents=True, exist_ok=True)
    for collection in chosen:
        path = paths_of[collection.name]
        written = _write(contents, collection, request, path)
        yield ExportedFile(collection.name, path, written.rows, path.stat().st_size, written.columns, written.notes)


def file_names(collections: Sequence[str]) -> list[str]:
    """Name the file of each collection, without an ending: `ledger/orders` is in `ledger.orders`.

    What a file system may not take, or take for something else, is written as `%2F`, as in URLs; names that are too
    long, or differ from an earlier one in the case of letters only, get a piece of their SHA-256 at the end.
    """
    names: list[str] = []
    for collection in collections:
        source, _, own = collection.partition("/")
        name = f"{_escaped(source)}.{_escaped(own)}"
        # some file systems do not tell cases apart
        taken = {one.casefold() for one in names}
        if len(name.encode()) > _LONGEST_NAME or name.casefold() in taken:
            digest = hashlib.sha256(collection.encode("utf-8", "surrogatepass")).hexdigest()[:12]
            name = name.encode()[: _LONGEST_NAME - 13].decode(errors="ignore") + f"-{digest}"
        names.append(name)
    return names


def _escaped(text: str) -> str:
    return "".join(
        c if c.isalnum() or c in "._-" else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))
        for c in text
    )


def _write(contents: Contents, collection: Collection, request: ExportRequest, path: Path) -> _Written:
    write = {Format.PARQUET: _parquet, Format.CSV: _csv, Format.JSONL: _jsonl}[request.format]
    with _said_as("written"), _whole_at_once(path, request.overwrite) as file:
        return write(contents, collection, request.keys, file)


def _parquet(contents: Contents, collection: Collection, keys: Sequence[str], file: BinaryIO) -> _Written:
    """Write Parquet. The types are settled by the rows: where later ones need wider types, it is written again."""
    kind = contents.kind(collection)
    typed = TypedColumns(columns_of(collection, kind), kind)
    while True:
        rows = _parquet_pass(tables(contents, collection, keys), typed, file)
        if rows is not None:
            break
        file.seek(0)
        file.truncate()
    notes = tuple(
        f"column {name!r} of {collection.name} is text: it has values that {declared} of Parquet cannot hold"
        for name, declared in typed.as_text
    )
    return _Written(rows, {one.name: str(one.type) for one in typed.schema}, notes)


def _parquet_pass(read: Iterator[pa.Table], typed: TypedColumns, file: BinaryIO) -> int | None:
    """Write all rows; None where they turned out to need wider types, which are known then."""
    count, wrong = 0, False
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for rows in read:
            if typed.widen(rows) and writer is not None:
                wrong = True
            if wrong:
                continue
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(file, typed.schema, compression="zstd"))
            typical = max(rows.nbytes // max(rows.num_rows, 1), 1)
            writer.write_table(typed.cast(rows), row_group_size=max(_GROUP_BYTES // typical, 1))
            count += rows.num_rows
        if writer is None:
            stack.enter_context(pq.ParquetWriter(file, typed.schema, compression="zstd"))
    return None if wrong else count


def _csv(contents: Contents, collection: Collection, keys: Sequence[str], file: BinaryIO) -> _Written:
    columns = columns_of(collection, contents.kind(collection))
    file.write(csv_line(name for name, _ in columns).encode())
    return _lines(contents, collection, keys, file, csv_lines)


def _jsonl(contents: Contents, collection: Collection, keys: Sequence[str], file: BinaryIO) -> _Written:
    embedded = frozenset(["value"] if contents.kind(collection) == "mapping" else [])

    encode = json.JSONEncoder(ensure_ascii=False).encode

    def lines(rows: pa.Table) -> Iterator[str]:
        return (encode(row) + "\n" for row in json_rows(rows, embedded))

    return _lines(contents, collection, keys, file, lines)


def _lines(
    contents: Contents,
    collection: Collection,
    keys: Sequence[str],
    file: BinaryIO,
    lines: Callable[[pa.Table], Iterator[str]],
) -> _Written:
    written = _Written(columns=dict(columns_of(collection, contents.kind(collection))))
    for rows in tables(contents, collection, keys):
        file.writelines(line.encode() for line in lines(rows))
        written.rows += rows.num_rows
    return written


@contextmanager
def _whole_at_once(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file that is there under its name when it is whole, and not at all before; only its owner can read it."""
    draft = path.with_name(f".lastgood-{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            draft.replace(path)
        else:
            os.link(draft, path)  # never over a file that came meanwhile
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _said_as(done: str) -> Iterator[None]:
    """Translate what the operating system says of the folder or a file in it."""
    try:
        yield
    except OSError as exc:
        where = exc.filename2 or exc.filename or "the file"
        raise ConfigurationError(
            f"{where} cannot be {done}: {exc.strerror}", hint="Name a folder with room that can be written."
        ) from exc
