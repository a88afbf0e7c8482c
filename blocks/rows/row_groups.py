"""A segment of which only a little is read: the footer of its file, and the row groups that can hold some keys."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import KEY, is_sorted, one_chunk
from blocks.rows.merge import with_keys
from blocks.rows.parquet import FIRST_KEYS, KEY_BYTES, unpack_keys
from blocks.rows.wanted import WantedKeys

_TAIL_BYTES = 64 * 1024
"""What is read at the end of a file: the footer of most."""
_MAGIC = b"PAR1"
_HINT = "Restore an earlier backup; `lastgood check --read-data` reports what else is damaged."


class RowGroups:
    """A Parquet file that is read by ranges.

    Args:
        size: Bytes of the file.
        read: Reads a range of it: offset and length in bytes.
        what: Names it in errors.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes], what: str) -> None:
        self._size, self._read, self._what = size, read, what
        tail = read(max(size - _TAIL_BYTES, 0), min(size, _TAIL_BYTES))
        # only now is it known that there are so many bytes; its pages cost nothing until something is put there
        self._holder = np.zeros(size, np.uint8)
        try:
            self._holder[size - len(tail) :] = np.frombuffer(tail, np.uint8)
            end = self._holder[-8:].tobytes()
            if end[4:] != _MAGIC:
                raise self._wrong("it does not end as a Parquet file does")
            footer = int.from_bytes(end[:4], "little") + len(end)
            if footer > _TAIL_BYTES:
                self._fetch(size - footer, size - _TAIL_BYTES)
            self._file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(self._holder)))
        except (pa.ArrowException, OSError) as exc:
            raise self._wrong(f"its footer cannot be read: {exc}") from exc
        self._first = first_keys(self._file, what)

    def rows(self, wanted: WantedKeys) -> pa.Table:
        """Return the rows of all groups that can hold what is looked for.

        Raises:
            CorruptionDetected: A group is not what its footer says.
        """
        groups = sorted({group for low, high in wanted.ranges() for group in self._groups_of(low, high)})
        try:
            self._fetch_groups(groups)
            # by no other thread: one that lets go of the bytes while the interpreter ends aborts the process
            return self._file.read_row_groups(groups, use_threads=False).replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as exc:
            raise self._wrong(f"a row group cannot be read: {exc}") from exc

    def _groups_of(self, low: bytes, high: bytes) -> list[int]:
        """Return the groups that can hold a key of a range: those of which the next one does not begin at or before it.

        Args:
            low: The least key of the range.
            high: The greatest one.
        """
        low, high, last = low[:KEY_BYTES], high[:KEY_BYTES], len(self._first) - 1
        return [
            n
            for n, first in enumerate(self._first)
            if first <= high and (n == last or low < self._first[n + 1] or _is_cut(self._first[n + 1], low))
        ]

    def _fetch_groups(self, groups: list[int]) -> None:
        """Read some groups, those that follow each other at once."""
        places: list[tuple[int, int]] = []
        for group in groups:
            start, end = _place(self._file.metadata.row_group(group))
            if places and places[-1][1] == start:
                start = places.pop()[0]
            places.append((start, end))
        for start, end in places:
            self._fetch(start, end)

    def _fetch(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self._size:
            raise self._wrong(f"bytes {start} to {end} are outside of its {self._size} bytes")
        self._holder[start:end] = np.frombuffer(self._read(start, end - start), np.uint8)

    def _wrong(self, what: str) -> CorruptionDetected:
        return CorruptionDetected(f"{self._what}: {what}", hint=_HINT)


def first_keys(file: pq.ParquetFile, what: str) -> list[bytes]:
    """Return the beginning of the least `_key` of each row group, as a file says it; `what` names the file.

    Raises:
        CorruptionDetected: It does not say it.
    """
    said = (file.metadata.metadata or {}).get(FIRST_KEYS.encode())
    try:
        found = unpack_keys(said.decode("ascii")) if said is not None else None
    except ValueError:
        found = None
    if found is None or len(found) != file.metadata.num_row_groups or found != sorted(found):
        raise CorruptionDetected(f"{what}: it does not say with which key each row group begins", hint=_HINT)
    return found


def checked_order(data: pa.Buffer | None, rows: pa.Table, key: tuple[str, ...], what: str) -> pa.LargeBinaryArray:
    """Check that the rows of a file are in the order of their keys, and that its row groups begin as it says.

    Args:
        data: The file; None for rows that share a blob with others.
        rows: Its rows: `_key` (large_binary; set for tombstones only) and the canonical columns.
        key: Names of the key columns.
        what: Names the file.

    Returns:
        The `_key` of each row.

    Raises:
        CorruptionDetected: They are not.
    """
    keys = _checked_keys(rows, key, what)
    if data is None:
        return keys
    file = pq.ParquetFile(pa.BufferReader(data))
    counts = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
    if len(keys) and 0 in counts:
        raise CorruptionDetected(f"{what}: it has a row group without rows", hint=_HINT)
    starts = np.cumsum([0, *counts])[:-1] if len(keys) else np.array([], np.int64)
    if [begin[:KEY_BYTES] for begin in keys.take(pa.array(starts, pa.int64())).to_pylist()] != first_keys(file, what):
        raise CorruptionDetected(f"{what}: its row groups begin with other keys than it says", hint=_HINT)
    return keys


def _checked_keys(rows: pa.Table, key: tuple[str, ...], what: str) -> pa.LargeBinaryArray:
    """Return the `_key` of each row of a segment, tombstones included.

    Raises:
        CorruptionDetected: They are not ascending, or not there; `what` names the segment.
    """
    try:
        keys = one_chunk(with_keys(rows, key).column(KEY))
    except CorruptionDetected as exc:
        raise CorruptionDetected(f"{what}: {exc.message}", hint=exc.hint) from exc
    if not is_sorted(keys):
        raise CorruptionDetected(f"{what}: its rows are not in the order of their keys", hint=_HINT)
    return keys


def _place(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Return where a row group begins and ends."""
    starts, ends = [], []
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.data_page_offset
        if column.has_dictionary_page and column.dictionary_page_offset:
            start = min(start, column.dictionary_page_offset)
        starts.append(start)
        ends.append(start + column.total_compressed_size)
    return min(starts, default=0), max(ends, default=0)


def _is_cut(first: bytes, key: bytes) -> bool:
    """Whether the beginning of a key does not tell whether it comes before another one."""
    return len(first) == KEY_BYTES and first == key
