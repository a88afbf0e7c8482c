"""Tables of what files hold: CSV, JSON lines, Parquet."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from blocks.plan.quality.column_types import named_type
from blocks.plan.quality.suite import QualitySuite
from blocks.plan.quality.table import CheckedTable
from blocks.rows.selection import Selection
from flows.proving.fields import BATCH, NUMBER, TEXT, Failures, Fields, Record, json_fields, text_value, written

if TYPE_CHECKING:
    import duckdb


class FileTables:
    """Files with tables (CSV, JSON lines, Parquet): all that match, one below the other.

    The table has `path`, `line` (of Parquet the number of the row), and the columns of the files. What CSV holds is
    text, and a number where nine of ten values are.

    Args:
        suite: Says which files, and what they hold.
        connection: Where the table is made.
        folder: A folder of its own, for the files.
        name: Name of the table.
    """

    def __init__(self, suite: QualitySuite, connection: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
        self._suite, self._connection, self._folder = suite, connection, folder
        self._typed = {column: named_type(kind) for column, kind in suite.types.items()}
        self._fields = Fields(connection, folder, name, self._typed, guess=suite.format == "csv")
        self._files: dict[bytes, tuple[Path, int | None]] = {}
        self._guard = threading.Lock()
        self._bad_files, self._bad_lines = Failures("files"), Failures("lines")
        self._unended = Failures("files", "end within a line", "warning")

    def add(self, rows: pa.Table, part: int) -> None:
        """Take rows of files, and lay their content together."""
        if self._suite.keys is not None:
            rows = Selection(keys=(self._suite.keys,)).rows(rows, ("path",))
        for row in rows.to_pylist():
            path, offset = row["path"], row["offset"]
            with self._guard:
                place, size = self._files.get(path, (self._folder / f"file-{len(self._files)}", None))
                if row["kind"] == "file" and row["target"] is None:
                    self._files[path] = (place, row["size"])
                elif row["kind"] is None and row["data"] is not None:
                    self._files[path] = (place, size)
                    with open(place, "r+b" if place.exists() else "wb") as file:
                        file.seek(offset)
                        file.write(row["data"])

    def table(self) -> CheckedTable:
        """Read all files, and return their table."""
        read = {"csv": self._csv, "json_lines": self._json_lines, "parquet": self._parquet}[str(self._suite.format)]
        for number, (path, (place, size)) in enumerate(sorted(self._files.items())):
            name = text_value(path)
            self._bad_files.total += 1
            with open(place, "a+b") as file:
                file.truncate(size)
                self._see_end(file, name)
            for start, records in self._parsed(read(place, name), name):
                lines = pa.array(range(start, start + len(records)), pa.int64())
                own = {"path": pa.array([name] * len(records), pa.large_string()), "line": lines}
                self._fields.add(own, records, number)
            place.unlink()
        unparsed = self._bad_files.unparsed + self._bad_lines.unparsed + self._unended.unparsed
        return self._fields.table({"path": "VARCHAR", "line": "BIGINT"}, unparsed, "path")

    def _parsed(self, read: Iterator[tuple[int, list[Record]]], name: str) -> Iterator[tuple[int, list[Record]]]:
        """Yield what is read of a file until it does not parse; no room for what becomes of it is no fault of it."""
        try:
            yield from read
        except (pa.ArrowException, OSError, ValueError):
            self._bad_files.note(name)

    def _see_end(self, file: BinaryIO, name: str) -> None:
        """Note a file whose last line is not ended: it may have been cut there."""
        self._unended.total += 1
        if self._suite.format != "parquet" and file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) not in b"\r\n":
                self._unended.note(name)

    def _csv(self, place: Path, name: str) -> Iterator[tuple[int, list[Record]]]:
        def wrong(row: pa.csv.InvalidRow) -> str:
            self._bad_lines.note(name)
            self._bad_lines.total += 1
            return "skip"

        parse = pa.csv.ParseOptions(
            delimiter=self._suite.delimiter, newlines_in_values=True, invalid_row_handler=wrong, ignore_empty_lines=True
        )
        quiet = pa.csv.ParseOptions(
            delimiter=self._suite.delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip"
        )
        with pa.csv.open_csv(place, parse_options=quiet) as head:
            header = head.schema.names
        _no_name_twice(header)
        self._fields.know(header)
        types = {column: pa.large_string() for column in header}
        convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
        line = 1
        # one thread, so that rows come in their order and the handler is called by it alone
        options = pa.csv.ReadOptions(use_threads=False)
        with pa.csv.open_csv(place, options, parse, convert) as reader:
            for batch in reader:
                columns = {column: batch.column(column).to_pylist() for column in header}
                for start in range(0, batch.num_rows, BATCH):
                    rows = range(start, min(start + BATCH, batch.num_rows))
                    yield line, [{c: (TEXT, v[n]) for c, v in columns.items() if v[n] is not None} for n in rows]
                    line += len(rows)
                self._bad_lines.total += batch.num_rows

    def _json_lines(self, place: Path, name: str) -> Iterator[tuple[int, list[Record]]]:
        records: list[Record] = []
        first, number = 1, 0
        with open(place, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                self._bad_lines.total += 1
                try:
                    records.append(json_fields(line))
                except ValueError:
                    self._bad_lines.note(name)
                if len(records) == BATCH:
                    yield first, records
                    first, records = number + 1, []
        if records:
            yield first, records

    def _parquet(self, place: Path, name: str) -> Iterator[tuple[int, list[Record]]]:
        line = 1
        with pq.ParquetFile(place) as file:
            _no_name_twice(file.schema_arrow.names)
            self._fields.know(file.schema_arrow.names)
            for column in file.schema_arrow:
                if pa.types.is_floating(column.type) and column.name not in self._suite.types:
                    self._typed[column.name] = "DOUBLE"
                elif pa.types.is_date(column.type):
                    self._typed.setdefault(column.name, "DATE")
                elif pa.types.is_timestamp(column.type):
                    self._typed.setdefault(column.name, "TIMESTAMPTZ" if column.type.tz else "TIMESTAMP")
            for batch in file.iter_batches(BATCH):
                records: list[Record] = []
                for row in batch.to_pylist():
                    records.append({column: _of_parquet(held) for column, held in row.items() if held is not None})
                yield line, records
                line += len(records)


def _no_name_twice(names: list[str]) -> None:
    if len({*names}) < len(names):
        raise ValueError("two columns have the same name")


def _of_parquet(value: object) -> tuple[int, str]:
    if isinstance(value, float):
        return (NUMBER, repr(value)) if value == value else (TEXT, "NaN")
    if isinstance(value, bool | int | Decimal | str):
        return written(value)
    return (TEXT, text_value(value)) if isinstance(value, bytes) else (TEXT, str(value))
