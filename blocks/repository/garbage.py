"""Removing: whole backups in an order that is safe to be interrupted, and what crashes left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta

from blocks.errors import ObjectUnreadable, Partial, RepositoryUnavailable
from blocks.repository import names
from blocks.repository.lease_watch import held_lease
from blocks.repository.leases import LeaseRecord, Leases
from blocks.storage.base import StorageTier, StoredName

logger = logging.getLogger(__name__)


def remove_backups(tier: StorageTier, plan: str, ids: Sequence[str]) -> None:
    """Remove backups: all manifests first, durably, so that an interrupted removal leaves nothing half there.

    Raises:
        Partial: Some objects could not be removed; names them. A backup whose manifest stayed is still whole.
    """
    manifests = {names.manifest(plan, backup_id): backup_id for backup_id in ids}
    stuck = _remove(tier, manifests)
    gone = [backup_id for name, backup_id in manifests.items() if name not in stuck]
    rest = []
    for backup_id in gone:
        folder = names.backup(plan, backup_id)
        try:
            stored = [*tier.list(folder), *tier.leftovers(folder), *tier.list(names.verifications(plan, backup_id))]
        except ObjectUnreadable as exc:
            logger.warning("%s", exc)
            stuck.append(folder)
            continue
        rest += [one.name for one in stored if one.name != names.checksums(plan, backup_id)]
    stuck += _remove(tier, rest)
    stuck += _remove(tier, [names.checksums(plan, backup_id) for backup_id in gone])
    for prefix in (names.backups(plan), names.verifications(plan)):
        _drop_folders(tier, prefix, gone)
    if stuck:
        raise Partial(
            f"of {len(ids)} backups of plan {plan}, these objects could not be removed: {', '.join(stuck)}",
            hint="Check the permissions in the repository, then run `lastgood retention` again.",
        )


def _drop_folders(tier: StorageTier, prefix: str, folders: Collection[str]) -> None:
    try:
        tier.drop_folders(prefix, folders)
    except RepositoryUnavailable as exc:  # what was in them is gone, which is what counts
        logger.warning("empty folders stayed: %s", exc)


def _remove(tier: StorageTier, objects: Iterable[str]) -> list[str]:
    """Remove objects in one batch; if that fails, one by one. Returns what could not be removed."""
    wanted = list(objects)
    try:
        tier.remove(wanted)
    except RepositoryUnavailable as exc:
        logger.warning("removing a batch failed, going on one by one: %s", exc)
    else:
        return []
    stuck = []
    for name in wanted:
        try:
            tier.remove([name])
        except RepositoryUnavailable as exc:
            logger.warning("%s", exc)
            stuck.append(name)
    return stuck


class GarbageCollector:
    """Finds and removes what interrupted runs of one plan left behind; never what a running one is making.

    Args:
        tier: The tier that holds the repository's objects.
        leases: The leases of the plan.
        spared: Ids of backups that are known to have been committed and that nobody removed on record: a folder of
            theirs without a manifest is not unfinished but damaged, or on a disk that is not all there.
    """

    def __init__(self, tier: StorageTier, leases: Leases, spared: Collection[str] = ()) -> None:
        self._tier = tier
        self._spared = frozenset(spared)
        self._leases = leases
        self._plan = leases.plan

    def abandoned(self) -> list[str]:
        """Return the ids of folders without a manifest that no live lease is working on."""
        live = self._leases.live()
        return [folder for folder in self._incomplete() if not _protected(folder, (), live)]

    def collect_garbage(self, grace: timedelta, now: datetime) -> list[str]:
        """Remove unfinished backups, temporary files and old leases.

        Args:
            grace: How long an object must have been left alone.
            now: The time that is counted from, aware.

        Returns:
            The names of what was removed.
        """
        before = now - grace
        backups, verifications = names.backups(self._plan), names.verifications(self._plan)
        folders = {backups: self._unfinished(before), verifications: self._orphaned(before)}
        doomed = [name for found in folders.values() for stored in found.values() for name in stored]
        doomed += self._temporary(before, grace)
        self._tier.remove(doomed)
        doomed += self._leases.tidy(self._leases.tokens())
        for prefix, found in folders.items():
            _drop_folders(self._tier, prefix, found)
            self._tier.prune(prefix, before)
        return doomed

    def make_room(self, grace: timedelta, now: datetime) -> list[str]:
        """Remove what `collect_garbage` removes, and at once what the run that ended last left unfinished."""
        swept, found = self.collect_garbage(grace, now), self._leases.current()
        ended = found.record.backup_id if found and found.record.released else None
        if ended is None or ended not in self._incomplete():
            return swept
        doomed = [one.name for one in self._everything(names.backup(self._plan, ended))]
        self._tier.remove(doomed)
        return swept + doomed

    def _incomplete(self) -> list[str]:
        folders = [f for f in self._tier.folders(names.backups(self._plan)) if names.is_backup_id(f)]
        return [folder for folder in folders if folder not in self._spared and not self._has_manifest(folder)]

    def _has_manifest(self, folder: str) -> bool:
        try:
            return self._tier.exists(names.manifest(self._plan, folder))
        except ObjectUnreadable:
            return True  # it is not known: no reason to remove anything

    def _everything(self, prefix: str) -> list[StoredName]:
        return self._readable(lambda: [*self._tier.list(prefix), *self._tier.leftovers(prefix)])

    def _readable(self, look: Callable[[], Iterable[StoredName]]) -> list[StoredName]:
        """Return a listing; nothing where a folder cannot be listed, which is then left alone."""
        try:
            return list(look())
        except ObjectUnreadable as exc:
            logger.warning("%s", exc)
            return []

    def _unfinished(self, before: datetime) -> dict[str, list[str]]:
        """Find the folders of backups that nobody finishes any more, with what is in them; that may be nothing."""
        doomed = {}
        for folder in self._incomplete():
            prefix = names.backup(self._plan, folder)
            stored = self._everything(prefix)
            if all(one.modified_at < before for one in stored) and not self._working_on(folder, stored):
                # SHA256SUMS last, as a removal does it
                last = names.checksums(self._plan, folder)
                doomed[folder] = sorted((one.name for one in stored), key=lambda name: name == last)
        return doomed

    def _working_on(self, folder: str, stored: Sequence[StoredName]) -> bool:
        # asked right before each folder, and a manifest committed meanwhile is asked for once more
        if self._has_manifest(folder):
            return True
        return _protected(folder, stored, held_lease(self._leases))

    def _orphaned(self, before: datetime) -> dict[str, list[str]]:
        """Find verifications of backups whose removal was interrupted, by the id of the backup."""
        kept = set(self._tier.folders(names.backups(self._plan)))
        prefix = names.verifications(self._plan)
        orphans = [folder for folder in self._tier.folders(prefix) if folder not in kept]
        stored = {folder: self._everything(f"{prefix}{folder}/") for folder in orphans}
        return {folder: [one.name for one in found if one.modified_at < before] for folder, found in stored.items()}

    def _temporary(self, before: datetime, grace: timedelta) -> list[str]:
        """Find what interrupted writes left in the plan's folders and at the top, and what interrupted trials left."""
        live = held_lease(self._leases)
        until = min(before, live.acquired_at) if live else before
        # a check tries the storage without the lease, and would tell what is removed meanwhile as a fault of it: where
        # a run believes a clock that jumped, only its lease tells the time
        until_tried = min(before, live.acquired_at - grace) if live else before
        folders = (names.backups, names.verifications, names.expired, names.locks)
        found = [one for folder in folders for one in self._leftovers(folder(self._plan))]
        found += [one for one in self._leftovers() if "/" not in one.name]
        tried = self._everything(names.PROBES)
        return [
            *(one.name for one in found if one.modified_at < until),
            *(one.name for one in tried if one.modified_at < until_tried),
        ]

    def _leftovers(self, prefix: str = "") -> list[StoredName]:
        return self._readable(lambda: self._tier.leftovers(prefix))


def _protected(folder: str, stored: Sequence[StoredName], live: LeaseRecord | None) -> bool:
    if live is None:
        return False
    if live.backup_id is not None:
        return live.backup_id == folder
    # a run that has not said yet which backup it makes: whatever is younger than its lease may be its
    return any(one.modified_at >= live.acquired_at for one in stored)
