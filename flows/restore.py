"""The restore flow: find, then fetch → decrypt → decompress → merge → denormalize → apply for each part."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from blocks.errors import RepositoryUnavailable
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.host.log_lines import working_on
from blocks.plan.hooked_run import HookedRun
from blocks.plan.plan import BackupPlan, load_plan
from blocks.repository.block import Repository
from blocks.repository.lease import Lease
from blocks.repository.lookup import LATEST
from blocks.repository.restore_memory import RestoreMemory
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import run_alone
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.executor import BoundedWindow, Outcome, StageExecutor, open_executor
from flows.pipeline.prefect_compat import CheckedFlow, stage_runner
from flows.pipeline.progress import Progress, doing, expect
from flows.pipeline.results import RestoreResult
from flows.pipeline.run_names import named
from flows.reporting.artifacts import publish_restore, with_places
from flows.reporting.hooked import hooked
from flows.reporting.lifecycle import Verb, logged, operation
from flows.reporting.run_lines import restore_lines, stage_lines, tell
from flows.restoring.approval import approval_span, restore_when_approved
from flows.restoring.change_list import ChangeList
from flows.restoring.form import ALL, NONE_IS_ALL, headed
from flows.restoring.keys import check_keys
from flows.restoring.known_bad import known_against
from flows.restoring.not_rebuilt import check_whole, left_out
from flows.restoring.origin import Origin, marks_of
from flows.restoring.other_place import (
    VARIABLE_ONLY,
    WITHOUT_PASSWORD,
    check_parameters,
    restoring_to,
    variables_of,
    without_roles,
)
from flows.restoring.places import settle_places
from flows.restoring.point_in_time import checked_moment
from flows.restoring.pre_restore_backup import PreRestoreBackupMaker
from flows.restoring.preview import preview_restore
from flows.restoring.request import RestoreRequest
from flows.restoring.samples import MOST_RECORDS, Sampling
from flows.restoring.targets import Targets, explained, open_targets
from flows.restoring.undo import Undo
from flows.stages.collect import apply
from flows.stages.compress import decompress
from flows.stages.diff import merge
from flows.stages.encrypt import decrypt
from flows.stages.normalize import denormalize
from flows.stages.record import find
from flows.stages.store import fetch

WAIT_SECONDS = 60.0
"""How long a restore in place waits for a running backup of the same plan to end."""


@partial(
    CheckedFlow,
    check=check_parameters,
    name="restore",
    flow_run_name=named("restore {backup} of {plan}"),
    task_runner=stage_runner,
    persist_result=False,
)
def restore(  # noqa: PLR0913  the parameters are the fields of the form in the Prefect UI
    plan: Annotated[str, headed("Plan")],
    backup: Annotated[str, headed("Backup")] = LATEST,
    at: Annotated[datetime | None, headed("As of")] = None,
    mode: Annotated[RestoreMode, headed("Mode")] = RestoreMode.PREVIEW,
    collections: Annotated[list[str], NONE_IS_ALL, headed("Collections")] = ALL,
    keys: Annotated[list[str], NONE_IS_ALL, headed("Keys")] = ALL,
    approve: Annotated[bool, headed("Wait for an approval")] = False,
    approve_within: Annotated[str, headed("Wait for at most")] = "24h",
    to: Annotated[str | None, headed("To another place", **WITHOUT_PASSWORD)] = None,
    to_password_env: Annotated[str | None, headed("Variable with its password", **VARIABLE_ONLY)] = None,
    overwrite: Annotated[bool, headed("Replace what is there")] = False,
    without_emergency_backup: Annotated[bool, headed("Without a backup of live state")] = False,
    adopt: Annotated[bool, headed("Adopt the live place")] = False,
    keep_going: Annotated[bool, headed("Keep going")] = False,
    no_owner: Annotated[bool, headed("Without owners")] = False,
    no_privileges: Annotated[bool, headed("Without privileges")] = False,
) -> RestoreResult:
    """Restore a backup: all of it, some collections, or single keys; to the live place or to another one.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        backup: Id of the backup, `latest`, or `latest verified`: the newest that was really restored and found good.
        at: Restore the newest backup made at or before this time instead; without a zone it is local time.
        mode: `preview` writes nothing, `merge` puts the backup's rows, `exact` also removes all others.
        collections: Globs over full names such as `ledger/orders`; none means all.
        keys: Globs over keys such as `position:*`; none means all.
        approve: Publish the preview, and wait until a person has approved it. The plan may ask for that always.
        approve_within: After how long without an answer, such as `24h`, the run ends, and nothing was written.
        to: Another place than the live one: of the source's kind, or a folder where several sources are restored.
        to_password_env: Environment variable that holds the password of that place, or `none`; the source's own one is
            sent to no other server.
        overwrite: Replace what is at another place. What goes is counted first, and kept aside where it can be.
        without_emergency_backup: Overwrite live state without backing it up first. It cannot be had back.
        adopt: Write to the live place also where it is another one than that of the backup, and not empty.
        keep_going: Leave out what cannot be rebuilt (a constraint that rows break, say), name it, and end as failed.
        no_owner: PostgreSQL: what is made belongs to the role that restores; owners of the backup need not exist.
        no_privileges: PostgreSQL: bring back no privileges, and no policies for named roles.
    """
    wanted = RestoreRequest(
        backup,
        at=at,
        selection=Selection(tuple(collections or ()), tuple(keys or ())),
        to=to,
        to_password_env=to_password_env,
        mode=mode,
        overwrite=overwrite,
        without_emergency_backup=without_emergency_backup,
        keep_going=keep_going,
        no_owner=no_owner,
        no_privileges=no_privileges,
        adopt=adopt,
    )
    seconds = approval_span(approve_within)
    loaded = load_plan(plan)
    if not wanted.preview and (approve or loaded.approve_restores):
        asked = replace(wanted, sampling=Sampling(MOST_RECORDS, tuple(loaded.preview_values)))

        def restoring(preview: bool, backup_id: str | None) -> RestoreResult:
            settled = asked if backup_id is None else replace(asked, backup=backup_id, at=None)
            done = run_restore(loaded, replace(settled, preview=preview))
            return with_places(loaded, done) if preview else done

        result = restore_when_approved(restoring, seconds, kept=not without_emergency_backup)
    else:
        result = run_restore(loaded, wanted)
    named_places = with_places(loaded, result)
    publish_restore(named_places, plan)
    return check_whole(result)


def make_restore(
    plan: BackupPlan, wanted: RestoreRequest, progress: Progress | None = None, undo: Undo | None = None
) -> RestoreResult:
    """Restore, inside a flow run or without any Prefect server.

    Args:
        plan: The plan, read and resolved.
        wanted: What is to be restored, where to, and how.
        progress: Shown as parts are done.
        undo: The restore that this one takes back.

    Raises:
        BackupNotFound: There is no such backup, or it holds nothing of something that was asked for.
        RestoreRefused: The restore would do harm; nothing was written.
        ConfigurationError: The time is in the future, or a password stands in the place.
        Partial: It failed after something was changed; says what, and how to take that back.
        RestoredInPart: It kept going where objects could not be rebuilt, and has left them out.
    """
    return check_whole(run_restore(plan, wanted, progress, undo))


def run_restore(
    plan: BackupPlan, wanted: RestoreRequest, progress: Progress | None = None, undo: Undo | None = None
) -> RestoreResult:
    """Restore as `make_restore` does, but give back also what was restored in part."""
    if wanted.preview:
        with logged(plan, Verb.RESTORE):
            result = _restored(plan, wanted, progress, undo)
            tell([*restore_lines(result, plan), *stage_lines()])
            return result
    with operation(plan, Verb.RESTORE, wanted.mode.value) as run, hooked(run, wanted.mode.value) as hooks:
        run.result = _restored(plan, wanted, progress, undo, hooks)
        run.backup_id, run.shortfall = run.result.backup_id, left_out(run.result)
        return run.result


def _restored(
    plan: BackupPlan,
    wanted: RestoreRequest,
    progress: Progress | None,
    undo: Undo | None,
    hooks: HookedRun | None = None,
) -> RestoreResult:
    at = checked_moment(wanted.at, datetime.now(UTC))
    plan = without_roles(restoring_to(plan, wanted.to, wanted.to_password_env), wanted)
    started = time.monotonic()
    remove_abandoned_scratch()
    plan = settle_places(plan)
    repository = plan.repository.unlock(plan.encryption)
    with open_executor() as executor:
        found = executor.submit(find, repository, plan.name, wanted.backup, at)
        chain: Chain = found.result()
        working_on(chain.target.backup_id)
        chain.open_data(plan.sources)
        if undo is None:
            check_keys(plan, chain, wanted.selection)
        changes = ChangeList(plan, chain, wanted)
        changes.notes += known_against(repository, chain.target, said=wanted.preview)
        if wanted.preview:
            return preview_restore(changes, started, undo.added_keys(plan, chain) if undo else {})
        with (
            open_targets(changes) as targets,
            _kept_from_others(repository, targets) as lease,
            _hooked(hooks, targets),
            _taken_back(targets),
            _remembered(repository, targets),
            explained(targets),
        ):
            targets.hold()
            if lease is not None and not wanted.without_emergency_backup:
                origin = _origin(targets, undo.origin.selection if undo else wanted.selection)
                doing(progress, "backing up what is there now")
                PreRestoreBackupMaker(plan, repository, lease, targets, origin).make(executor, run_alone)
            _write(targets, executor, [found], undo, progress)
            if lease is not None:
                lease.check()
            doing(progress, "putting what is restored into place")
            targets.commit()
            targets.write_scripts()
            result = targets.result(started)
            if hooks is not None:
                hooks.found = left_out(result)
            return result


def _origin(targets: Targets, selection: Selection) -> Origin:
    changes = targets.changes
    places = {name: marks_of(changes.plan.sources[name]) for name in targets.in_place}
    return Origin(changes.chain.target.backup_id, changes.wanted.mode, selection, places)


def _write(
    targets: Targets, executor: StageExecutor, after: list[Outcome], undo: Undo | None, progress: Progress | None
) -> None:
    changes = targets.changes
    targets.begin()
    parts = changes.chain.parts(changes.wanted.selection, changes.plan.sources)
    expect(progress, sum(part.size_bytes for part in parts if targets.takes(part)))
    run_restore_stages(
        changes.chain.parts(changes.wanted.selection, changes.plan.sources), targets, executor, after, progress
    )
    if undo is not None:
        undo.remove(changes.plan, changes.chain, targets)


def run_restore_stages(
    parts: Iterable[RestorePart],
    targets: Targets,
    executor: StageExecutor,
    after: list[Outcome],
    progress: Progress | None = None,
) -> None:
    """Run parts of a backup through the restore stages, a window of parts at a time."""
    window: BoundedWindow[RestorePart] = BoundedWindow(
        filter(targets.takes, parts), done=targets.done, progress=progress
    )
    for part in window:
        pieces = executor.submit(fetch, part, after=after)
        packed = executor.submit(decrypt, part, pieces)
        changes = executor.submit(decompress, part, packed)
        merged = executor.submit(merge, part, changes)
        rows = executor.submit(denormalize, part, merged)
        applied = executor.submit(apply, part, targets.of(part), rows)
        window.follow(part, pieces, packed, changes, merged, rows, applied)


@contextmanager
def _kept_from_others(repository: Repository, targets: Targets) -> Iterator[Lease | None]:
    """Hold the plan's lease while live state is written, so that no backup records a half restored one."""
    with ExitStack() as held:
        lease = None
        if targets.in_place:
            try:
                lease = held.enter_context(repository.lease(targets.changes.plan.name, "restore", WAIT_SECONDS))
            except RepositoryUnavailable as exc:
                if not targets.changes.wanted.without_emergency_backup:
                    raise RepositoryUnavailable(exc.message, hint=f"{exc.hint} {_WITHOUT}".strip()) from exc
                targets.notes.append(f"other runs are not kept away: {exc.message}")
        yield lease


@contextmanager
def _hooked(hooks: HookedRun | None, targets: Targets) -> Iterator[None]:
    """Run hooks before anything is written, its backup included, and when all is written or taken back."""
    if hooks is None:
        yield
        return
    hooks.made(targets.changes.chain.target)
    hooks.keep_from(variables_of(targets.changes.wanted.to, targets.changes.wanted.to_password_env))
    hooks.context.place = "live" if targets.in_place else "other"
    with hooks.around_verb():
        yield


@contextmanager
def _taken_back(targets: Targets) -> Iterator[None]:
    """Take back what was written where the restore fails, while others are kept away: it is live state, too."""
    try:
        yield
    except BaseException:
        targets.abort()
        raise


_WITHOUT = "--without-emergency-backup restores all the same; what is there now cannot be had back then."


@contextmanager
def _remembered(repository: Repository, targets: Targets) -> Iterator[None]:
    """Remember what an undo has to know: that nothing was changed, or that it was without a backup."""
    memory = RestoreMemory(repository.repository_id, targets.changes.plan.name)
    try:
        yield
    finally:
        made = targets.pre_restore_backup.backup_id if targets.pre_restore_backup is not None else None
        if made is None and targets.in_place and targets.changed:
            memory.remember_without_backup()
        elif made is not None and not targets.changed:
            memory.remember(made)
