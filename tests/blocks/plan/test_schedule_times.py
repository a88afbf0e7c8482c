"""Times of schedules, also where clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from blocks.plan.schedule_times import times_after
from blocks.plan.schedules import Schedules

BERLIN = {"timezone": "Europe/Berlin"}
SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)  # the day before clocks go forward in Berlin


@pytest.mark.parametrize(
    ("schedule", "times"),
    [
        ("15m", "28T12:10 28T12:25"),  # counted from 02:10, as incrementals are unless the plan says otherwise
        ("1d", "29T02:10 30T02:10"),
        ("30 2 * * *", "29T02:30 30T02:30"),
        ("FREQ=DAILY;BYHOUR=4;BYMINUTE=5;BYSECOND=0", "29T04:05 30T04:05"),
        ("DTSTART:20260101T100000Z\nRRULE:FREQ=DAILY", "29T10:00 30T10:00"),
        ({"cron": "30 2 * * *", **BERLIN}, "29T01:00 30T00:30"),
        ({"interval": "1d", "start": "2026-01-01T14:00:00+01:00", **BERLIN}, "28T13:00 29T12:00"),
        ({"interval": "12h", "start": "2026-01-01T14:00:00+01:00", **BERLIN}, "28T13:00 29T01:00"),
        ({"rrule": "FREQ=DAILY;BYHOUR=14;BYMINUTE=0;BYSECOND=0", **BERLIN}, "28T13:00 29T12:00"),
    ],
)
def test_the_next_times(schedule: Any, times: str) -> None:
    found = Schedules.model_validate({"incremental": schedule}).incremental
    assert not isinstance(found, str)
    assert " ".join(f"{time:%dT%H:%M}" for time in islice(times_after(found, SPRING), 2)) == times


def test_a_moment_that_is_a_time_is_not_after_itself() -> None:
    schedule = Schedules().full
    assert not isinstance(schedule, str)
    first, second = islice(times_after(schedule, SPRING), 2)
    assert next(iter(times_after(schedule, first))) == second
