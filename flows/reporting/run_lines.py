"""What a run writes into its log: a line each for what a person looks for, and one for each stage, with numbers.

In a flow run the lines are in Prefect's log; they are also Python's, for the command's `--verbose` and its JSON. Each
begins with the id of the backup that the run is about.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from blocks.host.log_lines import of_backup, without_secrets
from blocks.host.passwords import without_password
from blocks.plan.plan import BackupPlan
from blocks.prefect_compat import without_prefect
from blocks.records import BackupMetadata
from blocks.sources.target import RestoreMode
from blocks.verification import Axis, Verification
from flows.pipeline.prefect_compat import in_flow_run
from flows.pipeline.results import RestoreResult, RetentionResult
from flows.pipeline.run_log import stages
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes, human_seconds
from flows.reporting.wording import AXES, DEPTHS, OUTCOMES

logger = logging.getLogger(__name__)

_COUNTED = {
    "rows": "rows",
    "unread": "rows not read again",
    "written": "written",
    "deleted": "deleted",
    "parts": "parts",
    "blobs": "blobs",
    "backups": "backups",
    "leftovers": "leftovers",
}
"""What is counted of a stage, in words."""


def tell(lines: Iterable[str]) -> None:
    """Write lines into the log of the run that this is in: Prefect's, where there is one, and Python's."""
    # of several lines (an error of a server, say) each begins with the backup, so that none can be taken for another's
    said = [of_backup(one) for line in lines for one in without_secrets(line).splitlines()]
    for line in said:
        logger.info("%s", line)
    if without_prefect() or not in_flow_run():
        return
    from prefect.logging import get_run_logger  # there is Prefect where there is a run

    run = get_run_logger()
    for line in said:
        run.info("%s", line)


def stage_lines() -> list[str]:
    """Say what each stage of this run did, and how long it took: `collect: 41,203 rows, 12.4 MiB, 3.1 s`.

    Seconds are summed over the threads that a stage ran in.
    """
    return [f"{stage}: {_counted(counts, seconds)}" for stage, (counts, seconds) in stages().items()]


def _counted(counts: dict[str, int], seconds: float) -> str:
    said = [
        f"{counts[name]:,} {word.removesuffix('s') if counts[name] == 1 else word}"
        for name, word in _COUNTED.items()
        if name in counts
    ]
    size = [human_bytes(counts["size_bytes"])] if counts.get("size_bytes") else []
    return ", ".join([*said, *size, human_seconds(seconds)])


def result_lines(
    plan: BackupPlan, result: BackupMetadata | RestoreResult | Verification | RetentionResult
) -> list[str]:
    """Say what came of a run."""
    match result:
        case BackupMetadata():
            return backup_lines(plan, result)
        case Verification():
            return verification_lines(result)
        case RestoreResult():
            return restore_lines(result, plan)
        case RetentionResult():
            return retention_lines(plan, result)


def backup_lines(plan: BackupPlan, made: BackupMetadata) -> list[str]:
    """Say what a backup was made of, and where it is."""
    promoted = f" (asked for {made.requested_type.value}: {made.promoted_because})" if made.promoted_because else ""
    return [
        f"plan: {made.plan}, {made.backup_type.value} backup{promoted}",
        f"base: {made.base or 'none, it stands alone'}",
        f"rows: {made.rows:,}, of which {made.upserts:,} written and {made.tombstones:,} deleted",
        f"bytes: {human_bytes(made.size_bytes)}, stored {human_bytes(made.size_stored)}",
        f"place: {without_password(plan.repository.url)}",
        *(f"suspicious: {sentence}" for sentence in made.suspicions),
        f"took: {human_seconds(made.backup_duration_seconds)}",
    ]


def restore_lines(result: RestoreResult, plan: BackupPlan) -> list[str]:
    """Say what a restore, or its preview, did; its places are named."""
    preview = result.mode is RestoreMode.PREVIEW
    counts = [
        f"{sum(getattr(c, kind) or 0 for c in result.collections):,} {word}"
        for kind, word in (("added", "to add"), ("changed", "to change"), ("removed", "to remove"))
    ]
    return [
        f"plan: {result.plan}, {result.mode.value}, state as of {local_time(result.timestamp)}",
        f"before it: {result.rescue_id or ('nothing is written' if preview else 'no backup was made')}",
        f"rows: {result.rows:,}" + (f", {', '.join(counts)}" if preview else " restored"),
        *(f"place: {source} at {place}" for source, place in named_places(plan, result).items()),
        f"took: {human_seconds(result.seconds)}",
    ]


def named_places(plan: BackupPlan, result: RestoreResult) -> dict[str, str]:
    """Return where each source was restored, live places by their names."""
    return {
        source: f"live, {plan.sources[source].location().shown}" if place == "live" else place
        for source, place in result.places.items()
    }


def verification_lines(result: Verification) -> list[str]:
    """Say what a verification came to, on each axis, and what it found."""
    restored = f", the restore {human_seconds(result.restore_seconds)}" if result.restore_seconds is not None else ""
    return [
        f"plan: {result.plan}, {'deep' if result.deep else 'quick'} verification: {result.status.value}",
        *(f"{AXES[axis]}: {_proved(result, axis)}" for axis in Axis if axis.value in result.results),
        f"rows: {result.rows:,} compared, {result.expectations:,} expectations",
        *(f"found: {finding}" for finding in result.findings),
        *([f"place: {result.place}"] if result.place else []),
        f"took: {human_seconds(result.seconds)}{restored}",
    ]


def _proved(result: Verification, axis: Axis) -> str:
    one = result.results[axis.value]
    depth = DEPTHS.get(one.depth, one.depth)
    return f"{OUTCOMES[one.outcome]}{depth and f', {depth}'}"


def retention_lines(plan: BackupPlan, result: RetentionResult) -> list[str]:
    """Say what retention removed, or would remove."""
    gone, would = result.removed, " would be" if result.dry_run else ""
    return [
        f"plan: {result.plan}, {len(result.decisions)} backups, {len(gone)}{would} removed",
        f"bytes: {human_bytes(sum(d.size_stored for d in gone))}{would} removed",
        f"place: {without_password(plan.repository.url)}",
    ]
