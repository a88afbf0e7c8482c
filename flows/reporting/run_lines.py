"""What a run writes into its log in the Prefect UI of what it did: a line each for what a person looks for."""

from __future__ import annotations

from blocks.host.passwords import without_password
from blocks.plan.plan import BackupPlan
from blocks.prefect_compat import without_prefect
from blocks.records import BackupMetadata
from blocks.sources.target import RestoreMode
from flows.pipeline.prefect_compat import in_flow_run
from flows.pipeline.results import RestoreResult, RetentionResult
from flows.pipeline.run_log import stage_seconds
from flows.reporting.units import human_bytes, human_seconds, human_time


def tell(lines: list[str]) -> None:
    """Write lines into the log of the run that this is in; outside of one, nothing."""
    if without_prefect() or not in_flow_run():
        return
    from prefect.logging import get_run_logger  # there is Prefect where there is a run

    logger = get_run_logger()
    for line in lines:
        logger.info(line)


def backup_lines(plan: BackupPlan, made: BackupMetadata) -> list[str]:
    """Say what a backup was made of, and where it is."""
    promoted = f" (asked for {made.requested_type.value}: {made.promoted_because})" if made.promoted_because else ""
    return [
        f"plan: {made.plan}, {made.backup_type.value} backup {made.backup_id}{promoted}",
        f"base: {made.base or 'none, it stands alone'}",
        f"rows: {made.rows:,}, of which {made.upserts:,} written and {made.tombstones:,} deleted",
        f"bytes: {human_bytes(made.size_bytes)}, stored {human_bytes(made.size_stored)}",
        f"place: {without_password(plan.repository.url)}",
        *(f"suspicious: {sentence}" for sentence in made.suspicions),
        *_seconds(made.backup_duration_seconds),
    ]


def restore_lines(result: RestoreResult) -> list[str]:
    """Say what a restore, or its preview, did; its places are named."""
    preview = result.mode is RestoreMode.PREVIEW
    counts = [
        f"{sum(getattr(c, kind) or 0 for c in result.collections):,} {word}"
        for kind, word in (("added", "to add"), ("changed", "to change"), ("removed", "to remove"))
    ]
    return [
        f"plan: {result.plan}, {result.mode.value} of {result.backup_id}, state as of {human_time(result.timestamp)}",
        f"before it: {result.rescue_id or ('nothing is written' if preview else 'no backup was made')}",
        f"rows: {result.rows:,}" + (f", {', '.join(counts)}" if preview else " restored"),
        *(f"place: {source} at {place}" for source, place in result.places.items()),
        *_seconds(result.seconds),
    ]


def retention_lines(plan: BackupPlan, result: RetentionResult) -> list[str]:
    """Say what retention removed, or would remove."""
    gone, would = result.removed, " would be" if result.dry_run else ""
    return [
        f"plan: {result.plan}, {len(result.decisions)} backups, {len(gone)}{would} removed",
        f"bytes: {human_bytes(sum(d.size_stored for d in gone))}{would} removed",
        f"place: {without_password(plan.repository.url)}",
    ]


def _seconds(total: float) -> list[str]:
    stages = stage_seconds()
    return [f"took: {human_seconds(total)}" + (f"; seconds by stage: {stages}" if stages else "")]
