"""Extended attributes: which are kept, how they are read, and how a backup writes them down."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

ACCESS_LIST, DEFAULT_LIST = "system.posix_acl_access", "system.posix_acl_default"
CAPABILITY = "security.capability"
SUPPORTED = hasattr(os, "listxattr")

_SINGLE = frozenset((ACCESS_LIST, DEFAULT_LIST, CAPABILITY))
_SPACES = ("user.", "trusted.")
_LENGTH = struct.Struct(">I")
# a file system without attributes, or an entry or attribute that is gone, which whoever reads the entry notices
_NOT_THERE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODATA, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Attributes(NamedTuple):
    """The attributes of an entry.

    Attributes:
        kept: Those that a backup keeps, as `encode` writes them; None where there are none.
        access_list: The value of `system.posix_acl_access`; None without one.
        others: Names of those that are not kept.
        unread: Whether some could not be read.
    """

    kept: bytes | None = None
    access_list: bytes | None = None
    others: tuple[str, ...] = ()
    unread: bool = False


NOTHING = Attributes()


def is_kept(name: str) -> bool:
    """Whether backups keep an attribute, by its full name."""
    return name in _SINGLE or name.startswith(_SPACES)


def kind_of(name: str) -> str:
    """Return what an attribute that is kept needs of a file system and a user: its namespace, or its name."""
    return next((space for space in _SPACES if name.startswith(space)), name)


def look_at(place: int | bytes, *, follow: bool = True) -> Attributes:
    """Read the attributes of an entry: one system call where it has none.

    Args:
        place: An open descriptor, or a path.
        follow: Whether a symbolic link at the path stands for what it points at.
    """
    if not SUPPORTED:
        return NOTHING
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as exc:
        return NOTHING if exc.errno in _NOT_THERE else Attributes(unread=True)
    if not names:
        return NOTHING
    found, others, unread = {}, [], False
    for name in names:
        if not is_kept(name):
            others.append(name)
            continue
        try:
            found[os.fsencode(name)] = os.getxattr(place, name, follow_symlinks=follow)
        except OSError as exc:
            unread = unread or exc.errno not in _NOT_THERE
    return Attributes(encode(found), found.get(ACCESS_LIST.encode()), tuple(others), unread)


def encode(attributes: Mapping[bytes, bytes]) -> bytes | None:
    """Write attributes down, sorted by their names: length of the name, name, length of the value, value."""
    if not attributes:
        return None
    pieces = (piece for pair in sorted(attributes.items()) for piece in pair)
    return b"".join(_LENGTH.pack(len(piece)) + piece for piece in pieces)


def decode(written: bytes | None) -> dict[bytes, bytes]:
    """Read what `encode` wrote.

    Raises:
        ValueError: It is something else, or names an attribute that no backup keeps.
    """
    pieces, at = [], 0
    written = written or b""
    while at < len(written):
        if at + _LENGTH.size > len(written):
            raise ValueError("it ends too soon")
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(written, at)[0]
        if at > len(written):
            raise ValueError("it ends too soon")
        pieces.append(written[start:at])
    names = pieces[::2]
    if len(pieces) % 2 or sorted(set(names)) != names:
        raise ValueError("it is no list of names and values in order")
    for name in names:
        if b"\0" in name or not is_kept(os.fsdecode(name)):
            raise ValueError(f"no backup keeps {name!r}")
    return dict(zip(names, pieces[1::2], strict=True))
