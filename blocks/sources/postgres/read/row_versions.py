"""What columns of row versions say: which transactions wrote them, and where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_FIRST_NORMAL = 3
"""Transaction numbers below stand for none, or for one that ended long ago."""


def may_have_changed(written: pa.ChunkedArray, oldest: int, upcoming: int) -> npt.NDArray[np.bool_]:
    """Return for each row whether the transaction that wrote it may be newer than a snapshot.

    Args:
        written: `xmin` of each row, 4 bytes big-endian.
        oldest: `xmin` of the older snapshot, 64 bits.
        upcoming: `xmax` of the snapshot that the rows were read in, 64 bits.
    """
    short = fixed_width(written, 4).view(">u4").reshape(-1).astype(np.uint64)
    ago = (np.uint64(upcoming) - short) % np.uint64(2**32)
    full = np.int64(upcoming) - ago.astype(np.int64)
    return (full >= oldest) | (full < _FIRST_NORMAL) | (short < _FIRST_NORMAL)


def row_places(places: pa.ChunkedArray) -> Sequence[str]:
    """Write `ctid`s (6 bytes each) as text.

    Args:
        places: `ctid`s of 6 bytes each: block (4 bytes) and line pointer (2 bytes), big-endian.
    """
    raw = fixed_width(places, 6)
    blocks, rows = raw[:, :4].copy().view(">u4").reshape(-1), raw[:, 4:].copy().view(">u2").reshape(-1)
    return [f"({block},{row})" for block, row in zip(blocks.tolist(), rows.tolist(), strict=True)]


def fixed_width(column: pa.ChunkedArray, width: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a binary column whose values all have one length."""
    chunks = [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in column.chunks]
    joined = b"".join(pc.binary_join(_listed(chunk), b"")[0].as_buffer().to_pybytes() for chunk in chunks if len(chunk))
    return np.frombuffer(joined, np.uint8).reshape(-1, width)


def _listed(chunk: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(chunk)], pa.int32()), chunk)
