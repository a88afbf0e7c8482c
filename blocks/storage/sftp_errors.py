"""What SFTP servers and connections say, told apart once and in our words."""

from __future__ import annotations

import asyncssh

from blocks.errors import (
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
    StorageRefused,
)
from blocks.storage.attempts import Transient
from blocks.storage.fsync import READING

BROKEN = (asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, OSError)
"""The connection is gone, or does not answer in time: another one may."""
FAILURES = (asyncssh.Error, OSError)
"""All that a call of a server raises."""
NOT_THERE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)

_NO_ROOM = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
_NO_ROOM_SAID = ("no space", "quota", "disk full")
_REFUSING = (asyncssh.IllegalUserName, asyncssh.ProtocolNotSupported)
_NO_SUBSYSTEM = 0xFFFFFFFF

FULL_HINT = "Free space there: `lastgood retention` works on a full disk. What was committed before is safe."
_OWNER = "Check that the repository's files belong to the user of the URL (files 0600, folders 0700)."


def classified(error: BaseException, verb: str, name: str, place: str) -> LastgoodError | Transient:
    """Return what went wrong as one of our errors; `Transient` where trying again can help.

    Args:
        error: What was raised: one of `FAILURES`.
        verb: What was tried: read, write, look at, list, remove, and so on.
        name: The object or folder; empty where the place as a whole is concerned.
        place: Names the storage.
    """
    said = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error) or _silent(error)
    what = f"cannot {verb} {name or 'the repository'} in {place}: {said}"
    one = name and verb in READING
    if isinstance(error, NOT_THERE):
        return ObjectMissing(f"{name} is not there in {place}") if one else RepositoryUnavailable(what)
    if isinstance(error, _NO_ROOM) or (isinstance(error, asyncssh.SFTPError) and _says_full(said)):
        return RepositoryFull(what, hint=FULL_HINT)
    if isinstance(error, asyncssh.SFTPPermissionDenied | asyncssh.SFTPWriteProtect):
        return (ObjectUnreadable if one else StorageRefused)(what, hint=_OWNER)
    if isinstance(error, asyncssh.SFTPOpUnsupported):
        return StorageRefused(what, hint="The server does not know the operation; OpenSSH's does.")
    if isinstance(error, asyncssh.ChannelOpenError) and error.code == _NO_SUBSYSTEM:
        return StorageRefused(f"the server of {place} offers no SFTP: {said}", hint="Turn its `sftp` subsystem on.")
    if isinstance(error, asyncssh.SFTPError) and not isinstance(error, BROKEN):
        return (ObjectUnreadable if one else RepositoryUnavailable)(
            what, hint="Look at the log and disk of the server."
        )
    if isinstance(error, _REFUSING):
        return StorageRefused(what)
    hint = "Check that the server runs and can be reached from this machine."
    return Transient(RepositoryUnavailable(what, hint=hint))


def without_links(name: str, place: str) -> StorageRefused:
    """Say that nothing can be created exclusively there."""
    return StorageRefused(
        f"cannot create {name} in {place}: the server knows no hard links (hardlink@openssh.com), without which two "
        "runs could make one object at once",
        hint="Keep repositories on a server that knows them: OpenSSH does, on a file system with hard links.",
    )


def without_rename(name: str, place: str) -> StorageRefused:
    """Say that nothing can be replaced there."""
    return StorageRefused(
        f"cannot write {name} in {place}: the server cannot replace a file at one stroke (posix-rename@openssh.com)",
        hint="Keep repositories on a server that can: OpenSSH does.",
    )


def _silent(error: BaseException) -> str:
    return "it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _says_full(said: str) -> bool:
    return any(words in said.lower() for words in _NO_ROOM_SAID)
