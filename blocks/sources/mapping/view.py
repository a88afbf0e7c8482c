"""One look at a state object: its keys are listed once, its values read part by part."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from threading import Lock

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.mapping.look import Reader, Rules, Seen, Store, digest_of, keys_at_last
from blocks.sources.reading import BaseLookup, FullRead
from blocks.sources.view import Unread

STATE = CollectionSpec(
    name="state",
    key=("key",),
    label=("key",),
    columns=(("key", "large_string"), ("value", "large_string")),
    definition={"values": "tagged JSON"},
)
"""The one collection: keys, and values in the canonical text of `values.py`."""

_SAMPLE_KEYS = 256
"""Values read to guess the size of all."""
_HASH_BITS = 64


class MappingView:
    """One look at a store. The keys are those of its beginning; what becomes of values is up to the store.

    Args:
        store: The store whose values are read.
        patterns: Of the keys to read.
        system: What it is, for the manifest.
        part_size_bytes: Size that parts are partitioned for, in bytes of Arrow data.
        rules: How values are read.
        warnings: What is not so good about it.
    """

    token: str | None = None

    def __init__(
        self,
        store: Store,
        patterns: Sequence[str],
        system: str,
        part_size_bytes: int,
        rules: Rules,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.taken_at = datetime.now(UTC)
        self.system, self.warnings = system, warnings
        self._store, self._part_size_bytes = store, part_size_bytes
        self._skips = rules.skips_unsupported
        self._reader = Reader(system, tuple(patterns), rules.types, self._name, rules.none_is_failure)
        self._digests: dict[str, bytes] | None = None
        self._failed: dict[str, str] = {}
        self._named: set[str] = set()
        self.definition: dict[str, JsonValue] = {"patterns": list[JsonValue](patterns), "types": []}
        """A restore checks the classes that are named before it writes; they come as values are read."""
        self._lock = Lock()
        keys = self._listed()
        hashes = np.array([_hash(key) for key in keys], np.uint64)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._keys = hashes[order], [keys[n] for n in order]

    def _listed(self) -> list[str]:
        return self._store.keys(self._reader.patterns)

    def remember(self) -> Mapping[str, bytes]:
        """Return the digests of the values that are read from now on, by key; it fills while parts are read."""
        with self._lock:
            if self._digests is None:
                self._digests = {}
            return self._digests

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the one collection."""
        return (STATE,)

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of the keys' hashes, which any keys fill evenly."""
        parts = max(1, -(-self._estimated_bytes() // self._part_size_bytes))
        parts = min(parts, max(1, len(self._keys)))
        edges = [(n << _HASH_BITS) // parts for n in range(parts + 1)]
        return [{"from": f"{low:017x}", "below": f"{high:017x}"} for low, high in itertools.pairwise(edges)]

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether parts, which grow evenly, are much larger than they were partitioned for."""
        # a single value, however large, is a part of its own in any drawing
        many = len(self._keys) > len(bounds)
        return many and self._estimated_bytes() > REPARTITION_FACTOR * self._part_size_bytes * len(bounds)

    def _estimated_bytes(self) -> int:
        step = -(-len(self._keys) // _SAMPLE_KEYS) or 1
        sample = self._keys[::step]
        sizes = [sum(map(len, row)) for row in self._seen(sample).texts.items()]
        return sum(sizes) * len(self._keys) // max(1, len(sizes))

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> FullRead:
        """Read the values of one part; `base` is of no use, since an object does not report what changed.

        Raises:
            SourceUnavailable: The object failed.
            UnsupportedState: A value cannot be kept exactly.
        """
        low, high = (int(str(bounds[edge]), 16) for edge in ("from", "below"))
        if not 0 <= low < high <= 1 << _HASH_BITS:
            raise CorruptionDetected(f"{low:x} to {high:x} is not a range of hashes", hint="Do not trust this backup.")
        first = int(np.searchsorted(self._hashes, np.uint64(low)))
        last = len(self._keys) if high >> _HASH_BITS else int(np.searchsorted(self._hashes, np.uint64(high)))
        seen = self._seen(self._keys[first:last])
        rows = sorted(seen.texts.items())
        if self._digests is not None:
            self._digests.update((key, digest_of(text)) for key, text in rows)
        columns = [pa.array([row[n] for row in rows], pa.large_string()) for n in (0, 1)]
        left_out = tuple(f"{why}: it is left out." for why in seen.unsupported.values()) if self._skips else ()
        return FullRead(pa.table(columns, names=["key", "value"]), warnings=left_out)

    def _seen(self, keys: Sequence[str]) -> Seen:
        unsupported: dict[str, str] = {}
        texts = self._reader.texts(self._store, keys, unsupported if self._skips else None)
        return Seen(texts, unsupported=unsupported)

    def _name(self, path: str) -> None:
        with self._lock:
            self._named.add(path)
            self.definition["types"] = list[JsonValue](sorted(self._named))

    def finish(self) -> None:
        """Nothing to check."""


class SalvagingView(MappingView):
    """A look that goes on past values that cannot be read, or kept exactly."""

    @property
    def unread(self) -> Sequence[Unread]:
        """What could not be read so far."""
        with self._lock:
            return [Unread(why, STATE.name, key) for key, why in sorted(self._failed.items())]

    def _listed(self) -> list[str]:
        return keys_at_last(self._store, self._reader.patterns)

    def _seen(self, keys: Sequence[str]) -> Seen:
        seen = self._reader.what_can_be(self._store, keys)
        with self._lock:
            for key in keys:
                self._failed.pop(key, None)
            # what the plan leaves out is missing in no backup; a target leaves it alone
            skipped = seen.unsupported if self._skips else {}
            self._failed.update((key, why) for key, why in seen.failed.items() if key not in skipped)
        return seen


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=_HASH_BITS // 8).digest(), "big")
