"""A restore that a person approves: previewed, published, paused, and only then made."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import Field, TypeAdapter, ValidationError

from blocks.errors import BackupNotFound, ConfigurationError, RestoreRefused
from blocks.plan.durations import Duration
from blocks.prefect_compat import without_prefect
from flows.pipeline.prefect_compat import in_flow_run
from flows.pipeline.results import Approved, CollectionResult, RestoreResult
from flows.reporting.approval_markdown import summary
from flows.reporting.artifacts import publish_approval
from flows.restoring.not_rebuilt import RestoredInPart

POLL_SECONDS = 3
"""How often it is looked whether somebody has answered."""

Restoring = Callable[[bool, str | None], RestoreResult]
"""Previews (True) or makes a restore: of the backup that was previewed, by its id, once there is one."""

if TYPE_CHECKING or not without_prefect():  # nothing waits where there is no Prefect
    from prefect.context import FlowRunContext
    from prefect.exceptions import FlowPauseTimeout
    from prefect.flow_runs import pause_flow_run
    from prefect.input import RunInput

    class Approval(RunInput):
        """Whether a restore may be made."""

        approve: bool = Field(
            title="Approve",
            description="On: it is restored as previewed. Off: nothing is written, and the run ends.",
        )
        note: str = Field(default="", title="Note", description="Why; it is kept with the restore.")
        by: str = Field(default="", title="Your name", description="Kept with the restore; the server knows no users.")


def approval_span(within: str) -> float:
    """Return how many seconds a restore waits for an approval.

    Raises:
        ConfigurationError: That is no span of time, such as 24h.
    """
    try:
        return TypeAdapter(Duration).validate_python(within).total_seconds()
    except ValidationError as exc:
        raise ConfigurationError(
            f"approve_within {within!r}: {exc.errors()[0]['msg']}", hint="Write a span of time such as 24h or 30m."
        ) from exc


def restore_when_approved(restoring: Restoring, seconds: float, kept: bool) -> RestoreResult:
    """Preview a restore, wait for a person, and make it.

    Args:
        restoring: Restores, or previews; of a preview there are samples.
        seconds: How long to wait.
        kept: Whether what is there now is backed up before the restore.

    Raises:
        RestoreRefused: It was rejected, or nobody answered in time; nothing was written.
        BackupNotFound: The backup that was previewed is gone; nothing was written.
        ConfigurationError: This is no flow run, which is what can wait.
    """
    if not in_flow_run():
        raise ConfigurationError(
            "only a run in Prefect can wait for an approval", hint="Restore without `approve`, or as a flow run."
        )
    preview = restoring(True, None)
    publish_approval(preview, kept)
    approved = _wait(preview, seconds)
    try:
        again = restoring(True, preview.backup_id)
    except BackupNotFound as exc:
        raise BackupNotFound(
            f"backup {preview.backup_id}, which was previewed and approved, is not there any more",
            hint="Nothing was written. Restore another one.",
        ) from exc
    since = changed_since(preview.collections, again.collections)

    def told(result: RestoreResult) -> RestoreResult:
        return result.model_copy(update={"approved": approved, "notes": [*since, *result.notes]})

    try:
        return told(restoring(False, preview.backup_id))
    except RestoredInPart as exc:
        exc.result = told(exc.result)
        raise


def changed_since(then: list[CollectionResult], now: list[CollectionResult]) -> list[str]:
    """Say of which collections the live state is another one than when they were previewed."""
    before = {one.collection: one for one in then}
    names = dict.fromkeys([*before, *(one.collection for one in now)])
    after = {one.collection: one for one in now}
    return [
        f"{name} was written to between preview and restore: {_counts(before.get(name))} then, "
        f"{_counts(after.get(name))} when it was approved"
        for name in names
        if before.get(name) != after.get(name) and _state(before.get(name)) != _state(after.get(name))
    ]


def _state(one: CollectionResult | None) -> tuple[object, ...]:
    return () if one is None else (one.live, one.added, one.changed, one.removed)


def _counts(one: CollectionResult | None) -> str:
    if one is None:
        return "not there"
    return f"{one.added or 0:,} to add, {one.changed or 0:,} to change, {one.removed or 0:,} to remove"


def _wait(preview: RestoreResult, seconds: float) -> Approved:
    context = FlowRunContext.get()
    run = context.flow_run.name if context is not None and context.flow_run is not None else ""
    form = Approval.with_initial_data(description=summary(preview))
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=math.ceil(seconds), poll_interval=POLL_SECONDS)
    except FlowPauseTimeout as exc:
        raise RestoreRefused(
            f"nobody approved the restore of {preview.backup_id} within {_span(seconds)}; nothing was written",
            hint="Start it again, or let it wait longer with `approve_within`.",
        ) from exc
    said = Approved(by=answer.by or "somebody in the Prefect UI", at=datetime.now(UTC), note=answer.note)
    if not answer.approve:
        because = f": {said.note}" if said.note else ""
        raise RestoreRefused(
            f"the restore of {preview.backup_id} was rejected by {said.by}{because}; nothing was written",
            hint=f"The preview is an artifact of the run {run}." if run else "",
        )
    return said


def _span(seconds: float) -> str:
    return f"{seconds / 3600:g} hours" if seconds >= 3600 else f"{seconds:g} seconds"
