"""What every attempt at one backup shares: the plan, its lease, and the open views of its sources."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import JsonValue

from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.plan.suspicion_history import History, history_of
from blocks.records import BackupMetadata, BackupType
from blocks.repository.block import Repository
from blocks.repository.lease import Lease
from blocks.rows.digest import RowDigest
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.view import Releasing, Stoppable, View
from blocks.telemetry.recorder import recorder
from flows.pipeline.chain import Chain
from flows.pipeline.progress import Progress

logger = logging.getLogger(__name__)


class SourceNotes:
    """What became known of the sources while they were read. Thread-safe.

    Attributes:
        failed: The source that could not be read, where the backup failed for that.
    """

    def __init__(self) -> None:
        self.failed: str | None = None
        self._warnings: dict[str, list[str]] = {}
        self._guard = threading.Lock()

    def warn(self, source: str, warnings: Sequence[str]) -> None:
        """Remember what the user should know of a source, each a sentence."""
        with self._guard:
            self._warnings.setdefault(source, []).extend(warnings)

    def warnings(self, source: str) -> tuple[str, ...]:
        """Return the warnings of a source, each once."""
        with self._guard:
            return tuple(dict.fromkeys(self._warnings.get(source, ())))


@dataclass(frozen=True, eq=False, repr=False)
class BackupContext:
    """What a backup is made of and with; all of it is there before the first attempt.

    Attributes:
        plan: The plan that is backed up.
        repository: The unlocked repository that takes the backup.
        lease: The lease of the plan, held; None of a rehearsal, which commits nothing.
        views: The open views, by source.
        requested: The wanted type; an attempt without the base that it needs makes a full one.
        tags: Words that the manifest keeps.
        clock_doubt: Why the clock is not believed; None where nothing speaks against it.
        progress: Told of what is done between parts, and of how much there is.
        lineage: The newest backup that others can depend on, last, and its chain: what a new one is compared with.
        select: Returns what is taken of a collection, None for nothing; by default the type and the plan decide.
        notes: What became known of the sources.
        started: When the backup began, by the monotonic clock, in seconds.
    """

    plan: BackupPlan
    repository: Repository
    lease: Lease | None
    views: Mapping[str, View]
    requested: BackupType
    tags: tuple[str, ...] = ()
    clock_doubt: str | None = None
    progress: Progress | None = None
    lineage: Sequence[BackupMetadata] = ()
    select: Callable[[str], Selection | None] | None = None
    notes: SourceNotes = field(default_factory=SourceNotes, init=False)
    started: float = field(default_factory=time.monotonic, init=False)

    @cached_property
    def digest(self) -> RowDigest:
        """Computes the digests of rows that indexes hold, under the repository's key."""
        return RowDigest(self.repository.keys.digest_key, 32)

    @cached_property
    def filter_digest(self) -> RowDigest:
        """Computes the hashes of keys that filters hold."""
        return RowDigest(self.repository.keys.digest_key)

    @cached_property
    def specs(self) -> dict[str, CollectionSpec]:
        """All collections of all sources by full name."""
        found: dict[str, CollectionSpec] = {}
        for name, view in self.views.items():
            with self.reading(name):
                found |= {f"{name}/{spec.name}": spec for spec in view.collections()}
        return found

    @cached_property
    def identities(self) -> dict[str, dict[str, JsonValue]]:
        """What tells each source from others of its kind."""
        return {name: self.plan.sources[name].identity() for name in self.views}

    @cached_property
    def history(self) -> History:
        """What is known of the backups so far."""
        try:
            return history_of(self.lineage)
        except Exception as exc:  # whatever it is: nothing that is only compared may stop a backup
            logger.warning("what is known of the backups of plan %s cannot be read: %s", self.plan.name, exc)
            logger.debug("where it failed", exc_info=True)
            return History()

    @property
    def held(self) -> Lease:
        """The lease; there is one wherever anything is committed."""
        assert self.lease is not None, "a rehearsal commits nothing"
        return self.lease

    @contextmanager
    def reading(self, source: str) -> Iterator[None]:
        """Remember which source it was, where what is done here fails."""
        try:
            yield
        except LastgoodError:
            self.notes.failed = source
            if (recorded := recorder()) is not None:
                recorded.read_failed(source)
            raise

    def selection(self, collection: str) -> Selection | None:
        """Return what this backup takes of a collection, by its full name: None for nothing."""
        if self.select is not None:
            return self.select(collection)
        if self.requested is BackupType.EMERGENCY:
            return self.plan.emergency_selection(collection)
        return Selection()

    @property
    def whole(self) -> bool:
        """Whether all of the plan's state is taken."""
        if self.select is not None:
            return False
        return self.requested is not BackupType.EMERGENCY or not self.plan.critical

    def needs_repartition(self, base: Chain) -> str | None:
        """Name a collection with a part too large to be held in memory, as the base partitioned it."""
        for c in base.target.collections:
            if self.views[c.source].needs_repartition(self.specs[c.name], [part.bounds for part in c.parts]):
                return c.name
        return None

    def stop(self) -> None:
        """Let views end what they are reading: the backup is given up."""
        for view in self.views.values():
            if isinstance(view, Stoppable):
                view.stop()

    def finish(self) -> None:
        """Let the sources have their last word before the backup is committed."""
        for name, view in self.views.items():
            with self.reading(name):
                view.finish()

    def release(self) -> None:
        """Let the sources go on from a backup that was committed."""
        for name, view in self.views.items():
            if isinstance(view, Releasing):
                try:
                    view.committed()
                except LastgoodError as exc:
                    logger.warning("source %s: %s", name, exc.message)
