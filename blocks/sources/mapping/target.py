"""Restoring to a state object: rows are staged, and set when all of them have come and can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import pyarrow as pa

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    Partial,
    RestoreRefused,
    SourceUnavailable,
    UnsupportedState,
)
from blocks.rows.selection import has_label
from blocks.rows.variant import is_variant, variant_text
from blocks.sources.collection import CollectionSpec
from blocks.sources.mapping.answers import NotStored
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.look import Reader, Rules, Store
from blocks.sources.mapping.place import Place
from blocks.sources.mapping.staging import StagedRows
from blocks.sources.mapping.view import STATE
from blocks.sources.mapping.writing import CheckedWriter, WritableStore, check_sample, shown_keys
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View

_NOT_OURS = "It was not made by lastgood. Do not trust this backup."
_KEEP_GOING = "--keep-going leaves out the keys with such values, restores all others, and names them."
_STOP_WRITERS = "Stop what writes there, and restore again."


@runtime_checkable
class _Remembering(Protocol):
    def remember(self) -> Mapping[str, bytes]: ...


class MappingTarget:
    """A restore into one store.

    Args:
        place: The store that is restored to, and how it is opened.
        patterns: Of the keys that are the source's.
        scope: The collections, rows and mode of the restore.
        rules: How values are read.
    """

    def __init__(self, place: Place, patterns: Sequence[str], scope: RestoreScope, rules: Rules) -> None:
        self.notes: list[str] = []
        self._place, self._patterns = place, tuple(patterns)
        self._scope, self._types, self._skips = scope, rules.types, rules.skips_unsupported
        self._reader = Reader(place.name, self._patterns, rules.types)
        self._staged = StagedRows()
        self._removed: set[str] = set()
        self._unread: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._digests: Mapping[str, bytes] | None = None
        self._writer: CheckedWriter | None = None
        self._committed = False
        self._left_alone = self._not_taken = 0

    @property
    def _exact(self) -> bool:
        return self._scope.mode is RestoreMode.EXACT

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """The keys whose values could not be made, or that the object did not take; they are as they were."""
        return [NotRebuilt(f"key {key!r}", why) for key, why in sorted(self._left_out.items())]

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which rows are of keys whose values could not be made so far."""
        return has_label(rows, collection.label, pa.array([key.encode() for key in self._left_out], pa.large_binary()))

    @property
    def rows_left_out(self) -> Mapping[str, int]:
        """How many keys the object did not take of those that were to be set, complete after `commit`."""
        return {STATE.name: self._not_taken}

    @property
    def changed(self) -> bool:
        """Whether keys were set or deleted already, or may have been."""
        return self._committed or (self._writer is not None and self._writer.changed)

    def preflight(self) -> tuple[str, ...]:
        """Check the object's methods, the classes that values name, and the room for what is staged.

        Raises:
            RestoreRefused: Something is missing, or a class is not allowed.
        """
        for path in self._defined("types"):
            try:
                self._types.find(path)
            except RestoreRefused as exc:
                if not self._scope.keep_going:  # else the keys with such values are named when they come
                    raise _with_hint(exc) from exc
        self._defined("patterns")
        try:
            self._place.check(self._exact)
            self._place.check_room(self._scope.size_bytes)
        except LastgoodError as exc:
            if isinstance(exc, RestoreRefused):
                raise
            raise RestoreRefused(f"{self._place.name} cannot be restored to: {exc.message}", hint=exc.hint) from exc
        if self._place.at_once:
            return ()
        return (f"Keys of {self._place.name} are set one after another; others may see some before the rest.",)

    def _defined(self, name: str) -> list[str]:
        texts = self._scope.definition.get(name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise CorruptionDetected(f"the manifest has no list of {name} for {self._place.name}", hint=_NOT_OURS)
        return [str(text) for text in texts]

    def occupied(self) -> str | None:
        """Say what is there."""
        return self._place.occupied()

    def hold(self) -> None:
        """Nobody can be kept from writing to an object; `check_unwritten` and `commit` look for who did."""

    def guard(self, view: View) -> None:
        """Remember what a view reads: what the pre-restore backup holds is what may be overwritten."""
        if not isinstance(view, _Remembering):
            raise RestoreRefused(f"{self._place.name}: the view of before is not one of this source")
        self._digests = view.remember()

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Keep off the keys that the pre-restore backup lacks, since nothing can be moved aside in an object.

        Raises:
            RestoreRefused: The restore would write or delete one of them, or nothing can be read.
        """
        for one in unread:
            if one.collection is None or one.key is None:
                raise self._not_in_backup("its state", one.reason)
        reasons = {str(one.key): one.reason for one in unread}
        selected = set(self._selected(list(reasons)))
        self._unread.update({key: why for key, why in reasons.items() if key in selected})
        if self._exact and self._unread:
            with self._place.opened() as store:
                self._check_readable(self._covered_by_both(store))
        return ()

    def _check_readable(self, keys: Sequence[str] | set[str]) -> None:
        for key, why in self._unread.items():
            if key in keys:
                raise self._not_in_backup(f"the key {key!r}", why)

    def _not_in_backup(self, what: str, why: str) -> RestoreRefused:
        return RestoreRefused(
            f"{self._place.name}: {what} would be overwritten or deleted, and cannot be backed up before: {why}",
            hint="Remove the cause, restore other keys with --key, or restore to another place with --to.",
        )

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Stage the rows of one part in an unnamed temporary file, after reading every value.

        Args:
            collection: The store.
            rows: Rows with `key` and `value`, both large_string: keys, and values as canonical text.

        Raises:
            RestoreRefused: A value names a class that is not allowed, or the plan may not cover a key.
            CorruptionDetected: A row is not what a backup holds.
        """
        plain = pa.table({name: _texts(rows, name) for name in ("key", "value")})
        plain = self._decodable(plain)
        keys = plain.column("key").to_pylist()
        self._check_readable(set(keys))
        self._check_covered(keys)
        self._staged.add(plain)
        return int(plain.num_rows)

    def _decodable(self, rows: pa.Table) -> pa.Table:
        """Return the rows whose values can be made; all of them, unless the restore is to go on past others."""
        wanted = []
        for key, text in zip(*(rows.column(name).to_pylist() for name in ("key", "value")), strict=True):
            try:
                decode(text, key, self._types)
            except RestoreRefused as exc:
                if not self._scope.keep_going:
                    raise _with_hint(exc) from exc
                self._left_out[key] = exc.message.removeprefix(f"key {key!r}: ")
            wanted.append(key not in self._left_out)
        return rows.filter(pa.array(wanted, pa.bool_()))

    def _check_covered(self, keys: Sequence[str]) -> None:
        """Refuse keys for which it is not known whether the plan's patterns, which have changed, cover them."""
        if not self._scope.in_place or set(self._defined("patterns")) <= set(self._patterns):
            return
        if unclear := self._place.undetermined(keys):
            raise RestoreRefused(
                f"{self._place.name}: the plan's patterns are not those of the backup, and whether they cover"
                f" {shown_keys(unclear)} is not known",
                hint="Choose the keys with --key, or restore with the patterns of then.",
            )

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Take keys to delete; only those that the plan's patterns list now, and that are not written, will be.

        Args:
            collection: The store.
            keys: One row per record to delete, with at least `key` (large_string).

        Raises:
            RestoreRefused: The object cannot delete.
        """
        wanted = set(_texts(keys, "key").to_pylist())
        try:
            self._place.check(True)
            with self._place.opened() as store:
                there = wanted & set(store.keys(self._patterns))
        except ConfigurationError as exc:
            raise RestoreRefused(f"{self._place.name}: {exc.message}", hint=exc.hint) from exc
        self._check_readable(there)
        self._removed |= there
        return len(there)

    def check_unwritten(self) -> None:
        """Compare all keys that will be written or deleted with what the view of before read of them.

        Raises:
            RestoreRefused: They differ; names keys. Nothing was changed.
        """
        if self._digests is None:
            return
        try:
            with self._place.opened() as store:
                self._compare(store, self._doomed(store))
        except (SourceUnavailable, UnsupportedState) as exc:
            raise RestoreRefused(f"{self._place.name}: {exc.message}", hint=exc.hint) from exc

    def _compare(self, store: Store, doomed: Sequence[str]) -> None:
        self._check_readable(set(doomed))
        if self._digests is None:
            return
        keys = [*self._staged.keys, *doomed]
        seen = self._reader.what_can_be(store, keys)
        if self._skips:
            for key, why in seen.unsupported.items():
                raise self._not_in_backup(f"the key {key!r}", why)
        if written := seen.differing(self._digests, keys):
            raise RestoreRefused(
                f"{self._place.name} was written to since the backup that was made of it before the restore:"
                f" {shown_keys(written)}; nothing was changed",
                hint=_STOP_WRITERS,
            )

    def commit(self) -> None:
        """Set all values, then delete what an exact restore deletes; each is compared before and looked at after.

        Raises:
            RestoreRefused: Somebody wrote since the view of before, or the object refused; nothing was changed.
            Partial: It failed later, or has not stored what it was given; says how far it got.
        """
        try:
            with self._place.opened() as store:
                self._writer = CheckedWriter(
                    store, self._reader, self._digests, at_once=self._place.at_once, keys=len(self._staged.keys)
                )
                doomed = self._doomed(store)
                self._compare(store, doomed)
                self._keep_what_goes(store, doomed)
                self._write(self._writer, doomed)
            self._committed = True
            self._look_again(self._writer)
        except Partial:  # it is all there
            self._committed = True
            raise
        except LastgoodError as exc:
            raise self._failed(exc) from exc
        except OSError as exc:
            failed = SourceUnavailable(
                f"what was staged cannot be read again: {exc}", hint="Look at the disk of TMPDIR."
            )
            raise self._failed(failed) from exc
        finally:
            self._staged.close()
        if self._left_alone:
            self.notes.append(
                f"{self._left_alone} keys of {self._place.name} whose values cannot be kept are left alone."
            )
        if doomed:
            self.notes.append(f"{len(doomed)} keys of {self._place.name} that the backup does not hold were deleted.")

    def _write(self, writer: CheckedWriter, doomed: Sequence[str]) -> None:
        keys = len(self._staged.keys)
        for batch in self._staged.batches():
            values = {key: decode(text, key, self._types) for key, text in batch}
            if self._scope.keep_going:
                self._left_out |= writer.put_what_is_taken(values)
            else:
                writer.put(values)
        self._not_taken = len(self._left_out.keys() & self._staged.keys)
        keys -= self._not_taken
        if self._left_out and not keys and self._staged.keys:
            raise SourceUnavailable(f"none of the keys could be set: {next(iter(self._left_out.values()))}")
        writer.delete(doomed)
        if writer.done != keys + len(doomed):
            raise CorruptionDetected(
                f"{writer.done} keys were written of {keys + len(doomed)} that were to be", hint="Restore again."
            )
        writer.finish()

    def _look_again(self, writer: CheckedWriter) -> None:
        """Read some keys again: an object may hold what it was given only as long as it is open."""
        if writer.sample:
            with self._place.opened() as store:
                check_sample(store, self._reader, writer.sample)

    def _failed(self, exc: LastgoodError) -> LastgoodError:
        writer = self._writer
        if writer is None or not (writer.changed or isinstance(exc, NotStored)):
            return RestoreRefused(f"{self._place.name}: {exc.message}", hint=exc.hint)
        return Partial(
            f"the restore to {self._place.name} stopped after {writer.done} keys: {exc.message}",
            hint="Remove the cause and restore again: keys that are set already are set to the same value.",
        )

    def _keep_what_goes(self, store: WritableStore, doomed: Sequence[str]) -> None:
        """Keep what is overwritten or deleted at another place than the live one, where the store can."""
        keep_copy = getattr(store, "keep_copy", None)
        if self._scope.in_place or keep_copy is None:
            return
        if going := len(doomed) + len(self._staged.keys & set(store.keys(self._patterns))):
            kept = keep_copy()
            self.notes.append(f"{self._place.name} held {going} keys that were overwritten or deleted: kept in {kept}.")

    def _doomed(self, store: Store) -> list[str]:
        """List the keys to delete that the restore does not write."""
        doomed = set(self._covered_by_both(store)) if self._exact else set()
        doomed |= self._removed & set(store.keys(self._patterns)) if self._removed else set()
        found = sorted(doomed - self._staged.keys - self._left_out.keys())
        left = self._reader.what_can_be(store, found).unsupported if self._skips else {}
        self._left_alone = len(left)
        return [key for key in found if key not in left]

    def _covered_by_both(self, store: Store) -> list[str]:
        """List the selected keys that are there and that the patterns of both the backup and the plan cover."""
        covered = set(store.keys(self._defined("patterns")))
        return self._selected([key for key in store.keys(self._patterns) if key in covered])

    def _selected(self, keys: Sequence[str]) -> list[str]:
        selection = self._scope.selection_of(STATE.name)
        found = selection.rows(pa.table({"key": pa.array(keys, pa.large_string())}), STATE.label)
        return list(found.column("key").to_pylist())

    def abort(self) -> None:
        """Forget what was staged."""
        self._staged.close()


def _with_hint(error: RestoreRefused) -> RestoreRefused:
    return RestoreRefused(error.message, hint=f"{error.hint} {_KEEP_GOING}".strip())


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
