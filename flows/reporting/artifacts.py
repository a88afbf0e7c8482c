"""What a run leaves in the Prefect UI: artifacts with its numbers. Outside of a flow run, nothing."""

from __future__ import annotations

import logging
import shlex
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.host.passwords import without_password
from blocks.plan.plan import BackupPlan
from blocks.prefect_compat import without_prefect
from blocks.records import BackupMetadata
from blocks.verification import Verification
from flows.pipeline.prefect_compat import in_flow_run
from flows.pipeline.server_patience import published
from flows.reporting.approval_markdown import approval_markdown, approved_line
from flows.reporting.evidence import Evidence, plan_evidence
from flows.reporting.markdown import plain, table
from flows.reporting.page_files import keep_page, keep_report, page_url
from flows.reporting.proof_page import proof_page
from flows.reporting.run_lines import named_places
from flows.reporting.units import human_bytes, human_seconds, human_time
from flows.reporting.verification_markdown import expectation_rows, verification_markdown

if TYPE_CHECKING:  # takes a while, and a backup has no use for it
    from flows.pipeline.results import RestoreResult, RetentionResult

if TYPE_CHECKING or not without_prefect():  # where there is no Prefect nothing is in a flow run either
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort
    from prefect.utilities.urls import url_for

logger = logging.getLogger(__name__)

SETTLE = (
    "Retention keeps the last good backup before it, whatever its age, until somebody says that this is right: "
    "`lastgood accept {made.plan} {made.backup_id}`."
)

MOST_ARTIFACTS = 200
"""How many summaries of a plan's backups are searched for that of a base; the API gives no more at once."""


def _key(*words: str) -> str:
    return "-".join(words).lower().replace("_", "-").replace(".", "-")


def publish_backup(made: BackupMetadata, plan: BackupPlan) -> None:
    """Publish a summary of a backup, a table of its collections, and a link to its base."""
    if not in_flow_run():
        return
    with published("the summary of the backup"):
        _publish_backup(made, without_password(plan.repository.url))


def _publish_backup(made: BackupMetadata, repository: str) -> None:
    create_markdown_artifact(
        key=_key("backup", made.plan), markdown=backup_markdown(made, repository), description=made.backup_id
    )
    create_table_artifact(
        key=_key("collections", made.plan),
        table=[
            {
                "collection": c.name,
                "rows": c.rows,
                "upserts": c.upserts,
                "tombstones": c.tombstones,
                "parts": len(c.parts),
                "stored bytes": sum(p.segment.stored_bytes for p in c.parts if p.segment),
            }
            for c in made.collections
        ],
        description=f"Collections of {made.backup_id}",
    )
    if made.base is not None:
        create_link_artifact(
            key=_key("base", made.plan),
            link=_page_of(made.plan, made.base),
            link_text=f"{made.backup_id} depends on {made.base}",
            description=f"The base of {made.backup_id}",
        )


def _page_of(plan: str, backup_id: str) -> str:
    """Return the page of the run that made a backup; where Prefect does not know it, that of the plan's backups."""
    key = _key("backup", plan)
    with get_client(sync_client=True) as client:
        published = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
            sort=ArtifactSort.CREATED_DESC,
            limit=MOST_ARTIFACTS,
            offset=0,
        )
    for artifact in published:
        if artifact.description == backup_id and artifact.flow_run_id is not None:
            return url_for("flow-run", obj_id=artifact.flow_run_id) or f"/runs/flow-run/{artifact.flow_run_id}"
    return f"/artifacts/key/{key}"


def backup_markdown(made: BackupMetadata, repository: str) -> str:
    """Describe a backup in Markdown; `repository` is where it is."""
    promoted = (
        f"\n> Asked for {made.requested_type.value}, made full: {plain(made.promoted_because)}\n"
        if made.promoted_because
        else ""
    )
    warnings = [f"- {plain(s.name)}: {plain(w)}" for s in made.sources for w in s.warnings]
    warnings += [f"- {made.clock_doubt}"] if made.clock_doubt else []
    ratio = made.size_bytes / made.size_stored if made.size_stored else 0
    lines = [
        f"# {made.backup_type.value.title()} backup `{made.backup_id}`",
        promoted,
        f"| plan | {made.plan} |",
        "|---|---|",
        f"| repository | {plain(repository)} |",
        f"| state as of | {human_time(made.timestamp)} |",
        f"| base | {made.base or 'none, it stands alone'} |",
        f"| rows | {made.rows:,} |",
        f"| changed | {made.upserts:,} upserts, {made.tombstones:,} tombstones |",
        f"| size | {human_bytes(made.size_bytes)} |",
        f"| stored | {human_bytes(made.size_stored)} ({ratio:.1f} : 1) |",
        f"| took | {human_seconds(made.backup_duration_seconds)} |",
        f"| key | {made.encryption_key_id} |",
    ]
    suspicions = [f"- {plain(sentence)}" for sentence in made.suspicions]
    lines += ["", "## Suspicious", *suspicions, "", SETTLE.format(made=made)] if suspicions else []
    return "\n".join(lines + (["", "## Warnings", *warnings] if warnings else []))


def publish_approval(preview: RestoreResult, kept: bool) -> None:
    """Publish the preview of a restore that waits for a person.

    Args:
        preview: The preview, with samples.
        kept: Whether what is there now is backed up before the restore.
    """
    create_markdown_artifact(
        key=_key("approval", preview.plan),
        markdown=approval_markdown(preview, kept),
        description=f"What the restore of {preview.backup_id} would do",
    )


def with_places(plan: BackupPlan, result: RestoreResult) -> RestoreResult:
    """Return what a restore gave back, with live places by their names, for people who see only that."""
    return result.model_copy(update={"places": named_places(plan, result)})


def publish_restore(result: RestoreResult, plan: str) -> None:
    """Publish what a restore did, or would do.

    Args:
        result: What it gave back.
        plan: What the run knows the plan by, for commands that are shown.
    """
    if not in_flow_run():
        return
    with published("the summary of the restore"):
        create_markdown_artifact(
            key=_key("restore", result.plan), markdown=restore_markdown(result, plan), description=result.backup_id
        )


def restore_markdown(result: RestoreResult, plan: str) -> str:
    """Describe a restore in Markdown; `plan` is what the run knows the plan by."""
    places = plain(", ".join(f"{source}: {place}" for source, place in result.places.items()))
    lines = [
        f"# Restore of `{result.backup_id}` ({result.mode.value})",
        f"State as of {human_time(result.timestamp)}, to {places}; took {human_seconds(result.seconds)}.",
        "",
    ]
    if result.approved:
        lines += [approved_line(result.approved), ""]
    if result.rescue_id:
        lines += [f"What was there before is in the backup `{result.rescue_id}`.", ""]
    if result.undo:
        lines += [f"Undo with `{result.undo.replace('PLAN', shlex.quote(plan))}`", ""]
    left = [plain(f"{each.source}: {each.name}: {' '.join(each.reason.split())}") for each in result.not_rebuilt]
    if left:
        lines += ["## Not rebuilt", "All else was restored.", "", *(f"- {one}" for one in left), ""]
        lines += [f"The statements for {source} are in `{path}`.\n" for source, path in result.scripts.items()]
    return "\n".join([*lines, _collections(result), "", *(f"- {plain(note)}" for note in result.notes)])


def _collections(result: RestoreResult) -> str:
    """Make a table of the collections; of what only a preview counts, where something was counted."""
    numbers = [c.model_dump(include={"added", "changed", "removed"}) for c in result.collections]
    counted = list(dict.fromkeys(name for each in numbers for name, value in each.items() if value is not None))
    rows = [
        [plain(c.collection), f"{c.rows:,}", *(_n(getattr(c, name)) for name in counted)] for c in result.collections
    ]
    return table(["collection", "rows", *counted], rows)


def _n(value: int | None) -> str:
    return "—" if value is None else f"{value:,}"


def publish_verification(plan: BackupPlan, result: Verification) -> None:
    """Publish the result of a verification, good or bad, its expectations, and where its page is.

    Args:
        plan: The plan, in whose repository the verifications before it are.
        result: The verification.
    """
    if not in_flow_run():
        return
    evidence, page = _told(plan, result)
    with published("the result of the verification"):
        _publish_verification(result, evidence, page)


def _publish_verification(result: Verification, evidence: Evidence | None, page: Path | None) -> None:
    again = f"`lastgood proof PLAN {result.backup_id} --out FILE`"
    more = f"The page of results is `{page}` on {socket.gethostname()}; {again} makes it anywhere." if page else ""
    create_markdown_artifact(
        key=_key("verification", result.plan),
        markdown=verification_markdown(result, evidence, [more] if more else []),
        description=result.backup_id,
    )
    if result.rules:
        create_table_artifact(
            key=_key("expectations", result.plan),
            table=expectation_rows(result),
            description=f"Expectations of {result.backup_id}",
        )
    if page and (url := page_url(page)):
        create_link_artifact(
            key=_key("proof", result.plan),
            link=url,
            link_text=f"What was proved of {result.backup_id}",
            description=f"The page of results of {result.backup_id}",
        )


def _told(plan: BackupPlan, result: Verification) -> tuple[Evidence | None, Path | None]:
    """Return what is on record beside a verification, and where its page is; no failure of a report hides a result."""
    try:
        evidence = plan_evidence(plan, result.backup_id, result)
        return evidence, keep_page(result, proof_page(evidence))
    except Exception:  # whatever it is
        logger.warning("the page of results of backup %s was not made", result.backup_id, exc_info=True)
        return None, None


def publish_retention(result: RetentionResult) -> None:
    """Publish what retention removed, and why."""
    if not in_flow_run():
        return
    verb = "would go" if result.dry_run else "went"
    with published("what retention removed"):
        create_table_artifact(
            key=_key("retention", result.plan),
            table=[
                {
                    "backup": d.backup_id,
                    "decision": verb if d.remove else "kept",
                    "why": d.reason,
                    "bytes": d.size_stored,
                }
                for d in result.decisions
            ],
            description=f"{len(result.removed)} backups {verb}, {len(result.swept)} leftovers removed",
        )


def publish_report(plan: str, description: str, markdown: str, page: str) -> None:
    """Publish how a plan stands, and keep the page that tells all of it.

    Args:
        plan: Name of the plan.
        description: How it stands, in a word or two.
        markdown: The same in some lines.
        page: The page.
    """
    path = keep_report(plan, page)
    place = f"The page is `{path}` on {socket.gethostname()}; " if path is not None else ""
    with published("the report of the plan"):
        create_markdown_artifact(
            key=_key("report", plan),
            markdown=f"{markdown}\n\n{place}`lastgood report PLAN` makes it anywhere.",
            description=description,
        )
        if path is not None and (url := page_url(path)):
            create_link_artifact(
                key=_key("page", plan),
                link=url,
                link_text=f"How {plan} stands",
                description="The page of the report",
            )


def publish_table(key: Sequence[str], table: Sequence[Mapping[str, object]], description: str) -> None:
    """Publish a table.

    Args:
        key: Words of its key.
        table: Its rows, by column.
        description: What stands beside it.
    """
    if not in_flow_run():
        return
    with published(f"the table of {key[0]}"):
        create_table_artifact(key=_key(*key), table=[dict(row) for row in table], description=description)
