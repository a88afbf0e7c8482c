"""The contract of a storage tier: objects by name in one place, whatever keeps them."""

from __future__ import annotations

import builtins
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from blocks.errors import ConfigurationError, LastgoodError, ObjectMissing, RepositoryUnavailable
from blocks.storage.fsync import Buffer, DurableHook, unobserved

if TYPE_CHECKING:
    from blocks.storage.settings import StorageSettings

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_NAMED = 20
"""So many objects are named in one message."""


@dataclass(frozen=True)
class StoredName:
    """One object of a listing.

    Attributes:
        name: From the tier's root.
        size_bytes: Size in bytes.
        modified_at: Time of its last change by the clock of the storage, in UTC.
    """

    name: str
    size_bytes: int
    modified_at: datetime


class StorageTier(ABC):
    """Objects by name in one place. Thread-safe.

    The contract, for every kind of tier:

    - `put` is atomic and durable: afterwards the whole object is there, also after a power cut; a reader
      meanwhile sees the object before or after, never a mixture. It is idempotent and may be retried.
    - `put(..., exclusive=True)` lets exactly one of several writers succeed. It may be retried: finding the same
      bytes already there counts as success, because a reply may get lost after the object was made.
    - `remove` is idempotent and may be retried; what is not there counts as removed.
    - `get`, `size`, `exists`, `list`, `folders` and `leftovers` change nothing, and never wait for a FIFO.
    - What was put is in the next listing.
    - Errors are told apart once, here: `ObjectMissing`, `AlreadyExists`, `ObjectUnreadable` (one object),
      `StorageRefused` (credentials or permission), `RepositoryFull`, `PlaceMissing`, `StorageUnreachable` (after all
      attempts); all but the first two are kinds of `RepositoryUnavailable`.

    Args:
        url: Where the objects are; its scheme is the kind of the tier.
    """

    durable: ClassVar[DurableHook] = staticmethod(unobserved)
    """The one place where durable operations can be watched; a crash test sets it."""

    remote: bool = False
    """Whether each call is a request over a network, so that fewer calls, and many at once, are worth something."""
    flat: bool = False
    """Whether all objects below a folder are listed as fast as the folders in it."""

    settings: ClassVar[frozenset[str]] = frozenset()
    """Of a tier that another package adds: the fields of `StorageSettings` that mean something to it."""

    variables: ClassVar[frozenset[str]] = frozenset()
    """Of such a tier: environment variables that let it in where no others are named, which hooks are kept from."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def opened(cls, url: str, settings: StorageSettings, single_writer: bool) -> StorageTier:
        """Open such a tier.

        Args:
            url: Where the objects are.
            settings: How it is reached; only fields that it names are set.
            single_writer: Whether nobody else ever writes there, so that exclusive creation need not be the storage's.

        Raises:
            ConfigurationError: The URL or a setting is wrong.
        """
        return cls(url)

    @property
    @abstractmethod
    def place(self) -> str:
        """What tells this place from all others, as text without secrets."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the place ready for the first object, where that can be done; called by `init` alone.

        Raises:
            ConfigurationError: The place does not exist and is not ours to make: a bucket, for one.
            RepositoryUnavailable: The storage failed.
        """

    @abstractmethod
    def put(self, name: str, data: Buffer, exclusive: bool = False, like_before: bool = False) -> None:
        """Store an object, whole and durably.

        Args:
            name: Segments of letters, digits, `.`, `_` and `-`, joined by `/`.
            data: The whole content of the object, in bytes.
            exclusive: Fail where another object of that name exists.
            like_before: Keep the owner, group and mode of the object that is replaced, or fail, where objects have any.

        Raises:
            AlreadyExists: `exclusive`, and other bytes are there.
            RepositoryUnavailable: The storage failed; nothing is there, or the object as it was.
        """

    def overwrite(self, name: str, data: Buffer) -> None:
        """Write over an object that is there, if need be without room for a second one.

        Not atomic everywhere: only for objects of less than a block whose torn state is understood.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        self.put(name, data)

    @abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None, limit: int | None = None) -> bytes:
        """Read an object, or `length` bytes from `offset`; fewer where it ends before.

        Args:
            name: Name of the object, relative to the tier.
            offset: The first byte to read.
            length: How many bytes; None for the rest of it.
            limit: Where all of it is read, the size in bytes from which on it is refused before reading.

        Raises:
            ObjectMissing: There is no such object.
            ObjectUnreadable: It cannot be read: an I/O error, a permission, a FIFO in its place, an archived object.
            CorruptionDetected: It is larger than `limit`.
            RepositoryUnavailable: The storage failed.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size of an object in bytes.

        Raises:
            ObjectMissing: There is no such object.
            RepositoryUnavailable: The storage failed.
        """

    def exists(self, name: str) -> bool:
        """Return whether there is an object of that name."""
        try:
            self.size(name)
        except ObjectMissing:
            return False
        return True

    def is_object(self, name: str) -> bool:
        """Return whether what has that name is an object, and not a folder or something that cannot be read."""
        return self.exists(name)

    @abstractmethod
    def list(self, prefix: str = "") -> Sequence[StoredName]:
        """List all objects below a folder (`prefix` ends in `/` or is empty), sorted by name."""

    def first_page(self) -> Sequence[StoredName] | None:
        """List all objects that there are, sorted by name, where one request does that; None where it does not."""
        return None

    def leftovers(self, prefix: str = "") -> Sequence[StoredName]:
        """List what interrupted writes left behind below a folder; `remove` takes their names."""
        return []

    @abstractmethod
    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted; none where it does not exist."""

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove objects durably, and the folders that become empty where there are any.

        Raises:
            RepositoryUnavailable: Some could not be removed; names them. All others are gone.
        """

    def prune(self, prefix: str, before: datetime) -> None:  # noqa: B027  most have no folders
        """Remove the empty folders directly below a folder that were last changed before a time."""

    def drop_folders(self, prefix: str, folders: Iterable[str]) -> None:  # noqa: B027  most have gone with their objects
        """Remove folders directly below a folder that hold nothing any more; one that holds something stays.

        Some servers go on listing folders whose objects were removed.

        Args:
            prefix: The folder that they are in.
            folders: Their names, as `folders` returns them: such as nobody writes in any more.
        """

    @contextmanager
    def _observed(self, operation: str, name: str) -> Iterator[None]:
        type(self).durable(operation, name, "before")
        yield
        type(self).durable(operation, name, "after")


def checked_segments(name: str) -> list[str]:
    """Return the segments of an object's name.

    Raises:
        ConfigurationError: It is none: it could lead out of the tier.
    """
    segments = name.split("/")
    if any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in segments):
        raise ConfigurationError(f"{name!r} is not a name of an object in a repository")
    return segments


def not_removed(failed: builtins.list[tuple[str, LastgoodError]]) -> RepositoryUnavailable:
    """Say which objects could not be removed, and why the first of them."""
    first = failed[0][1]
    named = ", ".join(name for name, _ in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    error = RepositoryUnavailable(f"could not remove {named}{more}: {first.message}", hint=first.hint)
    error.__cause__ = first
    return error
