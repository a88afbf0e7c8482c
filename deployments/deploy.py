"""`lastgood deploy`: the deployments of plans in a work pool, whose workers run them.

It can be run again at any time. What it made for a plan before and the plan does not have any more goes: schedules that
it leaves out now, and the deployments of its earlier name.
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
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from blocks.errors import ConfigurationError
from blocks.plan.schedules import Schedule
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


def deploy(plans: Sequence[str], pool: str) -> list[Deployed]:
    """Make the deployments of plans in a work pool; a pool that is not there becomes one of processes.

    Args:
        plans: YAML files, or names of saved Backup Plan blocks.
        pool: Name of the work pool.

    Raises:
        ConfigurationError: A plan is wrong, two have the same name, or the server does not take what was made of one;
            of the last it names which.
    """
    wanted = plan_deployments(plans)
    with get_client(sync_client=True) as client:
        _check_pool(client, pool)
        before = dict(_marked(client))
        done = [_apply(client, deployment, pool, before) for deployment in wanted]
        kept = {one.address for one in done}
        references = {deployment.parameters["plan"] for deployment in wanted}
        for address, found in before.items():
            if address not in kept and found.parameters.get("plan") in references:  # of the plan's earlier name
                client.delete_deployment(found.id)
                done.append(Deployed(address, None, None, "removed"))
        watch_runs(client)
    return done


def watch_runs(client: SyncPrefectClient) -> None:
    """Have the server end runs whose process is gone: without that they stay Running, and block those that come."""
    wanted = AutomationCore(**lost_runs().model_dump(exclude={"id", "owner_resource"}))
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
    elif _said(found[0]) != _said(wanted):  # an update would forget what is waited for now
        client.update_automation(found[0].id, wanted)


def _said(automation: AutomationCore) -> dict[str, Any]:
    fields = {"description", "enabled", "trigger", "actions"}
    said: dict[str, Any] = automation.model_dump(mode="json", include=fields)
    said["trigger"].pop("id", None)
    said["trigger"] |= {name: sorted(said["trigger"][name]) for name in ("after", "expect", "for_each")}
    return said


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
