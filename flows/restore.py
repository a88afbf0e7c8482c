"""The restore flow: find, then fetch → decrypt → decompress → merge → denormalize → apply for each part."""

from __future__ import annotations

import time
from datetime import datetime

from blocks.plan import BackupPlan, load_plan
from blocks.selection import Selection
from blocks.sources.base import RestoreMode
from flows.chain import Chain
from flows.engine import flow, stage_runner
from flows.line import Line, Outcome, Window, open_line
from flows.naming import named
from flows.parcel import RestorePart
from flows.preview import preview_restore
from flows.progress import Progress
from flows.report import publish_restore
from flows.rescue import rescue_live_state
from flows.results import RestoreResult
from flows.stages.collect import apply
from flows.stages.compress import decompress
from flows.stages.diff import merge
from flows.stages.encrypt import decrypt
from flows.stages.normalize import denormalize
from flows.stages.record import find
from flows.stages.store import fetch
from flows.targets import Targets, open_targets


@flow(name="restore", flow_run_name=named("restore {backup} of {plan}"), task_runner=stage_runner, persist_result=False)
def restore(
    plan: str,
    backup: str = "latest",
    at: datetime | None = None,
    collections: list[str] | None = None,
    keys: list[str] | None = None,
    to: str | None = None,
    mode: RestoreMode = RestoreMode.PREVIEW,
) -> RestoreResult:
    """Restore a backup: all of it, some collections, or single keys; to the live place or to another one.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        backup: Id of the backup, or `latest`.
        at: Restore the newest backup made at or before this time instead.
        collections: Globs over full names such as `ledger/orders`; none means all.
        keys: Globs over keys such as `position:*`; none means all.
        to: Another place than the live one: of the source's kind, or a folder where several sources are restored.
        mode: `preview` writes nothing, `merge` puts the backup's rows, `exact` also removes all others.
    """
    selection = Selection(tuple(collections or ()), tuple(keys or ()))
    result = make_restore(load_plan(plan), backup, at, selection, to, mode)
    publish_restore(result)
    return result


def make_restore(
    plan: BackupPlan,
    backup: str = "latest",
    at: datetime | None = None,
    selection: Selection = Selection(),  # noqa: B008  frozen
    to: str | None = None,
    mode: RestoreMode = RestoreMode.PREVIEW,
    progress: Progress | None = None,
) -> RestoreResult:
    """Restore, inside a flow run or without any Prefect server.

    Raises:
        BackupNotFound: There is no such backup, or it holds nothing that was asked for.
        RestoreRefused: The restore would do harm; nothing was written.
    """
    started = time.monotonic()
    repository = plan.repository.unlock(plan.encryption)
    with open_line() as line:
        found = line.submit(find, repository, plan.name, backup, at)
        chain: Chain = found.result()
        chain.open_data(plan.sources)
        if mode is RestoreMode.PREVIEW:
            return preview_restore(plan, chain, selection, to, started)
        with open_targets(plan, chain, selection, to, mode) as targets:
            if to is None:
                targets.rescue = rescue_live_state(plan, targets.sources)
            targets.begin()
            send_up(chain, selection, targets, line, [found], progress)
            targets.commit()
            return targets.result(started)


def send_up(
    chain: Chain,
    selection: Selection,
    targets: Targets,
    line: Line,
    after: list[Outcome],
    progress: Progress | None = None,
) -> None:
    """Send every selected part of a backup up the stages, a window of parts at a time."""
    window: Window[RestorePart] = Window(chain.parts(selection), done=targets.done, progress=progress)
    for part in window:
        pieces = line.submit(fetch, part, after=after)
        packed = line.submit(decrypt, part, pieces)
        changes = line.submit(decompress, part, packed)
        merged = line.submit(merge, part, changes)
        rows = line.submit(denormalize, part, merged)
        applied = line.submit(apply, part, targets.of(part), rows)
        window.follow(part, pieces, packed, changes, merged, rows, applied)
