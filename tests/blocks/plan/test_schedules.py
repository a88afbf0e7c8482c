"""Schedules in a plan: how they may be written, what is refused, and what Prefect makes of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas import schedules as server
from pydantic import ValidationError

from blocks.plan.plan import parse_plan
from blocks.plan.schedules import Schedule, Scheduled, Schedules
from deployments.jobs import Timetable

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("15m", "every 15 minutes"),
        ("90m", "every 90 minutes"),
        ("24h", "every day"),
        ("2w", "every 2 weeks"),
        ({"interval": "6h", "timezone": "Europe/Berlin"}, "every 6 hours"),
        ("30 2 * * 1-5", "30 2 * * 1-5 (UTC)"),
        ({"cron": "0 4 * * SUN", "timezone": "Asia/Kolkata"}, "0 4 * * SUN (Asia/Kolkata)"),
        ("FREQ=WEEKLY;BYDAY=SU;BYHOUR=4", "FREQ=WEEKLY;BYDAY=SU;BYHOUR=4 (UTC)"),
        ("DTSTART:20260101T040000\nRRULE:FREQ=DAILY", "FREQ=DAILY (UTC)"),
    ],
)
def test_what_may_be_written(written: object, words: str) -> None:
    schedules = Schedules.model_validate({"full": written})
    assert str(schedules.full) == words
    assert Schedules.model_validate_json(schedules.model_dump_json()) == schedules
    assert Schedules.model_validate(schedules.model_dump()) == schedules


@pytest.mark.parametrize("off", [False, "off"])
def test_off_leaves_a_job_to_be_run_by_hand(off: object) -> None:
    schedules = Schedules.model_validate({"incremental": off})
    assert schedules.of(Scheduled.INCREMENTAL) is None
    assert "backup/incremental" not in Timetable.of(schedules).schedules
    assert str(schedules.of(Scheduled.FULL)) == "every day"


@pytest.mark.parametrize(
    ("written", "where", "words"),
    [
        ("30s", "full.interval", "at most once a minute"),
        ("0m", "full.interval", "longer than nothing"),
        ("5 minutes", "full.cron", "has 2 fields, and a cron text has five"),
        ("61 * * * *", "full.cron", "bad minute"),
        ("* * * * * *", "full.cron", "has 6 fields"),
        ("0 0 31 2 *", "full.cron", "no cron text"),
        ("@daily", "full.cron", "has 1 fields"),
        ("FREQ=SECONDLY", "full.rrule", "more often than once a minute"),
        ("FREQ=BAD", "full.rrule", "no rule of iCalendar"),
        ("FREQ=DAILY;COUNT=0", "full.rrule", "no rule of iCalendar|never comes"),
        ({"cron": "0 0 * * *", "timezone": "Mars"}, "full.timezone", "no time zone 'Mars'"),
        ({"cron": "0 0 * * *", "interval": "1h"}, "full", "here is interval and cron"),
        ({"timezone": "UTC"}, "full", "here is nothing"),
        ({"cron": "0 0 * * *", "start": "2026-01-01T00:00:00Z"}, "full", "`start`"),
        ({"interval": "1h", "start": "2026-01-01T00:00:00"}, "full.start", "timezone"),
        ({"every": "1h"}, "full.every", "not permitted"),
        (None, "full", "write an interval"),
        (5, "full", "write an interval"),
        ("", "full", "write an interval"),
    ],
)
def test_what_is_wrong_is_said_by_field(written: object, where: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as refused:
        Schedules.model_validate({"full": written})
    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [where]


def test_a_plan_says_when_its_jobs_run() -> None:
    raw: dict[str, Any] = {
        "name": "p", "sources": {"a": {"type": "sqlite", "path": "x"}}, "repository": {"url": "./r"},
        "encryption": "none", "schedules": {"full": "30 2 * * *", "incremental": False},
    }  # fmt: skip
    plan = parse_plan(raw, "p")
    assert plan.schedules.full == Schedule(cron="30 2 * * *")
    assert plan.schedules.incremental == "off"
    assert parse_plan({k: v for k, v in raw.items() if k != "schedules"}, "p").schedules == Schedules()


def times(schedule: Schedule, after: datetime, count: int) -> list[str]:
    made = Timetable.of(Schedules(full=schedule)).schedules["backup/full"]
    if made.interval:
        of_server: Any = server.IntervalSchedule(
            interval=made.interval, anchor_date=made.anchor_date, timezone=made.timezone
        )
    elif made.cron:
        of_server = server.CronSchedule(cron=made.cron, timezone=made.timezone)
    else:
        of_server = server.RRuleSchedule(rrule=made.rrule, timezone=made.timezone)
    found: list[datetime] = asyncio.run(of_server.get_dates(count, start=after))
    return [f"{moment.astimezone(BERLIN):%d. %H:%M%z}" for moment in found]


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ({"cron": "30 2 * * *"}, SPRING, ["29. 03:30+0200", "30. 02:30+0200"]),
        ({"cron": "30 2 * * *"}, AUTUMN, ["25. 02:30+0200", "26. 02:30+0100"]),
        ({"interval": "1d", "start": "2026-01-01T02:30:00+01:00"}, SPRING, ["29. 03:30+0200", "30. 03:30+0200"]),
        ({"interval": "1d", "start": "2026-01-01T08:00:00+01:00"}, SPRING, ["29. 08:00+0200", "30. 08:00+0200"]),
        ({"interval": "6h", "start": "2026-01-01T00:00:00+01:00"}, AUTUMN, ["25. 01:00+0200", "25. 06:00+0100"]),
        ({"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"}, SPRING, ["29. 01:30+0100", "30. 02:30+0200"]),
    ],
)
def test_where_clocks_are_changed_the_stated_rule_holds(
    schedule: dict[str, str], after: datetime, expected: list[str]
) -> None:
    assert times(Schedule(**schedule, timezone="Europe/Berlin"), after, 2) == expected


def test_all_kinds_have_times_on_a_server() -> None:
    for schedule in (
        Schedule(cron="*/5 * * * *"),
        Schedule(interval=timedelta(minutes=5)),
        Schedule(rrule="FREQ=HOURLY"),
    ):
        assert len(times(schedule, SPRING, 3)) == 3
