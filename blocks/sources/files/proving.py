"""The rows of a tree as a scratch restore can prove them: with what its file system and this process can give back."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.host.leftovers import scratch_folder
from blocks.sources.files.dressing import Wanted, unsettable
from blocks.sources.files.reading.xattrs import ACCESS_LIST, CAPABILITY, DEFAULT_LIST, decode, encode
from blocks.sources.files.rows import FILE, KINDS, SCHEMA, plain_rows
from blocks.sources.files.tree import shown

_OF_THE_OWNER = frozenset(name.encode() for name in (ACCESS_LIST, DEFAULT_LIST, CAPABILITY))


def provable_rows(rows: pa.Table) -> pa.Table:
    """Leave out which names are of one file, and the extended attributes that scratch folders do not take.

    Args:
        rows: Rows with columns of `SCHEMA` (rows.py).

    Raises:
        CorruptionDetected: The attributes of an entry are written as no backup writes them.
    """
    rows = plain_rows(rows)
    of_files = pc.equal(rows.column("kind"), KINDS[FILE])
    targets = pc.if_else(pc.fill_null(of_files, False), pa.scalar(None, pa.large_binary()), rows.column("target"))
    rows = rows.set_column(SCHEMA.get_field_index("target"), SCHEMA.field("target"), targets)
    written = rows.column("xattrs")
    if written.null_count == rows.num_rows:
        return rows
    with scratch_folder("probe") as folder:
        found: dict[bytes | None, bytes | None] = {None: None}
        for path, one in zip(rows.column("path").to_pylist(), written.to_pylist(), strict=True):
            if one not in found:
                try:
                    found[one] = encode(_settable(os.fsencode(folder), decode(one)))
                except ValueError as exc:
                    raise CorruptionDetected(f"the attributes of {shown(path)} are none that a backup keeps") from exc
    kept = pa.array([found[one] for one in written.to_pylist()], pa.large_binary())
    return rows.set_column(SCHEMA.get_field_index("xattrs"), SCHEMA.field("xattrs"), kept)


def _settable(folder: bytes, wanted: Wanted) -> Wanted:
    lost = set(unsettable(folder, wanted))
    if os.geteuid() != 0:  # those of entries of others do not come back
        lost |= _OF_THE_OWNER
    return {name: value for name, value in wanted.items() if name not in lost}
