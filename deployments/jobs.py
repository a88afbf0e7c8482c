"""The standing jobs of a plan: what runs, how often, under which name. prefect.yaml says the same for a work pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.backup import backup
from flows.restore import restore
from flows.retention import retention
from flows.undo import undo
from flows.verify import verify


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
    _backup("full", "Back up all state, every 24 hours. Differentials and incrementals depend on it.", 3600),
    _backup("differential", "Back up what changed since the last full backup, every 6 hours.", 3600),
    _backup("incremental", "Back up what changed since the last backup of any scheduled type, every 15 minutes.", 600),
    Job(
        flow=retention,
        name="daily",
        description="Remove the backups that the plan's policy no longer keeps, daily.",
        parameters={"dry_run": False},
        tags=("lastgood", "retention"),
    ),
    Job(
        flow=verify,
        name="weekly",
        description="Prove by a restore to a scratch folder that the latest backup is good, others in turn, weekly.",
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
    ),
    Job(
        flow=undo,
        name="by-hand",
        description="Take back the last restore in place. Writes nothing unless `preview` is off.",
        parameters={"preview": True},
        tags=("lastgood", "undo"),
    ),
)


def _every(span: timedelta, first: datetime, slug: str) -> Schedule:
    return Interval(span, anchor_date=first.replace(tzinfo=UTC), timezone="UTC", slug=slug)


@dataclass(frozen=True)
class Timetable:
    """When jobs run, by their address; a job that is not in it runs by hand only."""

    schedules: Mapping[str, Schedule] = field(default_factory=dict)


def standard_timetable() -> Timetable:
    """Return the usual times, no two of which start in the same minute."""
    day, week = timedelta(days=1), timedelta(weeks=1)
    return Timetable(
        {
            "backup/full": _every(day, datetime(2026, 1, 1, 2, 0), "every-24-hours"),
            "backup/differential": _every(timedelta(hours=6), datetime(2026, 1, 1, 2, 6), "every-6-hours"),
            "backup/incremental": _every(timedelta(minutes=15), datetime(2026, 1, 1, 2, 10), "every-15-minutes"),
            "retention/daily": _every(day, datetime(2026, 1, 1, 3, 33), "daily"),
            "verify/weekly": _every(week, datetime(2026, 1, 4, 4, 18), "weekly"),
        }
    )


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
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=job.at_once),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment = cast("RunnerDeployment", made)  # a coroutine only where an event loop runs
    # by module: the flows are found wherever lastgood is installed, whatever the working directory
    deployment.entrypoint = f"flows.{job.flow.name}.{job.flow.name}"
    return deployment
