"""Packs: the objects that the blobs of a backup are put into, several small ones into one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from blocks.records import Blob, StoredObject
from blocks.repository import names
from blocks.storage.fsync import Buffer

PACK_BYTES = 8 * 1024 * 1024
"""A pack is stored when it has so many bytes."""
ALONE_BYTES = 1024 * 1024
"""A blob of so many bytes has a pack of its own."""


class Packs:
    """Puts sealed blobs into objects, and stores these. Thread-safe; each blob may be added again, after a failure.

    Args:
        put: Stores an object under a name; the same object may be stored again.
        discard: Removes an object that was stored.
    """

    def __init__(self, put: Callable[[str, Buffer], StoredObject], discard: Callable[[str], None]) -> None:
        self._put, self._discard = put, discard
        self._guard = threading.Lock()
        self._next = 0
        self._blobs: dict[int, Blob] = {}
        self._stored: dict[str, StoredObject] = {}
        self._open = bytearray()
        self._open_name = ""
        self._full: list[tuple[str, Buffer]] = []
        self._numbers = 0

    def new_number(self) -> int:
        """Return a number for a blob, which is bound into it."""
        with self._guard:
            self._numbers += 1
            return self._numbers - 1

    def add(self, number: int, sealed: Buffer) -> Blob:
        """Put a blob into a pack; full packs are stored at once, the last one by `finish`.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        with self._guard:
            if number not in self._blobs:
                self._blobs[number] = self._place(number, sealed)
        self._store_full()
        return self._blobs[number]

    def forget(self, blob: Blob) -> None:
        """Give up a blob that is not needed after all; an object that holds nothing else is removed."""
        if blob.shared is not None:
            return  # other parts need it
        alone = self._stored.get(blob.name)
        if alone is not None and alone.size_bytes == blob.size_bytes:
            del self._stored[blob.name]
            self._discard(blob.name)

    def finish(self) -> list[StoredObject]:
        """Store what is not stored yet; return all objects, sorted by name.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        with self._guard:
            self._close()
        self._store_full()
        return [self._stored[name] for name in sorted(self._stored)]

    def _place(self, number: int, sealed: Buffer) -> Blob:
        size, digest = len(memoryview(sealed)), hashlib.sha256(sealed).hexdigest()
        if size >= ALONE_BYTES:
            name, offset = self._new_name(), 0
            self._full.append((name, sealed))
        else:
            if not self._open:
                self._open_name = self._new_name()
            name, offset = self._open_name, len(self._open)
            self._open += sealed
            if len(self._open) >= PACK_BYTES:
                self._close()
        return Blob(name=name, offset=offset, size_bytes=size, sha256=digest, number=number)

    def _new_name(self) -> str:
        self._next += 1
        return names.pack(self._next - 1)

    def _close(self) -> None:
        if self._open:
            self._full.append((self._open_name, self._open))
            self._open = bytearray()

    def _store_full(self) -> None:
        """Store the packs that are full; what fails stays, and is tried again by who comes next."""
        while True:
            with self._guard:
                if not self._full:
                    return
                name, content = self._full.pop()
            try:
                stored = self._put(name, content)
            except BaseException:
                with self._guard:
                    self._full.append((name, content))
                raise
            with self._guard:
                self._stored[name] = stored
