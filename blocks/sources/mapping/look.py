"""Looking at the values of a store as canonical text, for views and for what a restore has to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from blocks.errors import SourceChanged, SourceUnavailable, UnsupportedState
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import encode

T = TypeVar("T")

_ATTEMPTS = 3
"""How often a value is asked for that keeps changing, or whose reading fails."""
_HOPELESS = 10
"""Keys that fail one after another, before any has been read, until nothing more is asked for."""
NONE = "null"
"""What a None is as text: a value, or all that an object says of a key that is not there."""


class Store(Protocol):
    """What can be looked at: a state object, or the file that stands in for one."""

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List the keys that match any of the patterns, each once."""
        ...

    def read(self, keys: Sequence[str], keep: Callable[[str, object], None]) -> list[str]:
        """Hand each key with its value to `keep`; return the keys that are gone."""
        ...


@dataclass(frozen=True)
class Seen:
    """What was found under some keys.

    Attributes:
        texts: Value by key; those that are not there are missing.
        failed: Why a value could not be read, by key.
        unsupported: Why a value cannot be kept exactly, by key; these are among the failed, too.
    """

    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)

    def differing(self, digests: Mapping[str, bytes], keys: Sequence[str]) -> list[str]:
        """List the keys under which there is not what some digests were made of."""
        return [key for key in keys if key in self.failed or self._digest(key) != digests.get(key)]

    def _digest(self, key: str) -> bytes | None:
        return digest_of(self.texts[key]) if key in self.texts else None

    def without_nothing(self, known: Mapping[str, bytes]) -> Seen:
        """Leave out each None that is not known: an object may say so of a key that is not there."""
        texts = {key: text for key, text in self.texts.items() if text != NONE or key in known}
        return Seen(texts, self.failed, self.unsupported)


def digest_of(text: str) -> bytes:
    """Digest a value's canonical text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Rules:
    """How values are read: their classes, and what is done about those that are none, or cannot be kept exactly.

    Attributes:
        types: Enums and dataclasses that values may name.
        none_is_failure: Whether None is what the store answers where it fails, and no value.
        skips_unsupported: Whether a value that cannot be kept is left out, and left alone.
    """

    types: Types
    none_is_failure: bool = False
    skips_unsupported: bool = False


@dataclass(frozen=True)
class Reader:
    """Reads values as canonical text.

    Attributes:
        name: What errors call the store.
        patterns: What a store is asked for to find out whether a key is there.
        types: Enums and dataclasses that values may name.
        named: Called with the import path of each class that a value names.
        none_is_failure: Whether None is what the store answers where it fails, and no value.
    """

    name: str
    patterns: Sequence[str]
    types: Types
    named: Callable[[str], None] = lambda path: None
    none_is_failure: bool = False

    def texts(self, store: Store, keys: Sequence[str], unsupported: dict[str, str] | None = None) -> dict[str, str]:
        """Read the values of keys; those that are gone are left out.

        Args:
            store: The store that is read.
            keys: The keys whose values are read.
            unsupported: Takes why a value cannot be kept exactly, by key; None where that is an error.

        Raises:
            SourceUnavailable: A value cannot be read; names the key.
            UnsupportedState: One cannot be kept exactly.
        """
        texts, missing = self._asked(store, keys, unsupported)
        if missing or NONE in texts.values():
            # a None may be a value, or all that an object says of a key that is gone
            there = set(store.keys(self.patterns))
            texts = {key: text for key, text in texts.items() if text != NONE or key in there}
            if lost := [key for key in missing if key in there]:
                raise SourceUnavailable(
                    f"{self.name}: get_state({lost[0]!r}) raises KeyError, and get_keys_by_pattern lists that key",
                    hint="A listed key has a value; None is one.",
                )
            if self.none_is_failure and NONE in texts.values():
                lost_key = next(key for key, text in texts.items() if text == NONE)
                raise SourceUnavailable(
                    f"{self.name}: get_state({lost_key!r}) answers None, and get_keys_by_pattern lists that key",
                    hint="A tiered state manager answers None where it fails: look into its own log.",
                )
        return texts

    def what_can_be(self, store: Store, keys: Sequence[str]) -> Seen:
        """Read values, and go on past those that cannot be read.

        Raises:
            SourceUnavailable: Nothing can be read.
        """
        try:
            return Seen(self.texts(store, keys))
        except (SourceUnavailable, UnsupportedState):
            seen, in_vain = Seen(), 0
        for key in keys:
            try:
                seen.texts.update(_insisting(lambda key=key: self.texts(store, [key])))  # type: ignore[misc]
            except UnsupportedState as exc:
                seen.failed[key] = seen.unsupported[key] = exc.message
            except SourceUnavailable as exc:
                seen.failed[key], in_vain = exc.message, in_vain + 1
                if in_vain >= _HOPELESS and not seen.texts:
                    raise
        return seen

    def look(self, store: Store, keys: Sequence[str]) -> Seen:
        """Look at some keys without listing any: None and what is not there may be mistaken for each other."""
        try:
            return Seen(self._asked(store, keys)[0])
        except (SourceUnavailable, UnsupportedState) as exc:
            if len(keys) == 1:
                return Seen({}, {keys[0]: exc.message})
        seen = Seen()
        for alone in (self.look(store, [key]) for key in keys):
            seen.texts.update(alone.texts)
            seen.failed.update(alone.failed)
        return seen

    def _asked(
        self, store: Store, keys: Sequence[str], unsupported: dict[str, str] | None = None
    ) -> tuple[dict[str, str], list[str]]:
        texts: dict[str, str] = {}

        def keep(key: str, value: object) -> None:
            try:
                texts[key] = encode(value, key, self.types, self.named)
            except UnsupportedState as exc:
                if unsupported is None:
                    raise
                unsupported[key] = exc.message

        missing = store.read(keys, keep)
        return texts, missing


def keys_at_last(store: Store, patterns: Sequence[str]) -> list[str]:
    """List the keys of a store; one that says that it is being changed is asked again, some times."""
    return _insisting(lambda: store.keys(patterns), SourceChanged)


def _insisting(read: Callable[[], T], on: type[SourceUnavailable] = SourceUnavailable) -> T:
    for _ in range(_ATTEMPTS - 1):
        try:
            return read()
        except on as exc:
            if isinstance(exc.__cause__, TimeoutError):  # waiting for another minute would not help
                raise
    return read()
