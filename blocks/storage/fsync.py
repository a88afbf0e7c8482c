"""Local files and folders written so that what was confirmed survives a power cut: the floor under a local tier."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
)
from blocks.host.passwords import refuse_password

DurableHook = Callable[[str, str, Literal["before", "after"]], None]
"""Told of each durable operation (mkdir, write, link, replace, delete), the object's name, before and after."""

Buffer = bytes | bytearray | memoryview

_ACCESS_LIST = "system.posix_acl_access"
_NO_LIST = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTSUP)

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)(://|::)", re.IGNORECASE)

_HINTS = {
    errno.ENOSPC: "Free space there: `lastgood retention` works on a full disk. What was committed before is safe.",
    errno.EDQUOT: "The disk quota is used up: `lastgood retention` frees some. What was committed before is safe.",
    errno.EACCES: "Check that the repository's files belong to the user who runs this (files 0600, folders 0700).",
    errno.EPERM: "Check the owner of the repository's files, and that its file system knows hard links.",
    errno.EOPNOTSUPP: "The file system cannot create files exclusively (no hard links); choose another one.",
    errno.EROFS: "The file system is mounted read-only.",
    errno.EIO: "The disk reports errors: look at the system's log, and check the repository.",
}


def local_path(url: str) -> Path:
    """Turn a path or a file:// URL into a path.

    Raises:
        ConfigurationError: The URL is empty or of another scheme.
    """
    scheme = SCHEME.match(url)
    if scheme:
        refuse_password(url, "the URL of a repository")
    if scheme and scheme[0].lower() == "file://":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError(f"the URL {url!r} does not name a local folder", hint="Write file:///path.")
        return Path(unquote(parts.path))
    if scheme:
        raise ConfigurationError(
            f"{scheme[0]}… does not name a local folder",
            hint="Give a path or a file:// URL, for example of a mounted disk.",
        )
    if not url.strip():
        raise ConfigurationError("the path or URL of a folder is empty", hint="Give a path or a file:// URL.")
    return Path(url).expanduser()


def unobserved(operation: str, name: str, when: Literal["before", "after"]) -> None:
    """Observe nothing: the hook in ordinary life."""


def write_synced(path: Path, data: Buffer) -> None:
    """Write a new file (mode 0600) and sync its content; its name is durable once the folder is synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_like(path: Path, before: Path, data: Buffer) -> None:
    """Write a new file as `write_synced` does, with the owner, group, mode and access list of the one it will replace.

    Raises:
        OSError: It cannot be written, or its owner or group cannot be that of the other one.
    """
    write_synced(path, data)
    try:
        found = before.stat()
    except FileNotFoundError:
        return
    if (found.st_uid, found.st_gid) != ((made := path.stat()).st_uid, made.st_gid):
        os.chown(path, found.st_uid, found.st_gid)
    _copy_access_list(before, path)
    # last: a change of the owner takes bits away, and one of the access list changes those of the group
    os.chmod(path, stat.S_IMODE(found.st_mode))
    sync_file(path)


def _copy_access_list(before: Path, path: Path) -> None:
    try:
        os.setxattr(path, _ACCESS_LIST, os.getxattr(before, _ACCESS_LIST))
    except OSError as exc:
        if exc.errno not in _NO_LIST:
            raise
        with suppress(OSError):  # one that the folder gives to all that is new
            os.removexattr(path, _ACCESS_LIST)


def sync_file(path: Path) -> None:
    """Make a file's content and attributes durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: Path, offset: int = 0, length: int | None = None, limit: int | None = None) -> bytes:
    """Read a file, or `length` bytes from `offset`; never waits for a writer, and never reads more than there is.

    Raises:
        ObjectUnreadable: A FIFO, a device or a socket is in its place.
        CorruptionDetected: The whole of it is asked for, and it has more bytes than `limit`.
        OSError: It cannot be opened or read.
    """
    # without O_NONBLOCK the opening of a FIFO waits for a writer that never comes
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode):
            raise ObjectUnreadable(f"{path} is {_kind(seen.st_mode)}, not a file", hint=_NO_FILE)
        if length is None and limit is not None and seen.st_size > limit:
            raise CorruptionDetected(
                f"{path} has {seen.st_size} bytes, and such an object never has more than {limit}",
                hint="It was not made by lastgood, or was changed. Put a copy of it back.",
            )
        file.seek(offset)
        return _read_all(file, None if length is None else max(0, min(length, seen.st_size - offset + 1)))


_NO_FILE = "Something else was put in the place of an object: look at it, and move it away."


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read_all(file: io.FileIO, length: int | None) -> bytes:
    if length is None:
        return file.readall()
    pieces = []
    while length and (piece := file.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def overwrite(path: Path, data: Buffer) -> None:
    """Write over the beginning of a file that is there, without asking the disk for room; not atomic."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "wb", buffering=0) as file:
        file.write(data)
        os.ftruncate(file.fileno(), memoryview(data).nbytes)
        os.fsync(file.fileno())


def unavailable(verb: str, name: str, root: Path, error: OSError) -> RepositoryUnavailable:
    """Say in our words what the operating system said, with a hint by kind of error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind: type[RepositoryUnavailable] = RepositoryFull
    else:
        kind = ObjectUnreadable if verb in READING and name else RepositoryUnavailable
    return kind(
        f"cannot {verb} {name or 'the repository'} in {root}: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "Check that the repository's disk is mounted and healthy."),
    )


READING = ("read", "look at", "list")
"""What a tier says it was doing where only one object or folder is concerned."""
