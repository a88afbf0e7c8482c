"""`lastgood deploy`: the deployments of plans in a work pool, whose workers run them.

It can be run again at any time. What it made for a plan before and the plan does not have any more goes: schedules that
it leaves out now, automations that it has no use for, and all that was made for its earlier name. What is as it should
be is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan, load_plan
from blocks.plan.schedules import Schedule, Scheduled
from deployments.automations import Watched, automations_of, blocks_of, watch_from_now
from deployments.jobs import ADDRESSES
from deployments.serve import plan_deployments
from deployments.watch import HEARTBEAT_SECONDS, lost_runs

MARK = "lastgood-deploy"
"""The tag of what `deploy` made, which it may remove."""
_ENVIRONMENT = {
    # less memory at the same speed: parts come and go in a dozen threads, and other allocators keep what each one freed
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    # by which it is seen that the process of a run is gone
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
}
_PAGE = 200


@dataclass(frozen=True)
class Deployed:
    """A deployment as it is on the server now.

    Attributes:
        address: The flow's name and its own, as `prefect deployment run` takes it.
        schedule: When it runs, in words; None where it is run by hand.
        next_run: When it runs next; None where it is run by hand, or never again.
        change: What was done: `made`, `updated` or `removed`.
    """

    address: str
    schedule: str | None
    next_run: datetime | None
    change: str


@dataclass(frozen=True)
class Watching:
    """An automation as it is on the server now.

    Attributes:
        name: Its name.
        change: What was done: `made`, `updated`, `removed`, or `kept` where it was as it should be.
    """

    name: str
    change: str


@dataclass(frozen=True)
class Done:
    """What `deploy` did.

    Attributes:
        deployments: By plan, in the order of its jobs; then those that went.
        automations: By plan; then those that went.
    """

    deployments: list[Deployed]
    automations: list[Watching]


def deploy(plans: Sequence[str], pool: str) -> Done:
    """Make the deployments of plans in a work pool; a pool that is not there becomes one of processes.

    Args:
        plans: YAML files, or names of saved Backup Plan blocks.
        pool: Name of the work pool.

    Raises:
        ConfigurationError: A plan is wrong, two have the same name, the server lacks a notification block of one, or it
            does not take what was made of one; of the last it names which.
    """
    wanted = plan_deployments(plans)
    references = list(dict.fromkeys(deployment.parameters["plan"] for deployment in wanted))
    with get_client(sync_client=True) as client:
        opened = [(reference, load_plan(reference)) for reference in references]
        blocks = {reference: blocks_of(client, plan) for reference, plan in opened}
        _check_pool(client, pool)
        before = dict(_marked(client))
        done = [_apply(client, deployment, pool, before) for deployment in wanted]
        kept = {one.address for one in done}
        for address, found in before.items():
            if address not in kept and found.parameters.get("plan") in references:  # of the plan's earlier name
                client.delete_deployment(found.id)
                done.append(Deployed(address, None, None, "removed"))
        keep_automation(client, _core(lost_runs()))
        watching = [one for reference, plan in opened for one in _watch(client, reference, plan, blocks[reference])]
    return Done(done, watching)


def _watch(client: SyncPrefectClient, reference: str, plan: BackupPlan, blocks: dict[str, UUID]) -> Iterator[Watching]:
    """Make the automations of one plan; yield what was done."""
    full = client.read_deployment_by_name(f"{ADDRESSES[Scheduled.FULL]}-{plan.name}").id
    wanted = automations_of(Watched(plan, blocks, full))
    mine = AutomationFilter(tags=AutomationFilterTags(all_=[MARK, reference]))
    before = client.read_automations(automations=mine, limit=_PAGE)
    changes = []
    for automation in wanted:
        automation.tags = [MARK, plan.name, reference]
        changes.append(Watching(automation.name, keep_automation(client, automation)))
    if any(one.change != "kept" for one in changes):
        watch_from_now(plan)  # what waited for a backup was forgotten
    yield from changes
    for found in before:
        if found.name not in {automation.name for automation in wanted}:
            client.delete_automation(found.id)
            yield Watching(found.name, "removed")


def keep_automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Have an automation on the server; one that is as it should be is left alone.

    Returns:
        What was done: `made`, `updated` or `kept`.
    """
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return "made"
    if _said(found[0]) == _said(wanted):  # an update would forget what is waited for now
        return "kept"
    client.update_automation(found[0].id, wanted)
    return "updated"


def _core(automation: AutomationCore) -> AutomationCore:
    # without what only those have that are on a server
    return AutomationCore(**automation.model_dump(exclude={"id", "owner_resource"}))


def _said(automation: AutomationCore) -> dict[str, Any]:
    fields = {"description", "enabled", "tags", "trigger", "actions"}
    said: dict[str, Any] = automation.model_dump(mode="json", include=fields)
    said["trigger"] = _comparable(said["trigger"])
    return said


def _comparable(trigger: dict[str, Any]) -> dict[str, Any]:
    """Return a trigger without what the server adds, and with its sets in order."""
    said = {name: value for name, value in trigger.items() if name != "id"}
    said |= {name: sorted(said[name]) for name in ("after", "expect", "for_each") if name in said}
    return said | {"triggers": [_comparable(inner) for inner in said.get("triggers", ())]}


def _check_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def _marked(client: SyncPrefectClient) -> Iterator[tuple[str, DeploymentResponse]]:
    """Yield what was made before, by its address."""
    mine = DeploymentFilter(tags=DeploymentFilterTags(all_=[MARK]))
    flows = dict[UUID, str]()
    for offset in range(0, 100 * _PAGE, _PAGE):
        page = client.read_deployments(deployment_filter=mine, limit=_PAGE, offset=offset)
        for found in page:
            if found.flow_id not in flows:
                flows[found.flow_id] = client.read_flow(found.flow_id).name
            yield f"{flows[found.flow_id]}/{found.name}", found
        if len(page) < _PAGE:
            return


def _apply(
    client: SyncPrefectClient, deployment: RunnerDeployment, pool: str, before: dict[str, DeploymentResponse]
) -> Deployed:
    deployment.tags = [*(deployment.tags or []), MARK]
    deployment.job_variables = {"env": dict(_ENVIRONMENT)}
    address = deployment.full_name
    try:
        made: Any = deployment.apply(work_pool_name=pool)
        now = client.read_deployment(made)
    except (PrefectHTTPStatusError, RuntimeError) as exc:
        raise ConfigurationError(
            f"the Prefect server does not take {address}: {exc}", hint="What was made before that stays."
        ) from exc
    wanted = {schedule.slug for schedule in deployment.schedules or []}
    for schedule in now.schedules:
        if (
            schedule.slug not in wanted
        ):  # those of before, also what somebody added under another name: it is the plan's
            client.delete_deployment_schedule(now.id, schedule.id)
    change = "updated" if address in before else "made"
    if not deployment.schedules:
        return Deployed(address, None, None, change)
    when = deployment.schedules[0].schedule
    return Deployed(address, _in_words(when), _next(when), change)


def _in_words(when: Any) -> str:
    fields = {name: getattr(when, name, None) for name in ("interval", "cron", "rrule")}
    return str(Schedule.model_validate(fields | {"timezone": when.timezone or "UTC"}))


def _next(when: Any) -> datetime | None:
    """Return when the server will run it next, computed as the server does it."""
    from prefect.server.schemas import schedules

    computed = getattr(schedules, type(when).__name__)(**when.model_dump())
    found: list[datetime] = asyncio.run(computed.get_dates(1, start=datetime.now(UTC)))
    return found[0] if found else None
