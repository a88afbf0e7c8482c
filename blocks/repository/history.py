"""What happened to backups after they were made: verifications and expiries, sealed like manifests, appended only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from blocks.crypto.stream import ObjectKind
from blocks.errors import AlreadyExists, ConfigurationError, CorruptionDetected, ObjectMissing, ObjectUnreadable
from blocks.records import BackupMetadata, BackupStatus, Expiry
from blocks.repository import names
from blocks.repository.catalogue import MAX_RECORD_BYTES, Catalogue
from blocks.repository.stock import by_backup
from blocks.storage.base import StorageTier
from blocks.verification import Verification

logger = logging.getLogger(__name__)

E = TypeVar("E", Verification, Expiry)


class History:
    """The appended records of one repository.

    Args:
        tier: The tier that holds the repository's objects.
        catalogue: Seals and opens the records of the repository.
    """

    def __init__(self, tier: StorageTier, catalogue: Catalogue) -> None:
        self._tier = tier
        self._catalogue = catalogue

    def record_verification(self, verification: Verification) -> None:
        """Append the result of a verification."""
        plan, backup_id = verification.plan, verification.backup_id
        prefix = names.verifications(plan, backup_id)
        for offset in _offsets():
            moved = verification.model_copy(update={"verified_at": verification.verified_at + offset})
            sealed = self._catalogue.seal(moved, ObjectKind.VERIFICATION, plan, backup_id)
            if self._append(prefix + names.moment(moved.verified_at), sealed):
                return

    def record_expiry(self, expiry: Expiry) -> None:
        """Append what a retention run is about to remove; call it before the removal."""
        for offset in _offsets():
            moved = expiry.model_copy(update={"expired_at": expiry.expired_at + offset})
            moment = names.moment(moved.expired_at)
            sealed = self._catalogue.seal(moved, ObjectKind.EXPIRY, expiry.plan, moment)
            if self._append(names.expired(expiry.plan) + moment, sealed):
                return

    def verifications(
        self, plan: str, backup_id: str, recorded: Sequence[str] | None = None
    ) -> tuple[list[Verification], list[str]]:
        """Return a backup's verifications, oldest first, and findings about those that do not open.

        Args:
            plan: Name of the plan.
            backup_id: Id of the backup.
            recorded: The names of its verifications, where they were listed already.
        """
        prefix = names.verifications(plan, backup_id)
        return self._read_all(prefix, lambda name: self._verification(plan, backup_id, name), recorded)

    def expiries(self, plan: str) -> tuple[list[Expiry], list[str]]:
        """Return a plan's expiries, oldest first, and findings about those that do not open."""
        return self._read_all(names.expired(plan), lambda name: self._expiry(plan, name))

    def recorded(self, plan: str) -> dict[str, list[str]]:
        """Return the names of all verifications of a plan by the id of the backup, oldest first: by one listing.

        Raises:
            ObjectUnreadable: They cannot be listed.
        """
        prefix = names.verifications(plan)
        return by_backup(prefix, self._tier.list(prefix))

    def status(self, metadata: BackupMetadata, recorded: Sequence[str] | None = None) -> BackupStatus:
        """Return what the newest verification proved: nothing if it does not open, or is of another manifest."""
        return self.readable_status(metadata, recorded) or BackupStatus.COMPLETED

    def readable_status(self, metadata: BackupMetadata, recorded: Sequence[str] | None = None) -> BackupStatus | None:
        """Return what the newest verification proved; None where it does not open, so that it is not known.

        Args:
            metadata: The backup.
            recorded: The names of its verifications, oldest first, where they were listed already.
        """
        plan, backup_id = metadata.plan, metadata.backup_id
        try:
            if recorded is None:
                recorded = [one.name for one in self._tier.list(names.verifications(plan, backup_id))]
            if not recorded:
                return BackupStatus.COMPLETED
            latest = self._verification(plan, backup_id, recorded[-1])
        except (CorruptionDetected, ConfigurationError, ObjectMissing, ObjectUnreadable) as exc:
            logger.warning("%s", exc)
            return None
        same = latest.manifest_sha256 == self._catalogue.link_of(metadata).manifest_sha256
        return latest.status if same else BackupStatus.COMPLETED

    def _append(self, name: str, sealed: bytes) -> bool:
        try:
            self._tier.put(name, sealed, exclusive=True)
        except AlreadyExists:
            return False
        return True

    def _verification(self, plan: str, backup_id: str, name: str) -> Verification:
        sealed = self._tier.get(name, limit=MAX_RECORD_BYTES)
        found = self._catalogue.open(sealed, Verification, ObjectKind.VERIFICATION, plan, backup_id)
        _check_place(name, found.verified_at, (found.plan, found.backup_id) == (plan, backup_id))
        return found

    def _expiry(self, plan: str, name: str) -> Expiry:
        moment = name.rpartition("/")[2]
        sealed = self._tier.get(name, limit=MAX_RECORD_BYTES)
        found = self._catalogue.open(sealed, Expiry, ObjectKind.EXPIRY, plan, moment)
        _check_place(name, found.expired_at, found.plan == plan)
        return found

    def _read_all(
        self, prefix: str, read: Callable[[str], E], listed: Sequence[str] | None = None
    ) -> tuple[list[E], list[str]]:
        records, findings = [], []
        try:
            found = [one.name for one in self._tier.list(prefix)] if listed is None else listed
        except ObjectUnreadable as exc:
            return [], [exc.message]
        for name in found:
            try:
                records.append(read(name))
            except ObjectMissing:
                logger.debug("%s was removed meanwhile", name)
            except (CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
                findings.append(f"{name} does not open: {exc.message}")
        return records, findings


def _offsets() -> Iterator[timedelta]:
    """Return how far a record may be moved where another of the same microsecond exists."""
    return (timedelta(microseconds=step) for step in range(10_000))


def _check_place(name: str, moment: datetime, same: bool) -> None:
    if not same or name.rpartition("/")[2] != names.moment(moment):
        raise CorruptionDetected(f"{name} was moved: inside it names another time or backup")
