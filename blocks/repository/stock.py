"""What is stored of a plan's backups, by one listing of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from blocks.errors import ObjectUnreadable
from blocks.records import StoredObject
from blocks.repository import names
from blocks.storage.base import StorageTier, StoredName

Listing = Callable[[str], Sequence[StoredName]]


class Stock:
    """The objects of a plan's backups, and their verifications, as they were listed.

    Args:
        tier: The tier that holds the repository's objects.
        listing: Lists a folder.
        plan: Name of the plan.

    Attributes:
        others: Names of objects that lie in no backup's folder.
        unlisted: What is wrong with the folders that cannot be listed, by their names.
    """

    def __init__(self, tier: StorageTier, listing: Listing, plan: str) -> None:
        self._listing, self._plan = listing, plan
        self.others: list[str] = []
        self.unlisted: dict[str, ObjectUnreadable] = {}
        self._stored: dict[str, dict[str, StoredName]] = {}
        prefix = names.backups(plan)
        for stored in self._listed(tier, prefix):
            folder, _, name = stored.name.removeprefix(prefix).partition("/")
            if names.is_backup_id(folder) and name and "/" not in name:
                self._stored.setdefault(folder, {})[name] = stored
            else:
                self.others.append(stored.name)
        self._verifications: dict[str, list[str]] | None = None
        self._written: dict[str, datetime] = {}

    def _listed(self, tier: StorageTier, prefix: str) -> Sequence[StoredName]:
        """List all objects of the plan; folder by folder where one of them cannot be listed."""
        try:
            return self._listing(prefix)
        except ObjectUnreadable:
            found: list[StoredName] = []
        for folder in tier.folders(prefix):
            try:
                found += tier.list(f"{prefix}{folder}/")
            except ObjectUnreadable as exc:
                self.unlisted[folder] = exc
        return found

    @property
    def ids(self) -> set[str]:
        """The ids that are taken, by backups that are committed or not."""
        return self._stored.keys() | self.unlisted.keys()

    @property
    def committed(self) -> list[str]:
        """Ids of the backups that have a manifest, whole or not, or may have one."""
        found = [backup_id for backup_id, stored in self._stored.items() if names.MANIFEST in stored]
        return found + [folder for folder in self.unlisted if names.is_backup_id(folder)]

    def objects(self, backup_id: str) -> dict[str, StoredName]:
        """Return what lies in a backup's folder, by name inside of it."""
        return self._stored.get(backup_id, {})

    def committed_at(self, backup_id: str) -> datetime | None:
        """Return when the storage wrote a backup's manifest."""
        manifest = self.objects(backup_id).get(names.MANIFEST)
        return manifest.modified_at if manifest else None

    def missing(self, backup_id: str, objects: Sequence[StoredObject]) -> list[str]:
        """Return the names of a backup's objects that are absent or of another size.

        Raises:
            ObjectUnreadable: Its folder cannot be listed.
        """
        if backup_id in self.unlisted:
            raise self.unlisted[backup_id]
        sizes = {name: one.size_bytes for name, one in self.objects(backup_id).items()}
        return [stored.name for stored in objects if sizes.get(stored.name) != stored.size_bytes]

    def verifications(self, backup_id: str) -> list[str]:
        """Return the names of a backup's verifications, oldest first: one listing for all backups.

        Raises:
            ObjectUnreadable: They cannot be listed.
        """
        if self._verifications is None:
            prefix = names.verifications(self._plan)
            listed = self._listing(prefix)
            self._verifications = by_backup(prefix, listed)
            self._written = {one.name: one.modified_at for one in listed}
        return self._verifications.get(backup_id, [])

    def unchanged_since(self, backup_id: str, verified_at: datetime, objects: Sequence[StoredObject]) -> bool:
        """Whether all objects of a backup are there, and none was written after one of its verifications.

        The times are all of the storage's clock. Objects are never written again, so one that was is another one, or
        was put back; where a copy of the repository did not keep times, they are read once more.

        Args:
            backup_id: Id of the backup.
            verified_at: Time of the verification, as its name has it.
            objects: The objects that the manifest names.

        Raises:
            ObjectUnreadable: Its folder, or the verifications, cannot be listed.
        """
        recorded = {name.rpartition("/")[2]: self._written[name] for name in self.verifications(backup_id)}
        written = recorded.get(names.moment(verified_at))
        if written is None or self.missing(backup_id, objects):
            return False
        stored = self.objects(backup_id)
        return all(stored[one.name].modified_at <= written for one in objects)


def by_backup(prefix: str, listed: Sequence[StoredName]) -> dict[str, list[str]]:
    """Return the names of listed objects by the folder right below a prefix, which is named like the backup."""
    found: dict[str, list[str]] = {}
    for stored in listed:
        found.setdefault(stored.name.removeprefix(prefix).partition("/")[0], []).append(stored.name)
    return found
