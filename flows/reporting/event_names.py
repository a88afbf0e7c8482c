"""What events and automations call things; imports nothing."""

from __future__ import annotations

PLAN = "lastgood.plan"
"""The label of every event with the name of its plan."""
COUNTS = "lastgood.counts"
"""The label of what counts for the RPO: a backup of all of the state, or that a plan is watched from now on."""
TOLD = "lastgood.told"
"""The label that says whether the run itself told all notification blocks of the plan."""
YES, NO = "yes", "no"

BACKUP_COMPLETED = "lastgood.backup.completed"
BACKUP_CORRUPTED = "lastgood.backup.corrupted"
VERIFICATION_FAILED = "lastgood.verification.failed"
PLAN_WATCHED = "lastgood.plan.watched"


def plan_resource(plan: str) -> dict[str, str]:
    """Return what events call a plan."""
    return {"prefect.resource.id": f"lastgood.plan.{plan}", "prefect.resource.name": f"plan {plan}"}


def backup_resource(backup_id: str) -> dict[str, str]:
    """Return what events call a backup."""
    return {"prefect.resource.id": f"lastgood.backup.{backup_id}", "prefect.resource.name": f"backup {backup_id}"}
