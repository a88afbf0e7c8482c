"""Restoring into an RDB file: a private server loads it, takes the keys and saves it; then it replaces the old one."""

from __future__ import annotations

import fcntl
import os
import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from blocks.errors import Partial, PlaceUnfit, RestoreRefused, SourceFull, SourceUnavailable
from blocks.host.folders import sync_folder
from blocks.host.leftovers import aside_path, is_full, owned_name, remove_left_behind
from blocks.host.room import Need, check_room
from blocks.sources.redis.coverage import Coverage
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.private_server import RDB, Program, private_server
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.views.view import FileStamp
from blocks.sources.redis.write.target import Destination, RedisTarget, replaces_strangers
from blocks.sources.target import RestoreScope
from blocks.sources.view import Unread, View

LOOK_AT_DISK = "Look at the disk and at the system's log, then restore again: the same comes out."
_MAGIC = (b"REDIS", b"VALKEY")
_GET_FLAGS, _FIXED = 0x80086601, 0x10 | 0x20
"""FS_IOC_GETFLAGS of Linux, and FS_IMMUTABLE_FL with FS_APPEND_FL."""


class RdbTarget(RedisTarget):
    """An RDB file that takes restored keys.

    Args:
        path: The file; it may exist.
        program: The private server to run.
        scope: The collections, rows and mode of the restore.
        databases: The number of the database of each collection, by its name.
        put_off_ms: Added to every expiry, in the scratch restore of a verification.
        coverage: The keys that the plan covers.
    """

    def __init__(
        self,
        path: Path,
        program: Program,
        scope: RestoreScope,
        databases: Mapping[str, int],
        put_off_ms: int,
        coverage: Coverage = Coverage(),  # noqa: B008  frozen
    ) -> None:
        self._path, self._program = Path(os.path.realpath(path)), program
        self._building = Path()
        self._stamp: FileStamp | None = None
        self._watched = self._fresh = self._keep = self._replaced = False
        super().__init__(Destination(self._private_server, databases, coverage, private=True), scope, put_off_ms)
        self._keep = replaces_strangers(scope)

    @property
    def changed(self) -> bool:
        """Whether the file was replaced."""
        return self._replaced

    def preflight(self) -> tuple[str, ...]:
        """See that the file is one of Redis, or none, and can be replaced; and that there is room."""
        folder = self._path.parent
        if not folder.is_dir():
            raise PlaceUnfit(f"there is no folder {folder}", hint="Create it first.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PlaceUnfit(f"{folder} cannot be written to, so {self._path.name} cannot be replaced there")
        self._check_kind()
        if is_fixed(self._path) or is_fixed(folder):
            raise RestoreRefused(f"{self._path} has the attribute that keeps it from being changed (`chattr +i`, `+a`)")
        size_bytes = self._scope.size_bytes + (self._path.stat().st_size if self._path.exists() else 0)
        check_room(Need(folder, size_bytes, "writing the new file"), self._staging.need_of(self._scope.size_bytes))
        self._program.check()
        return ()

    def occupied(self) -> str | None:
        """Say what is at the path."""
        if not os.path.lexists(self._path):
            return None
        if not self._path.is_file():
            return f"{self._path}, which is no file"
        kind = "an RDB file" if self._is_rdb() else "a file of another kind"
        return f"{kind} of {self._path.stat().st_size:,} bytes, {self._path}"

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Take what cannot be read: the whole file gets another name when the new one takes its place."""
        if not self._path.exists():
            return ()
        self._keep = True
        self._fresh = self._fresh or any(each.collection is None for each in unread)
        return (f"{self._path} cannot be read as a whole ({unread[0].reason}); it is kept as {self._kept}.",)

    def guard(self, view: View) -> None:
        """Remember what the file was before the view read it."""
        self._watched, self._stamp = True, getattr(view, "stamp", None) or stamp_of(self._path)

    def check_unwritten(self) -> None:
        """See that nobody wrote the file.

        Raises:
            RestoreRefused: Somebody did.
        """
        if self._watched and stamp_of(self._path) != self._stamp:
            raise RestoreRefused(
                f"{self._path} was written since the backup before the restore",
                hint="A Redis server that saves there would also undo the restore: stop it first.",
            )
        super().check_unwritten()

    @cached_property
    def _kept(self) -> Path:
        return aside_path(self._path)

    def _check_kind(self) -> None:
        if not os.path.lexists(self._path):
            return
        if not self._path.is_file():
            raise RestoreRefused(f"{self._path} is no file, so nothing is restored there", hint="Name another path.")
        if not os.access(self._path, os.R_OK):
            return  # it is kept aside, where there is a backup before the restore
        if self._path.stat().st_size and not self._is_rdb():
            raise RestoreRefused(
                f"{self._path} is no RDB file of Redis, so it is not replaced", hint="Name another path."
            )

    def _is_rdb(self) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.read(16).startswith(_MAGIC)
        except OSError:
            return False

    @contextmanager
    def _private_server(self) -> Iterator[Server | Cluster]:
        folder, prefix = self._path.parent, f".{self._path.name}.lastgood-"
        try:
            remove_left_behind(folder, prefix)
            self._building = folder / owned_name(prefix, self._scope.plan)
            self._building.mkdir(mode=0o700)
        except OSError as exc:
            raise PlaceUnfit(f"{folder} cannot be written to: {exc.strerror}") from exc
        try:
            if self._path.exists() and not self._fresh:
                shutil.copyfile(self._path, self._building / RDB)
            with private_server(self._building, self._program) as server:
                yield server
        except OSError as exc:
            kind = SourceFull if is_full(exc) else SourceUnavailable
            raise kind(f"{self._path} cannot be restored: {exc}") from exc
        finally:
            shutil.rmtree(self._building, ignore_errors=True)

    def _finish(self, server: Server | Cluster) -> None:
        """Save the file, and let it take the place of the old one."""
        assert isinstance(server, Server)
        server.save()
        new = self._building / RDB
        try:
            self._replace(new)
        except OSError as exc:
            raise RestoreRefused(f"{self._path} cannot be replaced: {exc.strerror}") from exc
        try:
            sync_folder(self._path.parent)
        except OSError as exc:
            raise Partial(
                f"{self._path} is restored, but may not outlive a power cut: {exc.strerror or exc}", hint=LOOK_AT_DISK
            ) from exc

    def _replace(self, new: Path) -> None:
        os.chmod(new, 0o600)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        self.check_unwritten()
        kept = self._kept if self._keep and self._path.exists() else None
        if kept is not None:
            os.link(self._path, kept)
        self._replaced = True
        try:
            os.replace(new, self._path)
        except OSError:
            self._replaced = False
            self._kept.unlink(missing_ok=True)
            raise
        if kept is not None:
            self.notes.append(f"What was at {self._path} is kept as {kept}.")


def is_fixed(path: Path) -> bool:
    """Whether a file or folder is immutable or may only be appended to; False where its file system does not say."""
    flags = array("l", [0])
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.ioctl(handle, _GET_FLAGS, flags)
    except OSError:
        return False
    finally:
        os.close(handle)
    return bool(flags[0] & _FIXED)


def stamp_of(path: Path) -> FileStamp | None:
    """Return what changes with every write of a file; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
