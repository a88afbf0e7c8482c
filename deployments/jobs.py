"""The standing jobs of a plan: what runs, how often, under which name. prefect.yaml says the same for a work pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval, RRule, Schedule
from prefect.types.entrypoint import EntrypointType

from blocks.plan.schedules import Schedule as PlanSchedule
from blocks.plan.schedules import Scheduled, Schedules
from flows.backup import backup
from flows.restore import restore
from flows.retention import retention
from flows.undo import undo
from flows.verify import verify

SLUG = "lastgood"
"""What the schedule of a deployment is known by, so that a later one replaces it."""


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        flow: What runs.
        name: Of the deployment; `Job.address` has the whole of it.
        description: For people.
        parameters: Besides the plan.
        tags: To find its runs by.
        at_once: What becomes of a run whose time comes while another one of the same job is under way.
    """

    flow: Flow[..., Any]
    name: str
    description: str
    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    at_once: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.CANCEL_NEW

    @property
    def address(self) -> str:
        """What `prefect deployment run` calls it in a work pool, such as `backup/full`."""
        return f"{self.flow.name}/{self.name}"


def _backup(kind: str, description: str, wait_seconds: int) -> Job:
    return Job(
        flow=backup,
        name=kind,
        description=description,
        parameters={"backup_type": kind, "wait_seconds": wait_seconds},
        tags=("lastgood", "backup", kind),
        at_once=ConcurrencyLimitStrategy.ENQUEUE,
    )


JOBS = (
    _backup("full", "Back up all state. Differentials and incrementals depend on it.", 3600),
    _backup("differential", "Back up what changed since the last full backup.", 3600),
    _backup("incremental", "Back up what changed since the last backup of any scheduled type.", 600),
    Job(
        flow=retention,
        name="daily",
        description="Remove the backups that the plan's policy no longer keeps.",
        parameters={"dry_run": False},
        tags=("lastgood", "retention"),
    ),
    Job(
        flow=verify,
        name="weekly",
        description="Prove by a restore to a scratch folder that the latest backup is good, and others in turn.",
        parameters={"due": True},
        tags=("lastgood", "verify"),
    ),
    Job(
        flow=restore,
        name="by-hand",
        description="Restore a backup, a point in time, single collections or keys. "
        "Writes nothing unless `mode` says so.",
        parameters={"backup": "latest", "mode": "preview"},
        tags=("lastgood", "restore"),
        at_once=ConcurrencyLimitStrategy.ENQUEUE,
    ),
    Job(
        flow=undo,
        name="by-hand",
        description="Take back the last restore in place. Writes nothing unless `preview` is off.",
        parameters={"preview": True},
        tags=("lastgood", "undo"),
        at_once=ConcurrencyLimitStrategy.ENQUEUE,
    ),
)


ADDRESSES = {
    Scheduled.FULL: "backup/full",
    Scheduled.DIFFERENTIAL: "backup/differential",
    Scheduled.INCREMENTAL: "backup/incremental",
    Scheduled.VERIFY: "verify/weekly",
    Scheduled.RETENTION: "retention/daily",
}
"""The jobs that a plan has schedules for, by their names in it."""


@dataclass(frozen=True)
class Timetable:
    """When jobs run, by their address; a job that is not in it runs by hand only."""

    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    @classmethod
    def of(cls, schedules: Schedules) -> Timetable:
        """Return the timetable that a plan says."""
        return cls({ADDRESSES[job]: _for_prefect(when) for job, when in schedules.jobs() if when is not None})


def _for_prefect(when: PlanSchedule) -> Schedule:
    if when.interval is not None:
        return Interval(when.interval, anchor_date=when.start, timezone=when.timezone, slug=SLUG)
    if when.cron is not None:
        return Cron(when.cron, timezone=when.timezone, slug=SLUG)
    assert when.rrule is not None
    return RRule(when.rrule, timezone=when.timezone, slug=SLUG)


def deployments_of(plan: str, reference: str, timetable: Timetable) -> list[RunnerDeployment]:
    """Make the deployments of one plan, each named for the job and the plan: `backup/full-trading`.

    Args:
        plan: Name of the plan.
        reference: What the flows load the plan by.
        timetable: When they run.
    """
    return [_deployment(job, plan, reference, timetable.schedules.get(job.address)) for job in JOBS]


def _deployment(job: Job, plan: str, reference: str, schedule: Schedule | None) -> RunnerDeployment:
    made = job.flow.to_deployment(
        name=f"{job.name}-{plan}",
        description=job.description,
        tags=[*job.tags, plan],
        parameters={"plan": reference, **job.parameters},
        schedule=schedule,
        # a deployment is one plan's, and so is its limit
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=job.at_once),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment = cast("RunnerDeployment", made)  # a coroutine only where an event loop runs
    # by module: the flows are found wherever lastgood is installed, whatever the working directory
    deployment.entrypoint = f"flows.{job.flow.name}.{job.flow.name}"
    return deployment
