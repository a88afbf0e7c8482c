"""Objects in an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage, memory."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import obstore

from blocks.errors import (
    AlreadyExists,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    RepositoryUnavailable,
    StorageUnreachable,
)
from blocks.storage.attempts import Attempts, Transient
from blocks.storage.base import StorageTier, StoredName, checked_segments, not_removed
from blocks.storage.fsync import Buffer
from blocks.storage.object_errors import classified, is_about_range

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

R = TypeVar("R")

REMOVED_AT_ONCE = 1000
"""Objects of one request for deletion, where the storage knows such requests."""
REMOVERS = 8
"""Requests for deletion at once, where each is for one object."""


LISTED_AT_ONCE = 1000
"""Objects of one request for a listing."""


class ObjectTier(StorageTier):
    """Objects in one bucket or container, below one prefix.

    Each object is one request: a multipart upload would not be made exclusively everywhere, nothing here is larger than
    what one request can hold (5 GB), and what no upload leaves behind need not be looked for.

    Args:
        url: As the plan names the place.
        place: As messages name it, without secrets; tells it from all others.
        store: The opened bucket, its own prefix included.
        attempts: Calls it.
        storage_class: Of new objects; None for the bucket's own.
        single_writer: Look before an exclusive creation, where the store does not refuse a second one by itself.
    """

    remote = True
    flat = True

    def __init__(
        self,
        url: str,
        place: str,
        store: ObjectStore,
        attempts: Attempts,
        storage_class: str | None = None,
        single_writer: bool = False,
    ) -> None:
        super().__init__(url)
        self._place, self._store, self._attempts = place, store, attempts
        self._attributes = {"Storage-Class": storage_class} if storage_class else None
        self._single_writer = single_writer

    @property
    def place(self) -> str:
        """The URL and, where it is not the provider's own, the endpoint."""
        return self._place

    def prepare(self) -> None:
        """Make sure that the bucket is there and can be listed; it is never made.

        Raises:
            ConfigurationError: There is no such bucket, or it is in another region.
            StorageRefused: The credentials are wrong, or do not suffice.
        """
        self._call("list", "", lambda: obstore.list_with_delimiter(self._store, "backups"))

    def put(self, name: str, data: Buffer, exclusive: bool = False, like_before: bool = False) -> None:
        """Store an object; see `StorageTier.put`."""
        checked_segments(name)
        if exclusive and self._single_writer and self.exists(name):
            return self._accept(name, data)
        content = data if isinstance(data, bytes) else memoryview(data).cast("B")
        with self._observed("put", name):
            try:
                self._call("write", name, lambda: self._put(name, content, exclusive))
            except AlreadyExists:
                self._accept(name, data)

    def _put(self, name: str, data: Buffer, exclusive: bool) -> None:
        mode: Any = "create" if exclusive else "overwrite"
        obstore.put(self._store, name, data, mode=mode, use_multipart=False, attributes=self._attributes)

    def _accept(self, name: str, data: Buffer) -> None:
        """Take an object that is there as ours if it has the same bytes: a reply may have got lost."""
        ours = memoryview(data).cast("B")
        with suppress(ObjectMissing):  # it was another's, and is gone since
            if self.size(name) == len(ours) and self.get(name) == ours:
                return
        raise AlreadyExists(f"{name} exists already in {self._place}")

    def get(self, name: str, offset: int = 0, length: int | None = None, limit: int | None = None) -> bytes:
        """Read an object, or a range of it; see `StorageTier.get`."""
        checked_segments(name)
        if length == 0:
            self.size(name)
            return b""
        if length is not None:
            return self._call("read", name, lambda: self._range(name, offset, length))
        return self._call("read", name, lambda: self._rest(name, offset, limit))

    def _range(self, name: str, offset: int, length: int) -> bytes:
        try:
            return self._read(name, {"range": (offset, offset + length)})
        except obstore.exceptions.BaseError as exc:
            if not is_about_range(exc):
                raise
        return self._without_ranges(name, offset)[:length]

    def _rest(self, name: str, offset: int, limit: int | None) -> bytes:
        try:
            return self._read(name, {"range": {"offset": offset}} if offset else None, limit)
        except obstore.exceptions.BaseError as exc:
            if not offset or not is_about_range(exc):
                raise
        return self._without_ranges(name, offset)

    def _without_ranges(self, name: str, offset: int) -> bytes:
        """Read from an offset where the object ends before it, or the store answers ranges in no way that is known."""
        if obstore.head(self._store, name)["size"] <= offset:
            return b""
        return self._read(name, None)[offset:]

    def _read(self, name: str, options: Any, limit: int | None = None) -> bytes:
        found = obstore.get(self._store, name, options=options)
        size = found.meta["size"]
        if limit is not None and size > limit:
            raise CorruptionDetected(
                f"{name} in {self._place} has {size} bytes, and such an object never has more than {limit}",
                hint="It was not made by lastgood, or was changed. Put a copy of it back.",
            )
        start, end = found.range
        data = bytes(found.bytes())
        if len(data) != end - start:
            # cut off on the way: the object itself may be whole
            raise Transient(RepositoryUnavailable(f"cannot read {name} in {self._place}: the answer was cut off"))
        return data

    def size(self, name: str) -> int:
        """Return the size of an object in bytes."""
        checked_segments(name)
        return self._call("look at", name, lambda: obstore.head(self._store, name)["size"])

    def list(self, prefix: str = "") -> Sequence[StoredName]:
        """List all objects below a folder (`prefix` ends in `/` or is empty), sorted by name."""
        return _sorted(self._call("list", prefix, lambda: self._listed(prefix)))

    def _listed(self, prefix: str) -> builtins.list[ObjectMeta]:
        return [one for page in obstore.list(self._store, prefix or None) for one in page]

    def first_page(self) -> Sequence[StoredName] | None:
        """List all objects that there are, where one request is enough for that."""

        def pages() -> builtins.list[Sequence[ObjectMeta]]:
            return builtins.list(islice(obstore.list(self._store, chunk_size=LISTED_AT_ONCE), 2))

        found = self._call("list", "", pages)
        return None if len(found) > 1 else _sorted(found[0] if found else [])

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted."""
        found = self._call("list", prefix, lambda: obstore.list_with_delimiter(self._store, prefix or None))
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found["common_prefixes"])

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects in batches, and one by one where a batch fails.

        Raises:
            RepositoryUnavailable: Some could not be removed; names them. All others are gone.
        """
        wanted = builtins.list(names)
        failed: builtins.list[tuple[str, LastgoodError]] = []
        for start in range(0, len(wanted), REMOVED_AT_ONCE):
            failed += self._remove(wanted[start : start + REMOVED_AT_ONCE])
        if failed:
            raise not_removed(failed)

    def drop_folders(self, prefix: str, folders: Iterable[str]) -> None:
        """Remove folders that hold nothing any more, where the server has such.

        Some go on listing them (SeaweedFS does). They remove an object of a folder's name only
        where that is empty; where there are no folders, there is no such object. It is not asked for a folder that
        holds something: some servers answer that as if they had failed.
        """
        wanted = frozenset(folders)
        if there := [name for name in self.folders(prefix) if name in wanted] if wanted else []:
            held = {one.name.removeprefix(prefix).partition("/")[0] for one in self.list(prefix)}
            self.remove(f"{prefix}{name}" for name in there if name not in held)

    def _remove(self, names: builtins.list[str]) -> builtins.list[tuple[str, LastgoodError]]:
        for name in names:
            checked_segments(name)
            type(self).durable("delete", name, "before")
        failed: builtins.list[tuple[str, LastgoodError]] = []
        try:
            self._call("remove", names[0] if len(names) == 1 else "", lambda: obstore.delete(self._store, names))
        except StorageUnreachable as exc:
            failed += [(name, exc) for name in names]
        except (ObjectMissing, RepositoryUnavailable) as exc:
            # some stores say of a whole batch that something is missing, and all name only the first failure
            failed = self._one_by_one(names) if len(names) > 1 else self._failure(names[0], exc)
        kept = {name for name, _ in failed}
        for name in names:
            if name not in kept:
                type(self).durable("delete", name, "after")
        return failed

    def _one_by_one(self, names: builtins.list[str]) -> builtins.list[tuple[str, LastgoodError]]:
        def remove(name: str) -> builtins.list[tuple[str, LastgoodError]]:
            try:
                self._call("remove", name, lambda: obstore.delete(self._store, name))
            except LastgoodError as exc:
                return self._failure(name, exc)
            return []

        with ThreadPoolExecutor(REMOVERS, thread_name_prefix="remove") as pool:
            return [failure for failures in pool.map(remove, names) for failure in failures]

    @staticmethod
    def _failure(name: str, error: LastgoodError) -> builtins.list[tuple[str, LastgoodError]]:
        return [] if isinstance(error, ObjectMissing) else [(name, error)]

    def _call(self, verb: str, name: str, work: Callable[[], R]) -> R:
        def tried() -> R:
            try:
                return work()
            except (obstore.exceptions.BaseError, FileNotFoundError) as exc:
                raise classified(exc, verb, name, self._place) from exc

        return self._attempts.call(tried)


def _sorted(found: Iterable[ObjectMeta]) -> builtins.list[StoredName]:
    listed = (StoredName(one["path"], one["size"], one["last_modified"]) for one in found)
    return sorted(listed, key=lambda one: one.name)
