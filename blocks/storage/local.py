"""Objects in a local folder, written so that a power cut loses nothing that was confirmed."""

from __future__ import annotations

import builtins
import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import (
    AlreadyExists,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    PlaceMissing,
)
from blocks.host.folders import sync_folder
from blocks.storage.base import StorageTier, StoredName, checked_segments, not_removed
from blocks.storage.fsync import (
    Buffer,
    local_path,
    overwrite,
    read_regular,
    unavailable,
    write_like,
    write_synced,
)

_TEMPORARY = re.compile(r"\..*\.tmp")


_FOLDER_ATTEMPTS = 10
"""So often the folder of an object is made, where others remove it because it is empty."""


class LocalTier(StorageTier):
    """Objects as files of a folder.

    Writes go to a temporary file, which is synced and then renamed or linked; folders are synced after it.

    Args:
        url: A path or a file:// URL.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.root = Path(os.path.abspath(local_path(url)))

    @property
    def place(self) -> str:
        """The folder, absolute, without symbolic links."""
        return os.path.realpath(self.root)

    def prepare(self) -> None:
        """Create the folder where it is missing.

        Only this makes it: a backup never does, or it would be written beneath the mount point of a missing disk.
        """
        with self._errors("create the folder of", ""):
            missing = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
            for folder in reversed(missing):
                self._make_folder(folder)

    def put(self, name: str, data: Buffer, exclusive: bool = False, like_before: bool = False) -> None:
        """Store an object, whole and durably; see `StorageTier.put`."""
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        with self._errors("write", name):
            self._require_root()
            try:
                for attempt in range(1, _FOLDER_ATTEMPTS + 1):
                    written = False
                    try:
                        self._write(temporary, path, data, like_before)
                        written = True
                        self._name_it(temporary, path, data, exclusive)
                        break
                    except FileNotFoundError as exc:
                        # whoever removed the last object of the folder meanwhile removed that, too; and to retention
                        # a temporary file is garbage where this process was suspended for a day
                        vanished = not written or exc.filename == os.fspath(temporary)
                        if not vanished or attempt == _FOLDER_ATTEMPTS or not self.root.is_dir():
                            raise
            except OSError:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise

    def _write(self, temporary: Path, path: Path, data: Buffer, like_before: bool) -> None:
        self._make_folders(path.parent)
        with self._observed("write", self._name(path)):
            if like_before:
                write_like(temporary, path, data)
            else:
                write_synced(temporary, data)

    def _name_it(self, temporary: Path, path: Path, data: Buffer, exclusive: bool) -> None:
        if exclusive:
            return self._link(temporary, path, data)
        with self._observed("replace", self._name(path)):
            os.replace(temporary, path)
            sync_folder(path.parent)
        return None

    def overwrite(self, name: str, data: Buffer) -> None:
        """Write over an object in the room that it has already, for a disk without any room left; not atomic."""
        with self._errors("write", name), self._observed("overwrite", name):
            overwrite(self._path(name), data)

    def get(self, name: str, offset: int = 0, length: int | None = None, limit: int | None = None) -> bytes:
        """Read an object, or a range of it; see `StorageTier.get`."""
        with self._errors("read", name):
            return read_regular(self._path(name), offset, length, limit)

    def size(self, name: str) -> int:
        """Return the size of an object in bytes."""
        with self._errors("look at", name):
            return self._path(name).stat().st_size

    def is_object(self, name: str) -> bool:
        """Return whether what has that name is an object, and not a folder or something that cannot be read."""
        with self._errors("look at", name):
            return self._path(name).is_file()

    def list(self, prefix: str = "") -> Sequence[StoredName]:
        """List all objects below a folder (`prefix` ends in `/` or is empty), sorted by name."""
        return [stored for stored in self._walk(prefix) if not _is_temporary(stored.name)]

    def leftovers(self, prefix: str = "") -> Sequence[StoredName]:
        """List the temporary files that interrupted writes left behind; `remove` takes their names."""
        return [stored for stored in self._walk(prefix) if _is_temporary(stored.name)]

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted; none where it does not exist."""
        folder = self._folder(prefix)
        with self._errors("list", prefix):
            if not folder.is_dir():
                self._require_root()
                return []
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects durably, in the order given, and the folders that become empty.

        Raises:
            RepositoryUnavailable: Some could not be removed; names them. All others are gone.
        """
        self._require_root()
        failed: builtins.list[tuple[str, LastgoodError]] = []
        touched: dict[Path, None] = {}
        for name in names:
            path = self._path(name)
            try:
                with self._errors("remove", name), self._observed("delete", name):
                    path.unlink(missing_ok=True)
                touched[path.parent] = None
            except LastgoodError as exc:
                failed.append((name, exc))
        for folder in touched:
            with self._errors("remove", self._name(folder)):
                self._settle(folder)
        if failed:
            raise not_removed(failed)

    def prune(self, prefix: str, before: datetime) -> None:
        """Remove the empty folders directly below a folder that were last changed before a time."""
        for name in self.folders(prefix):
            folder = self._folder(prefix) / name
            with suppress(OSError):
                if folder.stat().st_mtime < before.timestamp():
                    folder.rmdir()

    def _path(self, name: str) -> Path:
        return self.root.joinpath(*checked_segments(name))

    def _folder(self, prefix: str) -> Path:
        return self._path(prefix.rstrip("/")) if prefix else self.root

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _require_root(self) -> None:
        if not self.root.is_dir():
            raise PlaceMissing(
                f"the repository's folder {self.root} is not there",
                hint="Is its disk mounted?",
            )

    def _walk(self, prefix: str) -> builtins.list[StoredName]:
        found: builtins.list[StoredName] = []
        with self._errors("list", prefix):
            self._require_root()
            above = len(os.path.join(self.root, ""))
            for folder, folders, files in os.walk(self._folder(prefix), onerror=self._unlistable):
                # the file system's own, where a repository is the root of a disk; only root may look inside
                folders[:] = [name for name in folders if name != "lost+found"]
                for file in files:
                    path = os.path.join(folder, file)
                    # a file that vanishes between listing and looking was removed: it is not in the listing
                    with suppress(FileNotFoundError):
                        seen = os.lstat(path)
                        moment = datetime.fromtimestamp(seen.st_mtime, UTC)
                        found.append(StoredName(path[above:], seen.st_size, moment))
        return sorted(found, key=lambda stored: stored.name)

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while folder != self.root and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for step in reversed(missing):
            self._make_folder(step)

    def _make_folder(self, folder: Path) -> None:
        with self._observed("mkdir", folder.name if folder == self.root else os.path.relpath(folder, self.root)):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            sync_folder(folder.parent)

    def _link(self, temporary: Path, path: Path, data: Buffer) -> None:
        name = self._name(path)
        try:
            with self._observed("link", name):
                os.link(temporary, path)
                sync_folder(path.parent)
        except FileExistsError as exc:
            if not _holds(path, data):
                raise AlreadyExists(f"{name} exists already in {self.root}") from exc
            sync_folder(path.parent)
        finally:
            with self._observed("delete", name):
                temporary.unlink(missing_ok=True)

    def _settle(self, folder: Path) -> None:
        """Make removals durable, and remove the folder where nothing is left in it."""
        if not folder.is_dir():
            return
        sync_folder(folder)
        if folder == self.root:
            return
        try:
            folder.rmdir()
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
                raise
        else:
            sync_folder(folder.parent)

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        """Translate what the operating system says."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
            self._require_root()
            if verb not in ("read", "look at"):
                raise unavailable(verb, name, self.root, exc) from exc
            raise ObjectMissing(f"{name} is not there in {self.root}") from exc
        except OSError as exc:
            raise unavailable(verb, name, self.root, exc) from exc

    def _unlistable(self, error: OSError) -> None:
        """Name the folder that cannot be listed; one that vanished meanwhile is empty."""
        if not isinstance(error, FileNotFoundError):
            name = os.path.relpath(error.filename, self.root) if error.filename else ""
            raise unavailable("list", "" if name == "." else name, self.root, error) from error


def _holds(path: Path, data: Buffer) -> bool:
    """Return whether a file has these bytes; what is no file has not."""
    try:
        ours = memoryview(data).cast("B")
        return path.stat().st_size == len(ours) and read_regular(path) == ours
    except (FileNotFoundError, IsADirectoryError, ObjectUnreadable):
        return False


def _is_temporary(name: str) -> bool:
    return bool(_TEMPORARY.fullmatch(name.rpartition("/")[2]))
