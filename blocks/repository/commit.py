"""The one moment in which a backup begins to exist."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from blocks.errors import (
    AlreadyExists,
    BackupNotFound,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryLocked,
)
from blocks.records import BackupMetadata, Link, StoredObject
from blocks.repository import names
from blocks.repository.audit import remembered_loss
from blocks.repository.catalogue import Catalogue
from blocks.repository.checksums import checksums_digest, checksums_text, objects_of
from blocks.repository.history import History
from blocks.repository.lease import Lease
from blocks.repository.overview import Overview
from blocks.repository.rollback_guard import Head, RollbackGuard
from blocks.storage.base import StorageTier

logger = logging.getLogger(__name__)


class Committer:
    """Commits backups.

    Args:
        tier: The tier that holds the repository's objects.
        catalogue: Seals and opens the manifests of the repository.
        history: The expiries: which backups retention removed.
        guard: Remembers the newest backup of each plan on this machine.
        overview: Lists the repository.
    """

    def __init__(
        self, tier: StorageTier, catalogue: Catalogue, history: History, guard: RollbackGuard, overview: Overview
    ) -> None:
        self._tier, self._catalogue, self._history, self._guard = tier, catalogue, history, guard
        self._overview = overview
        self._tried: set[str] = set()
        """Ids of backups of which a commit was begun: its answer may have been lost."""

    def commit(self, metadata: BackupMetadata, objects: Sequence[StoredObject], lease: Lease) -> Link:
        """Write SHA256SUMS, make sure of the lease and of all objects, create the manifest. May be retried.

        Raises:
            RepositoryLocked: The lease is lost; nothing was committed.
            CorruptionDetected: An object of the backup is not there, or a backup that it stands on.
            ValueError: The manifest contradicts the objects or the lease.
        """
        _check(metadata, objects, lease)
        plan, backup_id = metadata.plan, metadata.backup_id
        if backup_id in self._tried and (earlier := self._committed_before(metadata)):
            return earlier
        self._tried.add(backup_id)
        sealed = self._catalogue.seal_manifest(metadata)
        link = Link(backup_id=backup_id, manifest_sha256=hashlib.sha256(sealed).hexdigest())
        self._tier.put(names.checksums(plan, backup_id), _checksums(metadata, link))
        # the lease is looked at last; where its own listing shows all that there is, that one answers and costs nothing
        looked = not self._overview.complete
        if looked:
            self._look(metadata, objects)
        lease.check()
        if not looked:
            self._look(metadata, objects)
        try:
            self._tier.put(names.manifest(plan, backup_id), sealed, exclusive=True)
        except AlreadyExists as exc:
            if earlier := self._committed_before(metadata):
                return earlier
            raise _other_run(metadata) from exc
        self._catalogue.keep(plan, backup_id, sealed)
        self._remember(metadata, link)
        self._overview.forget()
        return link

    def repair_checksums(self, metadata: BackupMetadata, link: Link) -> bool:
        """Write SHA256SUMS again from the manifest where it is missing or differs; return whether it was written."""
        name, right = names.checksums(metadata.plan, metadata.backup_id), _checksums(metadata, link)
        try:
            if self._tier.get(name, limit=len(right)) == right:
                return False
        except (ObjectMissing, ObjectUnreadable, CorruptionDetected) as exc:
            logger.debug("%s is written again: %s", name, exc)
        self._tier.put(name, right)
        return True

    def missing(self, plan: str, backup_id: str, objects: Sequence[StoredObject]) -> list[str]:
        """Return the names of objects that are absent or of another size, by one listing."""
        prefix = names.backup(plan, backup_id)
        sizes = {stored.name.removeprefix(prefix): stored.size_bytes for stored in self._tier.list(prefix)}
        return [stored.name for stored in objects if sizes.get(stored.name) != stored.size_bytes]

    def _look(self, metadata: BackupMetadata, objects: Sequence[StoredObject]) -> None:
        """Make sure that all objects are there, and the backups that this one stands on: by the lease's own listing.

        In a storage that such a listing does not show as a whole, its own folder is listed, and its base looked for.
        """
        plan, backup_id = metadata.plan, metadata.backup_id
        prefix = names.backup(plan, backup_id)
        sizes = {one.name.removeprefix(prefix): one.size_bytes for one in self._overview.known(prefix)}
        lost = [stored.name for stored in objects if sizes.get(stored.name) != stored.size_bytes]
        for link in metadata.chain if self._overview.complete else metadata.chain[-1:]:
            name = names.manifest(plan, link.backup_id)
            if not (self._overview.known(name) if self._overview.complete else self._tier.exists(name)):
                lost.append(name)
        if lost:
            raise CorruptionDetected(
                f"backup {backup_id} of plan {plan} was not committed: {', '.join(lost)} vanished while it was made",
                hint="See who else removes files in the repository, then run the backup again.",
            )

    def _committed_before(self, metadata: BackupMetadata) -> Link | None:
        """Return the link of an earlier attempt whose answer was lost; its SHA256SUMS may be that of a later one."""
        try:
            found, digest = self._catalogue.manifest(metadata.plan, metadata.backup_id)
        except BackupNotFound:
            return None
        if (found.checksum, found.fencing_token) != (metadata.checksum, metadata.fencing_token):
            raise _other_run(metadata)
        link = Link(backup_id=found.backup_id, manifest_sha256=digest)
        self.repair_checksums(found, link)
        self._remember(found, link)
        return link

    def _remember(self, metadata: BackupMetadata, link: Link) -> None:
        """Remember the newest backup, but not in place of one that vanished: the sign of a rollback stays."""
        plan = metadata.plan
        try:
            if remembered_loss(self._catalogue, self._history, self._guard, plan, self._overview):
                return
        except LastgoodError as exc:  # the backup exists already
            logger.warning("the newest backup seen of plan %s cannot be remembered: %s", plan, exc)
            return
        self._guard.write(plan, Head(link=link, sequence=metadata.sequence))


def _check(metadata: BackupMetadata, objects: Sequence[StoredObject], lease: Lease) -> None:
    same_lease = (metadata.plan, metadata.fencing_token) == (lease.plan, lease.token)
    same_objects = sorted(objects, key=lambda stored: stored.name) == objects_of(metadata)
    if not same_lease or not same_objects or metadata.checksum != checksums_digest(objects):
        raise ValueError(f"the manifest of {metadata.backup_id} contradicts its objects or its lease")


def _other_run(metadata: BackupMetadata) -> RepositoryLocked:
    return RepositoryLocked(
        f"another run has committed backup {metadata.backup_id} of plan {metadata.plan}; this one committed nothing",
        hint="Run it again.",
    )


def _checksums(metadata: BackupMetadata, link: Link) -> bytes:
    digests = {stored.name: stored.sha256 for stored in objects_of(metadata)}
    return checksums_text({**digests, names.MANIFEST: link.manifest_sha256}).encode()
