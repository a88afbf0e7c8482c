"""The backups of a plan as a new one sees them: the newest, and all of them only where that one does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property

from blocks.errors import LastgoodError
from blocks.records import BackupMetadata, BackupType
from blocks.repository import names
from blocks.repository.block import Repository
from blocks.repository.stock import Stock


class Past:
    """The committed backups of a plan, each manifest read when it is needed.

    Args:
        repository: The unlocked repository.
        plan: Name of the plan.
        stock: What is stored of the plan's backups, as it was listed since the lease is held.
    """

    def __init__(self, repository: Repository, plan: str, stock: Stock) -> None:
        self._repository, self._plan, self._stock = repository, plan, stock

    @cached_property
    def newest(self) -> BackupMetadata | None:
        """The backup that was committed last, of those whose manifests open."""
        return self._repository.newest(self._plan, self._stock).backup

    @cached_property
    def backups(self) -> Sequence[BackupMetadata]:
        """All of them whose manifests open, in the order of their commits: every manifest is read."""
        return self._repository.survey(self._plan).backups

    @cached_property
    def lineage(self) -> Sequence[BackupMetadata]:
        """The newest backup that others can depend on, last, and the chain that it depends on, full first.

        Nothing where there is none, or where one of them does not open: what is compared with them is only compared.
        """
        bases = tuple(kind for kind in BackupType if kind.can_be_base)
        newest = self._repository.newest(self._plan, self._stock, bases).backup
        if newest is None:
            return ()
        try:
            return self._repository.chain(newest, copies=True, stock=self._stock)
        except LastgoodError:
            return ()

    def begun_after(self, moment: datetime) -> bool:
        """Whether a backup was begun after an aware time, by its id, which has the time of the host that made it."""
        now = f"{moment.astimezone(UTC):%Y%m%d_%H%M%S}"
        return any(names.id_moment(backup_id) > now for backup_id in self._stock.committed)
