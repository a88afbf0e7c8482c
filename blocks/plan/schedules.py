"""Schedules: when the jobs of a plan run, as the plan says it; usual times where it says nothing.

What Prefect makes of a schedule where clocks are changed, which is part of what a plan may rely on:

- cron: a time that is skipped runs an hour later, as the clock shows it; one that comes twice runs the first time.
- an interval of a day or more keeps the hour of its zone; a shorter one counts real time.
- RRULE: a time that is skipped runs an hour earlier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.plan.durations import Duration

LEAST = timedelta(minutes=1)
"""No job runs more often: Prefect looks for what is due every few seconds."""
_MOST_RRULE = 6500
"""Characters of an RRULE that Prefect takes."""
_LOOKED_AT = 50
"""How many times of a cron text or an RRULE are looked at for two that lie too close."""

_RRULE = re.compile(r"(?i)\s*(RRULE:|DTSTART|FREQ=)")
_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Scheduled(StrEnum):
    """The jobs that have schedules, by their names in a plan."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    INCREMENTAL = "incremental"
    VERIFY = "verify"
    RETENTION = "retention"


_STARTS = {
    Scheduled.FULL: _DAY + timedelta(hours=2),
    Scheduled.DIFFERENTIAL: _DAY + timedelta(hours=2, minutes=6),
    Scheduled.INCREMENTAL: _DAY + timedelta(hours=2, minutes=10),
    Scheduled.VERIFY: _DAY + timedelta(days=3, hours=4, minutes=18),
    Scheduled.RETENTION: _DAY + timedelta(hours=3, minutes=33),
}
"""What intervals are counted from where a plan does not say it: no two jobs start in the same minute."""


class Schedule(BaseModel):
    """When one job runs: at an interval, by a cron text, or by an RRULE.

    In a plan it may be written as text alone: `15m`, `30 2 * * *`, `FREQ=WEEKLY;BYDAY=SU;BYHOUR=4`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    interval: Duration | None = Field(default=None, description="How often: 15m, 6h, 1d; at least a minute.")
    start: AwareDatetime | None = Field(default=None, description="What an interval is counted from, with its zone.")
    cron: str | None = Field(default=None, description="Minute, hour, day of month, month, day of week.")
    rrule: str | None = Field(default=None, description="A rule of iCalendar (RFC 5545).")
    timezone: str = Field(default="UTC", description="Whose clock it is by, such as Europe/Berlin.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, timedelta):
            return {"interval": given}
        if not isinstance(given, str | dict) or not given:
            raise ValueError("write an interval such as 15m, a cron text such as '30 2 * * *', an RRULE, or off")
        if isinstance(given, dict):
            return given
        if _RRULE.match(given):
            return {"rrule": given}
        return {"cron": given} if len(given.split()) > 1 or given.startswith("@") else {"interval": given}

    @field_validator("interval")
    @classmethod
    def _not_too_often(cls, interval: timedelta | None) -> timedelta | None:
        if interval is not None and interval < LEAST:
            raise ValueError("a job runs at most once a minute: write 1m or more")
        return interval

    @field_validator("cron")
    @classmethod
    def _cron(cls, cron: str | None) -> str | None:
        if cron is None:
            return None
        from cronsim import CronSim, CronSimError

        if len(cron.split()) != 5:
            raise ValueError(
                f"{cron!r} has {len(cron.split())} fields, and a cron text has five: minute, hour, day of month, "
                "month, day of week, such as '30 2 * * *'"
            )
        try:
            next(CronSim(cron, _DAY))
        except (CronSimError, StopIteration) as exc:
            raise ValueError(f"{cron!r} is no cron text: {str(exc).lower() or 'it never comes'}") from exc
        return cron

    @field_validator("rrule")
    @classmethod
    def _rrule(cls, rrule: str | None) -> str | None:
        if rrule is None:
            return None
        from dateutil.rrule import rrulestr

        if len(rrule) > _MOST_RRULE:
            raise ValueError(f"the rule has {len(rrule):,} characters, and Prefect takes {_MOST_RRULE:,}")
        try:
            rule = rrulestr(rrule)
            times = [time for time, _ in zip(rule, range(_LOOKED_AT), strict=False)]
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ValueError(f"{rrule!r} is no rule of iCalendar: {exc}") from exc
        if not times:
            raise ValueError(f"{rrule!r} never comes")
        if any(later - earlier < LEAST for earlier, later in pairwise(times)):
            raise ValueError(f"{rrule!r} comes more often than once a minute")
        return rrule

    @field_validator("timezone")
    @classmethod
    def _zone(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError(f"there is no time zone {timezone!r}: write one such as Europe/Berlin or UTC")
        return timezone

    @model_validator(mode="after")
    def _one_way(self) -> Schedule:
        said = [name for name in ("interval", "cron", "rrule") if getattr(self, name) is not None]
        if len(said) != 1:
            found = " and ".join(said) or "nothing"
            raise ValueError(f"a schedule has an interval, a cron text or an rrule; here is {found}")
        if self.start is not None and self.interval is None:
            raise ValueError("`start` is what an interval is counted from, and here is none")
        return self

    def __str__(self) -> str:
        if self.interval is not None:
            return f"every {_in_words(self.interval)}"
        text = self.cron if self.cron is not None else str(self.rrule).split("\n")[-1].removeprefix("RRULE:")
        return f"{text} ({self.timezone})"

    @property
    def zone(self) -> ZoneInfo:
        """Whose clock it is by."""
        return ZoneInfo(self.timezone)


Off = Literal["off"]


def _usual(job: Scheduled, interval: timedelta) -> Any:
    return Field(
        default=Schedule(interval=interval, start=_STARTS[job]),
        description=f"When the job runs, or `off`; every {_in_words(interval)} unless set otherwise.",
    )


def _in_words(span: timedelta) -> str:
    for name, unit in (("week", timedelta(weeks=1)), ("day", timedelta(days=1)), ("hour", timedelta(hours=1))):
        if not span % unit:
            count = span // unit
            return name if count == 1 else f"{count} {name}s"
    count, rest = divmod(span, timedelta(minutes=1))
    return f"{span.total_seconds():g} seconds" if rest else ("minute" if count == 1 else f"{count} minutes")


class Schedules(BaseModel):
    """When the jobs of a plan run. `off` leaves a job to be run by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    full: Schedule | Off = _usual(Scheduled.FULL, timedelta(days=1))
    differential: Schedule | Off = _usual(Scheduled.DIFFERENTIAL, timedelta(hours=6))
    incremental: Schedule | Off = _usual(Scheduled.INCREMENTAL, timedelta(minutes=15))
    verify: Schedule | Off = _usual(Scheduled.VERIFY, timedelta(weeks=1))
    retention: Schedule | Off = _usual(Scheduled.RETENTION, timedelta(days=1))

    @field_validator("*", mode="wrap")
    @classmethod
    def _said(cls, given: Any, read: Any, info: Any) -> Schedule | Off:
        if given is False or given == "off":  # YAML reads a bare `off` as false
            return "off"
        schedule = given if isinstance(given, Schedule) else Schedule.model_validate(given)
        if schedule.interval is not None and schedule.start is None:
            return schedule.model_copy(update={"start": _STARTS[Scheduled(info.field_name)]})
        return schedule

    def of(self, job: Scheduled) -> Schedule | None:
        """Return when a job runs; None where it is run by hand only."""
        found: Schedule | Off = getattr(self, job.value)
        return None if found == "off" else found

    def jobs(self) -> Iterator[tuple[Scheduled, Schedule | None]]:
        """Yield each job and when it runs."""
        return ((job, self.of(job)) for job in Scheduled)
