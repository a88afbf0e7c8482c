"""One look at a state object: its keys are listed once, its values read part by part."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Protocol

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import CorruptionDetected, SourceUnavailable
from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import encode

STATE = CollectionSpec(
    name="state",
    key=("key",),
    label=("key",),
    columns=(("key", "large_string"), ("value", "large_string")),
    definition={"values": "tagged JSON"},
)
"""The one collection: keys, and values in the canonical text of `mapping_values`."""

_SAMPLE_KEYS = 256
"""Values read to guess the size of all."""
_HASH_BITS = 64


class Store(Protocol):
    """What a view reads: a state object, or the file that stands in for one."""

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List the keys that match any of the patterns, each once."""
        ...

    def read(self, keys: Sequence[str], keep: Callable[[str, object], None]) -> list[str]:
        """Hand each key with its value to `keep`; return the keys that are gone."""
        ...


class MappingView:
    """One look at a store. The keys are those of its beginning; what becomes of values is up to the store.

    Args:
        store: What to read.
        patterns: Of the keys to read.
        types: Enums and dataclasses that values may name.
        system: What it is, for the manifest.
        part_size_bytes: Bytes of Arrow data to draw parts for.
        warnings: What is not so good about it.
    """

    token: str | None = None

    def __init__(
        self,
        store: Store,
        patterns: Sequence[str],
        types: Types,
        system: str,
        part_size_bytes: int,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.taken_at = datetime.now(UTC)
        self.system, self.warnings = system, warnings
        self._store, self._patterns, self._types = store, tuple(patterns), types
        self._part_size_bytes = part_size_bytes
        self._named: set[str] = set()
        self.definition: dict[str, JsonValue] = {"patterns": list[JsonValue](patterns), "types": []}
        """A restore checks the classes that are named before it writes; they come as values are read."""
        self._lock = Lock()
        keys = store.keys(self._patterns)
        hashes = np.array([_hash(key) for key in keys], np.uint64)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._keys = hashes[order], [keys[n] for n in order]

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the one collection."""
        return (STATE,)

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of the keys' hashes, which any keys fill evenly."""
        parts = max(1, -(-self._estimated_bytes() // self._part_size_bytes))
        parts = min(parts, max(1, len(self._keys)))
        edges = [(n << _HASH_BITS) // parts for n in range(parts + 1)]
        return [{"from": f"{low:017x}", "below": f"{high:017x}"} for low, high in itertools.pairwise(edges)]

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether parts, which grow evenly, are much larger than they are drawn for."""
        # a single value, however large, is a part of its own in any drawing
        many = len(self._keys) > len(bounds)
        return many and self._estimated_bytes() > OUTGROWN * self._part_size_bytes * len(bounds)

    def _estimated_bytes(self) -> int:
        step = -(-len(self._keys) // _SAMPLE_KEYS) or 1
        sample = self._keys[::step]
        sizes = [sum(map(len, row)) for row in self._rows(sample)]
        return sum(sizes) * len(self._keys) // max(1, len(sizes))

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the values of one part; `known` is of no use, since an object does not tell what changed.

        Raises:
            SourceUnavailable: The object failed.
            UnsupportedState: A value cannot be kept exactly.
        """
        low, high = (int(str(bounds[edge]), 16) for edge in ("from", "below"))
        if not 0 <= low < high <= 1 << _HASH_BITS:
            raise CorruptionDetected(f"{low:x} to {high:x} is not a range of hashes", hint="Do not trust this backup.")
        first = int(np.searchsorted(self._hashes, np.uint64(low)))
        last = len(self._keys) if high >> _HASH_BITS else int(np.searchsorted(self._hashes, np.uint64(high)))
        rows = sorted(self._rows(self._keys[first:last]))
        columns = [pa.array([row[n] for row in rows], pa.large_string()) for n in (0, 1)]
        return Reading(pa.table(columns, names=["key", "value"]))

    def _rows(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        texts: dict[str, str] = {}
        nothing: set[str] = set()

        def keep(key: str, value: object) -> None:
            texts[key] = encode(value, key, self._types, self._name)
            if value is None:
                nothing.add(key)

        missing = self._store.read(keys, keep)
        if missing or nothing:
            self._tell_apart(missing, nothing, texts)
        return list(texts.items())

    def _tell_apart(self, missing: list[str], nothing: set[str], texts: dict[str, str]) -> None:
        """Ask again whether keys are there: a None may be a value, or all that an object says of a key that is gone."""
        there = set(self._store.keys(self._patterns))
        for key in nothing - there:
            del texts[key]
        for key in missing:
            if key in there:
                raise SourceUnavailable(
                    f"{self.system}: get_state({key!r}) raises KeyError, and get_keys_by_pattern lists that key",
                    hint="A listed key has a value; None is one.",
                )

    def _name(self, path: str) -> None:
        with self._lock:
            self._named.add(path)
            self.definition["types"] = list[JsonValue](sorted(self._named))

    def finish(self) -> None:
        """Nothing to check."""


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=_HASH_BITS // 8).digest(), "big")
