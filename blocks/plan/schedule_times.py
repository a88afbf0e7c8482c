"""The times of a schedule, as Prefect counts them; see blocks/plan/schedules.py for what happens when clocks change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

from blocks.plan.schedules import Schedule

_ANCHOR = datetime(2020, 1, 1)
"""What an RRULE without DTSTART is counted from."""


def times_after(schedule: Schedule, moment: datetime) -> Iterator[datetime]:
    """Yield the times of a schedule after a moment, in UTC; without end where the schedule has none.

    Args:
        schedule: When a job runs.
        moment: An aware time.
    """
    if schedule.interval is not None:
        return _of_interval(schedule, schedule.interval, moment)
    if schedule.cron is not None:
        return _of_cron(schedule, schedule.cron, moment)
    return _of_rrule(schedule, str(schedule.rrule), moment)


def _of_interval(schedule: Schedule, interval: timedelta, moment: datetime) -> Iterator[datetime]:
    start = (schedule.start or _ANCHOR.replace(tzinfo=UTC)).astimezone(schedule.zone)
    if interval < timedelta(days=1):
        first = (moment - start) // interval + 1
        return ((start.astimezone(UTC) + n * interval) for n in count(first))
    # of a day or more: the hour of the zone stays, so it is counted on its clock
    clock, until = start.replace(tzinfo=None), moment.astimezone(schedule.zone).replace(tzinfo=None)
    first = (until - clock) // interval
    times = ((clock + n * interval).replace(tzinfo=schedule.zone).astimezone(UTC) for n in count(first))
    return (time for time in times if time > moment)


def _of_cron(schedule: Schedule, cron: str, moment: datetime) -> Iterator[datetime]:
    from cronsim import CronSim  # few plans have one

    return (time.astimezone(UTC) for time in CronSim(cron, moment.astimezone(schedule.zone)))


def _of_rrule(schedule: Schedule, rrule: str, moment: datetime) -> Iterator[datetime]:
    from dateutil.rrule import rrulestr

    rule = rrulestr(rrule, dtstart=_ANCHOR)
    first = next(iter(rule), None)
    if first is None or first.tzinfo is not None:
        return (time.astimezone(UTC) for time in rule.xafter(moment))
    by_clock = rule.xafter(moment.astimezone(schedule.zone).replace(tzinfo=None))
    return (time.replace(tzinfo=schedule.zone).astimezone(UTC) for time in by_clock)
