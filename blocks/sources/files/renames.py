"""Putting one entry in the place of another so that nothing which was there is lost, not even for an instant."""

from __future__ import annotations

import ctypes
import errno
import os

_NO_REPLACE, _EXCHANGE = 1, 2  # from linux/fs.h
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_TRIES = 100
_RENAME_AT = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def swap_in(staged: bytes, staging: int, name: bytes, folder: int, expected: bool = True) -> bool:
    """Give a staged entry its place; what was there takes the staged one's name.

    One step, so that there is always the old or the new, and what somebody put there a moment ago is kept, too. Where
    the file system has no such step, there is nothing at the place for a moment.

    Args:
        staged: Name of the staged entry.
        staging: Descriptor of its folder.
        name: The name it is to have.
        folder: Descriptor of the folder it is to be in, on the same file system.
        expected: Whether something is likely to be there: which of two steps is tried first.

    Returns:
        Whether something was there.

    Raises:
        OSError: The system refused; nothing was changed.
    """
    swapping = expected
    for _ in range(_TRIES):
        code = _rename(staging, staged, folder, name, _EXCHANGE if swapping else _NO_REPLACE)
        if code == 0:
            return swapping
        if code in _UNSUPPORTED:
            return _in_steps(staged, staging, name, folder)
        if code != (errno.ENOENT if swapping else errno.EEXIST):
            raise OSError(code, os.strerror(code))
        swapping = not swapping
    raise OSError(errno.EBUSY, "it comes and goes")


def _rename(staging: int, staged: bytes, folder: int, name: bytes, flags: int) -> int:
    if _RENAME_AT is None:  # not on this system
        return errno.ENOSYS
    return ctypes.get_errno() if _RENAME_AT(staging, staged, folder, name, flags) else 0


def in_between(staged: bytes) -> bytes:
    """Return the name of what was there, where it has made room and the staged entry is not there yet."""
    return staged + b".old"


def _in_steps(staged: bytes, staging: int, name: bytes, folder: int) -> bool:
    aside = in_between(staged)
    try:
        os.rename(name, aside, src_dir_fd=folder, dst_dir_fd=staging)
    except FileNotFoundError:
        was_there = False
    else:
        was_there = True
    try:
        os.rename(staged, name, src_dir_fd=staging, dst_dir_fd=folder)
    except OSError:
        if was_there:
            os.rename(aside, name, src_dir_fd=staging, dst_dir_fd=folder)
        raise
    if was_there:
        os.rename(aside, staged, src_dir_fd=staging, dst_dir_fd=staging)
    return was_there
