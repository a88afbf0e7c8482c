"""An opened repository: all that is done with stored backups, each in its own room behind it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import groupby
from typing import TypeVar

from blocks import names, sweeping
from blocks.audit import Audit, HeadAnchor
from blocks.catalogue import Catalogue, Survey
from blocks.committing import Committer
from blocks.durable import Buffer
from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    ObjectMissing,
)
from blocks.finding import find_backup, find_chain
from blocks.history import History
from blocks.keyring import Keys
from blocks.lease import Clock, Lease, LeaseRecord, Leases
from blocks.manifest import (
    BackupMetadata,
    BackupStatus,
    BackupType,
    Expiry,
    Link,
    StoredObject,
    Verification,
    new_backup_id,
)
from blocks.repoconfig import RepositoryConfig
from blocks.sums import objects_of
from blocks.sweeping import Sweeper
from blocks.tiers import StorageTier

logger = logging.getLogger(__name__)

E = TypeVar("E")

_DAMAGED = "Restore the object from a copy of the repository, or use a backup that does not stand on it."


class Repository:
    """An opened repository: all that is done with stored backups. Thread-safe; holds keys, so it is never pickled.

    Args:
        tier: Where it is.
        config: What lastgood.json says.
        keys: Opened with the plan's credential.
        lease_seconds: How long the lease of a run that died holds.
        clock: The time that leases are measured with.
    """

    def __init__(
        self, tier: StorageTier, config: RepositoryConfig, keys: Keys, lease_seconds: float, clock: Clock
    ) -> None:
        self.url = tier.url
        self.config = config
        self.keys = keys
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._tier = tier
        self._catalogue = Catalogue(self._tier, keys)
        self._history = History(self._tier, self._catalogue)
        self._anchor = HeadAnchor(config.repository_id)
        self._committer = Committer(self._tier, self._catalogue, self._history, self._anchor)

    @property
    def repository_id(self) -> str:
        """Id of the repository from lastgood.json."""
        return self.config.repository_id

    # Making a backup

    @contextmanager
    def lease(self, plan: str, holder: str, purpose: str, wait_seconds: float = 0) -> Iterator[Lease]:
        """Hold the plan's lease; a daemon thread renews it.

        Raises:
            RepositoryLocked: Another run holds it, also after `wait_seconds`.
        """
        leases = self._leases(plan)
        lease = leases.acquire(holder, purpose, lambda: self._highest_committed_token(plan), wait_seconds)
        with leases.held(lease):
            yield lease

    def current_lease(self, plan: str) -> LeaseRecord | None:
        """Return the lease that is held now."""
        return self._leases(plan).live()

    def new_id(self, plan: str, kind: BackupType, moment: datetime) -> str:
        """Draw an id that no folder of the plan has."""
        taken = set(self._catalogue.ids(plan))
        while (drawn := new_backup_id(kind, moment)) in taken:
            logger.debug("the id %s is taken", drawn)
        return drawn

    def next_position(self, plan: str) -> tuple[int, Link | None]:
        """Return the number of the plan's next backup and the backup before it.

        Numbers of removed and of damaged backups are not given out again.
        """
        survey = self._catalogue.survey(plan)
        expired = {link.backup_id for expiry in self.expiries(plan) for link in expiry.removed}
        ever = {one.backup_id for one in survey.backups} | set(survey.damaged) | expired
        newest = survey.backups[-1] if survey.backups else None
        number = max(newest.sequence if newest else 0, len(ever)) + 1
        return number, self.link(newest) if newest else None

    def put_object(self, plan: str, backup_id: str, name: str, sealed: Buffer) -> StoredObject:
        """Store a sealed object durably; the same bytes may be stored again.

        Raises:
            AlreadyExists: Other bytes are stored under that name; stored objects never change.
            RepositoryUnavailable: The storage failed.
        """
        stored = StoredObject(name=name, size_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())
        self._tier.put(names.stored(plan, backup_id, name), sealed, exclusive=True)
        return stored

    def commit(self, metadata: BackupMetadata, objects: Sequence[StoredObject], lease: Lease) -> Link:
        """Make a backup exist: write SHA256SUMS, then create the manifest. May be retried.

        Raises:
            RepositoryLocked: The lease is lost; nothing was committed.
            CorruptionDetected: An object of the backup is not there.
        """
        return self._committer.commit(metadata, objects, lease)

    # Reading backups

    def manifest(self, plan: str, backup_id: str) -> BackupMetadata:
        """Return the manifest of a backup.

        Raises:
            BackupNotFound: There is no committed backup of that id.
            CorruptionDetected: Its manifest is damaged, or belongs elsewhere.
            ConfigurationError: A newer lastgood made it.
        """
        return self._catalogue.manifest(plan, backup_id)[0]

    def link(self, metadata: BackupMetadata) -> Link:
        """Name a backup together with the SHA-256 of its sealed manifest."""
        return self._catalogue.link(metadata.plan, metadata.backup_id)

    def backups(self, plan: str) -> list[BackupMetadata]:
        """Return the committed backups in the order of their commits; raises what `manifest` raises."""
        return self._catalogue.backups(plan)

    def survey(self, plan: str) -> Survey:
        """Return the committed backups, and findings about those whose manifests do not open."""
        return self._catalogue.survey(plan)

    def find(self, plan: str, wanted: str = "latest", at: datetime | None = None) -> BackupMetadata:
        """Find a backup by id, by the unique beginning or end of an id, by `latest`, or the newest as of a time.

        Raises:
            BackupNotFound: There is none; the hint says what there is.
            CorruptionDetected: It, or a newer one that may be meant, is damaged.
        """
        return find_backup(self._catalogue, plan, wanted, at)

    def chain(self, metadata: BackupMetadata) -> list[BackupMetadata]:
        """Return the backups that a restore needs, full first, this one last.

        Raises:
            CorruptionDetected: One is missing, damaged, or not the one that this backup was made on.
        """
        return find_chain(self._catalogue, metadata)

    def get_object(self, plan: str, backup_id: str, stored: StoredObject) -> bytes:
        """Read a sealed object and compare its size and checksum.

        Raises:
            CorruptionDetected: It is missing, cut off or changed.
        """
        name = names.stored(plan, backup_id, stored.name)
        sealed = self._read(name, 0, None)
        if len(sealed) != stored.size_bytes:
            wrong = f"has {len(sealed)} bytes instead of {stored.size_bytes}"
        elif hashlib.sha256(sealed).hexdigest() != stored.sha256:
            wrong = "was changed: its SHA-256 is not that of the manifest"
        else:
            return sealed
        raise CorruptionDetected(f"{name} {wrong}", hint=_DAMAGED)

    def read_range(self, plan: str, backup_id: str, name: str, offset: int, length: int) -> bytes:
        """Read bytes of a sealed object; `unseal_range` authenticates them.

        Raises:
            CorruptionDetected: The object is missing, or ends before.
        """
        path = names.stored(plan, backup_id, name)
        data = self._read(path, offset, length)
        if len(data) != length:
            raise CorruptionDetected(f"{path} ends after {offset + len(data)} bytes: it was cut off", hint=_DAMAGED)
        return data

    def missing(self, metadata: BackupMetadata) -> list[str]:
        """Return the names of the backup's objects that are absent or of another size."""
        return self._committer.missing(metadata.plan, metadata.backup_id, objects_of(metadata))

    # What is known about them

    def status(self, metadata: BackupMetadata) -> BackupStatus:
        """Return completed, or what the newest verification of the backup proved."""
        return self._history.status(metadata)

    def record_verification(self, verification: Verification) -> None:
        """Append the result of a verification."""
        self._history.record_verification(verification)

    def verifications(self, plan: str, backup_id: str) -> list[Verification]:
        """Return a backup's verifications, oldest first; `audit` names those that do not open."""
        return _noted(self._history.verifications(plan, backup_id))

    def record_expiry(self, expiry: Expiry) -> None:
        """Append what a retention run is about to remove; call it before `remove`."""
        self._history.record_expiry(expiry)

    def expiries(self, plan: str) -> list[Expiry]:
        """Return a plan's expiries, oldest first; `audit` names those that do not open."""
        return _noted(self._history.expiries(plan))

    def audit(self, plan: str) -> list[str]:
        """Check that the history of a plan adds up; return findings, each a sentence that names the backup."""
        return Audit(self._tier, self._catalogue, self._history, self._anchor, plan).run()

    def repair_sums(self, metadata: BackupMetadata) -> bool:
        """Write a committed backup's SHA256SUMS again where it is missing or damaged; return whether it was."""
        return self._committer.repair_sums(metadata, self.link(metadata))

    def accept_head(self, plan: str) -> None:
        """Take the newest backup there is as the newest that this machine has seen, after a rollback on purpose."""
        Audit(self._tier, self._catalogue, self._history, self._anchor, plan).accept()

    # Removing

    def remove(self, plan: str, ids: Sequence[str]) -> None:
        """Remove backups, manifests first; record the expiry before.

        Raises:
            Partial: Some objects could not be removed.
        """
        sweeping.remove_backups(self._tier, plan, ids)

    def abandoned(self, plan: str) -> list[str]:
        """Return the ids of unfinished backups that no live lease is working on."""
        return Sweeper(self._tier, self._leases(plan)).abandoned()

    def sweep(self, plan: str, grace: timedelta, now: datetime) -> list[str]:
        """Remove what interrupted runs left behind longer ago than `grace`; return the names of the removed objects."""
        return Sweeper(self._tier, self._leases(plan)).sweep(grace, now)

    def _leases(self, plan: str) -> Leases:
        return Leases(self._tier, plan, self._lease_seconds, self._clock)

    def _highest_committed_token(self, plan: str) -> int:
        """Return the fencing token of the newest backup that can be read: a floor where the leases were lost."""
        newest_first = sorted(self._catalogue.ids(plan), key=names.id_moment, reverse=True)
        for _, ids in groupby(newest_first, key=names.id_moment):
            # several backups of one second: their ids do not tell which came last
            if tokens := [token for backup_id in ids if (token := self._token_of(plan, backup_id))]:
                return max(tokens)
        return 0

    def _token_of(self, plan: str, backup_id: str) -> int | None:
        try:
            return self.manifest(plan, backup_id).fencing_token
        except (BackupNotFound, CorruptionDetected, ConfigurationError) as exc:
            logger.debug("%s tells no token: %s", backup_id, exc)
            return None

    def _read(self, name: str, offset: int, length: int | None) -> bytes:
        try:
            return self._tier.get(name, offset, length)
        except ObjectMissing as exc:
            raise CorruptionDetected(f"{name} is missing", hint=_DAMAGED) from exc


def _noted(found: tuple[list[E], list[str]]) -> list[E]:
    for finding in found[1]:
        logger.warning("%s", finding)
    return found[0]
