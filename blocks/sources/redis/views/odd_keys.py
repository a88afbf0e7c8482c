"""Keys that no command but RESTORE makes: a backup names them, as a server may refuse them when they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.net.wire import unpacked
from blocks.sources.redis.rdb.stream_payload import EMPTY_ENTRY, ZERO_ID, commands_make
from blocks.sources.redis.read.streams import StreamHead

_NAMED = 20
_BATCH_ROWS = 1 << 16
_LONGEST = 512 * 1024 * 1024
"""What servers take at most in a word of a command unless they are told otherwise (`proto-max-bulk-len`)."""
_NAN = b"nan"
_ONLY_RESTORE = "no command but RESTORE makes that, and a server may refuse it."


class OddKeys:
    """Names such keys among what is read, up to some. May be used from several threads."""

    def __init__(self) -> None:
        self._left, self._lock = _NAMED, Lock()

    def warnings(self, name: str, rows: pa.Table) -> Iterator[str]:
        """Yield what a backup should say of them.

        Args:
            name: The name of the database's collection.
            rows: Rows with the columns of `SCHEMA` (rows.py), those of a key one after the other, its head first.
        """
        for key, what in _found(rows):
            with self._lock:
                self._left -= 1
                left = self._left
            if left >= 0:
                yield f"{name}: key {key!r} {what}"
            elif left == -1:
                yield f"{name}: other keys are odd in such a way, too, and are not named."


def _found(rows: pa.Table) -> Iterator[tuple[bytes, str]]:
    unnumbered: bytes | None = None
    streams = _Streams()
    for batch in rows.to_batches(_BATCH_ROWS):
        kinds = batch.column("type")
        sets, of_streams = pc.equal(kinds, "zset"), pc.equal(kinds, "stream")
        for key in _unnumbered(batch.filter(sets)) if sets.true_count else ():
            if key != unnumbered:
                yield key, f"is a sorted set with a score that is no number: {_ONLY_RESTORE}"
            unnumbered = key
        if of_streams.true_count:
            yield from streams.found(batch.filter(of_streams))
        yield from _long(batch)
    yield from streams.end()


def _unnumbered(sets: pa.RecordBatch) -> Iterator[bytes]:
    """Yield the keys of sorted sets with a score that is no number."""
    held = pc.fill_null(pc.match_substring(sets.column("value"), _NAN), False)
    for row in sets.filter(held).to_pylist() if held.true_count else ():
        scores = [row["value"]] if row["element"] is not None else unpacked(row["value"])[1::2]
        if any(math.isnan(float(score)) for score in scores):
            yield row["key"]


def _long(batch: pa.RecordBatch) -> Iterator[tuple[bytes, str]]:
    if batch.nbytes <= _LONGEST:
        return
    for name in ("element", "value"):
        long = pc.fill_null(pc.greater(pc.binary_length(batch.column(name)), _LONGEST), False)
        for key in pc.unique(batch.column("key").filter(long)).to_pylist():
            yield (
                key,
                f"has a value of more than {_LONGEST:,} bytes: it takes a server with a higher proto-max-bulk-len.",
            )


@dataclass
class _Stream:
    """A stream as far as it was seen: its last entry, how many it has, and whether all of them can be added."""

    key: bytes
    head: StreamHead
    last: bytes = ZERO_ID
    count: int = 0
    plain: bool = True


class _Streams:
    """Looks at streams row by row, some rows at a time."""

    def __init__(self) -> None:
        self._stream: _Stream | None = None

    def found(self, rows: pa.RecordBatch) -> Iterator[tuple[bytes, str]]:
        """Look at more rows of streams."""
        elements, values = rows.column("element"), rows.column("value")
        heads = np.flatnonzero(elements.is_null().to_numpy(zero_copy_only=False)).tolist()
        last = 0
        for head in [*heads, len(elements)]:
            self._entries(elements.slice(last, head - last), values.slice(last, head - last))
            last = head + 1
            if head < len(elements):
                yield from self.end()
                self._stream = _Stream(rows.column("key")[head].as_py(), StreamHead.decode(values[head].as_py()))

    def end(self) -> Iterator[tuple[bytes, str]]:
        """Say what is to be said of the stream that ended."""
        stream, self._stream = self._stream, None
        if stream is not None and not commands_make(stream.head, stream.count, stream.last, plain=stream.plain):
            what = "its last id, counts and deliveries are not those of its entries"
            yield stream.key, f"is an odd stream ({what}): {_ONLY_RESTORE}"

    def _entries(self, ids: pa.LargeBinaryArray, values: pa.LargeBinaryArray) -> None:
        if self._stream is None or not len(ids):
            return
        self._stream.count += len(ids)
        self._stream.last = max(self._stream.last, ids[-1].as_py())
        odd = pc.or_(pc.equal(ids, ZERO_ID), pc.equal(values, EMPTY_ENTRY))
        self._stream.plain &= not pc.any(odd).as_py()
