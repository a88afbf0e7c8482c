"""Files as rows: the columns, and the ranges that parts are."""

from __future__ import annotations

import re
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as filled_by
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.rows.variant import decode_variant, is_variant
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.reading.stats import UNKNOWN
from blocks.sources.files.tree import STATS, Stats, shown

Places = npt.NDArray[np.int64]

FILE, FOLDER, LINK, SPAN = range(4)
KINDS = ("file", "dir", "symlink", "span")
"""Values of the column `kind`, numbered by the constants above."""

SCHEMA = pa.schema(
    [
        ("path", pa.large_binary()),
        ("offset", pa.int64()),
        ("kind", pa.large_string()),
        ("mode", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("size", pa.int64()),
        ("uid", pa.int64()),
        ("gid", pa.int64()),
        ("target", pa.large_binary()),
        ("inode", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("xattrs", pa.large_binary()),
        ("data", pa.large_binary()),
    ]
)

TREE = CollectionSpec(
    name="tree",
    key=("path", "offset"),
    label=("path",),
    columns=tuple((field.name, str(field.type)) for field in SCHEMA),
    definition={"chunk_size_bytes": CHUNK_BYTES},
    tracking=("inode", "ctime_ns"),
    later=("xattrs",),
)

# which columns a kind of entry row fills, beside path, offset and kind
_FILLED = {
    "mode": (FILE, FOLDER, LINK),
    "mtime_ns": (FILE, FOLDER, LINK, SPAN),
    "size": (FILE, SPAN),
    "uid": (FILE, FOLDER, LINK),
    "gid": (FILE, FOLDER, LINK),
    "inode": (FILE, SPAN),
    "ctime_ns": (FILE, SPAN),
}

_EXACT_TIME = re.compile(rb"-?[0-9]{1,30}")

_EDGE = re.compile(r"(?:[0-9a-f]{2})*")


class Edge(NamedTuple):
    """A place between two rows: just before a chunk of a path, or before its entry where the chunk is 0."""

    path: bytes
    chunk: int

    def to_json(self) -> list[JsonValue]:
        """Write the edge as a key that no row has: two below the chunk's offset."""
        return [self.path.hex(), self.chunk * CHUNK_BYTES - 2]

    @classmethod
    def parse(cls, value: JsonValue) -> Edge | None:
        """Read what `to_json` wrote, or null.

        Raises:
            CorruptionDetected: It is something else.
        """
        match value:
            case None:
                return None
            case [str(path), int(offset)] if _EDGE.fullmatch(path) and offset >= -2 and (offset + 2) % CHUNK_BYTES == 0:
                return cls(bytes.fromhex(path), (offset + 2) // CHUNK_BYTES)
        raise CorruptionDetected(f"a part of the tree has bounds that no tree has: {value!r}")


class Range(NamedTuple):
    """The rows of a part: those between two edges; None is open."""

    after: Edge | None
    upto: Edge | None

    def to_json(self) -> Bounds:
        """Write the range as the bounds of a part."""
        return {
            "after": self.after.to_json() if self.after else None,
            "upto": self.upto.to_json() if self.upto else None,
        }

    @classmethod
    def parse(cls, bounds: Bounds) -> Range:
        """Read what `to_json` wrote.

        Raises:
            CorruptionDetected: It is something else.
        """
        return cls(Edge.parse(bounds.get("after")), Edge.parse(bounds.get("upto")))

    def locate(self, paths: list[bytes]) -> slice:
        """Find the paths, of a sorted list, that have rows in this range or may have."""
        low = bisect_left(paths, self.after.path) if self.after else 0
        if self.upto is None:
            return slice(low, len(paths))
        return slice(low, (bisect_right if self.upto.chunk else bisect_left)(paths, self.upto.path))

    def first_chunk(self, path: bytes) -> int:
        """Return the first chunk of a path in this range; 0 where its entry is here too."""
        return self.after.chunk if self.after and self.after.path == path else 0

    def stop_chunk(self, path: bytes) -> int | None:
        """Return the first chunk of a path beyond this range, None where all the rest is here."""
        return self.upto.chunk if self.upto and self.upto.path == path else None

    def splits(self, path: bytes) -> bool:
        """Return whether another part holds, or may hold, rows of the same path."""
        return self.first_chunk(path) > 0 or self.stop_chunk(path) is not None


def kinds_of(stats: Stats) -> npt.NDArray[np.int8]:
    """Number the kinds (FILE, FOLDER, LINK) of walked entries."""
    formats = stats[:, 0] & 0o170000
    return np.where(formats == stat.S_IFREG, FILE, np.where(formats == stat.S_IFDIR, FOLDER, LINK)).astype(np.int8)


@dataclass(frozen=True)
class Beside:
    """What few entries have beside their stat.

    Attributes:
        targets: Target of each symbolic link; first name of each file that has several; None for others. By position.
        beyond: By path the mtimes beyond the reach of `mtime_ns`, in nanoseconds; they go into `data`, in decimal.
        attributes: By path the extended attributes of those that have any.
    """

    targets: Sequence[bytes | None] | None = None
    beyond: Mapping[bytes, int] = filled_by(default_factory=dict)
    attributes: Mapping[bytes, bytes] = filled_by(default_factory=dict)


def entry_rows(
    paths: Sequence[bytes],
    firsts: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.int8],
    stats: Stats,
    beside: Beside = Beside(),
) -> pa.Table:
    """Make the entry rows of a part.

    Args:
        paths: Relative paths, one per row, sorted by their bytes.
        firsts: First chunk of the path in the part; where it is not 0 the row becomes a span.
        kinds: One of the kinds' numbers per row.
        stats: One row of `STATS` per row.
        beside: What some of them have beside their stat.
    """
    kinds = np.where(firsts > 0, SPAN, kinds).astype(np.int8)
    columns: dict[str, pa.Array] = {
        "path": pa.array(paths, pa.large_binary()),
        "offset": pa.array(firsts * CHUNK_BYTES - 1),
        "kind": pa.array(KINDS, pa.large_string()).take(pa.array(kinds)),
        "target": pa.array(beside.targets or [None] * len(paths), pa.large_binary(), mask=kinds == SPAN),
        "xattrs": _attributes(paths, kinds, beside.attributes),
        "data": _exact_times(paths, beside.beyond),
    }
    for name, filled in _FILLED.items():
        values = stats[:, STATS.index(name)]
        if name == "mode":
            values = values & 0o7777
        hollow = ~np.isin(kinds, filled) | (values == UNKNOWN if name == "ctime_ns" else False)
        columns[name] = pa.array(values, mask=hollow)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _exact_times(paths: Sequence[bytes], beyond: Mapping[bytes, int]) -> pa.Array:
    if not beyond:
        return pa.nulls(len(paths), pa.large_binary())
    return pa.array([b"%d" % beyond[path] if path in beyond else None for path in paths], pa.large_binary())


def _attributes(paths: Sequence[bytes], kinds: npt.NDArray[np.int8], attributes: Mapping[bytes, bytes]) -> pa.Array:
    if not attributes:
        return pa.nulls(len(paths), pa.large_binary())
    found = (None if kind == SPAN else attributes.get(path) for path, kind in zip(paths, kinds.tolist(), strict=True))
    return pa.array(found, pa.large_binary())


def times_of(entries: pa.Table) -> list[int | None]:
    """Return the mtimes of entry rows in nanoseconds, those beyond the reach of `mtime_ns`, too.

    Raises:
        CorruptionDetected: `data` of one holds something else.
    """
    times: list[int | None] = entries.column("mtime_ns").to_pylist()
    exact = entries.column("data")
    for i in pc.indices_nonzero(exact.is_valid()).to_pylist():
        text = exact[i].as_py()
        if not _EXACT_TIME.fullmatch(text):
            raise CorruptionDetected(f"{shown(entries.column('path')[i].as_py())} has a time that is no number")
        times[i] = int(text)
    return times


def part_rows(
    entries: pa.Table, owned: pa.Array, places: tuple[Places, Places], offsets: Places, data: pa.LargeBinaryArray
) -> pa.Table:
    """Lay content rows between the entry rows they belong to, in key order, without copying the content.

    Args:
        entries: Entry rows sorted by path, with the columns of `SCHEMA`.
        owned: Path of each content row, in key order; large_binary.
        places: Positions of the entries and of the owners of the content, in one count that ascends in both.
        offsets: Offset of each content row in its file.
        data: The contents of the content rows, back to back from the beginning of their buffer; large_binary.
    """
    count = len(owned)
    if not count:
        return entries
    columns = {"path": owned, "offset": pa.array(offsets)}
    small = [columns.get(f.name, pa.nulls(count, f.type)) for f in SCHEMA if f.name != "data"]
    both = pa.concat_tables([entries.drop_columns(["data"]), pa.table(small, schema=SCHEMA.remove(len(SCHEMA) - 1))])
    order = np.argsort(np.concatenate(places), kind="stable")  # stable: an entry comes before its content
    if entries.column("data").null_count < entries.num_rows:  # hardly ever, so that a copy of the content may be
        laid = pa.concat_arrays([*entries.column("data").chunks, data]).take(pa.array(order))
    else:
        laid = _spread(data, order >= entries.num_rows)
    return both.take(pa.array(order)).append_column(SCHEMA.field("data"), laid)


def _spread(data: pa.LargeBinaryArray, filled: npt.NDArray[np.bool_]) -> pa.LargeBinaryArray:
    """Put NULLs between values without moving them: a NULL has no length."""
    ends = np.zeros(len(filled) + 1, np.int64)
    lengths = np.diff(np.frombuffer(data.buffers()[1], np.int64)[: len(data) + 1])
    ends[1:][filled] = lengths
    valid = pa.py_buffer(np.packbits(filled, bitorder="little"))
    offsets = pa.py_buffer(np.cumsum(ends))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(filled), [valid, offsets, data.buffers()[2]])


def plain_rows(rows: pa.Table) -> pa.Table:
    """Bring rows to the exact schema: columns may be missing, without type, or variant.

    Raises:
        CorruptionDetected: A column holds what it never holds in a backup.
    """
    columns = []
    for field in SCHEMA:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows.column(field.name)
        try:
            if is_variant(rows.schema.field(field.name)):
                column = pa.array(decode_variant(column), field.type)
            elif column.type != field.type:
                column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as exc:
            raise CorruptionDetected(f"the tree's column {field.name!r} holds what it never holds: {exc}") from exc
        columns.append(column)
    plain = pa.Table.from_arrays(columns, schema=SCHEMA)
    if plain.column("path").null_count or plain.column("offset").null_count:
        raise CorruptionDetected("a row of the tree has no path or no offset")
    return plain
