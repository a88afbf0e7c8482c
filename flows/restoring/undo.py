"""Taking back the last restore in place: finding the backup made before it, and what the restore added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from blocks.errors import BackupNotFound, RestoreRefused
from blocks.host.local_time import local_time
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, Collection
from blocks.repository.block import Repository
from blocks.repository.restore_memory import RestoreMemory
from blocks.rows.keys import no_keys
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.target import RestoreMode
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.messages import spec_of
from flows.restoring.by_content import Contents
from flows.restoring.origin import Origin, marks_of
from flows.restoring.records import encoded_keys
from flows.restoring.request import RestoreRequest, TakenBack
from flows.restoring.targets import Targets


@dataclass(frozen=True)
class Undo:
    """A restore that is taken back.

    An exact restore is taken back by an exact one of what was there before. A merge is taken back by putting back the
    rows that were there before and removing those that only the merge added, so that newer ones stay.

    Attributes:
        before: The backup made before it.
        origin: The restore that the backup was made before.
        created: Full names of the collections that were not there before it.
        restored: By source its definition in the backup that was restored; none where that is gone.
    """

    before: BackupMetadata
    origin: Origin
    created: tuple[str, ...]
    restored: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)

    @property
    def mode(self) -> RestoreMode:
        """How the backup made before it is restored."""
        return self.origin.mode

    def request(self, preview: bool, without_emergency_backup: bool) -> RestoreRequest:
        """Ask for the restore that takes it back."""
        return RestoreRequest(
            self.before.backup_id,
            mode=self.mode,
            preview=preview,
            without_emergency_backup=without_emergency_backup,
            takes_back=TakenBack(self.created, self.origin.selection.keys, self.restored),
        )

    def remove(self, plan: BackupPlan, before: Chain, targets: Targets) -> None:
        """Remove the rows that a merge added, and those of some keys that a restore put into what it created.

        Raises:
            RestoreRefused: The key of a collection changed.
        """
        for part, spec, rows in self._added(plan, before):
            targets.of(part).remove(spec, rows)

    def added_keys(self, plan: BackupPlan, before: Chain) -> dict[str, pa.LargeBinaryArray]:
        """Return the `_key`s of the rows that `remove` would remove, by full name of their collection."""
        found: dict[str, list[pa.LargeBinaryArray]] = {}
        for part, spec, rows in self._added(plan, before):
            found.setdefault(part.collection.name, []).append(encoded_keys(rows, spec))
        return {name: pa.concat_arrays(keys) for name, keys in found.items()}

    def _added(self, plan: BackupPlan, before: Chain) -> Iterator[tuple[RestorePart, CollectionSpec, pa.Table]]:
        merged = self.mode is RestoreMode.MERGE
        if not merged and not (self.created and self.origin.selection.keys):
            return
        repository = before.repository
        restored = Chain(repository, repository.find(plan.name, self.origin.restored))
        restored.open_data(plan.sources)
        there = {c.name: c for c in before.target.collections}
        known: dict[str, Callable[[pa.Table], pa.Table]] = {}
        for part in restored.parts(self.origin.selection, plan.sources):
            name = part.collection.name
            held = part.collection if name in self.created else there.get(name) if merged else None
            if held is None:
                continue
            if held.key != part.collection.key:
                raise RestoreRefused(
                    f"the rows that the restore added to {name} are not known: its key changed since",
                    hint=f"Restore {self.before.backup_id} exactly, or with --mode merge.",
                )
            if name not in known:
                by_content = merged and plan.sources[part.collection.source].merges_by_content(part.spec)
                beyond = _beyond_contents if by_content else _beyond_keys
                known = {name: beyond(before, there.get(name), part.spec)}
            rows = part.load()
            if rows.num_columns:
                yield part, spec_of(held), known[name](rows)


def _beyond_contents(
    chain: Chain, collection: Collection | None, spec: CollectionSpec
) -> Callable[[pa.Table], pa.Table]:
    parts = chain.parts_of(collection, Selection()) if collection is not None else iter(())
    tables = (part.load() for part in parts)
    return Contents(spec, chain.digest, (rows for rows in tables if rows.num_columns)).beyond


def _beyond_keys(chain: Chain, collection: Collection | None, spec: CollectionSpec) -> Callable[[pa.Table], pa.Table]:
    keys = _keys(chain, collection)
    return lambda rows: _without(rows, spec, keys)


def _keys(chain: Chain, collection: Collection | None) -> pa.LargeBinaryArray:
    """Return all `_key`s that a backup holds of a collection; none where it does not hold it."""
    parts = [(collection.name, part.number) for part in collection.parts] if collection is not None else []
    indexes = [chain.index(name, number).keys for name, number in parts]
    return pa.concat_arrays([no_keys(), *indexes])


def _without(rows: pa.Table, spec: CollectionSpec, keys: pa.LargeBinaryArray) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(encoded_keys(rows, spec), keys)))


def find_undo(plan: BackupPlan, repository: Repository) -> Undo:
    """Find the last restore in place that changed anything, or may have.

    Raises:
        BackupNotFound: There is none, or what it restored is gone.
        RestoreRefused: The last one was made without an emergency backup.
    """
    memory = RestoreMemory(repository.repository_id, plan.name)
    nothing_done, lost = memory.changed_nothing(), memory.without_backup()
    for backup in reversed(repository.backups(plan.name)):
        origin = Origin.of(backup)
        if origin is not None and backup.backup_id not in nothing_done:
            if lost is not None and lost > backup.timestamp:
                raise RestoreRefused(
                    f"the last restore of plan {plan.name} in place, at {local_time(lost)}, was made without "
                    "an emergency backup, so it cannot be taken back",
                    hint=f"`lastgood restore {plan.name} {backup.backup_id}` brings back what was there before the one "
                    f"before it, as of {local_time(backup.timestamp)}.",
                )
            _check_places(plan, backup, origin)
            restored = _restored(repository, backup, origin)
            definitions = {s.name: s.definition for s in restored.sources} if restored is not None else {}
            return Undo(backup, origin, _created(restored, backup, origin), definitions)
    raise BackupNotFound(
        f"plan {plan.name} has no restore in place that could be taken back",
        hint="`lastgood list` shows all backups; `lastgood restore` takes state back to any of them.",
    )


def _check_places(plan: BackupPlan, before: BackupMetadata, origin: Origin) -> None:
    """Refuse to write to another place than the one that was restored: the plan was edited since.

    Raises:
        RestoreRefused: A source has another place now.
    """
    was = {source.name: source.system for source in before.sources}
    for name, marks in origin.places.items():
        if (source := plan.sources.get(name)) is None or marks & marks_of(source):
            continue
        raise RestoreRefused(
            f"source {name} of plan {plan.name} is {source.location().shown} now, and the restore of {origin.restored},"
            f" which would be taken back, was to another place ({was.get(name, 'which had nothing to back up')})",
            hint="Nothing was written. Let the plan name that place again and undo then; or bring what was there to the"
            f" new one: `lastgood restore {plan.name} {before.backup_id}`.",
        )


def _restored(repository: Repository, before: BackupMetadata, origin: Origin) -> BackupMetadata | None:
    try:
        return repository.manifest(before.plan, origin.restored)
    except BackupNotFound as exc:
        if origin.mode is RestoreMode.EXACT:
            return None  # what was there before comes back; what the restore created is not known any more
        raise BackupNotFound(
            f"backup {origin.restored}, which was merged into live state, is gone: what it added is not known",
            hint=f"`lastgood restore {before.plan} {before.backup_id} --mode merge` brings back what was there before.",
        ) from exc


def _created(restored: BackupMetadata | None, before: BackupMetadata, origin: Origin) -> tuple[str, ...]:
    there = {c.name for c in before.collections}
    return (
        ()
        if restored is None
        else tuple(
            c.name
            for c in restored.collections
            if c.source in before.data_sources and c.name not in there and origin.selection.has_collection(c.name)
        )
    )
