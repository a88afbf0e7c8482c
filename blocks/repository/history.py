"""What happened to backups after they were made: verifications and expiries, sealed like manifests, appended only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TypeVar

from blocks.crypto.stream import ObjectKind
from blocks.errors import AlreadyExists, ConfigurationError, CorruptionDetected, ObjectMissing, ObjectUnreadable
from blocks.records import BackupMetadata, BackupStatus, Expiry, Verification
from blocks.repository import names
from blocks.repository.catalogue import MAX_RECORD_BYTES, Catalogue
from blocks.storage.base import StorageTier

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

    def verifications(self, plan: str, backup_id: str) -> tuple[list[Verification], list[str]]:
        """Return a backup's verifications, oldest first, and findings about those that do not open."""
        prefix = names.verifications(plan, backup_id)
        return self._read_all(prefix, lambda name: self._verification(plan, backup_id, name))

    def expiries(self, plan: str) -> tuple[list[Expiry], list[str]]:
        """Return a plan's expiries, oldest first, and findings about those that do not open."""
        return self._read_all(names.expired(plan), lambda name: self._expiry(plan, name))

    def status(self, metadata: BackupMetadata) -> BackupStatus:
        """Return what the newest verification proved: nothing if it does not open, or is of another manifest."""
        return self.readable_status(metadata) or BackupStatus.COMPLETED

    def readable_status(self, metadata: BackupMetadata) -> BackupStatus | None:
        """Return what the newest verification proved; None where it does not open, so that it is not known."""
        plan, backup_id = metadata.plan, metadata.backup_id
        try:
            recorded = self._tier.list(names.verifications(plan, backup_id))
            if not recorded:
                return BackupStatus.COMPLETED
            latest = self._verification(plan, backup_id, recorded[-1].name)
        except (CorruptionDetected, ConfigurationError, ObjectMissing, ObjectUnreadable) as exc:
            logger.warning("%s", exc)
            return None
        same = latest.manifest_sha256 == self._catalogue.link(plan, backup_id).manifest_sha256
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

    def _read_all(self, prefix: str, read: Callable[[str], E]) -> tuple[list[E], list[str]]:
        records, findings = [], []
        try:
            listed = self._tier.list(prefix)
        except ObjectUnreadable as exc:
            return [], [exc.message]
        for stored in listed:
            try:
                records.append(read(stored.name))
            except ObjectMissing:
                logger.debug("%s was removed meanwhile", stored.name)
            except (CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
                findings.append(f"{stored.name} does not open: {exc.message}")
        return records, findings


def _offsets() -> Iterator[timedelta]:
    """Return how far a record may be moved where another of the same microsecond exists."""
    return (timedelta(microseconds=step) for step in range(10_000))


def _check_place(name: str, moment: datetime, same: bool) -> None:
    if not same or name.rpartition("/")[2] != names.moment(moment):
        raise CorruptionDetected(f"{name} was moved: inside it names another time or backup")
