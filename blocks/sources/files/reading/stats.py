"""What is known of an entry by its stat, and when that may be trusted."""

from __future__ import annotations

import os
import struct

_USER, _GROUP_OBJECT, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10  # from linux/posix_acl_xattr.h

# kernels stamp files with a clock that stands still for up to 10 ms; some file systems keep whole seconds (FAT: two)
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_100_000_000

Row = tuple[int, ...]
"""Mode, size, mtime, ctime (both in nanoseconds), inode, owner and group of an entry; the mtime may be of any size."""

UNKNOWN = -(1 << 63)
"""A ctime that is not to be trusted."""


def parent(path: bytes) -> bytes:
    """Return the folder that a relative path lies in; the root is empty."""
    return path.rpartition(b"/")[0]


def leaf(path: bytes) -> bytes:
    """Return the last component of a relative path."""
    return path.rpartition(b"/")[2]


def stat_row(status: os.stat_result) -> Row:
    """Take a row from a stat; inodes beyond 63 bits wrap to negative ones, ctimes beyond that prove nothing."""
    inode = status.st_ino if status.st_ino < 1 << 63 else status.st_ino - (1 << 64)
    times = (status.st_mtime_ns, status.st_ctime_ns if -1 << 63 <= status.st_ctime_ns < 1 << 63 else UNKNOWN)
    return (status.st_mode, status.st_size, *times, inode, status.st_uid, status.st_gid)


def granted_mode(mode: int, access_list: bytes) -> int:
    """Reduce a mode to what it may say when the access list (`system.posix_acl_access`) is gone.

    With a list, the group's bits are its mask, the most that anybody it names may have. What is left are the rights of
    the owning group itself, less what the list keeps from somebody who would then count as group or other.
    """
    entries: list[tuple[int, int, int]] = list(struct.iter_unpack("<HHI", access_list[4:]))
    rights: dict[int, int] = {tag: granted for tag, granted, _ in entries if tag not in (_USER, _GROUP)}
    mask = rights.get(_MASK, 7)
    group, other = rights.get(_GROUP_OBJECT, 0) & mask, mode & 7
    for tag, granted, _ in entries:
        if tag in (_USER, _GROUP):
            other &= granted & mask
        if tag == _USER:
            group &= granted & mask
    return mode & ~0o077 | group << 3 | other


def unsettled_ns(ctime_ns: int, now_ns: int) -> int:
    """Return how long to wait until any later change of a file is sure to leave another ctime; 0 if it is now.

    A ctime in the future (a server's clock) proves nothing: 0 too, but see `trusted`.
    """
    tick = _tick_ns(ctime_ns)
    age = now_ns - ctime_ns
    return tick - age if -tick < age < tick else 0


def trusted(ctime_ns: int, now_ns: int) -> bool:
    """Return whether a ctime is in the past, so that an equal one later proves an unchanged file."""
    return now_ns - ctime_ns >= _tick_ns(ctime_ns)


def _tick_ns(ctime_ns: int) -> int:
    return _COARSE_TICK_NS if ctime_ns % 1_000_000_000 == 0 else _TICK_NS
