"""The values of what quality suites name: rows of the manifest, and numbers of earlier backups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

from blocks.errors import ObjectUnreadable
from blocks.plan.expression import Value
from blocks.plan.parameters import (
    BACKUP_TIMESTAMP,
    EXPECTED_ROWS,
    PREVIOUS_ROWS,
    Missing,
    column_of,
)
from blocks.records import BackupMetadata, Collection
from blocks.repository.block import Repository
from blocks.repository.stock import Stock
from blocks.verification import Axis, CheckOutcome, CollectionProfile, ColumnProfile, Verification
from flows.proving.profile import read_value

LOOKED_BACK = 200
"""How many earlier backups are asked for a verification: an hourly plan's of a week, and one that is never verified is
not read to its beginning."""

NO_BACKUP = "no earlier backup"
NO_VERIFICATION = "no earlier verification"
NO_COLUMN = "no such column in the earlier verification"
NO_NUMBER = "no such number of the column in the earlier verification"
"""Why a parameter has no value yet."""


class Parameters:
    """What suites may ask of one backup and of those before it; earlier ones are read where that is asked for, once.

    Args:
        repository: The unlocked repository.
        backup: The backup that is verified.
    """

    def __init__(self, repository: Repository, backup: BackupMetadata) -> None:
        self._repository, self._backup = repository, backup
        self._profiles = dict[str, CollectionProfile | None]()
        self._verified = dict[str, list[Verification]]()

    def of(self, collection: Collection, names: Iterable[str]) -> dict[str, Value | Missing]:
        """Return the values of some names, `Missing` for one that has none yet.

        Args:
            collection: The collection of the backup that a suite is about.
            names: As `blocks.plan.parameters.names_in` returns them.

        Raises:
            CorruptionDetected: The manifest of an earlier backup is damaged.
        """
        return {name: self._value(collection, name) for name in names}

    def _value(self, collection: Collection, name: str) -> Value | Missing:
        if name == EXPECTED_ROWS:
            return collection.rows
        if name == BACKUP_TIMESTAMP:
            return self._backup.timestamp
        if name == PREVIOUS_ROWS:
            return self._previous_rows(collection.name)
        profile = self.profile(collection.name)
        if profile is None:
            return Missing(NO_VERIFICATION)
        asked = column_of(name)
        if asked is None:
            return profile.rows
        column, number = asked
        if column not in profile.columns:
            return Missing(NO_COLUMN)
        value = _NUMBERS[number](profile.columns[column], profile.rows)
        return Missing(NO_NUMBER) if value is None else value

    def profile(self, collection: str) -> CollectionProfile | None:
        """Return the numbers of the newest earlier backup whose quality was proved good, of one collection."""
        if collection not in self._profiles:
            found = (self._good_profile(one, collection) for one in self._earlier[:LOOKED_BACK])
            self._profiles[collection] = next((one for one in found if one is not None), None)
        return self._profiles[collection]

    def _previous_rows(self, collection: str) -> Value | Missing:
        for backup in self._earlier:
            for one in backup.collections:
                if one.name == collection and not one.selected_keys:
                    return one.rows
        return Missing(NO_BACKUP)

    @cached_property
    def _earlier(self) -> list[BackupMetadata]:
        """The plan's backups before, newest first; damaged ones are left to `check`."""
        survey = self._repository.survey(self._backup.plan)
        earlier = [one for one in survey.backups if one.sequence < self._backup.sequence]
        return sorted(earlier, key=lambda one: one.sequence, reverse=True)

    def _good_profile(self, backup: BackupMetadata, collection: str) -> CollectionProfile | None:
        """Return what was computed of a collection by the newest verification of a backup that stands good."""
        for record in reversed(self._verifications(backup)):
            quality = record.results.get(Axis.QUALITY)
            if collection in record.profile and quality is not None and quality.outcome is CheckOutcome.GOOD:
                return record.profile[collection]
        return None

    def _verifications(self, backup: BackupMetadata) -> list[Verification]:
        """Return a backup's verifications, none where anything stands against its bytes or its data."""
        if backup.backup_id not in self._verified:
            found = self._repository.verifications(backup.plan, backup.backup_id) if self._recorded(backup) else []
            same = [one for one in found if one.manifest_sha256 == self._repository.link_of(backup).manifest_sha256]
            self._verified[backup.backup_id] = [] if same and _stands_bad(same[-1]) else same
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


def _stands_bad(newest: Verification) -> bool:
    standing = newest.standing or newest.results
    return any(axis in standing and standing[axis].outcome is CheckOutcome.BAD for axis in (Axis.BYTES, Axis.QUALITY))


_NUMBERS: Mapping[str, Callable[[ColumnProfile, int], Value | None]] = {
    "nulls": lambda column, _: column.nulls,
    "null_share": lambda column, rows: column.nulls / rows if rows else None,
    "distinct": lambda column, _: column.distinct,
    "min": lambda column, _: read_value(column.minimum),
    "max": lambda column, _: read_value(column.maximum),
    "mean": lambda column, _: column.mean,
}
