"""The values of what quality suites name: rows of the manifest, and numbers of earlier backups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from blocks.plan.expression import Value
from blocks.plan.parameters import BACKUP_TIMESTAMP, EXPECTED_ROWS, PREVIOUS_ROWS, Missing, column_of
from blocks.records import BackupMetadata, Collection
from blocks.repository.block import Repository
from blocks.verification import CollectionProfile, ColumnProfile
from flows.proving.earlier import Earlier, rows_of
from flows.proving.profile import read_value

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
        self._backup, self._earlier = backup, Earlier(repository, backup)
        self._profiles = dict[str, CollectionProfile | None]()

    def of(
        self, collection: Collection, names: Iterable[str], profile: str | None = None
    ) -> dict[str, Value | Missing]:
        """Return the values of some names, `Missing` for one that has none yet.

        Args:
            collection: The collection of the backup that a suite is about.
            names: As `blocks.plan.parameters.names_in` returns them.
            profile: What numbers of the rows are kept by in verifications; the collection, where nothing is said.
        """
        return {name: self._value(collection, name, profile or collection.name) for name in names}

    def _value(self, collection: Collection, name: str, profile: str) -> Value | Missing:
        if name == EXPECTED_ROWS:
            return collection.rows
        if name == BACKUP_TIMESTAMP:
            return self._backup.timestamp
        if name == PREVIOUS_ROWS:
            before = self._earlier.whole(collection.name)
            rows = rows_of(before[0], collection.name) if before else None
            return Missing(NO_BACKUP) if rows is None else rows
        return _number(self._profile(profile), name)

    def _profile(self, name: str) -> CollectionProfile | None:
        if name not in self._profiles:
            self._profiles[name] = self._earlier.newest_profile(name)
        return self._profiles[name]


def _number(profile: CollectionProfile | None, name: str) -> Value | Missing:
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


_NUMBERS: Mapping[str, Callable[[ColumnProfile, int], Value | None]] = {
    "nulls": lambda column, _: column.nulls,
    "null_share": lambda column, rows: column.nulls / rows if rows else None,
    "distinct": lambda column, _: column.distinct,
    "min": lambda column, _: read_value(column.minimum),
    "max": lambda column, _: read_value(column.maximum),
    "mean": lambda column, _: column.mean,
}
