"""Trees of files for tests: making them, looking at them, taking them through a backup and a restore."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import to_canonical
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex, PartLookup
from blocks.rows.keys import encode_keys
from blocks.rows.selection import Selection
from blocks.sources.collection import Bounds
from blocks.sources.files import FilesSource
from blocks.sources.files.rows import SCHEMA, TREE
from blocks.sources.files.target import FilesTarget
from blocks.sources.files.view import Watch
from blocks.sources.reading import FullRead, Reading
from blocks.sources.target import RestoreMode, RestoreScope
from blocks.sources.view import Unread

MIB = 1 << 20
_DIGEST = RowDigest(b"k" * 32)

Seen = dict[bytes, tuple[object, ...]]


class Bystander(Watch):
    """A clock in which waiting takes no time; notes what is opened and steps in when told to.

    Args:
        step: Called with the path of each file between the first look at it and the reading of its content.
    """

    def __init__(self, step: Callable[[bytes], None] = lambda path: None) -> None:
        self.ahead_ns, self.opened, self.step = 0, [], step

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns

    def wait(self, seconds: float) -> None:
        self.ahead_ns += int(seconds * 1e9) + 1

    def reading(self, path: bytes) -> None:
        self.opened.append(path)
        self.step(path)


def source_of(root: Path | str, step: Callable[[bytes], None] = lambda path: None, **fields: object) -> FilesSource:
    """Make a source whose clock is a `Bystander`."""
    source = FilesSource(url=str(root), **fields)
    source._watch = Bystander(step)
    return source


def rewrite(path: Path, content: bytes, *, keep_mtime: bool = False) -> None:
    """Rewrite a file, and do not return before the kernel's clock gave it another ctime than it had."""
    before = path.stat()
    path.write_bytes(content)
    moment = before.st_mtime_ns if keep_mtime else path.stat().st_mtime_ns
    os.utime(path, ns=(moment, moment))
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(moment, moment))


def look(root: Path | str | bytes) -> Seen:
    """Describe everything of a tree that a restore has to bring back, by plain system calls: the oracle."""
    seen: Seen = {}
    names: dict[tuple[int, int], set[bytes]] = {}
    inodes: dict[bytes, tuple[int, int]] = {}
    pending = [os.fsencode(root)]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        mode = status.st_mode
        content: object = None
        if stat.S_ISLNK(mode):
            content = os.readlink(path)
        elif stat.S_ISREG(mode):
            with open(path, "rb") as file:
                content = (status.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        elif stat.S_ISDIR(mode):
            pending += [os.path.join(path, name) for name in os.listdir(path)]
        relative = os.path.relpath(path, os.fsencode(root))
        seen[relative] = (mode, status.st_mtime_ns, status.st_uid, status.st_gid, content, attributes_of(path))
        inodes[relative] = (status.st_dev, status.st_ino)
        names.setdefault(inodes[relative], set()).add(relative)
    return {path: (*one, frozenset(names[inodes[path]])) for path, one in seen.items()}


def attributes_of(path: Path | str | bytes) -> dict[str, bytes]:
    """Read all extended attributes of an entry itself."""
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def back_up(source: FilesSource) -> tuple[list[Bounds], list[pa.Table]]:
    """Read all parts in full."""
    with source.view() as view:
        bounds = list(view.partition(TREE))
        tables = [view.read(TREE, piece, None).rows for piece in bounds]
        view.finish()
    return bounds, tables


def keys_of(rows: pa.Table) -> pa.LargeBinaryArray:
    return encode_keys(to_canonical(rows), TREE.key)


def known(rows: pa.Table) -> PartLookup:
    """What a base that holds these rows gives a later read."""
    order = pc.sort_indices(keys_of(rows))
    keys, digests = keys_of(rows).take(order), _DIGEST(to_canonical(rows)).take(order)
    return PartLookup(lambda: PartIndex.of(keys, digests), len(keys), TREE.key, _DIGEST)


def lay_over(base: pa.Table, reading: Reading) -> pa.Table:
    """The part after a backup: what was read, and what the base has of the rows said to be unchanged."""
    assert isinstance(reading, FullRead)
    if reading.unchanged is None:
        return reading.rows
    kept = base.filter(pc.is_in(keys_of(base), reading.unchanged))
    assert kept.num_rows == len(reading.unchanged)
    return pa.concat_tables([kept, reading.rows])


def follow_up(
    source: FilesSource, bounds: Sequence[Bounds], bases: Sequence[pa.Table]
) -> tuple[list[pa.Table], list[str]]:
    """Make an incremental of each part over its base; return the parts as they are after it, and all warnings."""
    merged, warnings = [], []
    with source.view() as view:
        for piece, base in zip(bounds, bases, strict=True):
            reading = view.read(TREE, piece, known(base))
            warnings += reading.warnings
            merged.append(lay_over(base, reading))
        view.finish()
    return merged, warnings


def restore(
    source: FilesSource,
    tables: Sequence[pa.Table],
    to: Path | str | None = None,
    mode: RestoreMode = RestoreMode.EXACT,
    keys: tuple[str, ...] = (),
    *,
    keep_going: bool = False,
) -> FilesTarget:
    """Restore rows, narrowed down to `keys`, as the flow does: aborted when refused."""
    selection = Selection(keys=keys)
    size = sum(table.nbytes for table in tables)
    rows = sum(table.num_rows for table in tables)
    scope = RestoreScope({}, ((TREE, rows),), mode, selection, size, keep_going=keep_going)
    target = source.target(scope, None if to is None else str(to))
    try:
        target.preflight()
        for table in tables:
            target.apply(TREE, selection.rows(table, TREE.label))
        target.commit()
    except BaseException:
        target.abort()
        raise
    return target


def rows_of(*rows: dict[str, object]) -> pa.Table:
    """Make rows by hand, as a hostile backup might hold them."""
    filled = [{"offset": -1, "mode": 0o644, "mtime_ns": 0, "size": 0, "uid": 0, "gid": 0, **row} for row in rows]
    return pa.Table.from_pylist(filled, schema=SCHEMA)


def untouched(folder: Path) -> bool:
    """Whether the folder beside the tree (fixture `outside`) is as it was."""
    return [(p.name, p.read_text()) for p in folder.iterdir()] == [("b", "untouched")]


class InPlace:
    """A restore in place as the flow does it: a backup of what is there first, while the target looks on.

    Args:
        source: The source.
        tables: Rows of the backup.
        mode: MERGE or EXACT.
        keys: What is restored of it.
        definition: The backup's definition of the source.
    """

    def __init__(
        self,
        source: FilesSource,
        tables: Sequence[pa.Table],
        mode: RestoreMode = RestoreMode.EXACT,
        keys: tuple[str, ...] = (),
        definition: dict[str, object] | None = None,
    ) -> None:
        self._source, self._selection = source, Selection(keys=keys)
        size = sum(table.nbytes for table in tables)
        rows = sum(table.num_rows for table in tables)
        self.scope = RestoreScope(definition or {}, ((TREE, rows),), mode, self._selection, size, plan="trading")
        self._tables, self.target = tables, source.target(self.scope)
        self.emergency: list[pa.Table] = []
        self.unread: list[Unread] = []
        self.definition: dict[str, object] = {}

    def make_ready(self) -> None:
        """Everything up to the moment before the first commit."""
        self.target.preflight()
        self.target.hold()
        with self._source.salvage() as view:
            self.target.guard(view)
            self.emergency = [view.read(TREE, piece, None).rows for piece in view.partition(TREE)]
            view.finish()
            self.unread, self.definition = list(view.unread), dict(view.definition)
        if self.unread:
            self.target.keep_aside(self.unread)
        self.target.begin()
        for table in self._tables:
            rows = self._selection.rows(table, TREE.label)
            mask = self._source.covered(TREE, rows)
            self.target.apply(TREE, rows if mask is None else rows.filter(mask))

    def run(self) -> tuple[str, ...]:
        """All of it; return the notes."""
        try:
            self.make_ready()
            self.target.check_unwritten()
            self.target.commit()
            return tuple(self.target.notes)
        finally:
            self.target.abort()
