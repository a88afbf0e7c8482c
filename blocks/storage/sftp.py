"""Objects in a folder of an SFTP server, made durable as far as the server can."""

from __future__ import annotations

import asyncio
import builtins
import re
import secrets
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import asyncssh

from blocks.errors import (
    AlreadyExists,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    PlaceMissing,
    RepositoryFull,
    RepositoryUnavailable,
)
from blocks.storage.attempts import Attempts, Breaker, Transient
from blocks.storage.base import StorageTier, StoredName, checked_segments, not_removed
from blocks.storage.fsync import Buffer
from blocks.storage.settings import StorageSettings
from blocks.storage.sftp_errors import (
    BROKEN,
    FAILURES,
    FULL_HINT,
    NOT_THERE,
    classified,
    without_links,
    without_rename,
)
from blocks.storage.sftp_link import SftpLink
from blocks.storage.sftp_login import SftpAddress, SftpLogin, address_of
from blocks.storage.sftp_session import Session, is_file, is_folder

R = TypeVar("R")

REMOVED_AT_ONCE = 256
"""Removals on their way at once."""
LISTED_AT_ONCE = 16
"""Folders that are read at once."""
_MAKINGS = 3
"""So often a folder is made for an object: a removal elsewhere may take it away, empty, before the object is in it."""

_TEMPORARY = re.compile(r"\..*\.tmp")


def open_sftp_tier(url: str, settings: StorageSettings, single_writer: bool) -> SftpTier:
    """Open a folder on an SFTP server; nothing is asked of it yet.

    Raises:
        ConfigurationError: The URL or a setting is wrong, or the named key or password cannot be read.
    """
    address = address_of(url)
    link = SftpLink(SftpLogin(address, settings))
    attempts = Attempts(settings.attempts, settings.retry_seconds, Breaker(address.place))
    return SftpTier(url, address, link, attempts, single_writer)


class SftpTier(StorageTier):
    """Objects as files of a folder on an SFTP server.

    Writes go to a temporary file, which is synced where the server can, and then linked or renamed.

    Args:
        url: As the plan names the place.
        address: The same in parts.
        link: The connection.
        attempts: Calls it.
        single_writer: Look before an exclusive creation, where the server knows no hard links.
    """

    remote = True

    def __init__(
        self, url: str, address: SftpAddress, link: SftpLink, attempts: Attempts, single_writer: bool = False
    ) -> None:
        super().__init__(url)
        self._root, self._place = address.root, address.place
        self._link, self._attempts, self._single_writer = link, attempts, single_writer

    @property
    def place(self) -> str:
        """The URL in its one spelling."""
        return self._place

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._link.close()

    def prepare(self) -> None:
        """Create the folder where it is missing; see `LocalTier.prepare`.

        Raises:
            StorageRefused: The login fails, or the user may not create it.
        """
        self._call("create the folder of", "", self._make_root)

    def put(self, name: str, data: Buffer, exclusive: bool = False, like_before: bool = False) -> None:
        """Store an object, whole and durably; see `StorageTier.put`."""
        path = self._path(name)
        self._call("write", name, lambda session: self._put(session, path, data, exclusive, like_before))

    def overwrite(self, name: str, data: Buffer) -> None:
        """Write over an object in the room that it has already, for a disk without any room left; not atomic."""
        path = self._path(name)

        async def write(session: Session) -> None:
            with self._observed("overwrite", name):
                try:
                    await self._looked_at(session, path)
                except ObjectMissing as exc:
                    raise RepositoryUnavailable(f"cannot write over {name}: {exc.message}") from exc
                await session.write_over(path, data)

        self._call("write", name, write)

    def get(self, name: str, offset: int = 0, length: int | None = None, limit: int | None = None) -> bytes:
        """Read an object, or a range of it; see `StorageTier.get`."""
        path = self._path(name)

        async def read(session: Session) -> bytes:
            size = await self._looked_at(session, path)
            if length is None and limit is not None and size > limit:
                raise CorruptionDetected(
                    f"{name} in {self._place} has {size} bytes, and such an object never has more than {limit}",
                    hint="It was not made by lastgood, or was changed. Put a copy of it back.",
                )
            wanted = size - offset if length is None else min(length, size - offset)
            return await session.read(path, offset, wanted) if wanted > 0 else b""

        return self._call("read", name, read)

    def size(self, name: str) -> int:
        """Return the size of an object in bytes."""
        path = self._path(name)

        async def look(session: Session) -> int:
            return (await self._stat(session, path)).size or 0

        return self._call("look at", name, look)

    def is_object(self, name: str) -> bool:
        """Return whether what has that name is an object, and not a folder or something that cannot be read."""
        path = self._path(name)

        async def look(session: Session) -> bool:
            try:
                return is_file(await self._stat(session, path))
            except ObjectMissing:
                return False

        return self._call("look at", name, look)

    def list(self, prefix: str = "") -> Sequence[StoredName]:
        """List all objects below a folder (`prefix` ends in `/` or is empty), sorted by name."""
        return [stored for stored in self._walk(prefix) if not _is_temporary(stored.name)]

    def leftovers(self, prefix: str = "") -> Sequence[StoredName]:
        """List the temporary files that interrupted writes left behind; `remove` takes their names."""
        return [stored for stored in self._walk(prefix) if _is_temporary(stored.name)]

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted; none where it does not exist."""
        found = self._call("list", prefix, lambda session: self._entries(session, prefix))
        return sorted(name for name, attrs in found if is_folder(attrs))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, many at once, and the folders that become empty.

        Raises:
            RepositoryUnavailable: Some could not be removed; names them. All others are gone.
        """
        wanted = {name: self._path(name) for name in names}
        doomed = builtins.list(wanted)
        failed: builtins.list[tuple[str, LastgoodError]] = []
        for start in range(0, len(doomed), REMOVED_AT_ONCE):
            batch = {name: wanted[name] for name in doomed[start : start + REMOVED_AT_ONCE]}
            failed += self._call("remove", "", lambda session, batch=batch: self._remove(session, batch))  # type: ignore[misc]
        if failed:
            raise not_removed(failed)

    def prune(self, prefix: str, before: datetime) -> None:
        """Remove the empty folders directly below a folder that were last changed before a time."""

        async def work(session: Session) -> None:
            for name, attrs in await self._entries(session, prefix):
                if is_folder(attrs) and (attrs.mtime or 0) < before.timestamp():
                    with suppress(asyncssh.SFTPPermissionDenied):
                        await session.remove_folder(self._below(f"{prefix}{name}"))

        self._call("list", prefix, work)

    def _path(self, name: str) -> str:
        return self._below("/".join(checked_segments(name)))

    def _below(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _call(self, verb: str, name: str, work: Callable[[Session], Coroutine[Any, Any, R]]) -> R:
        def tried() -> R:
            try:
                return self._link.call(work)
            except FAILURES as exc:
                raise classified(exc, verb, name, self._place) from exc

        return self._attempts.call(tried)

    async def _make_root(self, session: Session) -> None:
        if await session.is_folder(self._root):
            return
        segments = self._root.split("/")
        for end in range(1, len(segments) + 1):
            step = "/".join(segments[:end])
            if step and not await session.is_folder(step):
                with self._observed("mkdir", step):
                    await session.make_folder(step)

    async def _require_root(self, session: Session) -> None:
        if not await session.is_folder(self._root):
            raise PlaceMissing(
                f"the repository's folder {self._place} is not there",
                hint="Is its disk mounted on the server?",
            )

    async def _put(self, session: Session, path: str, data: Buffer, exclusive: bool, like_before: bool) -> None:
        folder, name = _above(path), self._name(path)
        temporary = f"{folder.rstrip('/')}/.{path.rpartition('/')[2]}.{secrets.token_hex(8)}.tmp"
        try:
            with self._observed("write", name):
                await self._write(session, folder, temporary, data)
                if like_before:
                    await self._take_after(session, temporary, path)
            if exclusive:
                await self._create(session, temporary, path, data)
            else:
                await self._replace(session, temporary, path)
        except (asyncssh.SFTPError, LastgoodError) as exc:
            full = await self._is_full(session, folder, data, exc)
            with suppress(*FAILURES):  # what failed first is the one to be seen
                await session.remove(temporary)
            if full:
                raise RepositoryFull(f"cannot write {name} in {self._place}: no room is left", hint=FULL_HINT) from exc
            raise

    async def _is_full(self, session: Session, folder: str, data: Buffer, error: Exception) -> bool:
        """Return whether there is no room; most servers call that a failure like all others."""
        said = isinstance(error, asyncssh.SFTPFailure)
        return said and await session.is_full(folder, memoryview(data).nbytes)

    async def _write(self, session: Session, folder: str, temporary: str, data: Buffer) -> None:
        for _ in range(_MAKINGS):
            try:
                return await session.write_new(temporary, data)
            except NOT_THERE:
                await self._make_folders(session, folder)
        await session.write_new(temporary, data)

    async def _make_folders(self, session: Session, folder: str) -> None:
        await self._require_root(session)
        segments = self._name(folder).split("/") if folder != self._root else []
        for end in range(1, len(segments) + 1):
            name = "/".join(segments[:end])
            if not await session.is_folder(self._below(name)):
                with self._observed("mkdir", name):
                    await session.make_folder(self._below(name))

    async def _take_after(self, session: Session, temporary: str, path: str) -> None:
        try:
            before = await session.stat(path)
        except NOT_THERE:
            return
        await session.take_after(temporary, before)

    async def _create(self, session: Session, temporary: str, path: str, data: Buffer) -> None:
        name = self._name(path)
        if not await self._linked(session, temporary, path, data):
            # what had the name is gone again
            with self._observed("link", name):
                await session.link(temporary, path)

        async def clean() -> None:
            with self._observed("delete", name):
                await session.remove(temporary)

        await _all([session.sync_folder(_above(path)), clean()])

    async def _linked(self, session: Session, temporary: str, path: str, data: Buffer) -> bool:
        """Give a file its name; False where that failed, and now nothing has the name.

        Raises:
            AlreadyExists: Other bytes have it.
        """
        name = self._name(path)
        try:
            with self._observed("link", name):
                await session.link(temporary, path)
        except BROKEN:
            raise
        except (asyncssh.SFTPOpUnsupported, asyncssh.SFTPPermissionDenied) as exc:
            # permitted was the temporary file in the same folder, so the file system knows no links
            if not self._single_writer:
                raise without_links(name, self._place) from exc
            if not await self._taken(session, path, data):
                await session.replace(temporary, path)
        except asyncssh.SFTPError:
            # version 3 of the protocol has no code of its own for a name that is taken
            return await self._taken(session, path, data)
        return True

    async def _taken(self, session: Session, path: str, data: Buffer) -> bool:
        """Return whether a name is taken by the same bytes.

        Raises:
            AlreadyExists: By others.
        """
        try:
            same = await session.holds(path, data)
        except NOT_THERE:
            return False
        if not same:
            raise AlreadyExists(f"{self._name(path)} exists already in {self._place}")
        return True

    async def _replace(self, session: Session, temporary: str, path: str) -> None:
        name = self._name(path)
        try:
            with self._observed("replace", name):
                await session.replace(temporary, path)
        except asyncssh.SFTPOpUnsupported as exc:
            raise without_rename(name, self._place) from exc
        await session.sync_folder(_above(path))

    async def _stat(self, session: Session, path: str) -> asyncssh.SFTPAttrs:
        try:
            return await session.stat(path)
        except NOT_THERE as exc:
            await self._require_root(session)
            raise ObjectMissing(f"{self._name(path)} is not there in {self._place}") from exc

    async def _looked_at(self, session: Session, path: str) -> int:
        """Return the size of a file. The server would wait for the writer of a FIFO, so it is looked at first."""
        attrs = await self._stat(session, path)
        if is_folder(attrs):
            raise ObjectMissing(f"{self._name(path)} is not there in {self._place}: a folder is")
        if not is_file(attrs):
            raise ObjectUnreadable(
                f"{self._name(path)} in {self._place} is not a file",
                hint="Something else was put in the place of an object: look at it, and move it away.",
            )
        return attrs.size or 0

    async def _entries(self, session: Session, prefix: str) -> builtins.list[tuple[str, asyncssh.SFTPAttrs]]:
        """Return what is in a folder; nothing where it is not there."""
        try:
            return await session.entries(self._below(prefix.rstrip("/")))
        except NOT_THERE:
            await self._require_root(session)
            return []

    def _walk(self, prefix: str) -> builtins.list[StoredName]:
        found = self._call("list", prefix, lambda session: self._walked(session, prefix))
        return sorted(found, key=lambda stored: stored.name)

    async def _walked(self, session: Session, prefix: str) -> builtins.list[StoredName]:
        found: builtins.list[StoredName] = []
        level = [prefix]
        while level:
            below: builtins.list[str] = []
            for start in range(0, len(level), LISTED_AT_ONCE):
                folders = level[start : start + LISTED_AT_ONCE]
                for folder, entries in zip(
                    folders, await _all(self._seen(session, one) for one in folders), strict=True
                ):
                    for name, attrs in entries:
                        if not is_folder(attrs):
                            moment = datetime.fromtimestamp(attrs.mtime or 0, UTC)
                            found.append(StoredName(folder + name, attrs.size or 0, moment))
                        # the file system's own, where a repository is the root of a disk; only root may look inside
                        elif name != "lost+found":
                            below.append(f"{folder}{name}/")
            level = below
        return found

    async def _seen(self, session: Session, prefix: str) -> builtins.list[tuple[str, asyncssh.SFTPAttrs]]:
        try:
            return await self._entries(session, prefix)
        except BROKEN:
            raise
        except asyncssh.SFTPError as exc:
            # named here: the call as a whole is about the folder above
            raise classified(exc, "list", prefix.rstrip("/"), self._place) from exc

    async def _remove(self, session: Session, batch: dict[str, str]) -> builtins.list[tuple[str, LastgoodError]]:
        await self._require_root(session)
        done = await _all(self._remove_one(session, name, path) for name, path in batch.items())
        failed = [one for one in done if one is not None]
        kept = {name for name, _ in failed}
        touched = {_above(path) for name, path in batch.items() if name not in kept}
        await _all(self._settle(session, folder) for folder in touched)
        return failed

    async def _remove_one(self, session: Session, name: str, path: str) -> tuple[str, LastgoodError] | None:
        try:
            with self._observed("delete", name):
                await session.remove(path)
        except BROKEN:
            raise
        except asyncssh.SFTPError as exc:
            error = classified(exc, "remove", name, self._place)
            return name, error.error if isinstance(error, Transient) else error
        return None

    async def _settle(self, session: Session, folder: str) -> None:
        """Make removals durable, and remove the folder where nothing is left in it."""
        await session.sync_folder(folder)
        if folder == self._root:
            return
        try:
            gone = await session.remove_folder(folder)
        except asyncssh.SFTPPermissionDenied as exc:
            raise classified(exc, "remove", self._name(folder), self._place) from exc
        if gone:
            await session.sync_folder(_above(folder))

    def _name(self, path: str) -> str:
        return path[len(self._root.rstrip("/")) + 1 :]


def _above(path: str) -> str:
    """Return the folder that a path is in."""
    return path.rpartition("/")[0] or "/"


async def _all(work: Iterable[Coroutine[Any, Any, R]]) -> builtins.list[R]:
    """Do all of it at once, and to its end; raise the first error."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]


def _is_temporary(name: str) -> bool:
    return bool(_TEMPORARY.fullmatch(name.rpartition("/")[2]))
