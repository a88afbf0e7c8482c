"""Opening a backup: the lease, the base, a view of every source, and then the type that it can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

from blocks.errors import LastgoodError, SourceUnavailable, TemporaryFolderUnusable, UnsupportedState
from blocks.host.log_lines import working_on
from blocks.plan.hooked_run import HookedRun
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import Repository
from blocks.sources.source import StateSource
from blocks.sources.view import Estimating, View
from blocks.telemetry.recorder import recorder
from flows.pipeline.attempt import BackupAttempt, Rehearsal
from flows.pipeline.base_selection import find_base, other_source, schema_change, tokens
from flows.pipeline.chain import Chain
from flows.pipeline.context import BackupContext
from flows.pipeline.doubts import doubt_of_backup, others
from flows.pipeline.executor import ended_in_good_order, retried
from flows.pipeline.past import Past
from flows.pipeline.progress import Progress, doing, expect


@contextmanager
def open_backup(
    plan: BackupPlan,
    kind: BackupType,
    tags: Sequence[str] = (),
    wait_seconds: float = 0,
    progress: Progress | None = None,
    hooks: HookedRun | None = None,
) -> Iterator[BackupAttempt]:
    """Take the plan's lease, open a view of every source, and begin the attempt that type and base make possible.

    Args:
        plan: The plan to back up.
        kind: The wanted type; one that needs a base and finds none becomes a full one, and says so.
        tags: Words that the manifest keeps.
        wait_seconds: How long to wait for another run on the same plan.
        progress: Told of what is done before there are parts, and how large they are.
        hooks: What runs before and after; nothing where it is left out.

    Raises:
        RepositoryLocked: Another run holds the lease.
        SourceUnavailable: A source cannot be read, or a hook before failed; nothing was written.
        UnsupportedState: A source holds what cannot be kept exactly; nothing was written.
        Partial: The backup is made, but a hook after it failed.
    """
    repository = plan.repository.unlock(plan.encryption)
    with (
        ended_in_good_order(),
        repository.lease(plan.name, f"{kind.value} backup", wait_seconds, kind=kind) as lease,
    ):
        if lease.record.backup_id:
            working_on(lease.record.backup_id)
        # before hooks, which may take long
        storage, stock = repository.storage_time(lease), repository.stock(plan.name, lease)
        past = Past(repository, plan.name, stock)
        doubt = doubt_of_backup(plan, repository, past, datetime.now(UTC), storage)
        with _hooked(hooks), ExitStack() as opened:
            base, because = find_base(repository, plan.name, kind, stock)
            views = _views(opened, plan, tokens(base, kind), progress)
            context = BackupContext(
                plan, repository, lease, views, kind, tuple(tags), doubt, progress=progress, lineage=past.lineage
            )
            for name, sentence in others(past, context.identities):
                context.notes.warn(name, [f"{sentence[0].upper()}{sentence[1:]}."])
            base, because = _fitting(context, base, because)
            if base is None:
                expect(progress, _size_before(repository, past) or _size_now(context))
            attempt = BackupAttempt(context, base, because, drawn=lease.record.backup_id)
            working_on(attempt.backup_id)
            yield attempt


@contextmanager
def open_rehearsal(plan: BackupPlan, kind: BackupType, progress: Progress | None = None) -> Iterator[Rehearsal]:
    """Open a view of every source, and begin what a backup would begin, without a lease: nothing is written.

    Hooks do not run, and the clock is not looked at.

    Args:
        plan: The plan.
        kind: The wanted type; one that needs a base and finds none becomes a full one, and says so.
        progress: Told what is done.

    Raises:
        SourceUnavailable: A source cannot be read.
        UnsupportedState: A source holds what cannot be kept exactly.
    """
    repository = plan.repository.unlock(plan.encryption)
    with ended_in_good_order(), ExitStack() as opened:
        stock = repository.stock(plan.name)
        base, because = find_base(repository, plan.name, kind, stock)
        views = _views(opened, plan, tokens(base, kind), progress)
        context = BackupContext(plan, repository, None, views, kind, progress=progress)
        base, because = _fitting(context, base, because)
        yield Rehearsal(context, base, because)


@contextmanager
def _hooked(hooks: HookedRun | None) -> Iterator[None]:
    if hooks is None:
        yield
        return
    with hooks.around_verb(), hooks.around_reading():
        yield


def _fitting(context: BackupContext, base: Chain | None, because: str | None) -> tuple[Chain | None, str | None]:
    """Return the base where it fits what the sources are now; else None, and why not."""
    if base is None:
        return None, because
    if other := other_source(base.target, context.identities):
        return None, other
    if changed := schema_change(base.target, context.specs):
        return None, changed
    if grown := context.needs_repartition(base):
        return None, f"a part of {grown} has outgrown its bounds"
    return base, because


def _views(opened: ExitStack, plan: BackupPlan, since: Mapping[str, str], progress: Progress | None) -> dict[str, View]:
    views = {}
    for name, source in plan.sources.items():
        doing(progress, f"opening {name}")
        views[name] = retried(partial(_open_view, opened, name, source, since.get(name)), retries=2)
    return views


def _size_before(repository: Repository, past: Past) -> int:
    """Return the size in bytes of the state that the newest backup holds, as its full had it; 0 where there is none."""
    newest = past.newest
    if newest is None or not newest.chain:
        return newest.size_bytes if newest is not None else 0
    try:
        return repository.manifest(newest.plan, newest.chain[0].backup_id).size_bytes
    except LastgoodError:  # it is only for what is shown
        return 0


def _size_now(context: BackupContext) -> int:
    """Return about how large all is that the sources hold, in bytes; 0 where one cannot say it, or not all is taken."""
    if not context.whole:
        return 0
    try:
        sizes = [view.estimated_bytes() if isinstance(view, Estimating) else None for view in context.views.values()]
    except LastgoodError:  # it is only for what is shown: who reads it will say what is wrong
        return 0
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else 0


def _open_view(opened: ExitStack, name: str, source: StateSource, since: str | None) -> View:
    try:
        return opened.enter_context(source.view(since))
    except (SourceUnavailable, UnsupportedState, TemporaryFolderUnusable) as exc:
        if (recorded := recorder()) is not None:
            recorded.read_failed(name)
        raise type(exc)(f"source {name}: {exc.message}", hint=exc.hint) from exc
    except Exception as exc:
        exc.add_note(f"source {name} raised it when it was opened")  # what is no error of ours does not say that
        raise
