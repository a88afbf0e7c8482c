"""One SFTP session: the few operations on remote files that a tier is made of, each with a limit of time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import asyncssh
from asyncssh import FXF_CREAT, FXF_EXCL, FXF_READ, FXF_WRITE, SFTPAttrs

from blocks.storage.fsync import Buffer
from blocks.storage.sftp_errors import NOT_THERE
from blocks.storage.sftp_login import SftpLogin

logger = logging.getLogger(__name__)

R = TypeVar("R")

PIECE_BYTES = 4 << 20
"""So much of a file is on its way at once."""
FILE_MODE, FOLDER_MODE = 0o600, 0o700

_UNSUPPORTED = (asyncssh.SFTPOpUnsupported, asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied)


class Session:
    """A login with its SFTP channel; lives in the event loop of its link.

    All operations raise what asyncssh raises, and TimeoutError where the server does not answer.

    Args:
        connection: Logged in.
        client: Its SFTP channel.
        seconds: How long one request, or a piece of a file, may take.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, client: asyncssh.SFTPClient, seconds: float) -> None:
        self._connection, self._client, self._seconds = connection, client, seconds
        self._syncs_files = self._opens_folders = True
        self._closing: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, login: SftpLogin) -> Session:
        """Log in and open the channel."""
        connection = await login.connect()
        try:
            async with asyncio.timeout(login.seconds):
                # what others put beside objects may have any name
                client = await connection.start_sftp_client(path_errors="surrogateescape")
        except BaseException:
            connection.abort()
            raise
        return cls(connection, client, login.seconds)

    @property
    def closed(self) -> bool:
        """Whether the connection is known to be gone."""
        return self._connection.is_closed()

    def abort(self) -> None:
        """Close the connection without waiting for the server."""
        self._connection.abort()

    async def stat(self, path: str) -> SFTPAttrs:
        """Look at a file or folder, through symbolic links."""
        return await self._within(self._client.stat(path))

    async def entries(self, folder: str) -> list[tuple[str, SFTPAttrs]]:
        """Return the names in a folder and what they are (of symbolic links: of the link)."""
        found: list[tuple[str, SFTPAttrs]] = []
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(self._seconds) as limit:
            async for entry in self._client.scandir(folder):
                limit.reschedule(now() + self._seconds)
                if entry.filename not in (".", ".."):
                    found.append((str(entry.filename), entry.attrs))
        unclear = [n for n, (_, attrs) in enumerate(found) if attrs.type == asyncssh.FILEXFER_TYPE_UNKNOWN]
        for number in unclear:
            name = found[number][0]
            found[number] = (name, await self._within(self._client.lstat(f"{folder}/{name}")))
        return found

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """Read bytes of a file; fewer where it ends before."""
        pieces: list[bytes] = []
        async with self._open(path, FXF_READ) as file:
            while length > 0 and (piece := await self._read(file, offset, length)):
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def holds(self, path: str, data: Buffer) -> bool:
        """Return whether a file has these bytes; what is no file has not."""
        view = memoryview(data).cast("B")
        attrs = await self.stat(path)
        if not is_file(attrs) or attrs.size != len(view):
            return False
        async with self._open(path, FXF_READ) as file:
            for start in range(0, len(view), PIECE_BYTES):
                wanted = view[start : start + PIECE_BYTES]
                if await self._read(file, start, len(wanted)) != wanted:
                    return False
        return True

    async def write_new(self, path: str, data: Buffer) -> None:
        """Write a file that must not be there, and make its content durable."""
        async with self._open(path, FXF_WRITE | FXF_CREAT | FXF_EXCL, FILE_MODE) as file:
            await self._write(file, data)

    async def write_over(self, path: str, data: Buffer) -> None:
        """Write over the beginning of a file that is there, and cut it off behind that."""
        async with self._open(path, FXF_WRITE) as file:
            await self._write(file, data, cut=True)

    async def take_after(self, path: str, before: SFTPAttrs) -> None:
        """Give a file the owner, group and mode of another one."""
        made = await self.stat(path)
        if (made.uid, made.gid) != (before.uid, before.gid):
            await self._within(self._client.setstat(path, SFTPAttrs(uid=before.uid, gid=before.gid)))
        if before.permissions is not None:
            # last: a change of the owner takes bits away
            await self._within(self._client.chmod(path, before.permissions & 0o7777))

    async def link(self, path: str, other: str) -> None:
        """Give a file a second name, which must not be there."""
        await self._within(self._client.link(path, other))

    async def replace(self, path: str, other: str) -> None:
        """Give a file another name, in the place of what has it."""
        await self._within(self._client.posix_rename(path, other))

    async def remove(self, path: str) -> None:
        """Remove a file; what is not there is removed."""
        try:
            await self._within(self._client.remove(path))
        except NOT_THERE:
            return

    async def make_folder(self, path: str) -> None:
        """Make a folder durably, or take the one that is there."""
        try:
            await self._within(self._client.mkdir(path, SFTPAttrs(permissions=FOLDER_MODE)))
        except asyncssh.SFTPError:
            if not await self.is_folder(path):
                raise
        await self.sync_folder(path.rpartition("/")[0] or ("/" if path.startswith("/") else "."))

    async def remove_folder(self, path: str) -> bool:
        """Remove a folder, unless something is in it; return whether it did."""
        try:
            await self._within(self._client.rmdir(path))
        except (*NOT_THERE, asyncssh.SFTPFailure, asyncssh.SFTPDirNotEmpty):
            return False
        return True

    async def is_folder(self, path: str) -> bool:
        """Return whether there is a folder of that name."""
        try:
            return is_folder(await self.stat(path))
        except NOT_THERE:
            return False

    async def is_full(self, folder: str, size_bytes: int) -> bool:
        """Return whether a file system is known to have no room for so many bytes."""
        try:
            found = await self._within(self._client.statvfs(folder))
        except asyncssh.SFTPError:
            return False
        return found.bavail * found.frsize < size_bytes or (found.files > 0 and found.favail == 0)

    async def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable, where the server lets folders be opened: OpenSSH's does."""
        if not (self._syncs_files and self._opens_folders):
            return
        try:
            async with self._open(path, FXF_READ) as folder:
                await self._sync(folder)
        except NOT_THERE:
            return
        except _UNSUPPORTED as exc:
            logger.info("the SFTP server makes no names of files durable: %s", exc.reason)
            self._opens_folders = False

    async def _read(self, file: asyncssh.SFTPClientFile, offset: int, length: int) -> bytes:
        return cast(bytes, await self._within(file.read(min(length, PIECE_BYTES), offset)))

    async def _write(self, file: asyncssh.SFTPClientFile, data: Buffer, cut: bool = False) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            await self._within(file.write(bytes(view[start : start + PIECE_BYTES]), start))
        if cut:
            await self._within(file.truncate(len(view)))
        _, attrs = await asyncio.gather(self._sync(file), self._within(file.stat()))
        if attrs.size is not None and attrs.size != len(view):
            # some servers confirm what a full disk took a part of
            raise asyncssh.SFTPFailure(f"the server wrote {attrs.size} of {len(view)} bytes")

    async def _sync(self, file: asyncssh.SFTPClientFile) -> None:
        if not self._syncs_files:
            return
        try:
            await self._within(file.fsync())
        except asyncssh.SFTPOpUnsupported:
            logger.info("the SFTP server knows no fsync: what it confirms may be lost with its power")
            self._syncs_files = False

    @asynccontextmanager
    async def _open(self, path: str, flags: int, mode: int | None = None) -> AsyncIterator[asyncssh.SFTPClientFile]:
        attrs = SFTPAttrs() if mode is None else SFTPAttrs(permissions=mode)
        file = await self._within(self._client.open(path, flags, attrs, encoding=None))
        try:
            yield file
        except BaseException:
            # what failed first is the one to be seen
            self._close_soon(file)
            raise
        if flags == FXF_READ:
            self._close_soon(file)
        else:
            # the last moment at which a server may say that it could not write
            await self._within(file.close())

    def _close_soon(self, file: asyncssh.SFTPClientFile) -> None:
        """Close a file without waiting; what fails then goes with the session."""
        closing = asyncio.ensure_future(file.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled():
            closing.exception()

    async def _within(self, work: Awaitable[R]) -> R:
        async with asyncio.timeout(self._seconds):
            return await work


def is_folder(attrs: SFTPAttrs) -> bool:
    """Return whether it is a folder."""
    return attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY


def is_file(attrs: SFTPAttrs) -> bool:
    """Return whether it is a file; what the server does not tell counts as one."""
    return attrs.type in (asyncssh.FILEXFER_TYPE_REGULAR, asyncssh.FILEXFER_TYPE_UNKNOWN)
