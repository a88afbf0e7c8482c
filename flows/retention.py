"""The retention flow: decide, record what goes and why, remove, and sweep what unfinished backups left."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime

from blocks.errors import CorruptionDetected
from blocks.manifest import Expiry
from blocks.plan import BackupPlan, load_plan
from blocks.repository import Repository
from blocks.retention import Decision
from flows.engine import OUTSIDE, flow, stage_runner, task
from flows.line import Line, open_line
from flows.naming import named
from flows.report import publish_retention
from flows.results import Outgoing, RetentionResult


@flow(name="retention", flow_run_name=named("retention of {plan}"), task_runner=stage_runner, persist_result=False)
def retention(plan: str, dry_run: bool = False) -> RetentionResult:
    """Remove the backups that a plan's policy no longer keeps; never one that a kept backup stands on.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        dry_run: Only tell what would go, and why.
    """
    result = apply_retention(load_plan(plan), dry_run)
    publish_retention(result)
    return result


def apply_retention(plan: BackupPlan, dry_run: bool = False, now: datetime | None = None) -> RetentionResult:
    """Apply a plan's retention policy, inside a flow run or without any Prefect server.

    Raises:
        CorruptionDetected: A manifest cannot be read. Then nothing is removed, since it may stand on any other backup.
        RepositoryLocked: Another run holds the plan.
    """
    repository = plan.repository.unlock(plan.encryption)
    moment = now or datetime.now(UTC)
    with open_line() as line:
        if dry_run:
            return _result(plan, line.submit(decide, plan, repository, moment).result(), [], dry_run)
        with repository.lease(plan.name, f"{socket.gethostname()}:{os.getpid()}", "retention"):
            return _remove(plan, repository, moment, line)


def _remove(plan: BackupPlan, repository: Repository, now: datetime, line: Line) -> RetentionResult:
    decided = line.submit(decide, plan, repository, now)
    decisions: list[Decision] = decided.result()
    explained = line.submit(explain, plan, repository, decisions, now, after=[decided])
    removed = line.submit(remove, plan, repository, decisions, after=[explained])
    swept = line.submit(sweep, plan, repository, now, after=[removed])
    for outcome in (explained, removed, swept):
        outcome.result()
    return _result(plan, decisions, swept.result(), dry_run=False)


@task(task_run_name="decide", tags=["retention"], **OUTSIDE)
def decide(plan: BackupPlan, repository: Repository, now: datetime) -> list[Decision]:
    """Decide about every backup of the plan."""
    survey = repository.survey(plan.name)
    if survey.damaged:
        raise CorruptionDetected(
            f"plan {plan.name}: {survey.findings[0]}",
            hint="Nothing was removed. `lastgood check` tells more.",
        )
    return plan.retention.decide(survey.backups, now)


@task(task_run_name="explain", tags=["retention"], **OUTSIDE)
def explain(plan: BackupPlan, repository: Repository, decisions: list[Decision], now: datetime) -> None:
    """Leave a sealed record of what is about to go, so that an expiry is told from a theft."""
    going = [d for d in decisions if d.remove]
    if not going:
        return
    repository.record_expiry(
        Expiry(
            plan=plan.name,
            expired_at=now,
            removed=tuple(repository.link(d.backup) for d in going),
            reasons={d.backup.backup_id: d.reason for d in going},
            head=repository.link(decisions[-1].backup),
        )
    )


@task(task_run_name="remove", tags=["retention"], **OUTSIDE)
def remove(plan: BackupPlan, repository: Repository, decisions: list[Decision]) -> None:
    """Remove manifests first, newest first, then the rest."""
    repository.remove(plan.name, [d.backup.backup_id for d in reversed(decisions) if d.remove])


@task(task_run_name="sweep", tags=["retention"], **OUTSIDE)
def sweep(plan: BackupPlan, repository: Repository, now: datetime) -> list[str]:
    """Remove what unfinished backups left, after the grace time."""
    return repository.sweep(plan.name, plan.retention.sweep_grace, now)


def _result(plan: BackupPlan, decisions: list[Decision], swept: list[str], dry_run: bool) -> RetentionResult:
    return RetentionResult(
        plan=plan.name,
        dry_run=dry_run,
        decisions=[
            Outgoing(backup_id=d.backup.backup_id, remove=d.remove, reason=d.reason, size_stored=d.backup.size_stored)
            for d in decisions
        ],
        swept=swept,
    )
