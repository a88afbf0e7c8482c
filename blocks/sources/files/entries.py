"""The entries of a restore, checked: no path leads out of the tree, no two contradict each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.sources.files.reading.xattrs import decode
from blocks.sources.files.rows import FILE, FOLDER, KINDS, LINK, times_of
from blocks.sources.files.tree import parent, shown

_HINT = "The backup was damaged or made by somebody else; verify it, and restore another one."
_NUMBERS = ("mode", "size", "uid", "gid")

# names of one file say all of this alike; others of the same first name are of a file that it was before
_OF_ONE_FILE = ("target", "inode", "ctime_ns", "size", "mtime_ns", "data", "mode", "uid", "gid", "xattrs")


def check_paths(paths: Iterable[bytes]) -> None:
    """Check that each path is the root (empty) or stays beneath it by itself.

    Raises:
        CorruptionDetected: One is absolute or has an empty, `.` or `..` component or a NUL.
    """
    for path in paths:
        if not path:
            continue
        names = path.split(b"/")
        if not all(names) or b".." in names or b"." in names or b"\0" in path:
            raise CorruptionDetected(f"the path {path!r} leads out of the tree, or nowhere", hint=_HINT)


@dataclass(frozen=True)
class Entries:
    """What is to be in the tree, sorted by path.

    Attributes:
        paths: Relative paths.
        kinds: FILE, FOLDER or LINK.
        mode: Permission bits; likewise the other columns of numbers, -1 where NULL.
        targets: Targets of symbolic links.
        folders: Every folder that has to be there, sorted, with the position of its entry, or None where the backup
            has only entries beneath it.
        attributes: Extended attributes, by path, of the entries that have any: values by full names.
        knows_attributes: Whether the backup knows of attributes, so that an entry has no others.
        names: Positions of the entries that are names of one file, for each file that has several names in its tree.
    """

    paths: list[bytes]
    kinds: npt.NDArray[np.int8]
    mode: list[int]
    mtime_ns: list[int]
    size: list[int]
    uid: list[int]
    gid: list[int]
    targets: dict[bytes, bytes]
    folders: dict[bytes, int | None]
    attributes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    knows_attributes: bool = True
    names: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def collect(cls, tables: list[pa.Table], contents: Iterable[bytes], *, knows_attributes: bool = True) -> Entries:
        """Put together the entry rows of all parts.

        Args:
            tables: Entry rows of all parts, with checked paths and the columns of `SCHEMA` (rows.py).
            contents: Paths for which content came.
            knows_attributes: Whether the backup knows of extended attributes.

        Raises:
            CorruptionDetected: Entries contradict each other; a path is named.
        """
        rows = pa.concat_tables(tables) if tables else None
        if rows is None:
            return cls([], np.zeros(0, np.int8), [], [], [], [], [], {}, {})
        rows = rows.take(pc.sort_indices(rows, [("path", "ascending")]))
        paths: list[bytes] = rows.column("path").to_pylist()
        kinds = _kinds(rows, paths)
        files = {path for path, kind in zip(paths, kinds.tolist(), strict=True) if kind == FILE}
        for path in contents:
            if path not in files:
                raise CorruptionDetected(f"there is content for {shown(path)}, which is no file", hint=_HINT)
        numbers = {name: pc.fill_null(rows.column(name), 0 if name == "size" else -1).to_pylist() for name in _NUMBERS}
        links = np.flatnonzero(kinds == LINK).tolist()
        targets = rows.column("target").take(pa.array(links, pa.int64())).to_pylist()
        for i, target in zip(links, targets, strict=True):
            if not target or b"\0" in target:
                raise CorruptionDetected(f"the symbolic link {shown(paths[i])} has no valid target", hint=_HINT)
        return cls(
            paths=paths,
            kinds=kinds,
            targets=dict(zip([paths[i] for i in links], targets, strict=True)),
            folders=_folders(paths, kinds),
            mtime_ns=[-1 if time is None else time for time in times_of(rows)],
            attributes=_attributes(rows, paths),
            knows_attributes=knows_attributes,
            names=_names(rows, kinds),
            **numbers,
        )


def _kinds(rows: pa.Table, paths: list[bytes]) -> npt.NDArray[np.int8]:
    names = pa.array([KINDS[FILE], KINDS[FOLDER], KINDS[LINK]], pa.large_string())
    found = pc.fill_null(pc.index_in(rows.column("kind"), names), -1).to_numpy()
    for i in np.flatnonzero(found < 0).tolist():
        raise CorruptionDetected(f"{shown(paths[i])} is of a kind that is not known", hint=_HINT)
    for before, path in pairwise(paths):
        if before == path:
            raise CorruptionDetected(f"{shown(path)} is in the backup twice", hint=_HINT)
    if paths and not paths[0] and found[0] != FOLDER:
        raise CorruptionDetected("the tree's root is no folder in the backup", hint=_HINT)
    return np.asarray(found, np.int8)


def _attributes(rows: pa.Table, paths: list[bytes]) -> dict[bytes, dict[bytes, bytes]]:
    written = rows.column("xattrs")
    found = {}
    for i in pc.indices_nonzero(written.is_valid()).to_pylist():
        try:
            found[paths[i]] = decode(written[i].as_py())
        except ValueError as exc:
            raise CorruptionDetected(
                f"the extended attributes of {shown(paths[i])} are none that a backup keeps: {exc}", hint=_HINT
            ) from exc
    return found


def _names(rows: pa.Table, kinds: npt.NDArray[np.int8]) -> tuple[tuple[int, ...], ...]:
    """Find the entries that are names of one file."""
    linked = np.flatnonzero((kinds == FILE) & rows.column("target").is_valid().to_numpy())
    files: dict[tuple[object, ...], list[int]] = {}
    said = rows.select(_OF_ONE_FILE).take(pa.array(linked, pa.int64())).to_pydict()
    for i, one in zip(linked.tolist(), zip(*said.values(), strict=True), strict=True):
        files.setdefault(one, []).append(i)
    return tuple(map(tuple, files.values()))


def _folders(paths: list[bytes], kinds: npt.NDArray[np.int8]) -> dict[bytes, int | None]:
    """Find all folders needed; none may be a file or a symbolic link by another entry."""
    folders: dict[bytes, int | None] = {b"": None}
    others = set()
    for i, (path, kind) in enumerate(zip(paths, kinds.tolist(), strict=True)):
        above = parent(path)
        while above not in folders:
            if above in others:
                raise CorruptionDetected(
                    f"{shown(path)} lies beneath {shown(above)}, which is no folder in the backup", hint=_HINT
                )
            folders[above] = None
            above = parent(above)
        if kind == FOLDER:
            folders[path] = i
        else:
            others.add(path)
    return dict(sorted(folders.items()))
