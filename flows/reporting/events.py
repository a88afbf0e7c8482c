"""What a flow run tells in Prefect's feed of events: that an operation begins, and how it ends. No secrets.

    lastgood.backup.started|completed|failed|suspicious      lastgood.restore.started|completed|failed
    lastgood.backup.verified|corrupted                       lastgood.retention.started|completed|failed
    lastgood.verification.started|failed                     lastgood.tier.opened|closed

Events are put into the queue of this process, which Prefect empties beside the run, and at the end of the process: a
server that does not answer is not waited for. What tiers did is told when the operation ends. Labels are what
automations go by (`deployments/automations.py`).
"""

from __future__ import annotations

from pydantic import JsonValue

from blocks.host.passwords import without_password
from blocks.plan.notifications import BlockTarget, Occasion
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType
from blocks.rows.selection import printed
from blocks.verification import Verification
from flows.pipeline.results import RestoreResult, RetentionResult
from flows.reporting.event_names import COUNTS, NO, PLAN, TOLD, YES, backup_resource, plan_resource
from flows.reporting.lifecycle import Operation, Verb
from flows.reporting.outcome import occasion_of, problem_of, suspicions_of

Labels = dict[str, str]
"""A resource: its id, its name for people, and what automations go by."""


class RunEvents:
    """Tells the Prefect server of the run that this is in."""

    def started(self, operation: Operation) -> None:
        """Tell that an operation begins."""
        _emit(f"lastgood.{operation.verb.value}.started", operation, {})

    def ended(self, operation: Operation) -> None:
        """Tell how an operation ended."""
        occasion = occasion_of(operation)
        _emit(event_name(operation.verb, occasion), operation, payload_of(operation), occasion)
        if suspicions := suspicions_of(operation):
            _emit("lastgood.backup.suspicious", operation, {"suspicions": list(suspicions)}, Occasion.SUSPICIOUS)
        for turns in operation.numbers.breakers:
            for turn, times in (("opened", turns.opened), ("closed", turns.closed)):
                if times:
                    _emit_of_tier(operation, turns.tier, turn, times)


def event_name(verb: Verb, occasion: Occasion) -> str:
    """Return what the end of an operation is called.

    Args:
        verb: What was done.
        occasion: What it came to.
    """
    found = occasion in (Occasion.VERIFIED, Occasion.CORRUPTED)
    return f"lastgood.{Verb.BACKUP.value if found else verb.value}.{occasion.value}"


def _emit(name: str, run: Operation, payload: dict[str, JsonValue], occasion: Occasion | None = None) -> None:
    from prefect.events import emit_event  # there is Prefect where there is a run

    plan = run.plan
    labels = {PLAN: plan.name}
    if run.kind:
        labels["lastgood.type"] = run.kind
    if occasion is not None:
        labels[TOLD] = YES if _all_told(plan, run, occasion) else NO
    if occasion is Occasion.COMPLETED and run.verb is Verb.BACKUP and run.kind != BackupType.EMERGENCY:
        labels[COUNTS] = YES
    of_backup = run.backup_there is not None and run.verb in (Verb.BACKUP, Verb.VERIFICATION)
    resource = backup_resource(str(run.backup_there)) if of_backup else plan_resource(plan.name)
    related = _related(run)
    emit_event(
        name,
        resource=resource | labels,
        related=[one for one in related if one["prefect.resource.id"] != resource["prefect.resource.id"]],
        payload={"plan": plan.name, "type": run.kind, "operation": run.operation_id} | payload,
    )


def _emit_of_tier(run: Operation, tier: str, turn: str, times: int) -> None:
    """Tell that a tier was left alone after many failures, or was found to work again, while an operation ran."""
    from prefect.events import emit_event  # as above

    emit_event(
        f"lastgood.tier.{turn}",
        resource={
            "prefect.resource.id": f"lastgood.tier.{tier}",
            "prefect.resource.name": f"tier {tier}",
            PLAN: run.plan.name,
        },
        related=_related(run),
        payload={"plan": run.plan.name, "operation": run.operation_id, "verb": run.verb.value, "times": times},
    )


def _all_told(plan: BackupPlan, run: Operation, occasion: Occasion) -> bool:
    """Return whether the run itself told all blocks that want to know; else an automation does."""
    wanted = [one.shown for one in plan.notifications if isinstance(one, BlockTarget) and one.wants(occasion)]
    return bool(wanted) and set(wanted) <= set(run.told)


def _related(run: Operation) -> list[Labels]:
    """Return what else an event is about; the run, its deployment and its tags are added by Prefect."""
    url = printed(without_password(run.plan.repository.url))
    found = [
        plan_resource(run.plan.name) | {"prefect.resource.role": "plan"},
        {
            "prefect.resource.id": f"lastgood.repository.{url}",
            "prefect.resource.name": url,
            "prefect.resource.role": "repository",
        },
    ]
    roles = {"backup": run.backup_there}
    if isinstance(run.result, BackupMetadata):
        roles["base"] = run.result.base
    if isinstance(run.result, RestoreResult):
        roles["emergency-backup"] = run.result.rescue_id
    return found + [
        backup_resource(backup) | {"prefect.resource.role": role} for role, backup in roles.items() if backup
    ]


def payload_of(run: Operation) -> dict[str, JsonValue]:
    """Return the numbers of an operation, and what went wrong."""
    numbers: dict[str, JsonValue] = {"seconds": round(run.seconds or 0.0, 3), "backup_id": run.backup_there}
    match run.result:
        case BackupMetadata() as made:
            numbers |= {
                "type": made.backup_type.value,
                "requested_type": made.requested_type.value,
                "promoted_because": made.promoted_because,
                "base": made.base,
                "sequence": made.sequence,
                "timestamp": made.timestamp.isoformat(),
                "collections": len(made.collections),
                "rows": made.rows,
                "upserts": made.upserts,
                "tombstones": made.tombstones,
                "size_bytes": made.size_bytes,
                "size_stored": made.size_stored,
            }
        case Verification() as proved:
            numbers |= {
                "status": proved.status.value,
                "deep": proved.deep,
                "rows": proved.rows,
                "expectations": proved.expectations,
                "findings": len(proved.findings),
                "warnings": len(proved.warnings),
                "restore_seconds": proved.restore_seconds,
            }
        case RestoreResult() as restored:
            numbers |= {
                "mode": restored.mode.value,
                "rows": restored.rows,
                "collections": len(restored.collections),
                "not_rebuilt": len(restored.not_rebuilt),
                "emergency_backup": restored.rescue_id,
            }
        case RetentionResult() as cleaned:
            numbers |= {
                "backups": len(cleaned.decisions),
                "removed": len(cleaned.removed),
                "size_removed": sum(one.size_stored for one in cleaned.removed),
                "swept": len(cleaned.swept),
            }
    if (problem := problem_of(run)) is not None:
        error = run.error or run.shortfall
        numbers |= {"error": type(error).__name__, "message": problem[0], "hint": problem[1]}
    return numbers
