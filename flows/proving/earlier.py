"""The backups of a plan before one, and the numbers that their verifications left."""

from __future__ import annotations

from functools import cached_property

from blocks.errors import ObjectUnreadable
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.repository.stock import Stock
from blocks.repository.verdict import standings_of
from blocks.verification import Axis, CheckOutcome, CollectionProfile, Verification

LOOKED_BACK = 200
"""How many earlier backups are asked for a verification: an hourly plan's of a week, and one that is never verified is
not read to its beginning."""


class Earlier:
    """The backups before one, and what is known of them; read where that is asked for, once.

    Args:
        repository: The unlocked repository.
        backup: The backup that they are earlier than.
    """

    def __init__(self, repository: Repository, backup: BackupMetadata) -> None:
        self._repository, self._backup = repository, backup
        self._verified = dict[str, list[Verification]]()

    @cached_property
    def backups(self) -> list[BackupMetadata]:
        """The plan's backups before, newest first; damaged manifests are left to `check`."""
        survey = self._repository.survey(self._backup.plan)
        earlier = [one for one in survey.backups if one.sequence < self._backup.sequence]
        return sorted(earlier, key=lambda one: one.sequence, reverse=True)

    def whole(self, collection: str) -> list[BackupMetadata]:
        """Return those that hold all of a collection, newest first."""
        return [one for one in self.backups if rows_of(one, collection) is not None]

    def newest_profile(self, name: str) -> CollectionProfile | None:
        """Return the numbers of a name in the newest one whose quality was proved good; None where there is none."""
        found = (self.profile(one, name) for one in self.backups[:LOOKED_BACK])
        return next((one for one in found if one is not None), None)

    def profile(self, backup: BackupMetadata, name: str) -> CollectionProfile | None:
        """Return the numbers of a name that the newest good verification of one of them left."""
        if self.is_bad(backup):
            return None
        for record in reversed(self._verifications(backup)):
            quality = record.results.get(Axis.QUALITY)
            if name in record.profile and quality is not None and quality.outcome is CheckOutcome.GOOD:
                return record.profile[name]
        return None

    def is_bad(self, backup: BackupMetadata) -> bool:
        """Whether anything stands against the bytes or the data of one of them."""
        found = self._verifications(backup)
        stands = standings_of(found, found[-1].manifest_sha256) if found else {}
        return any(
            stands[axis].outcome is CheckOutcome.BAD
            for axis in (Axis.BYTES, Axis.RESTORABLE, Axis.QUALITY)
            if axis in stands
        )

    def _verifications(self, backup: BackupMetadata) -> list[Verification]:
        if backup.backup_id not in self._verified:
            found = self._repository.verifications(backup.plan, backup.backup_id) if self._recorded(backup) else []
            digest = self._repository.link_of(backup).manifest_sha256 if found else ""
            self._verified[backup.backup_id] = [one for one in found if one.manifest_sha256 == digest]
        return self._verified[backup.backup_id]

    def _recorded(self, backup: BackupMetadata) -> bool:
        """Whether a backup was ever verified, by one listing for all of them."""
        try:
            return bool(self._stock.verifications(backup.backup_id))
        except ObjectUnreadable:
            return True

    @cached_property
    def _stock(self) -> Stock:
        return self._repository.stock(self._backup.plan)


def rows_of(backup: BackupMetadata, collection: str) -> int | None:
    """Return how many rows a collection has in a backup; None where it is not there, or only in part."""
    found = (one.rows for one in backup.collections if one.name == collection and not one.selected_keys)
    return next(found, None)
