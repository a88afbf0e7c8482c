"""Many words of RESP written at once, in C."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def bulk(texts: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Write each text as a bulk string of RESP."""
    sizes = pc.binary_length(texts).cast(pa.large_string()).cast(pa.large_binary())
    return joined(b"$", sizes, b"\r\n", texts, b"\r\n")


def joined(*pieces: bytes | pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Join columns of texts, and texts that are the same in each row; NULL where one of them is."""
    scalars = [pa.scalar(piece, pa.large_binary()) if isinstance(piece, bytes) else piece for piece in (*pieces, b"")]
    return pc.binary_join_element_wise(*scalars)


def data_of(texts: pa.LargeBinaryArray) -> pa.Buffer:
    """Return the bytes of all texts that were just `joined`, one after the other."""
    return texts.buffers()[2]
