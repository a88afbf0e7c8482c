"""The newest backup of a plan, found without reading all of its manifests."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby

from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected, ObjectUnreadable
from blocks.records import BackupMetadata, BackupType
from blocks.repository import names
from blocks.repository.catalogue import Catalogue
from blocks.repository.stock import Stock


@dataclass(frozen=True)
class Newest:
    """The backup that was committed last.

    Attributes:
        backup: None where there is none.
        damage: What is wrong with a manifest that may be of a newer one, if there is such a one.
    """

    backup: BackupMetadata | None
    damage: str | None


def find_newest(catalogue: Catalogue, stock: Stock, plan: str, types: Collection[BackupType]) -> Newest:
    """Find the newest backup of some types.

    Commits are numbered, and the numbers are inside of the manifests. What was committed last is the last one by the
    time in its id, which is the time of the host that made it, or the last one that the storage wrote, or both; where a
    repository was copied, the storage's times mean nothing. So both are read, and where one of them does not open, the
    next; the number decides. Of a plan of which the numbers tell otherwise all manifests are read.

    Args:
        catalogue: Opens the manifests.
        stock: What is stored of the plan's backups.
        plan: Name of the plan.
        types: Those that are looked for.
    """
    prefixes = tuple(kind.prefix for kind in types)
    ids = [backup_id for backup_id in stock.committed if backup_id.startswith(prefixes)]
    search = _Search(catalogue, plan)
    times = {backup_id: (names.id_moment(backup_id), str(stock.committed_at(backup_id) or "")) for backup_id in ids}
    search.last_by(lambda backup_id: times[backup_id], ids)
    search.last_by(lambda backup_id: times[backup_id][::-1], ids)
    if any(one.sequence < len(ids) for one in search.newest):
        for backup_id in ids:
            search.read(backup_id)
    backup = search.newest[0] if search.newest else None
    since = names.id_moment(backup.backup_id) if backup else ""
    damage = (what for damaged, what in search.damaged.items() if names.id_moment(damaged) >= since)
    return Newest(backup, next(damage, None))


class _Search:
    """What was read so far."""

    def __init__(self, catalogue: Catalogue, plan: str) -> None:
        self._catalogue, self._plan = catalogue, plan
        self._found: dict[str, BackupMetadata] = {}
        self.damaged: dict[str, str] = {}

    @property
    def newest(self) -> list[BackupMetadata]:
        """The newest of those that were read, if any was."""
        return sorted(self._found.values(), key=lambda one: (one.sequence, one.timestamp, one.backup_id))[-1:]

    def last_by(self, order: Callable[[str], tuple[str, str]], ids: Collection[str]) -> None:
        """Read the last ones in an order, all of one place in it, until one opens."""
        for _, same in groupby(sorted(ids, key=order, reverse=True), key=order):
            opened = [self.read(backup_id) for backup_id in same]
            if any(opened):
                return

    def read(self, backup_id: str) -> bool:
        """Read a manifest, once; returns whether it opens."""
        if backup_id not in self._found and backup_id not in self.damaged:
            try:
                self._found[backup_id] = self._catalogue.manifest(self._plan, backup_id, listed=True, copies=True)[0]
            except BackupNotFound:
                return False
            except (CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
                self.damaged[backup_id] = exc.message
        return backup_id in self._found
