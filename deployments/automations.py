"""What the server watches for each plan that is deployed, and does: what no run can tell of itself.

Automations go by the events of runs (`flows/reporting/events.py`). Each is of one plan, bears its name, and goes when
the plan has no use for it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import emit_event
from prefect.events.actions import ActionTypes, DoNothing, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, CompoundTrigger, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from blocks.errors import ConfigurationError
from blocks.plan.notifications import BlockTarget, Occasion
from blocks.plan.objectives import widest_rpo_target
from blocks.plan.plan import BackupPlan
from flows.reporting.event_names import (
    BACKUP_COMPLETED,
    BACKUP_CORRUPTED,
    COUNTS,
    NO,
    PLAN,
    PLAN_WATCHED,
    TOLD,
    VERIFICATION_FAILED,
    YES,
    plan_resource,
)
from flows.reporting.units import human_span

SHORTEST = timedelta(seconds=10)
"""Prefect takes no less to wait for what does not happen."""
AT_MOST_EVERY = timedelta(days=1)
"""How often a corrupted backup may start a full: where storage is broken that is corrupted, too."""
QUIET = timedelta(minutes=5)
"""What fails again within it is not told again: one failure is several events."""

_NOTIFY = "notify"
"""What Prefect says that blocks can do which send notifications."""

_MADE = "Made by `lastgood deploy`."


@dataclass(frozen=True)
class Watched:
    """A plan whose automations are made.

    Attributes:
        plan: It.
        blocks: The ids of its notification blocks, by type/name.
        full: The id of the deployment that makes a full backup.
    """

    plan: BackupPlan
    blocks: dict[str, UUID]
    full: UUID


def blocks_of(client: SyncPrefectClient, plan: BackupPlan) -> dict[str, UUID]:
    """Return the ids of a plan's notification blocks, by type/name.

    Raises:
        ConfigurationError: The server has no such block, or it sends no notifications.
    """
    found = {}
    for target in plan.notifications:
        if isinstance(target, BlockTarget):
            slug, _, name = target.block.partition("/")
            try:
                document = client.read_block_document_by_name(name, slug)
            except ObjectNotFound:
                raise ConfigurationError(
                    f"plan {plan.name}: the Prefect server has no block {target.block}",
                    hint="Make it in the Prefect UI, or look at `notifications` in the plan.",
                ) from None
            schema = document.block_schema
            if schema is not None and _NOTIFY not in schema.capabilities:
                raise ConfigurationError(f"plan {plan.name}: the block {target.block} sends no notifications")
            found[target.block] = document.id
    return found


def automations_of(watched: Watched, now: datetime | None = None) -> list[AutomationCore]:
    """Return the automations of a plan.

    Args:
        watched: The plan.
        now: What this machine's clock says; it is read where this is None.
    """
    made = [_verification_failed(watched), _corrupted_starts_full(watched)]
    # the beginning of a year: what a schedule amounts to is the same whenever the plan is deployed
    year = datetime((now or datetime.now(UTC)).year, 1, 1, tzinfo=UTC)
    within = widest_rpo_target(watched.plan.objectives, watched.plan.schedules, year)
    return made if within is None else [_overdue(watched, max(within, SHORTEST)), *made]


def watch_from_now(plan: BackupPlan) -> None:
    """Tell the server that the plan is watched: where no backup was made before, the RPO counts from here."""
    emit_event(PLAN_WATCHED, resource=plan_resource(plan.name) | {PLAN: plan.name, COUNTS: YES})


def _name(plan: BackupPlan, what: str) -> str:
    return f"lastgood: {plan.name}: {what}"


def _overdue(watched: Watched, within: timedelta) -> AutomationCore:
    plan = watched.plan
    since = "{% if event %} The last one that counts was at {{ event.occurred }}.{% endif %}"
    return _automation(
        watched,
        "no good backup within the RPO",
        f"No backup of the state of {plan.name} was made for {human_span(within)}.",
        EventTrigger(
            posture=Posture.Proactive,
            match={PLAN: plan.name, COUNTS: YES},
            # one that was made is what the next one is waited for from
            after={BACKUP_COMPLETED, PLAN_WATCHED},
            expect={BACKUP_COMPLETED},
            threshold=1,
            within=within,
        ),
        _telling(
            watched,
            {Occasion.OVERDUE},
            f"lastgood: no good backup of {plan.name} for {human_span(within)}",
            f"plan: {plan.name}\n\nNo good backup was made within {human_span(within)}.{since}\n\nWhat to do: see "
            "whether a worker runs, and what the last runs say; `lastgood status` says how the plan stands.",
        ),
    )


def _verification_failed(watched: Watched) -> AutomationCore:
    plan = watched.plan
    tags = [
        {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}
        for tag in ("lastgood", "verify", plan.name)
    ]
    said = "{% if event.payload.message is defined %}\nerror: {{ event.payload.message }}{% endif %}"
    return _automation(
        watched,
        "a verification failed",
        f"A verification of {plan.name} found a backup bad, or did not come to its end, and the run has not told all "
        "blocks of the plan.",
        CompoundTrigger(
            require="any",
            triggers=[
                _at_once({BACKUP_CORRUPTED, VERIFICATION_FAILED}, {PLAN: plan.name, TOLD: NO}),
                # which tells nothing itself
                _at_once({"prefect.flow-run.Crashed"}, {"prefect.resource.id": "prefect.flow-run.*"}, tags),
            ],
        ),
        _telling(
            watched,
            {Occasion.FAILED, Occasion.CORRUPTED},
            f"lastgood: a verification of {plan.name} failed",
            f"plan: {plan.name}\nevent: {{{{ event.event }}}} of {{{{ event.resource.name }}}}{said}\n\n"
            "What to do: see what was found (`lastgood show`), and verify it again.",
        ),
    )


def _corrupted_starts_full(watched: Watched) -> AutomationCore:
    plan = watched.plan
    return _automation(
        watched,
        "a corrupted backup starts a full",
        f"A backup of {plan.name} was found corrupted: a full is made, which depends on none, once in "
        f"{human_span(AT_MOST_EVERY)} at most.",
        _at_once({BACKUP_CORRUPTED}, {PLAN: plan.name}, within=AT_MOST_EVERY),
        [RunDeployment(source="selected", deployment_id=watched.full)],
    )


def _at_once(
    expect: set[str], match: dict[str, Any], related: Sequence[dict[str, Any]] = (), within: timedelta = QUIET
) -> EventTrigger:
    """Fire at the first event, and then not again for a while."""
    return EventTrigger(
        posture=Posture.Reactive, match=match, match_related=list(related), expect=expect, threshold=1, within=within
    )


def _telling(watched: Watched, occasions: Collection[Occasion], subject: str, body: str) -> list[ActionTypes]:
    """Return what tells the blocks of a plan; without any the firing is seen among the server's events."""
    blocks = [one for one in watched.plan.notifications if isinstance(one, BlockTarget)]
    targets = [one for one in blocks if any(map(one.wants, occasions))]
    told: list[ActionTypes] = [
        SendNotification(block_document_id=watched.blocks[target.block], subject=subject, body=body)
        for target in targets
    ]
    return told or [DoNothing()]


def _automation(
    watched: Watched, what: str, description: str, trigger: EventTrigger | CompoundTrigger, actions: list[ActionTypes]
) -> AutomationCore:
    return AutomationCore(
        name=_name(watched.plan, what), description=f"{description} {_MADE}", trigger=trigger, actions=list(actions)
    )
