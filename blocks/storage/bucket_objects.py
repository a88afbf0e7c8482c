"""The contract of a bucket that is a source of state: its objects listed, read, written and deleted by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

SETTLED_SECONDS = 2
"""A time of change so far back, by the storage's own clock, proves the object: storages keep whole seconds."""


@dataclass(frozen=True)
class Stamp:
    """What tells an object from what was, or will be, under the same key.

    Attributes:
        size_bytes: Its size.
        etag: What the storage calls its content, without quotes.
        version: The version's id, where the bucket keeps versions; empty where it does not, or where nobody may ask.
        modified: Seconds since 1970, by the storage's clock.
    """

    size_bytes: int
    etag: str
    version: str
    modified: int

    @property
    def token(self) -> int:
        """All of it, in 63 bits."""
        said = f"{self.etag}\0{self.version}\0{self.modified}\0{self.size_bytes}"
        return int.from_bytes(sha256(said.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Listed:
    """All objects of a place.

    Attributes:
        objects: Their stamps, by key.
        at: When the listing began, in seconds since 1970, by the storage's clock.
    """

    objects: Mapping[str, Stamp]
    at: int


@dataclass(frozen=True)
class Asked:
    """What is to be read: an object from `start` to before `stop`, in bytes; None for its end."""

    key: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Fetched:
    """What was read in one answer, so that nothing of it is of another version.

    Attributes:
        stamp: The object as it was read.
        attributes: What it has besides: `content-type`, `cache-control`, `content-disposition`, `content-encoding`,
            `content-language`, and `meta.NAME` for what its user gave it. The default content type is left out.
        data: The bytes that were asked for, as far as there are any.
        at: When it was read, in seconds since 1970, by the storage's clock.
    """

    stamp: Stamp
    attributes: Mapping[str, str]
    data: bytes
    at: int

    @property
    def settled(self) -> bool:
        """Whether an equal stamp will later prove that the object is what was read."""
        return self.at - self.stamp.modified >= SETTLED_SECONDS


@dataclass(frozen=True)
class Lost:
    """What could not be read, with the reason as a clause; None where there is no such object (any more)."""

    reason: str | None


@dataclass(frozen=True)
class Upload:
    """What is to be written.

    Attributes:
        key: Where.
        path: A local file with the content.
        size_bytes: Its size.
        attributes: As in `Fetched`.
    """

    key: str
    path: bytes
    size_bytes: int
    attributes: Mapping[str, str] = field(default_factory=dict)


class ObjectPlace(ABC):
    """The objects below one prefix of a bucket, by the rest of their keys. Thread-safe.

    What concerns the place as a whole (no such bucket, wrong credentials, no answer) raises `SourceUnavailable`; what
    concerns one object is returned for it.

    Attributes:
        place: Names it in messages, without secrets.
    """

    place: str

    @abstractmethod
    def list(self) -> Listed:
        """List all objects."""

    @abstractmethod
    def fetch(self, asked: Sequence[Asked]) -> Sequence[Fetched | Lost]:
        """Read objects, several at once; each in one answer."""

    @abstractmethod
    def look(self, keys: Sequence[str]) -> Sequence[Fetched | Lost]:
        """Look at objects without reading them: what is returned has no data."""

    @abstractmethod
    def put(self, uploads: Sequence[Upload]) -> Sequence[tuple[str, str]]:
        """Write objects, each as a whole or not at all; return those that were refused, with the reasons."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Delete objects; what is not there counts as deleted. Return those that were refused, with the reasons."""

    def close(self) -> None:  # noqa: B027  most hold nothing
        """Let go of connections, and end what is being read; may be called twice."""
