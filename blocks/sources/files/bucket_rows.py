"""Objects of a bucket as rows of a tree, and back.

An object is a file whose owner and group are -1, of mode 0644 and time 0. `inode` holds what tells it from what was or
will be under its key (ETag, version, time, size, in 63 bits), and `ctime_ns` when it was last changed. What it has
besides its content (content type, metadata) is `xattrs` of the content row at 0; what is in the
entry has to show in a listing, so that an object that did not change is not asked for.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, RestoreRefused
from blocks.sources.files.reading.stats import UNKNOWN, Row, parent
from blocks.sources.files.reading.xattrs import decode, encode
from blocks.sources.files.refusals import Refusals
from blocks.sources.files.rows import FILE, KINDS, SCHEMA
from blocks.sources.files.tree import ours, shown
from blocks.storage.bucket_objects import Stamp

NOBODY = -1
"""Owner and group of an object; no file has it."""

ROOT: Row = (stat.S_IFDIR | 0o755, 0, 0, UNKNOWN, 0, NOBODY, NOBODY)
"""The row of the place itself."""

_SPACE = "user.s3."
_LONGEST_NAME = 255
_SECOND_NS = 1_000_000_000


def object_row(stamp: Stamp) -> Row:
    """Return the stat that stands for an object."""
    modified_ns = stamp.modified * _SECOND_NS
    return (stat.S_IFREG | 0o644, stamp.size_bytes, 0, modified_ns, stamp.token, NOBODY, NOBODY)


def as_xattrs(attributes: Mapping[str, str]) -> bytes | None:
    """Write down what an object has besides its content; None where that is nothing."""
    return encode({f"{_SPACE}{name}".encode(): value.encode() for name, value in attributes.items()})


def from_xattrs(path: bytes, written: bytes | None) -> dict[str, str]:
    """Read what `as_xattrs` wrote, also from the extended attributes of a file; others are nothing to a bucket.

    Raises:
        CorruptionDetected: It is something else.
    """
    try:
        found = {name.decode(): value for name, value in decode(written).items() if name.startswith(_SPACE.encode())}
        return {name.removeprefix(_SPACE): value.decode() for name, value in found.items()}
    except ValueError as exc:
        raise CorruptionDetected(f"the attributes of {shown(path)} are none that a backup keeps: {exc}") from exc


def attributes_at_start(rows: pa.Table) -> dict[bytes, bytes]:
    """Return by path the attributes that content rows at 0 have."""
    at_start = pc.and_(pc.equal(rows.column("offset"), 0), rows.column("xattrs").is_valid())
    found = rows.filter(at_start)
    return dict(zip(found.column("path").to_pylist(), found.column("xattrs").to_pylist(), strict=True))


def put_at_start(rows: pa.Table, attributes: Mapping[bytes, bytes]) -> pa.Table:
    """Give content rows at 0 the attributes of their objects.

    Args:
        rows: Rows with the columns of `SCHEMA`.
        attributes: By path.
    """
    if not attributes:
        return rows
    written: list[bytes | None] = [None] * rows.num_rows
    paths = rows.column("path")
    for i in np.flatnonzero(rows.column("offset").to_numpy() == 0).tolist():
        written[i] = attributes.get(paths[i].as_py())
    place = SCHEMA.get_field_index("xattrs")
    return rows.set_column(place, SCHEMA.field("xattrs"), pa.array(written, pa.large_binary()))


def files_of(rows: pa.Table, refusals: Refusals) -> pa.Table:
    """Make files of the objects among the rows of a part: with attributes, and the time of their last change, or now.

    Args:
        rows: Rows with the columns of `SCHEMA`, an object's entry beside its first content.
        refusals: Takes the objects whose keys can be no paths; their rows are left out.

    Raises:
        RestoreRefused: There is one, and nothing may be left out.
    """
    entries = pc.fill_null(pc.and_(pc.equal(rows.column("offset"), -1), pc.equal(rows.column("uid"), NOBODY)), False)
    if not pc.any(entries).as_py():
        return rows
    objects = pc.and_(entries, pc.equal(rows.column("kind"), KINDS[FILE]))
    keys: list[bytes] = rows.column("path").filter(objects).to_pylist()
    refused = {key: why for key in keys if (why := _no_path(key)) is not None}
    for key, why in refused.items():
        error = RestoreRefused(f"the object {shown(key)} cannot be a file: {why}", hint="Restore to a bucket.")
        refusals.refuse(key, error)
    attributes = attributes_at_start(rows)
    written = rows.column("xattrs").to_pylist()
    paths = rows.column("path").to_pylist()
    for i in pc.indices_nonzero(objects).to_pylist():
        written[i] = attributes.get(paths[i])
    changed = pc.coalesce(rows.column("ctime_ns"), pa.scalar(time.time_ns(), pa.int64()))
    columns = {
        "xattrs": pa.array(written, pa.large_binary()),
        "mtime_ns": pc.if_else(entries, changed, rows.column("mtime_ns")),
    }
    for name, values in columns.items():
        rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), values)
    return without(rows, refused)


def without(rows: pa.Table, paths: Collection[bytes]) -> pa.Table:
    """Leave out the rows of some paths."""
    if not paths:
        return rows
    return rows.filter(pa.array([path not in paths for path in rows.column("path").to_pylist()], pa.bool_()))


def refuse_beneath_objects(tables: Iterable[pa.Table], refusals: Refusals) -> frozenset[bytes]:
    """Find objects whose keys go on from another object's (`a` and `a/b`): in a folder `a` is one or the other.

    Returns:
        The keys that go on; they are left out.

    Raises:
        RestoreRefused: There is one, and nothing may be left out.
    """
    files: set[bytes] = set()
    refused = set()
    for table in tables:
        objects = pc.and_(pc.equal(table.column("uid"), NOBODY), pc.equal(table.column("kind"), KINDS[FILE]))
        files.update(table.column("path").filter(pc.fill_null(objects, False)).to_pylist())
    for path in sorted(files):
        above = parent(path)
        while above and above not in files:
            above = parent(above)
        if above:
            message = f"the object {shown(path)} cannot be a file: {shown(above)} is an object, too, and no folder"
            refusals.refuse(path, RestoreRefused(message, hint="Restore to a bucket."))
            refused.add(path)
    return frozenset(refused)


def _no_path(key: bytes) -> str | None:
    names = key.split(b"/")
    if not all(names):
        return "its key begins or ends with `/`, or has `//` in it"
    if b"." in names or b".." in names:
        return "its key has a part `.` or `..`"
    if b"\0" in key:
        return "its key has a NUL"
    if any(len(name) > _LONGEST_NAME for name in names):
        return f"a part of its key is longer than {_LONGEST_NAME} bytes"
    if any(ours(name) is not None for name in names):
        return "folders of that name are lastgood's own"
    return None
