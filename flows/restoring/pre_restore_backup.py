"""The backup of live state that a restore in place takes first, so that it can be undone.

It is made by source and by record: what cannot be read is handed to the target, which moves it aside instead of
overwriting it, or refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from blocks.errors import RestoreRefused, SourceUnavailable, UnsupportedState
from blocks.plan.hooks import Hooks
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType
from blocks.repository.block import Repository
from blocks.repository.lease import Lease
from blocks.rows.selection import printed
from blocks.sources.view import Salvaging, Unread, View
from flows.pipeline.attempt import BackupAttempt
from flows.pipeline.context import BackupContext
from flows.pipeline.doubts import doubt_of_backup
from flows.pipeline.executor import StageExecutor, retried
from flows.pipeline.past import Past
from flows.restoring.origin import Origin
from flows.restoring.targets import PreRestoreBackup, Targets

RunBackup = Callable[[BackupAttempt, StageExecutor], BackupMetadata]
"""Sends an attempt at a backup down the stages and commits it; the verb hands it in."""

_RETRIES = 2


class PreRestoreBackupMaker:
    """Makes the backup before one restore.

    Args:
        plan: The plan that is restored.
        repository: The unlocked repository that takes the backup.
        lease: The plan's, held until the restore has ended.
        targets: What will be written; their change list says what the backup takes.
        origin: What is restored, for the backup's tags.
    """

    def __init__(
        self,
        plan: BackupPlan,
        repository: Repository,
        lease: Lease,
        targets: Targets,
        origin: Origin,
    ) -> None:
        self._plan, self._repository, self._lease = plan, repository, lease
        self._targets, self._origin, self._changes = targets, origin, targets.changes
        self._notes: list[str] = []
        self._absent: list[str] = []
        self._unread: dict[str, list[Unread]] = {}

    def make(self, executor: StageExecutor, run: RunBackup) -> None:
        """Back up what can be read, set the targets' `pre_restore_backup`, and have the rest moved aside.

        Raises:
            RestoreRefused: Something can neither be read nor moved aside.
            RepositoryUnavailable: The backup cannot be stored.
        """
        made = self._back_up(executor, run)
        self._notes += [f"{s.name}: {w}" for s in made.sources for w in s.warnings] if made else []
        self._targets.pre_restore_backup = PreRestoreBackup(made.backup_id if made else None, self._notes)
        for source, unread in self._unread.items():
            self._keep_aside(source, unread)

    def _open(self, opened: ExitStack, names: Iterable[str]) -> dict[str, View]:
        views = {}
        for name in names:
            try:
                view = self._view(opened, name)
            except (SourceUnavailable, UnsupportedState) as exc:
                self._unread[name] = [Unread(exc.message)]
                continue
            if view is not None:
                self._targets.guard(name, view)
                views[name] = view
        return views

    def _view(self, opened: ExitStack, name: str) -> View | None:
        enter = partial(self._enter, opened, name)
        try:
            return enter()
        except (SourceUnavailable, UnsupportedState) as exc:
            if self._targets.occupied(name) is None:
                self._notes.append(f"{name}: no emergency backup, since nothing is there ({exc.message})")
                self._absent.append(name)
                return None
        return retried(enter, _RETRIES)

    def _enter(self, opened: ExitStack, name: str) -> View:
        return opened.enter_context(self._plan.sources[name].salvage())

    def _back_up(self, executor: StageExecutor, run: RunBackup) -> BackupMetadata | None:
        """Make the backup; a source that fails as a whole while it is read is left out, and the others read again."""
        names: Sequence[str] = self._targets.in_place
        while names:
            # of a backup that failed, the views have stopped: each attempt opens its own
            with ExitStack() as opened:
                views = self._open(opened, names)
                context = self._context(views)
                try:
                    made = run(BackupAttempt(context), executor) if views else None
                except (SourceUnavailable, UnsupportedState) as exc:
                    failed = context.notes.failed
                    if failed is None or failed not in views:
                        raise
                    self._unread[failed] = [Unread(exc.message)]
                    names = [name for name in views if name != failed]
                else:
                    for name, view in views.items():
                        if isinstance(view, Salvaging) and view.unread:
                            self._unread[name] = list(view.unread)
                    return made
        return None

    def _context(self, views: Mapping[str, View]) -> BackupContext:
        return BackupContext(
            self._narrowed(views),
            self._repository,
            self._lease,
            views,
            BackupType.EMERGENCY,
            tags=tuple(replace(self._origin, absent=tuple(self._absent)).tags()),
            clock_doubt=self._clock_doubt(),
            select=None if self._changes.everything else self._changes.touched,
        )

    def _clock_doubt(self) -> str | None:
        repository, plan = self._repository, self._plan
        past = Past(repository, plan.name, repository.stock(plan.name, self._lease))
        return doubt_of_backup(plan, repository, past, datetime.now(UTC), None)

    def _narrowed(self, views: Mapping[str, View]) -> BackupPlan:
        # all that is overwritten, not only what the plan calls critical: an undo that brings back half is none
        # no hooks: one that lets paused writers go on would do so just before their state is overwritten
        sources = {name: self._plan.sources[name] for name in views}
        return self._plan.model_copy(update={"sources": sources, "critical": [], "hooks": Hooks()})

    def _keep_aside(self, source: str, unread: list[Unread]) -> None:
        try:
            sentences = self._targets.keep_aside(source, unread)
        except RestoreRefused as exc:
            hint = f"{exc.hint} With --without-emergency-backup it is restored all the same, and that is lost.".strip()
            raise RestoreRefused(f"{source}: {exc.message}", hint=hint) from exc
        shown = [one for one in unread if self._touches(source, one)]
        self._notes += [f"{source}: no emergency backup of {_named(one)} ({one.reason})" for one in shown]
        self._notes += [f"{source}: {sentence}" for sentence in sentences]

    def _touches(self, source: str, unread: Unread) -> bool:
        if unread.collection is None:
            return True
        return self._changes.touched(f"{source}/{unread.collection}") is not None


def _named(unread: Unread) -> str:
    if unread.key is not None:
        return printed(unread.key)
    return unread.collection or "its state"
