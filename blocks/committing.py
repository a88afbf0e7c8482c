"""The one moment in which a backup begins to exist."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from blocks import names
from blocks.audit import Head, HeadAnchor
from blocks.catalogue import Catalogue
from blocks.errors import AlreadyExists, BackupNotFound, CorruptionDetected, RepositoryLocked
from blocks.history import History
from blocks.lease import Lease
from blocks.manifest import BackupMetadata, Link, StoredObject
from blocks.sealing import ObjectKind
from blocks.sums import objects_of, sums_checksum, sums_text
from blocks.tiers import StorageTier


class Committer:
    """Commits backups.

    Args:
        tier: Where the repository is.
        catalogue: Seals manifests.
        history: Knows what retention removed.
        anchor: Remembers the newest backup.
    """

    def __init__(self, tier: StorageTier, catalogue: Catalogue, history: History, anchor: HeadAnchor) -> None:
        self._tier, self._catalogue, self._history, self._anchor = tier, catalogue, history, anchor

    def commit(self, metadata: BackupMetadata, objects: Sequence[StoredObject], lease: Lease) -> Link:
        """Write SHA256SUMS, make sure of the lease, create the manifest. May be retried.

        Raises:
            RepositoryLocked: The lease is lost; nothing was committed.
            CorruptionDetected: An object of the backup is not there.
            ValueError: The manifest contradicts the objects or the lease.
        """
        self._check(metadata, objects, lease)
        if earlier := self._committed_before(metadata):
            return earlier
        plan, backup_id = metadata.plan, metadata.backup_id
        sealed = self._catalogue.seal(metadata, ObjectKind.MANIFEST, plan, backup_id)
        link = Link(backup_id=backup_id, manifest_sha256=hashlib.sha256(sealed).hexdigest())
        self._tier.put(names.sums(plan, backup_id), _sums(metadata, link))
        lease.check()
        try:
            self._tier.put(names.manifest(plan, backup_id), sealed, exclusive=True)
        except AlreadyExists as exc:
            raise _other_run(metadata) from exc
        self._remember(metadata, link)
        return link

    def repair_sums(self, metadata: BackupMetadata, link: Link) -> bool:
        """Write SHA256SUMS again from the manifest where it is missing or says something else; tell whether it was."""
        name, right = names.sums(metadata.plan, metadata.backup_id), _sums(metadata, link)
        if self._tier.exists(name) and self._tier.get(name) == right:
            return False
        self._tier.put(name, right)
        return True

    def missing(self, plan: str, backup_id: str, objects: Sequence[StoredObject]) -> list[str]:
        """Return the names of objects that are absent or of another size, by one listing."""
        prefix = names.backup(plan, backup_id)
        sizes = {stored.name.removeprefix(prefix): stored.size_bytes for stored in self._tier.list(prefix)}
        return [stored.name for stored in objects if sizes.get(stored.name) != stored.size_bytes]

    def _check(self, metadata: BackupMetadata, objects: Sequence[StoredObject], lease: Lease) -> None:
        same_lease = (metadata.plan, metadata.fencing_token) == (lease.plan, lease.token)
        same_objects = sorted(objects, key=lambda stored: stored.name) == objects_of(metadata)
        if not same_lease or not same_objects or metadata.checksum != sums_checksum(objects):
            raise ValueError(f"the manifest of {metadata.backup_id} contradicts its objects or its lease")
        if missing := self.missing(metadata.plan, metadata.backup_id, objects):
            raise CorruptionDetected(
                f"backup {metadata.backup_id} of plan {metadata.plan} was not committed: {', '.join(missing)} "
                "vanished while it was made",
                hint="See who else removes files in the repository, then run the backup again.",
            )

    def _committed_before(self, metadata: BackupMetadata) -> Link | None:
        """Return the link of an earlier attempt whose answer was lost."""
        try:
            found, digest = self._catalogue.manifest(metadata.plan, metadata.backup_id)
        except BackupNotFound:
            return None
        if (found.checksum, found.fencing_token) != (metadata.checksum, metadata.fencing_token):
            raise _other_run(metadata)
        link = Link(backup_id=found.backup_id, manifest_sha256=digest)
        self._remember(found, link)
        return link

    def _remember(self, metadata: BackupMetadata, link: Link) -> None:
        """Move the anchor on, but never past a newest backup that vanished: what tells of a rollback stays."""
        plan, head = metadata.plan, self._anchor.read(metadata.plan)
        if head and not self._tier.exists(names.manifest(plan, head.link.backup_id)):
            expired = {one.backup_id for expiry in self._history.expiries(plan)[0] for one in expiry.removed}
            if head.link.backup_id not in expired:
                return
        self._anchor.write(plan, Head(link=link, sequence=metadata.sequence))


def _other_run(metadata: BackupMetadata) -> RepositoryLocked:
    return RepositoryLocked(
        f"another run has committed backup {metadata.backup_id} of plan {metadata.plan}; this one committed nothing",
        hint="Run it again.",
    )


def _sums(metadata: BackupMetadata, link: Link) -> bytes:
    digests = {stored.name: stored.sha256 for stored in objects_of(metadata)}
    return sums_text({**digests, names.MANIFEST: link.manifest_sha256}).encode()
