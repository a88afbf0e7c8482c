"""Local files and folders written so that what was confirmed survives a power cut: the floor under a local tier."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from blocks.errors import ConfigurationError, RepositoryUnavailable

DurableHook = Callable[[str, str, Literal["before", "after"]], None]
"""Told of each durable operation (mkdir, write, link, replace, delete), the object's name, before and after."""

Buffer = bytes | bytearray | memoryview

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)(://|::)", re.IGNORECASE)

_HINTS = {
    errno.ENOSPC: "Free space there, or move the repository to a larger disk; what was committed before is safe.",
    errno.EDQUOT: "The disk quota is used up; what was committed before is safe.",
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
    scheme = _SCHEME.match(url)
    if scheme and scheme[0].lower() == "file://":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError(f"the URL {url!r} does not name a local folder", hint="Write file:///path.")
        return Path(unquote(parts.path))
    if scheme:
        raise ConfigurationError(
            f"backups cannot be kept at {scheme[0]}…: only local folders are supported in this version",
            hint="Give a path or a file:// URL, for example of a mounted disk.",
        )
    if not url.strip():
        raise ConfigurationError("the repository's url is empty", hint="Give a path or a file:// URL.")
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


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # some network file systems cannot sync a folder, and do it by themselves
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def unavailable(verb: str, name: str, root: Path, error: OSError) -> RepositoryUnavailable:
    """Say in our words what the operating system said, with a hint by kind of error."""
    return RepositoryUnavailable(
        f"cannot {verb} {name or 'the repository'} in {root}: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "Check that the repository's disk is mounted and healthy."),
    )
