"""One look at the objects of a bucket, as at a tree of files."""

from __future__ import annotations

import stat
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.sources.files.bucket_rows import ROOT, as_xattrs, object_row, put_at_start
from blocks.sources.files.cover import Judge
from blocks.sources.files.observed import Options
from blocks.sources.files.part import PartReader
from blocks.sources.files.readers import SPARE_BYTES, Contents
from blocks.sources.files.reading.channel import FAILED, GONE, READ, Asked, Outcome
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.reading.stats import UNKNOWN, Row
from blocks.sources.files.rows import Beside
from blocks.sources.files.tree import STATS, Listing
from blocks.sources.files.view import FilesView
from blocks.storage.bucket_objects import SETTLED_SECONDS, Fetched, Lost, ObjectPlace
from blocks.storage.bucket_objects import Asked as AskedObject

_CTIME = STATS.index("ctime_ns")


class BucketReaders:
    """Reads objects as `Readers` reads files. An answer is of one version, so that no object is ever read torn.

    Args:
        place: The objects.
    """

    def __init__(self, place: ObjectPlace) -> None:
        self._place = place

    def read(self, files: Sequence[Asked], attempts: int, until: Sequence[int]) -> Contents:
        """Read objects, or ranges of them."""
        asked = [
            AskedObject(path.decode(), first * CHUNK_BYTES, None if stop < 0 else stop * CHUNK_BYTES)
            for path, first, stop in files
        ]
        outcomes: list[Outcome] = []
        pieces: list[memoryview] = []
        owners: list[int] = []
        offsets: list[int] = []
        for owner, (found, (_, first, _)) in enumerate(zip(self._place.fetch(asked), files, strict=True)):
            outcomes.append(_outcome(found))
            if isinstance(found, Fetched):
                for offset, piece in _pieces(found, first, described=outcomes[-1][4] is not None):
                    owners.append(owner)
                    offsets.append(offset)
                    pieces.append(piece)
        return Contents(outcomes, np.array(owners, np.int64), np.array(offsets, np.int64), _joined(pieces))

    def chunks(self, path: bytes, first: int, stop: int) -> list[int]:
        """Number the chunks of an object: all, since none is a hole."""
        return list(range(first, stop))

    def close(self) -> None:
        """End what is being read."""
        self._place.close()


def _outcome(found: Fetched | Lost) -> Outcome:
    if isinstance(found, Lost):
        return (GONE, 0, (), False, None) if found.reason is None else (FAILED, found.reason, (), False, None)
    return (READ, 0, object_row(found.stamp), found.settled, as_xattrs(found.attributes))


def _pieces(found: Fetched, first: int, *, described: bool) -> list[tuple[int, memoryview]]:
    """Cut content into chunks without those that are all zeros; one at 0 is there where attributes need its row."""
    kept = []
    for start in range(0, len(found.data), CHUNK_BYTES):
        data = found.data[start : start + CHUNK_BYTES]
        if data.count(0) < len(data):
            kept.append((first * CHUNK_BYTES + start, memoryview(data)))
    if described and first == 0 and not (kept and kept[0][0] == 0):
        kept.insert(0, (0, memoryview(b"")))
    return kept


def _joined(pieces: Sequence[memoryview]) -> pa.LargeBinaryArray:
    ends = np.zeros(len(pieces) + 1, np.int64)
    ends[1:] = np.cumsum([len(piece) for piece in pieces])
    data = b"".join([*pieces, bytes(SPARE_BYTES)])
    buffers = [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(pieces), buffers)


class BucketPart(PartReader):
    """Reads one part of a bucket once."""

    def _beside(self, here: npt.NDArray[np.int64]) -> Beside:
        return Beside()

    def _rows(self) -> pa.Table:
        return put_at_start(super()._rows(), self._attributes)


class BucketView(FilesView):
    """One look at the objects of a bucket: what the listing showed, each read whole, one after another.

    Args:
        options: Where and how to read.
        place: The objects; the caller closes it.
    """

    part_reader = BucketPart

    def __init__(self, options: Options, place: ObjectPlace) -> None:
        self._place = place
        super().__init__(options, -1, BucketReaders(place))
        self.system = f"objects at {place.place}"

    def _walked(self) -> Listing:
        found = self._place.list()
        judge = Judge(self.options.cover.rules)
        paths, rows = [b""], [ROOT]
        warnings: tuple[str, ...] = ()
        keyed = sorted((key.encode(), stamp) for key, stamp in found.objects.items())
        for path, stamp in keyed:
            if not path:
                warnings = ("the object whose key is the prefix itself is not kept",)
            elif judge.covers(path, folder=False):
                row = object_row(stamp)
                if found.at - stamp.modified < SETTLED_SECONDS:
                    row = (*row[:_CTIME], UNKNOWN, *row[_CTIME + 1 :])
                paths.append(path)
                rows.append(row)
        return Listing(paths, np.array(rows, np.int64).reshape(-1, len(STATS)), warnings)

    def _status(self, paths: Sequence[bytes]) -> list[Row | None]:
        found = self._place.look([path.decode() for path in paths])
        return [object_row(one.stamp) if isinstance(one, Fetched) else None for one in found]

    @property
    def objects(self) -> list[bytes]:
        """The paths of the objects that were listed."""
        regular = (self.listing.stats[:, 0] & 0o170000) == stat.S_IFREG
        return [path for path, is_one in zip(self.listing.paths, regular.tolist(), strict=True) if is_one]
