"""How old the newest good backup may be, by the RPO of a plan or by its schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from blocks.plan.objectives import Objectives, rpo_target, widest_rpo_target
from blocks.plan.schedules import Schedules

YEAR = datetime(2026, 1, 1, tzinfo=UTC)
OFF = {"full": "off", "differential": "off", "incremental": "off"}


@pytest.mark.parametrize(
    ("objectives", "schedules", "widest"),
    [
        ({"rpo": "90m"}, {}, timedelta(minutes=90)),
        ({"rpo": "90m"}, OFF, timedelta(minutes=90)),
        ({}, {}, timedelta(minutes=30)),
        ({}, OFF, None),
        ({}, OFF | {"full": "6h"}, timedelta(hours=12)),
        # from Friday to Tuesday
        ({}, OFF | {"full": "0 3 * * 1-5"}, timedelta(days=4)),
        # a night in autumn is an hour longer
        ({}, OFF | {"full": {"cron": "0 12 * * *", "timezone": "Europe/Berlin"}}, timedelta(days=2, hours=1)),
    ],
)
def test_the_widest_target_is_never_less_than_any(
    objectives: dict[str, str], schedules: dict[str, object], widest: timedelta | None
) -> None:
    said, when = Objectives.model_validate(objectives), Schedules.model_validate(schedules)
    assert widest_rpo_target(said, when, YEAR) == widest
    for hours in range(0, 24 * 7, 5):
        target = rpo_target(said, when, YEAR + timedelta(hours=hours))
        assert target is None or widest is None or target <= widest
