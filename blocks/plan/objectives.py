"""What recovery is measured against: how much state may be lost (RPO), and how long a restore may take (RTO)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field

from blocks.plan.durations import Duration
from blocks.plan.schedule_times import times_after
from blocks.plan.schedules import Scheduled, Schedules

MISSED = 2
"""How many times of a schedule have to pass without a result: after the first one a run may be at work, or wait."""

_LOOKED_AT = 500
"""So many times of a schedule show how far apart they can be: more than a year of days."""

_BACKUPS = (Scheduled.FULL, Scheduled.DIFFERENTIAL, Scheduled.INCREMENTAL)


class Objectives(BaseModel):
    """What a plan promises."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    rpo: Duration | None = Field(
        default=None,
        description="How old the newest good backup may be (recovery point objective), such as 1h. Where it is not "
        "set, a backup is late when two times of its schedule have passed.",
    )
    rto: Duration | None = Field(
        default=None,
        description="How long a restore may take (recovery time objective), such as 30m; no target where it is not "
        "set.",
    )


def backup_overdue_since(
    objectives: Objectives, schedules: Schedules, newest_good: datetime, now: datetime
) -> datetime | None:
    """Return since when the next good backup is overdue; None where it is not.

    Args:
        objectives: Of the plan.
        schedules: Of the plan, which count where no RPO is set.
        newest_good: The point in time that the newest good backup restores.
        now: The moment to decide at, aware.
    """
    if objectives.rpo is not None:
        late = newest_good + objectives.rpo
        return late if late <= now else None
    return overdue_since(schedules, _BACKUPS, newest_good, now)


def overdue_since(schedules: Schedules, jobs: Sequence[Scheduled], since: datetime, now: datetime) -> datetime | None:
    """Return the first time of any job after a moment, where `MISSED` times of one of them have passed since."""
    missed = [list(islice(times_after(schedule, since), MISSED)) for job in jobs if (schedule := schedules.of(job))]
    late = [times[0] for times in missed if len(times) == MISSED and times[-1] <= now]
    return min(late, default=None)


def rpo_target(objectives: Objectives, schedules: Schedules, since: datetime) -> timedelta | None:
    """Return how old the newest good backup may be; None where backups are made by hand, and no RPO is set.

    Args:
        objectives: Of the plan.
        schedules: Of the plan, which count where no RPO is set.
        since: From when the times of schedules are counted: the point in time of the newest good backup, or now.
    """
    if objectives.rpo is not None:
        return objectives.rpo
    times = (list(islice(times_after(schedule, since), MISSED)) for job in _BACKUPS if (schedule := schedules.of(job)))
    return min((found[-1] - since for found in times if len(found) == MISSED), default=None)


def widest_rpo_target(objectives: Objectives, schedules: Schedules, since: datetime) -> timedelta | None:
    """Return the most that `rpo_target` comes to, for a watch that knows no calendar; None where there is no target.

    Args:
        objectives: Of the plan.
        schedules: Of the plan, which count where no RPO is set.
        since: From when the times of schedules are looked at; the same moment always gives the same answer.
    """
    if objectives.rpo is not None:
        return objectives.rpo
    found = []
    for job in _BACKUPS:
        if schedule := schedules.of(job):
            times = list(islice(times_after(schedule, since), _LOOKED_AT))
            found += [max((b - a for a, b in zip(times, times[MISSED:], strict=False)), default=None)]
    return min((span for span in found if span is not None), default=None)
