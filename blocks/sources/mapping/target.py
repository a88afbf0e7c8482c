"""Restoring to a state object: rows are staged, and set when all of them have come and can be read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock
from typing import IO, Protocol

import pyarrow as pa

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError, Partial, RestoreRefused
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.types import Types
from blocks.variant import is_variant, variant_text

_BATCH_KEYS = 500
"""Values handed to the object at once."""


class WritableStore(Protocol):
    """What a target writes: a state object, or the file that stands in for one."""

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List the keys that match any of the patterns."""
        ...

    def write(self, values: dict[str, object], wrote: Callable[[int], None]) -> None:
        """Set values, counting those that are done."""
        ...

    def delete(self, keys: Sequence[str], wrote: Callable[[int], None]) -> None:
        """Delete keys, counting those that are done."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a restore writes.

    Attributes:
        name: What errors call it.
        check: Refuses where it cannot be written; told whether keys will be deleted.
        opened: Opens it for writing.
        at_once: Whether all that is written appears together.
    """

    name: str
    check: Callable[[bool], None]
    opened: Callable[[], AbstractContextManager[WritableStore]]
    at_once: bool


class MappingTarget:
    """A restore into one store.

    Args:
        place: The store.
        patterns: Of the keys that are the source's.
        scope: What is restored.
        types: Enums and dataclasses that values may name.
    """

    def __init__(self, place: Place, patterns: Sequence[str], scope: RestoreScope, types: Types) -> None:
        self.notes: list[str] = []
        self._place, self._patterns = place, tuple(patterns)
        self._scope, self._types = scope, types
        self._staged: IO[bytes] | None = None
        self._keys: set[str] = set()
        self._lock = Lock()

    @property
    def _exact(self) -> bool:
        return self._scope.mode is RestoreMode.EXACT

    def preflight(self) -> tuple[str, ...]:
        """Check the object's methods and the classes that values name.

        Raises:
            RestoreRefused: Something is missing, or a class is not allowed.
        """
        for path in self._defined("types"):
            self._types.find(path)
        self._defined("patterns")
        try:
            self._place.check(self._exact)
        except ConfigurationError as exc:
            raise RestoreRefused(f"{self._place.name} cannot be restored to: {exc.message}", hint=exc.hint) from exc
        if self._place.at_once:
            return ()
        return (f"Keys of {self._place.name} are set one after another; others may see some before the rest.",)

    def _defined(self, name: str) -> list[str]:
        texts = self._scope.definition.get(name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise CorruptionDetected(f"the manifest has no list of {name} for {self._place.name}", hint=_NOT_OURS)
        return [str(text) for text in texts]

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Stage the rows of one part in an unnamed temporary file, after reading every value.

        Raises:
            RestoreRefused: A value names a class that is not allowed.
            CorruptionDetected: A row is not what a backup holds.
        """
        plain = pa.table({name: _texts(rows, name) for name in ("key", "value")})
        keys = plain.column("key").to_pylist()
        for key, text in zip(keys, plain.column("value").to_pylist(), strict=True):
            decode(text, key, self._types)
        with self._lock:
            if self._staged is None:
                self._staged = tempfile.TemporaryFile()  # noqa: SIM115  it lives until commit or abort
            with pa.ipc.new_stream(self._staged, plain.schema) as writer:
                writer.write_table(plain, max_chunksize=_BATCH_KEYS)
            self._keys.update(keys)
        return int(rows.num_rows)

    def commit(self) -> None:
        """Set all values, then delete what an exact restore deletes.

        Raises:
            RestoreRefused: The object refused the first key; nothing was changed.
            Partial: It refused later; the restore may be repeated.
        """
        done = 0

        def wrote(keys: int) -> None:
            nonlocal done
            done += keys

        try:
            with self._place.opened() as store:
                doomed = self._doomed(store) if self._exact else []
                for values in self._batches():
                    store.write(values, wrote)
                store.delete(doomed, wrote)
        except LastgoodError as exc:
            if not done:
                raise RestoreRefused(f"{self._place.name}: {exc.message}", hint=exc.hint) from exc
            raise Partial(
                f"the restore to {self._place.name} stopped after {done} keys: {exc.message}",
                hint="Remove the cause and restore again: keys that are set already are set to the same value.",
            ) from exc
        if doomed:
            self.notes.append(f"{len(doomed)} keys of {self._place.name} that the backup does not hold were deleted.")
        self.abort()

    def _doomed(self, store: WritableStore) -> list[str]:
        """List the keys to delete: those which the source has now, had patterns for then, and has no value for."""
        selection = self._scope.selection_of("state")
        covered = set(store.keys(self._defined("patterns")))
        extra = [key for key in store.keys(self._patterns) if key in covered and key not in self._keys]
        found = selection.rows(pa.table({"key": pa.array(extra, pa.large_string())}), ("key",))
        return list(found.column("key").to_pylist())

    def _batches(self) -> Iterator[dict[str, object]]:
        if self._staged is None:
            return
        end = self._staged.tell()
        self._staged.seek(0)
        while self._staged.tell() < end:
            with pa.ipc.open_stream(self._staged) as reader:
                for batch in reader:
                    pairs = zip(batch.column("key").to_pylist(), batch.column("value").to_pylist(), strict=True)
                    yield {key: decode(text, key, self._types) for key, text in pairs}

    def abort(self) -> None:
        """Forget what was staged; the object was not touched."""
        with self._lock:
            staged, self._staged = self._staged, None
            self._keys = set()
        if staged is not None:
            staged.close()


_NOT_OURS = "It was not made by lastgood. Do not trust this backup."


def _texts(rows: pa.Table, name: str) -> pa.Array:
    """Return a column as text, whatever type merging gave it."""
    if name not in rows.column_names:
        raise CorruptionDetected(f"the rows of a state have no column {name!r}", hint=_NOT_OURS)
    column = rows.column(name)
    try:
        if is_variant(rows.schema.field(name)):
            column = variant_text(column)
        texts = column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as exc:
        raise CorruptionDetected(f"the column {name!r} of a state is not text: {exc}", hint=_NOT_OURS) from exc
    if texts.null_count:
        raise CorruptionDetected(f"a row of a state has no {name}", hint=_NOT_OURS)
    return texts
