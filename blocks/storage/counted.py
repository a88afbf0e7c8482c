"""A tier of any kind, whose calls are counted for the operation that makes them."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import ParamSpec, TypeVar

from blocks.storage.base import StorageTier, StoredName
from blocks.storage.fsync import Buffer
from blocks.telemetry.numbers import Call, Direction, Outcome, outcome_of
from blocks.telemetry.recorder import recorder

P = ParamSpec("P")
R = TypeVar("R")


class CountedTier(StorageTier):
    """Hands each call on to a tier, and counts it where somebody records. Thread-safe.

    A call that the tier tries again, or splits into several requests, counts as one.

    Args:
        inner: The tier.
    """

    def __init__(self, inner: StorageTier) -> None:
        super().__init__(inner.url)
        self.inner = inner
        self.remote, self.flat = inner.remote, inner.flat

    @cached_property
    def place(self) -> str:
        """What tells this place from all others, as text without secrets."""
        return self.inner.place

    def prepare(self) -> None:
        """Make the place ready for the first object; see `StorageTier.prepare`."""
        self._asked(Call.PREPARE, self.inner.prepare)

    def put(self, name: str, data: Buffer, exclusive: bool = False, like_before: bool = False) -> None:
        """Store an object, whole and durably; see `StorageTier.put`."""
        self._asked(Call.PUT, self.inner.put, name, data, exclusive, like_before)
        self._moved(Direction.WRITTEN, data)

    def overwrite(self, name: str, data: Buffer) -> None:
        """Write over an object that is there; see `StorageTier.overwrite`."""
        self._asked(Call.PUT, self.inner.overwrite, name, data)
        self._moved(Direction.WRITTEN, data)

    def get(self, name: str, offset: int = 0, length: int | None = None, limit: int | None = None) -> bytes:
        """Read an object, or a range of it; see `StorageTier.get`."""
        data = self._asked(Call.GET, self.inner.get, name, offset, length, limit)
        self._moved(Direction.READ, data)
        return data

    def size(self, name: str) -> int:
        """Return the size of an object in bytes; see `StorageTier.size`."""
        return self._asked(Call.SIZE, self.inner.size, name)

    def exists(self, name: str) -> bool:
        """Return whether there is an object of that name."""
        return self._asked(Call.SIZE, self.inner.exists, name)

    def is_object(self, name: str) -> bool:
        """Return whether what has that name is an object; see `StorageTier.is_object`."""
        return self._asked(Call.SIZE, self.inner.is_object, name)

    def list(self, prefix: str = "") -> Sequence[StoredName]:
        """List all objects below a folder; see `StorageTier.list`."""
        return self._asked(Call.LIST, self.inner.list, prefix)

    def first_page(self) -> Sequence[StoredName] | None:
        """List all objects that there are, where one request does that; see `StorageTier.first_page`."""
        return self._asked(Call.LIST, self.inner.first_page)

    def leftovers(self, prefix: str = "") -> Sequence[StoredName]:
        """List what interrupted writes left behind; see `StorageTier.leftovers`."""
        return self._asked(Call.LIST, self.inner.leftovers, prefix)

    def folders(self, prefix: str = "") -> Sequence[str]:
        """Return the names of the folders directly below a folder; see `StorageTier.folders`."""
        return self._asked(Call.LIST, self.inner.folders, prefix)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects durably; see `StorageTier.remove`."""
        wanted = builtins.list(names)
        self._asked(Call.REMOVE, self.inner.remove, wanted)

    def prune(self, prefix: str, before: datetime) -> None:
        """Remove empty folders; see `StorageTier.prune`."""
        self._asked(Call.REMOVE, self.inner.prune, prefix, before)

    def drop_folders(self, prefix: str, folders: Iterable[str]) -> None:
        """Remove folders that hold nothing any more; see `StorageTier.drop_folders`."""
        self._asked(Call.REMOVE, self.inner.drop_folders, prefix, folders)

    def _asked(self, call: Call, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        if (recorded := recorder()) is None:
            return work(*args, **more)
        outcome, started = Outcome.OK, time.monotonic()
        try:
            return work(*args, **more)
        except BaseException as exc:
            outcome = outcome_of(exc)
            raise
        finally:
            recorded.call(self.place, call.value, outcome.value, time.monotonic() - started)

    def _moved(self, direction: Direction, data: Buffer) -> None:
        if (recorded := recorder()) is not None:
            recorded.moved(self.place, direction.value, memoryview(data).nbytes)
