"""Writing to a store, with a look at each key right before and right after: a method may not say that it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from blocks.errors import LastgoodError, RestoreRefused, SourceUnavailable
from blocks.sources.mapping.answers import NotStored
from blocks.sources.mapping.look import NONE, Reader, Seen, Store, digest_of
from blocks.sources.mapping.values import encode

_SHOWN_KEYS = 3
_SAMPLE_KEYS = 100


_NOT_KEPT = "Stop what else writes there; where nothing does, the object does not keep its values exactly."


class WritableStore(Store, Protocol):
    """What a target writes: a state object, or the file that stands in for one."""

    @property
    def batch_keys(self) -> int:
        """How many keys it sets in one call."""
        ...

    def write(self, values: dict[str, object]) -> None:
        """Set values."""
        ...

    def delete(self, keys: Sequence[str]) -> list[str]:
        """Delete keys; return those of which the store says that it did not."""
        ...


class CheckedWriter:
    """Writes to a store.

    Args:
        store: The store that values are written to.
        reader: Reads the store, to compare what is there.
        digests: Of the values that may be overwritten or deleted, by key; None where anything may.
        at_once: Whether the store is a transaction that counts what it writes, so that nobody needs to look.
        keys: How many keys will be set.

    Attributes:
        sample: Digests of some of the values that were set, by key, to be looked for when the store was closed.
        done: Keys that were set or deleted, and found to be.
        changed: Whether anything that others see was changed, or may have been.
    """

    def __init__(
        self, store: WritableStore, reader: Reader, digests: Mapping[str, bytes] | None, *, at_once: bool, keys: int
    ) -> None:
        self._store, self._reader, self._digests, self._at_once = store, reader, digests, at_once
        self._deleted: list[str] = []
        self._step = max(1, keys // _SAMPLE_KEYS)
        self.sample: dict[str, bytes] = {}
        self.done = 0
        self.changed = False

    def put(self, values: dict[str, object]) -> None:
        """Set values, as many at once as the store takes.

        Raises:
            RestoreRefused: A key was written to by somebody else; it and those after it were left as they are.
            NotStored: The store does not hold what it was given.
            SourceUnavailable: It failed.
        """
        keys, many = list(values), self._store.batch_keys
        for first in range(0, len(keys), many):
            some = {key: values[key] for key in keys[first : first + many]}
            before = self._before(list(some))
            self._attempt(before, list(some), lambda some=some: self._set(some))  # type: ignore[misc]
            self.done += len(some)

    def put_what_is_taken(self, values: dict[str, object]) -> dict[str, str]:
        """Set values as `put` does, but go on past keys that the store does not take; return those with the reasons.

        Raises:
            RestoreRefused: A key was written to by somebody else; it and those after it were left as they are.
        """
        keys, many = list(values), self._store.batch_keys
        refused: dict[str, str] = {}
        for first in range(0, len(keys), many):
            some = {key: values[key] for key in keys[first : first + many]}
            try:
                self.put(some)
            except SourceUnavailable:
                refused |= self._put_others(some)
        return refused

    def _put_others(self, values: dict[str, object]) -> dict[str, str]:
        """Set one by one what is not there after all of it together has failed."""
        refused: dict[str, str] = {}
        for key, value in values.items():
            if self._holds(key, value):
                self.done += 1
                continue
            try:
                self.put({key: value})
            except SourceUnavailable as exc:
                refused[key] = exc.message
        return refused

    def _holds(self, key: str, value: object) -> bool:
        return self._reader.look(self._store, [key]).texts.get(key) == encode(value, key, self._reader.types)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete keys one by one.

        Raises:
            RestoreRefused: A key was written to by somebody else; it and those after it were left as they are.
            SourceUnavailable: The store failed.
        """
        for key in keys:
            before = self._before([key])
            self._attempt(before, [key], lambda key=key: self._delete(key))  # type: ignore[misc]
            self._deleted.append(key)
            self.done += 1

    def finish(self) -> None:
        """Look whether what was deleted is gone.

        Raises:
            NotStored: Some of it is still there.
        """
        if self._deleted and (left := sorted(set(self._deleted) & set(self._store.keys(self._reader.patterns)))):
            self.done -= len(left)
            raise NotStored(f"{shown_keys(left)} were deleted, and are still there")

    def _delete(self, key: str) -> None:
        if self._store.delete([key]) and self._reader.look(self._store, [key]).texts.get(key, NONE) != NONE:
            raise NotStored(f"delete_state({key!r}) answered False, and the key is still there")

    def _set(self, values: dict[str, object]) -> None:
        self._store.write(values)
        if self._at_once:
            return
        wanted = {key: encode(value, key, self._reader.types) for key, value in values.items()}
        found = self._reader.look(self._store, list(values)).texts
        if wrong := [key for key, text in wanted.items() if found.get(key) != text]:
            raise NotStored(f"{shown_keys(wrong)} were set, and do not hold what they were set to", hint=_NOT_KEPT)
        for n, (key, text) in enumerate(wanted.items(), self.done):
            if n % self._step == 0:
                self.sample[key] = digest_of(text)

    def _before(self, keys: Sequence[str]) -> Seen:
        if self._at_once:
            return Seen()
        seen = self._reader.look(self._store, keys)
        if self._digests is None:
            return seen
        if written := seen.without_nothing(self._digests).differing(self._digests, keys):
            raise RestoreRefused(
                f"somebody else wrote to {shown_keys(written)} since the backup that was made before the restore",
                hint="Stop what writes there, and restore again.",
            )
        return seen

    def _attempt(self, before: Seen, keys: Sequence[str], write: Callable[[], None]) -> None:
        """Write; where that fails, find out whether it changed anything."""
        if self._at_once:
            write()
            return
        earlier, self.changed = self.changed, True
        try:
            write()
        except LastgoodError:
            if not before.failed and self._reader.look(self._store, keys) == before:
                self.changed = earlier
            raise


def check_sample(store: Store, reader: Reader, sample: Mapping[str, bytes]) -> None:
    """Look whether a store that was opened again still holds some of what it was given.

    Args:
        store: The store.
        reader: Reads it.
        sample: Digests of values by key.

    Raises:
        NotStored: It does not.
    """
    keys = list(sample)
    if lost := reader.look(store, keys).differing(sample, keys):
        raise NotStored(
            f"all keys were set, and of {len(keys)} that were looked at again after the end {shown_keys(lost)} do not"
            " hold what they were set to",
            hint=_NOT_KEPT,
        )


def shown_keys(keys: Sequence[str]) -> str:
    """Name some keys, for messages."""
    if len(keys) == 1:
        return f"the key {keys[0]!r}"
    shown = ", ".join(repr(key) for key in keys[:_SHOWN_KEYS])
    return f"{len(keys)} keys ({shown}{', ...' if len(keys) > _SHOWN_KEYS else ''})"
