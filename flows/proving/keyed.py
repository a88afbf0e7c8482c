"""Tables of what stands under keys: fields of JSON texts and of hashes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hiredis
import pyarrow as pa

from blocks.plan.quality.column_types import named_type
from blocks.plan.quality.suite import QualitySuite
from blocks.plan.quality.table import CheckedTable
from blocks.rows.selection import Selection
from flows.proving.fields import BATCH, TEXT, Failures, Fields, Record, bytes_value, json_fields, text_value

if TYPE_CHECKING:
    import duckdb


class KeyedValues:
    """Fields of JSON texts or hashes under keys of Redis (or of another store of keys).

    The table has `key`, `expires_ms` where there is one, and the fields. What a hash holds is text, and a number where
    nine of ten values are.

    Args:
        suite: Says which keys, and what they hold.
        connection: Where the table is made.
        folder: A folder of its own.
        name: Name of the table.
    """

    def __init__(self, suite: QualitySuite, connection: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
        self._suite, self._hash = suite, suite.format == "hash"
        typed = {column: named_type(kind) for column, kind in suite.types.items()}
        self._fields = Fields(connection, folder, name, typed, self._hash)
        self._failures = Failures("hashes" if self._hash else "JSON texts")
        self._wide: dict[bytes, Record] = {}
        self._expires: dict[bytes, int | None] = {}
        self._guard = threading.Lock()

    def add(self, rows: pa.Table, part: int) -> None:
        """Take rows of keys."""
        if self._suite.keys is not None:
            rows = Selection(keys=(self._suite.keys,)).rows(rows, ("key",))
        keys, records, expires = [], [], []
        for row in rows.to_pylist():
            kind = row.get("type", "string")
            if kind != ("hash" if self._hash else "string"):
                if row.get("element") is None:
                    self._count()
                    self._note(row["key"])
                continue
            record = self._record(row)
            if record is not None:
                keys.append(row["key"])
                records.append(record)
                expires.append(row.get("expires_ms"))
        for start in range(0, len(records), BATCH):
            here = slice(start, start + BATCH)
            self._fields.add(_own(keys[here], expires[here]), records[here], part)

    def _record(self, row: Mapping[str, object]) -> Record | None:
        """Return the fields of a row; None where it is broken, or a piece of a wide hash."""
        key, value, element = row["key"], row["value"], row.get("element")
        if self._hash and (element is not None or value is None):
            with self._guard:
                record = self._wide.setdefault(bytes_value(key), {})
                if element is None:
                    self._failures.total += 1
                    self._expires[bytes_value(key)] = row.get("expires_ms")  # type: ignore[assignment]
                else:
                    record[text_value(element)] = (TEXT, text_value(value))
                    self._fields.check_width(record)  # of one that is too wide no more is kept
            return None
        self._count()
        try:
            return _hash_fields(bytes_value(value)) if self._hash else json_fields(bytes_value(value))
        except ValueError:
            self._note(key)
            return None

    def _count(self) -> None:
        with self._guard:
            self._failures.total += 1

    def _note(self, key: object) -> None:
        with self._guard:
            self._failures.note(text_value(key))

    def table(self) -> CheckedTable:
        """Return the table of all keys."""
        wide = list(self._wide)
        for start in range(0, len(wide), BATCH):
            keys = wide[start : start + BATCH]
            own = _own(keys, [self._expires.get(key) for key in keys])
            self._fields.add(own, [self._wide[key] for key in keys], 1 << 30)
        return self._fields.table({"key": "VARCHAR", "expires_ms": "BIGINT"}, self._failures.unparsed, "key")


def _own(keys: Sequence[object], expires: Sequence[object]) -> dict[str, pa.Array]:
    return {
        "key": pa.array([text_value(key) for key in keys], pa.large_string()),
        "expires_ms": pa.array(expires, pa.int64()),
    }


def _hash_fields(value: bytes) -> Record:
    reader = hiredis.Reader()
    reader.feed(value)
    try:
        items = reader.gets()
    except hiredis.ProtocolError as exc:
        raise ValueError("no array") from exc
    if not isinstance(items, list) or len(items) % 2:
        raise ValueError("no pairs")
    return {text_value(name): (TEXT, text_value(held)) for name, held in zip(items[::2], items[1::2], strict=True)}
