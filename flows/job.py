"""One backup while it is being made: the lease, the views, the base it stands on, and what was stored so far."""

from __future__ import annotations

import logging
import platform
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property

from blocks.errors import BaseUnusable, CorruptionDetected, LastgoodError
from blocks.lease import Lease
from blocks.manifest import (
    BackupMetadata,
    BackupType,
    Collection,
    Part,
    SourceState,
    StoredObject,
)
from blocks.partindex import PartIndex
from blocks.plan import BackupPlan
from blocks.repository import Repository
from blocks.rowdigest import RowDigest
from blocks.sealing import ObjectContext, ObjectKind
from blocks.selection import Selection
from blocks.sources.base import Bounds, CollectionSpec, Releasing, Stoppable, View
from blocks.sums import sums_checksum
from flows.chain import Chain
from flows.parcel import PartJob, Stored
from flows.versions import tool_versions

logger = logging.getLogger(__name__)


class BackupJob:
    """A backup in the making. Prints as its id.

    Attributes:
        warnings: What a person should know, by source.
        warned: Called with each warning as it comes.
    """

    def __init__(self, plan: BackupPlan, repository: Repository, lease: Lease, views: dict[str, View]) -> None:
        self.plan, self.repository, self.lease, self.views = plan, repository, lease, views
        self.started = time.monotonic()
        self.digest = RowDigest(repository.keys.digest_key)
        self.index_key = repository.keys.catalogue_key
        self.compression_level = plan.compression.level
        self.warnings: dict[str, list[str]] = {name: list(view.warnings) for name, view in views.items()}
        self._guard = threading.Lock()
        self.tags: tuple[str, ...] = ()

    def begin(self, requested: BackupType, base: Chain | None, because: str | None, tags: Sequence[str]) -> None:
        """Settle the type and the base, and draw a fresh id and data key."""
        self.requested, self.base, self.promoted_because, self.tags = requested, base, because, tuple(tags)
        self.backup_type = BackupType.FULL if because else requested
        self.backup_id = self.repository.new_id(self.plan.name, self.backup_type, datetime.now(UTC))
        self.lease.work_on(self.backup_id)
        self.data_key, self.encapsulated = self.repository.keys.new_data_key(self.plan.name, self.backup_id)
        # before anything is read: what a source sees afterwards has at least all that its token stands for
        self._tokens = {name: view.token for name, view in self.views.items()}
        for name, view in self.views.items():
            self.warnings[name] += view.warnings  # a token may have cost something; the manifest has each once
        self.stored: dict[tuple[str, int], Stored] = {}
        self._objects: list[StoredObject] = []
        self._numbers: dict[tuple[str, int], int] = {}

    def __str__(self) -> str:
        """Name the backup as people see it in the UI."""
        return self.backup_id

    @property
    def tracks_changes(self) -> bool:
        """Whether sources may leave out what they know did not change; a differential always reads all."""
        return self.backup_type is BackupType.INCREMENTAL and self.base is not None

    @cached_property
    def specs(self) -> dict[str, CollectionSpec]:
        """All collections of all sources by full name."""
        return {f"{n}/{spec.name}": spec for n, view in self.views.items() for spec in view.collections()}

    def outgrown(self, base: Chain) -> str | None:
        """Name a collection with a part too large to be held in memory, as the base drew it."""
        for c in base.target.collections:
            if self.views[c.source].outgrown(self.specs[c.name], [part.bounds for part in c.parts]):
                return c.name
        return None

    def selection(self, collection: str) -> Selection | None:
        """Tell what this backup takes of a collection: None for nothing."""
        if self.backup_type is BackupType.EMERGENCY:
            return self.plan.emergency_selection(collection)
        return Selection()

    def parts(self) -> Iterator[PartJob]:
        """Yield the parts that have to be read; the boundaries are those of the base, or fresh ones."""
        self.drawn: dict[str, list[PartJob]] = {}
        for name, spec in self.specs.items():
            if (selection := self.selection(name)) is None:
                continue
            source = name.partition("/")[0]
            bounds = self._bounds(name, spec)
            view, keys = self.views[source], selection if selection.keys else None
            jobs = [PartJob(self, name, n, spec, b, view, keys) for n, b in enumerate(bounds)]
            self.drawn[name] = jobs
            if self._untouched(source):
                self._carry_over(name)
            else:
                yield from jobs

    def _bounds(self, name: str, spec: CollectionSpec) -> list[Bounds]:
        if self.base is not None:
            return [part.bounds for part in self._base_collection(name).parts]
        return list(self.views[name.partition("/")[0]].draw(spec))

    def _base_collection(self, name: str) -> Collection:
        assert self.base is not None
        return next(c for c in self.base.target.collections if c.name == name)

    def base_token(self, part: PartJob) -> str | None:
        """Return the token that the base's view of a part's source had."""
        return self._token_before(part.collection_name.partition("/")[0])

    def _token_before(self, source: str) -> str | None:
        return next(s.token for s in self.base.target.sources if s.name == source) if self.base else None

    def _untouched(self, source: str) -> bool:
        before = self._token_before(source) if self.tracks_changes else None
        return before is not None and before == self._tokens[source]

    def _carry_over(self, name: str) -> None:
        for part in self._base_collection(name).parts:
            self.stored[name, part.number] = Stored(None, part.rows)

    def base_rows(self, part: PartJob) -> int:
        """Return how many records the base holds of a part; none where there is no base."""
        if self.base is None:
            return 0
        parts = self._base_collection(part.collection_name).parts
        return next(before.rows for before in parts if before.number == part.number)

    def base_index(self, part: PartJob) -> PartIndex:
        """Read what the base holds of a part.

        Raises:
            BaseUnusable: An index of the chain is missing or damaged.
        """
        if self.base is None:
            return PartIndex([])
        try:
            return self.base.index(part.collection_name, part.number, self.base_rows(part))
        except CorruptionDetected as exc:
            raise BaseUnusable(f"base {self.base.target.backup_id}: {exc.message}", hint=exc.hint) from exc

    def context(self, part: PartJob, kind: ObjectKind) -> ObjectContext:
        """Make the context that binds an object to its place."""
        return ObjectContext(
            repository_id=self.repository.repository_id,
            plan=self.plan.name,
            backup_id=self.backup_id,
            kind=kind,
            collection=list(self.drawn).index(part.collection_name),
            part=part.number,
        )

    def segment_number(self, part: PartJob) -> int:
        """Return the number of a part's objects, the same when a stage is tried again."""
        with self._guard:
            return self._numbers.setdefault((part.collection_name, part.number), len(self._numbers))

    def put(self, name: str, sealed: bytes | bytearray | memoryview) -> StoredObject:
        """Store a sealed object of this backup."""
        stored = self.repository.put_object(self.plan.name, self.backup_id, name, sealed)
        with self._guard:
            self._objects = [o for o in self._objects if o.name != name] + [stored]
        return stored

    def note(self, part: PartJob, warnings: Sequence[str]) -> None:
        """Remember warnings of a source for the manifest."""
        with self._guard:
            self.warnings[part.collection_name.partition("/")[0]] += warnings

    def done(self, part: PartJob, stored: Stored) -> None:
        """Take the result of a part's last stage."""
        self.stored[part.collection_name, part.number] = stored

    def give_up(self, error: BaseException) -> None:
        """Let views end what they are reading; not where the same views are read again, without the base."""
        if not isinstance(error, BaseUnusable):
            for view in self.views.values():
                if isinstance(view, Stoppable):
                    view.stop()

    def commit(self) -> BackupMetadata:
        """Let the sources have their last word, then commit the manifest."""
        for view in self.views.values():
            view.finish()
        metadata = self._metadata()
        self.repository.commit(metadata, self._objects, self.lease)
        if self.backup_type.can_be_base:
            self._release()
        return metadata

    def _release(self) -> None:
        for name, view in self.views.items():
            if isinstance(view, Releasing):
                try:
                    view.committed()
                except LastgoodError as exc:
                    logger.warning("source %s: %s", name, exc.message)

    def _metadata(self) -> BackupMetadata:
        sequence, previous = self.repository.next_position(self.plan.name)
        collections = tuple(self._collection(n, name) for n, name in enumerate(self.drawn))
        segments = [part.segment for c in collections for part in c.parts if part.segment]
        return BackupMetadata(
            repository_id=self.repository.repository_id,
            plan=self.plan.name,
            backup_id=self.backup_id,
            backup_type=self.backup_type,
            requested_type=self.requested,
            promoted_because=self.promoted_because,
            timestamp=max(view.taken_at for view in self.views.values()),
            sequence=sequence,
            fencing_token=self.lease.token,
            base=self.base.target.backup_id if self.base else None,
            chain=tuple(self.repository.link(b) for b in self.base.backups) if self.base else (),
            previous=previous,
            sources=tuple(self._source_state(name, view) for name, view in self.views.items()),
            collections=collections,
            size_bytes=sum(s.size_bytes for s in segments),
            size_compressed=sum(s.size_compressed for s in segments),
            size_stored=sum(o.size_bytes for o in self._objects),
            checksum=sums_checksum(self._objects),
            encryption_key_id=self.repository.keys.key_id,
            encapsulated_key=self.encapsulated,
            storage_tiers=("primary",),
            retention_days=self.plan.retention_days(self.backup_type),
            source_system=f"{socket.gethostname()} ({platform.system()} {platform.machine()})",
            backup_duration_seconds=round(time.monotonic() - self.started, 3),
            whole=self.backup_type is not BackupType.EMERGENCY or not self.plan.critical,
            tags=self.tags,
            tool_versions=tool_versions(),
        )

    def _collection(self, number: int, name: str) -> Collection:
        spec, selection = self.specs[name], self.selection(name)
        return Collection(
            number=number,
            name=name,
            key=spec.key,
            label=spec.label,
            columns=spec.columns,
            tracking=spec.tracking,
            definition=spec.definition,
            fingerprint=spec.fingerprint,
            selected_keys=selection.keys if selection else (),
            parts=tuple(
                Part(number=part.number, bounds=part.bounds, rows=stored.rows, segment=stored.segment)
                for part in self.drawn[name]
                if (stored := self.stored[name, part.number])
            ),
        )

    def _source_state(self, name: str, view: View) -> SourceState:
        return SourceState(
            name=name,
            type=self.plan.sources[name].type,
            system=view.system,
            taken_at=view.taken_at,
            token=self._tokens[name],
            definition=view.definition,
            warnings=tuple(dict.fromkeys(self.warnings[name])),
        )
