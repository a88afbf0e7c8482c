"""The undo flow: take back the last restore in place, from the backup that was made before it."""

from __future__ import annotations

from dataclasses import replace

from blocks.errors import RestoreRefused
from blocks.plan.plan import BackupPlan, load_plan
from flows.pipeline.prefect_compat import flow, stage_runner
from flows.pipeline.progress import Progress
from flows.pipeline.results import RestoreResult
from flows.pipeline.run_names import named
from flows.reporting.artifacts import publish_restore, with_places
from flows.reporting.moments import local_time
from flows.restore import WAIT_SECONDS, run_restore
from flows.restoring.absent import put_away_absent
from flows.restoring.approval import approval_span, restore_when_approved
from flows.restoring.not_rebuilt import RestoredInPart, check_whole
from flows.restoring.places import settle_places
from flows.restoring.samples import MOST_RECORDS, NO_SAMPLES, Sampling
from flows.restoring.undo import find_undo


@flow(
    name="undo",
    flow_run_name=named("undo restore of {plan}"),
    task_runner=stage_runner,
    persist_result=False,
)
def undo(  # noqa: PLR0913  the parameters are the fields of the form in the Prefect UI
    plan: str,
    preview: bool = False,
    without_emergency_backup: bool = False,
    of: str | None = None,
    keep_going: bool = False,
    adopt: bool = False,
    approve: bool = False,
    approve_within: str = "24h",
) -> RestoreResult:
    """Take back the last restore in place of a plan. An undo is such a restore itself, and can be taken back.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        preview: Write nothing; say what would be done.
        without_emergency_backup: Overwrite live state without backing it up first. It cannot be had back.
        of: Id of the emergency backup that a preview named: refuse where another restore came after it.
        keep_going: Leave out what cannot be rebuilt, name it, and end as failed.
        adopt: Write to the live place also where it is another one by now, and not empty.
        approve: Publish the preview, and wait until a person has approved it. The plan may ask for that always.
        approve_within: How long to wait for that, such as `24h`; then the run ends, and nothing was written.
    """
    seconds = approval_span(approve_within)
    loaded = load_plan(plan)

    def undoing(preview: bool, backup_id: str | None = None) -> RestoreResult:
        done = make_undo(
            loaded,
            preview,
            without_emergency_backup=without_emergency_backup,
            of=backup_id or of,
            keep_going=keep_going,
            adopt=adopt,
            sampling=Sampling(MOST_RECORDS, tuple(loaded.preview_values)),
        )
        return with_places(loaded, done) if preview else done

    try:
        if not preview and (approve or loaded.approve_restores):
            result = restore_when_approved(undoing, seconds, kept=not without_emergency_backup)
        else:
            result = undoing(preview)
    except RestoredInPart as exc:
        publish_restore(with_places(loaded, exc.result), plan)
        raise
    named_places = with_places(loaded, result)
    publish_restore(named_places, plan)
    return result


def make_undo(  # noqa: PLR0913  what a person says in one command
    plan: BackupPlan,
    preview: bool = False,
    progress: Progress | None = None,
    *,
    without_emergency_backup: bool = False,
    of: str | None = None,
    keep_going: bool = False,
    adopt: bool = False,
    sampling: Sampling = NO_SAMPLES,
) -> RestoreResult:
    """Take back the last restore in place, inside a flow run or without any Prefect server.

    Args:
        plan: The plan, read and resolved.
        preview: Whether to report what would be done, and write nothing.
        progress: Shown as parts are done.
        without_emergency_backup: Do without the backup of live state, which an undo of this undo would need.
        of: Id of the emergency backup that a preview named.
        keep_going: Whether what cannot be rebuilt is left out, and named, instead of failing the undo.
        adopt: Whether a live place may be written that is another one by now, and not empty.
        sampling: Which records a preview shows.

    Raises:
        BackupNotFound: There is no restore that could be taken back.
        RestoreRefused: It is not the one that was previewed.
        RestoredInPart: It kept going where objects could not be rebuilt, and has left them out.
    """
    repository = plan.repository.unlock(plan.encryption)
    found = find_undo(plan, repository)
    if of is not None and of != found.before.backup_id:
        raise RestoreRefused(
            f"another restore of plan {plan.name} was made meanwhile; nothing was written",
            hint=f"Look at it first: `lastgood undo {plan.name} --preview`.",
        )
    wanted = replace(
        found.request(preview, without_emergency_backup), keep_going=keep_going, adopt=adopt, sampling=sampling
    )
    result = run_restore(plan, wanted, progress, found)
    notes = list(result.notes)
    if found.origin.absent and not preview:
        with repository.lease(plan.name, "undo", WAIT_SECONDS):
            notes += put_away_absent(settle_places(plan), repository, found.origin)
    taken_back = f"this takes back the restore of {found.origin.restored} at {local_time(found.before.timestamp)}"
    return check_whole(result.model_copy(update={"notes": [taken_back, *notes]}))
