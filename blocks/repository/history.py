"""What happened to backups after they were made: verifications and expiries, sealed like manifests, appended only.

Verifications of a backup are numbered, and each names the one before it by the SHA-256 of its sealed bytes, so that one
that was removed is missed. One that was recorded while those before it did not open names none, and all are read then.
The last of their names is that of the last one: its time is moved to after the others where the clock is behind them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from blocks.crypto.stream import ObjectKind
from blocks.errors import AlreadyExists, ConfigurationError, CorruptionDetected, ObjectMissing, ObjectUnreadable
from blocks.records import Expiry, Link
from blocks.repository import names
from blocks.repository.catalogue import MAX_RECORD_BYTES, Catalogue
from blocks.repository.record_chain import Recorded
from blocks.repository.rollback_guard import LastVerification, VerificationMemory
from blocks.repository.stock import by_backup
from blocks.repository.verdict import (
    Standings,
    Verdict,
    knows_all_before,
    recorded_standing,
    standing_after,
    standings_of,
)
from blocks.storage.base import StorageTier
from blocks.verification import Verification

logger = logging.getLogger(__name__)

E = TypeVar("E", Verification, Expiry)

_NOT_OPENED = (CorruptionDetected, ConfigurationError, ObjectMissing, ObjectUnreadable)


@dataclass(frozen=True)
class _Known:
    """What is known of a backup before another verification of it is recorded.

    Attributes:
        verdict: What its verifications say.
        last: The highest number of them.
        sha256: Of the sealed bytes of the newest. None where one that had to be read did not open: its bytes may have
            been spoiled on their way, and others then are in the storage.
    """

    verdict: Verdict
    last: int
    sha256: str | None


_NOTHING = _Known(Verdict(), 0, None)


class History:
    """The appended records of one repository.

    Args:
        tier: The tier that holds the repository's objects.
        catalogue: Seals and opens the records of the repository.
        memory: What this machine remembers of verifications.
    """

    def __init__(self, tier: StorageTier, catalogue: Catalogue, memory: VerificationMemory) -> None:
        self._tier = tier
        self._catalogue = catalogue
        self._memory = memory

    def record_verification(self, verification: Verification) -> Verification:
        """Append the result of a verification after all others of its backup.

        Returns:
            It as it was recorded: with its number, what it follows, what stands after it, and its time, which is later
            than that of the others.

        Raises:
            RepositoryUnavailable: The storage failed, or cannot be written.
        """
        plan, backup_id = verification.plan, verification.backup_id
        prefix = names.verifications(plan, backup_id)
        for offset in _offsets():
            listed = [one.name for one in self._tier.list(prefix)]
            numbered = self._numbered(verification, listed, offset)
            sealed = self._catalogue.seal(numbered, ObjectKind.VERIFICATION, plan, backup_id)
            if self._append(prefix + names.moment(numbered.verified_at), sealed):
                self._remember(numbered, sealed, listed)
                return numbered
        raise AlreadyExists(f"{prefix} has records of each microsecond after {verification.verified_at}")

    def _remember(self, recorded: Verification, sealed: bytes, before: Sequence[str]) -> None:
        """Remember a verification as the last one, unless the one that was remembered is not among those before it.

        Then `check` is still to say so.
        """
        seen = self._memory.read(recorded.plan).get(recorded.backup_id)
        if seen is None or seen.sha256 == recorded.previous or seen.sha256 in self._digests(before):
            last = LastVerification(sequence=recorded.sequence or 0, sha256=hashlib.sha256(sealed).hexdigest())
            self._memory.remember(recorded.plan, {recorded.backup_id: last})

    def _digests(self, recorded: Sequence[str]) -> Iterator[str]:
        for name in reversed(recorded):
            with suppress(ObjectMissing, ObjectUnreadable, CorruptionDetected):
                yield hashlib.sha256(self._tier.get(name, limit=MAX_RECORD_BYTES)).hexdigest()

    def _numbered(self, verification: Verification, listed: Sequence[str], offset: timedelta) -> Verification:
        """Number a verification, and say what it follows and what stands after it; `offset` is added to its time."""
        plan, link = verification.plan, _link(verification)
        known = self._known(plan, link, listed) if listed else _NOTHING
        sequence = max(len(listed), known.last) + 1
        moved = verification.model_copy(update={"verified_at": _after(verification.verified_at, listed) + offset})
        stands = standing_after(known.verdict.axes, moved, sequence)
        said = {axis.value: one for axis, one in stands.items()}
        return moved.model_copy(update={"sequence": sequence, "previous": known.sha256, "standing": said})

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

    def verdict(self, plan: str, link: Link, recorded: Sequence[str] | None = None) -> Verdict:
        """Return what the verifications of a backup say of it; what it depends on is not looked at.

        Of those that are numbered only the newest is read, which knows of all before it.

        Args:
            plan: Name of the plan.
            link: The backup. What is recorded of another manifest says nothing of it.
            recorded: The names of its verifications, oldest first, where they were listed already.
        """
        try:
            if recorded is None:
                recorded = [one.name for one in self._tier.list(names.verifications(plan, link.backup_id))]
        except ObjectUnreadable as exc:
            logger.warning("%s", exc)
            return Verdict({}, exc.message)
        return self._known(plan, link, recorded).verdict if recorded else Verdict()

    def _known(self, plan: str, link: Link, recorded: Sequence[str]) -> _Known:
        """Return what some verifications say, of which there is at least one."""
        try:
            sealed = self._tier.get(recorded[-1], limit=MAX_RECORD_BYTES)
            newest = self._opened(plan, link.backup_id, recorded[-1], sealed)
        except _NOT_OPENED as exc:
            logger.warning("%s", exc)
            stands, last, _ = self._told_by_all(plan, link, recorded[:-1])
            return _Known(Verdict(stands, f"{recorded[-1]} does not open"), last, None)
        sha256 = hashlib.sha256(sealed).hexdigest()
        # of another manifest, or where some are gone or doubled, it does not speak for all
        if (
            newest.sequence == len(recorded)
            and knows_all_before(newest)
            and newest.manifest_sha256 == link.manifest_sha256
        ):
            return _Known(Verdict(recorded_standing(newest)), newest.sequence, sha256)
        stands, last, all_opened = self._told_by_all(plan, link, recorded)
        return _Known(Verdict(stands), last, sha256 if all_opened else None)

    def _told_by_all(self, plan: str, link: Link, recorded: Sequence[str]) -> tuple[Standings, int, bool]:
        records, wrong = self.verifications(plan, link.backup_id, recorded)
        last = max((one.sequence or 0 for one in records), default=0)
        return standings_of(records, link.manifest_sha256), last, not wrong

    def chain(self, plan: str, backup_id: str, recorded: Sequence[str] | None = None) -> list[Recorded]:
        """Read all verifications of a backup with the SHA-256 of their sealed bytes, in the order of their names.

        Raises:
            ObjectUnreadable: They cannot be listed.
        """
        prefix = names.verifications(plan, backup_id)
        found = []
        for name in [one.name for one in self._tier.list(prefix)] if recorded is None else recorded:
            try:
                sealed = self._tier.get(name, limit=MAX_RECORD_BYTES)
            except ObjectMissing:
                logger.debug("%s was removed meanwhile", name)
                continue
            except (CorruptionDetected, ObjectUnreadable) as exc:
                found.append(Recorded(name, None, None, exc.message))
                continue
            digest = hashlib.sha256(sealed).hexdigest()
            try:
                found.append(Recorded(name, digest, self._opened(plan, backup_id, name, sealed)))
            except (CorruptionDetected, ConfigurationError) as exc:
                found.append(Recorded(name, digest, None, exc.message))
        return found

    def _append(self, name: str, sealed: bytes) -> bool:
        try:
            self._tier.put(name, sealed, exclusive=True)
        except AlreadyExists:
            return False
        return True

    def _verification(self, plan: str, backup_id: str, name: str) -> Verification:
        return self._opened(plan, backup_id, name, self._tier.get(name, limit=MAX_RECORD_BYTES))

    def _opened(self, plan: str, backup_id: str, name: str, sealed: bytes) -> Verification:
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


def _after(moment: datetime, listed: Sequence[str]) -> datetime:
    """Return a moment, or the one just after the last one that is in some names, if that is later."""
    last = max((named for name in listed if (named := names.moment_of(name))), default=moment)
    try:
        return max(moment, last + timedelta(microseconds=1)) if listed else moment
    except OverflowError:  # a name that says the end of all time is not ours
        return moment


def _link(verification: Verification) -> Link:
    return Link(backup_id=verification.backup_id, manifest_sha256=verification.manifest_sha256)


def _check_place(name: str, moment: datetime, same: bool) -> None:
    if not same or name.rpartition("/")[2] != names.moment(moment):
        raise CorruptionDetected(f"{name} was moved: inside it names another time or backup")
