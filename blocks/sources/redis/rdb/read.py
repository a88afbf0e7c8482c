"""Reading an RDB while it arrives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from struct import error as too_short

import pyarrow as pa

from blocks.sources.redis.rdb.batch import BatchReader, Wanted, values_are_sound
from blocks.sources.redis.rdb.cursor import Cursor
from blocks.sources.redis.rdb.large import Filled, Large, large_at, read_large
from blocks.sources.redis.rdb.layout import (
    CHECKSUM_BYTES,
    HEADER_BYTES,
    MAGIC,
    MAGIC_BYTES,
    VERSIONS,
    Opcode,
    UnknownForm,
    damaged,
    made_at,
)
from blocks.sources.redis.rdb.scan import Found, find_records

_BATCH_BYTES = 4 * 1024 * 1024


class RdbReader:
    """Reads rows out of an RDB, in bounded memory: one batch, and the rows of the largest key.

    The checksum at the end is not compared: the transport has its own, and to compute it would take as long again.

    Args:
        chunks: The bytes, in any pieces.
        moment_ms: Returns the moment that the RDB is of, in milliseconds since 1970, by what it says itself, which is
            only the second: what expired before is left out.
        databases: Those to be read; all where it is None.
        wanted: Which keys are to be read; all where it is None.
        batch_bytes: How much is read at once.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        moment_ms: Callable[[datetime | None], int],
        databases: Collection[int] | None = None,
        wanted: Wanted | None = None,
        batch_bytes: int = _BATCH_BYTES,
    ) -> None:
        self._chunks, self._moment = chunks, moment_ms
        self._databases, self._wanted, self._batch_bytes = databases, wanted, batch_bytes
        self._database = 0
        self._left: int | None = None
        self.data, self.at = b"", 0
        self.seen: set[int] = set()
        """Those of the databases that hold keys."""
        self.made_at: datetime | None = None
        """When the RDB was made, to the second."""

    def tables(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number of a database and rows of it, in the form of rows.SCHEMA.

        Raises:
            UnknownForm: There is something in it that cannot be read here.
            SourceUnavailable: It is damaged, or ends too early.
        """
        more = self._begin()
        self._moment_ms = self._moment(self.made_at)
        reader = BatchReader(self._moment_ms, self._wanted)
        while True:
            found = find_records(self.data, self.at)
            if found.starts:
                yield from self._rows(reader, found)
            self.at = found.end
            if found.opcode == Opcode.END:
                return self._end()
            if found.opcode is None or not self._change(found.opcode):
                if not more:
                    raise damaged("it ends in the middle")
                if found.opcode is None and (large := self._large()) is not None:
                    yield from self._read_large(large)
                    continue
                more = self.more()

    def _begin(self) -> bool:
        """Read what an RDB begins with; False where all of it is here."""
        more = True
        while more and len(self.data) < HEADER_BYTES:
            more = self.more()
        if len(self.data) < MAGIC_BYTES:
            raise damaged("it is empty")
        if self.data[: len(MAGIC)] != MAGIC or self.data[len(MAGIC) : MAGIC_BYTES] not in VERSIONS:
            raise UnknownForm(f"a dataset that begins with {self.data[:MAGIC_BYTES]!r}")
        self.made_at = made_at(self.data)
        self.at = MAGIC_BYTES
        return more

    def _rows(self, reader: BatchReader, found: Found) -> Iterator[tuple[int, pa.Table]]:
        if self._left is not None:
            self._left -= len(found.starts)
        if self._databases is None or self._database in self._databases:
            self.seen.add(self._database)
            for table in reader.tables(self.data, found):
                yield self._database, table

    def _large(self) -> Large | None:
        """Look at a record of which much is here, but not all."""
        return large_at(self.data, self.at) if len(self.data) - self.at >= self._batch_bytes else None

    def _read_large(self, large: Large) -> Iterator[tuple[int, pa.Table]]:
        if self._left is not None:
            self._left -= 1
        chosen = self._databases is None or self._database in self._databases
        if chosen:
            self.seen.add(self._database)
        lives = large.expires_ms is None or large.expires_ms >= self._moment_ms
        wanted = chosen and lives and (self._wanted is None or self._wanted([large.key])[0])
        with values_are_sound():
            rows = read_large(self, large, wanted=wanted)
        if rows is not None:
            yield self._database, rows

    def _change(self, opcode: Opcode) -> bool:
        """Do what an opcode says; False where not all of it is there."""
        cursor = Cursor(self.data, self.at + 1)
        try:
            if opcode == Opcode.SELECT_DB:
                database = cursor.length()
                self._check_complete()
                self._database = database
            else:
                keys, _ = cursor.length(), cursor.length()
                self._check_complete()
                self._left = keys
        except (IndexError, too_short):
            return False
        self.at = cursor.at
        return True

    def _check_complete(self) -> None:
        if self._left:
            raise damaged(f"database {self._database} has another number of keys than was said")
        self._left = None

    def _end(self) -> None:
        self._check_complete()
        while len(self.data) - self.at <= 1 + CHECKSUM_BYTES and self.more():
            pass
        if len(self.data) - self.at != 1 + CHECKSUM_BYTES:
            raise damaged("it does not end where it says")

    def exactly(self, size: int) -> bytes:
        """Take so many bytes, those that are here among them, copying no more than once."""
        filled, view = Filled(size), memoryview(self.data)[self.at :]
        filled.add(view[:size])
        self.data, self.at = (bytes(view[size:]), 0) if len(view) > size else (b"", 0)
        while filled.left:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise damaged("it ends in the middle")
            piece = memoryview(chunk)
            self.data = bytes(piece[filled.left :])
            filled.add(piece[: filled.left])
        return filled.value()

    def more(self) -> bool:
        """Take more bytes, at least as many as are left; False where there are no more."""
        pieces = [self.data[self.at :]]
        size = len(pieces[0])
        wanted = max(self._batch_bytes, 2 * size)
        for chunk in self._chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size >= wanted:
                break
        else:
            self.data, self.at = b"".join(pieces), 0
            return False
        self.data, self.at = b"".join(pieces), 0
        return True
