"""One attempt at a backup: its type, id and keys, the parts that have to be read, and what was stored so far.

Where the base turns out to be unusable while parts are read, a second attempt is made without it, in the same context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property

from blocks.crypto.stream import ObjectContext, ObjectKind
from blocks.errors import BaseUnusable, CorruptionDetected, ObjectUnreadable
from blocks.records import BackupType, StoredObject
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex, PartLookup
from blocks.rows.selection import Selection
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.view import Skipping, View
from blocks.storage.fsync import Buffer
from flows.pipeline.chain import Chain
from flows.pipeline.context import BackupContext
from flows.pipeline.messages import SelectedCollection, Stored
from flows.pipeline.packs import Packs
from flows.pipeline.small_parts import SmallParts
from flows.pipeline.stored_once import StoredOnce

MOST_FILTER_BYTES = 8 * 1024 * 1024
"""What all filters of a manifest may take, which is held in memory with those of other backups."""


class BackupAttempt:
    """An attempt at a backup, with a fresh id and a fresh data key. Prints as its id.

    Args:
        context: What all attempts at the backup share.
        base: The chain that the backup depends on; None where it needs none, or has none.
        promoted_because: Why a full backup is made in place of the requested type; None where that is made.
        drawn: The id that the lease names from its beginning, where it was taken for this attempt.

    Attributes:
        backup_type: What is made.
        data_key: Seals the data; None with `encryption: none`.
        encapsulated_key: The data key as the manifest keeps it.
        tokens: By source the token of its view.
        packs: The objects that what is stored is put into.
        small: Parts that wait for others, to be stored with them.
        once: Values that are stored once, however many rows have them.
        filter_bytes: What the filters of its segments take in the manifest so far; about, where threads count at once.
    """

    def __init__(
        self,
        context: BackupContext,
        base: Chain | None = None,
        promoted_because: str | None = None,
        drawn: str | None = None,
    ) -> None:
        plan, repository = context.plan, context.repository
        self.context, self.base, self.promoted_because = context, base, promoted_because
        self.backup_type = BackupType.FULL if promoted_because else context.requested
        self.backup_id = self._drawn(drawn)
        self.data_key, self.encapsulated_key = repository.keys.new_data_key(plan.name, self.backup_id)
        # before anything is read: what a source sees afterwards has at least all that its token stands for
        self.tokens = self._asked_tokens()
        for name, view in context.views.items():
            context.notes.warn(name, view.warnings)  # a token may have cost something
        self._results = _Results()
        self.filter_bytes = 0
        self.packs, self.small = Packs(self._put, self._discard_object), SmallParts(self)
        self.once = StoredOnce()

    def __str__(self) -> str:
        """Name the backup as people see it in the UI."""
        return self.backup_id

    def _asked_tokens(self) -> dict[str, str | None]:
        return {name: view.token for name, view in self.context.views.items()}

    def _drawn(self, drawn: str | None) -> str:
        """Return an id that is free, and that the lease names: that with which it was taken, or a new one."""
        plan, repository, lease = self.context.plan.name, self.context.repository, self.context.held
        of_type = drawn is not None and drawn.startswith(self.backup_type.prefix)
        if drawn is not None and of_type and drawn not in repository.stock(plan, lease).ids:
            return drawn
        fresh = repository.new_id(plan, self.backup_type, datetime.now(UTC))
        lease.work_on(fresh)
        return fresh

    def without_base(self, because: str) -> BackupAttempt:
        """Make another attempt, at a full backup."""
        return BackupAttempt(self.context, None, because)

    @property
    def tracks_changes(self) -> bool:
        """Whether sources may leave out what they know did not change; a differential always reads all."""
        return self.backup_type is BackupType.INCREMENTAL and self.base is not None

    @cached_property
    def collections(self) -> tuple[SelectedCollection, ...]:
        """What is taken, in the order of the manifest."""
        chosen = ((name, spec, self.context.selection(name)) for name, spec in self.context.specs.items())
        taken = [
            (name, spec, selection.meant_for(spec.key, spec.label))
            for name, spec, selection in chosen
            if selection is not None
        ]
        return tuple(
            SelectedCollection(number, name, spec, self.context.views[name.partition("/")[0]], selection)
            for number, (name, spec, selection) in enumerate(taken)
        )

    def parts(self) -> Iterator[BackupPart]:
        """Yield the parts that have to be read; the boundaries are those of the base, or fresh ones."""
        for collection in self.collections:
            with self.context.reading(collection.source):
                bounds = self._bounds(collection)
            parts = [BackupPart(self, collection, n, b) for n, b in enumerate(bounds)]
            self._results.parts[collection.name] = parts
            if self._untouched(collection.source):
                self.done(None, [(part, Stored(None, part.base_rows)) for part in parts])
            else:
                yield from parts

    def stale_parts(self) -> list[BackupPart]:
        """Return the parts that have to be read again; at last none.

        Something in them was given up since they were read, or they refer to what such a part holds.
        """
        found: list[BackupPart] = []
        for collection in self.collections:
            if isinstance(collection.view, Skipping) and collection.view.skips:
                with self.context.reading(collection.source):
                    bounds = collection.view.stale(collection.spec)
                parts = self.parts_of(collection)
                numbers = self.once.forget(collection.name, [part.number for part in parts if part.bounds in bounds])
                found += [part for part in parts if part.number in numbers]
        for part in found:
            self._discard(part)
        return found

    def _discard(self, part: BackupPart) -> None:
        """Give up what was stored of a part: stored objects never change, so it gets others."""
        if (segment := self._results.stored.pop(str(part)).segment) is not None:
            for blob in (segment.data, segment.index):
                if blob.shared is None:  # else it is that of other parts, too
                    self.packs.forget(blob)

    def parts_of(self, collection: SelectedCollection) -> Sequence[BackupPart]:
        """Return the parts of a collection, once `parts` has come to its end."""
        return self._results.parts[collection.name]

    def _bounds(self, collection: SelectedCollection) -> Sequence[Bounds]:
        if self.base is None:
            return list(collection.view.partition(collection.spec))
        before = next(held for held in self.base.target.collections if held.name == collection.name)
        return [part.bounds for part in before.parts]

    def token_before(self, source: str) -> str | None:
        """Return the token that the base's view of a source had."""
        return self.base.target.source(source).token if self.base else None

    def _untouched(self, source: str) -> bool:
        before = self.token_before(source) if self.tracks_changes else None
        return before is not None and before == self.tokens[source]

    @cached_property
    def rows_before(self) -> dict[str, int]:
        """How many records the base holds of each part, by the part's name; empty where there is no base."""
        held = self.base.target.collections if self.base else ()
        return {f"{collection.name}#{part.number}": part.rows for collection in held for part in collection.parts}

    def base_index(self, part: BackupPart) -> PartIndex:
        """Read what the base holds of a part.

        Raises:
            BaseUnusable: An index of the chain is missing or damaged.
        """
        if self.base is None:
            return PartIndex([])
        try:
            return self.base.index(part.collection_name, part.number, part.base_rows)
        except (CorruptionDetected, ObjectUnreadable) as exc:
            raise BaseUnusable(f"base {self.base.target.backup_id}: {exc.message}", hint=exc.hint) from exc

    def _put(self, name: str, sealed: Buffer) -> StoredObject:
        return self.context.repository.put_object(self.context.plan.name, self.backup_id, name, sealed)

    def _discard_object(self, name: str) -> None:
        self.context.repository.discard_objects(self.context.plan.name, self.backup_id, [name])

    def object_context(self, kind: ObjectKind, number: int) -> ObjectContext:
        """Make the context that binds a blob to its number in this backup."""
        return ObjectContext(
            self.context.repository.repository_id, self.context.plan.name, self.backup_id, kind, number
        )

    @property
    def filters(self) -> bool:
        """Whether segments say by a filter which keys they hold: where others lie below them, and not very many do."""
        return self.base is not None and self.filter_bytes < MOST_FILTER_BYTES

    def done(self, _: BackupPart | None, stored: Sequence[tuple[BackupPart, Stored]]) -> None:
        """Take the results of a last stage: of a part, of all those that were stored with it, or of none yet."""
        self._results.stored |= {str(part): result for part, result in stored}

    def result(self, part: BackupPart) -> Stored:
        """Return the result of a part's last stage."""
        return self._results.stored[str(part)]

    def give_up(self, error: BaseException, part: BackupPart | None) -> None:
        """Let views end what they are reading; not where the same views are read again, without the base."""
        if part is not None:
            self.context.notes.failed = part.source
        if not isinstance(error, BaseUnusable):
            self.context.stop()


class Rehearsal(BackupAttempt):
    """An attempt that stores nothing: its parts are read and compared, and it has neither an id nor a lease."""

    def _asked_tokens(self) -> dict[str, str | None]:
        """Ask for none: a source may have to do something to be able to report what changes from now on."""
        return dict.fromkeys(self.context.views)

    def _drawn(self, drawn: str | None) -> str:
        return "rehearsal"


class _Results:
    """What came of an attempt's parts.

    Attributes:
        parts: The parts of each collection, by its full name.
        stored: What was stored of each part, by its name.
    """

    def __init__(self) -> None:
        self.parts: dict[str, list[BackupPart]] = {}
        self.stored: dict[str, Stored] = {}


class BackupPart:
    """One part of one backup that passes the backup stages. Prints as `ledger/orders#3`.

    A plain class, because Prefect looks for futures inside the dataclasses it is given.
    """

    __slots__ = ("_base", "_collection", "attempt", "bounds", "number")

    def __init__(self, attempt: BackupAttempt, collection: SelectedCollection, number: int, bounds: Bounds) -> None:
        self.attempt, self._collection, self.number, self.bounds = attempt, collection, number, bounds
        self._base: PartIndex | None = None

    def __str__(self) -> str:
        """Name the part as people see it in the UI and in errors."""
        return f"{self.collection_name}#{self.number}"

    @property
    def source(self) -> str:
        """Name of the source."""
        return self._collection.source

    @property
    def collection_name(self) -> str:
        """Full name of the collection."""
        return self._collection.name

    @property
    def spec(self) -> CollectionSpec:
        """The collection as its source describes it."""
        return self._collection.spec

    @property
    def view(self) -> View:
        """The view of its source."""
        return self._collection.view

    @property
    def selection(self) -> Selection | None:
        """Which rows are kept; None for all."""
        return self._collection.selection if self._collection.selection.keys else None

    @property
    def digest(self) -> RowDigest:
        """Computes the digest of rows under the repository's key."""
        return self.attempt.context.digest

    def base(self) -> PartIndex:
        """Return what the base holds of this part; empty where the backup has no base."""
        if self._base is None:
            self._base = self.attempt.base_index(self)
        return self._base

    @property
    def base_rows(self) -> int:
        """How many records the base holds of this part, as its manifest says; none where there is no base."""
        return self.attempt.rows_before.get(str(self), 0)

    def known(self) -> PartLookup:
        """Return what a source may leave out of its reading."""
        token = self.attempt.token_before(self.source)
        return PartLookup(self.base, self.base_rows, self.spec.key, self.digest, token)

    def drop_base(self) -> None:
        """Forget the base's index, which is as large as the part has rows."""
        self._base = None
