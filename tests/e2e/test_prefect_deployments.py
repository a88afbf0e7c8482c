"""prefect.yaml says the same as `lastgood serve`. (What becomes of it on a server is in test_documents.py.)"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import combinations

from blocks.plan.schedules import Schedules
from deployments.jobs import JOBS, Timetable
from tests.e2e.prefect_yaml import EVERY, written


def test_prefect_yaml_has_the_five_schedules_and_a_restore_by_hand() -> None:
    spans = {
        address: timedelta(seconds=d["schedules"][0]["interval"]) if d.get("schedules") else None
        for address, d in written().items()
    }
    assert spans == EVERY


def test_prefect_yaml_and_serve_say_the_same() -> None:
    deployments, timetable = written(), Timetable.of(Schedules())
    assert list(deployments) == [job.address for job in JOBS]
    for job in JOBS:
        there = deployments[job.address]
        assert there["parameters"] == job.parameters
        assert (there["description"], tuple(there["tags"])) == (job.description, job.tags)
        assert there["paused"]
        assert "concurrency_limit" not in there  # it would be that of all plans together
        schedule = timetable.schedules.get(job.address)
        if schedule is None:
            assert "schedules" not in there
            continue
        (here,) = there["schedules"]
        assert (timedelta(seconds=here["interval"]), here["slug"]) == (schedule.interval, schedule.slug)
        assert datetime.fromisoformat(here["anchor_date"]) == schedule.anchor_date


def test_no_two_backups_start_in_the_same_minute() -> None:
    backups = [s for a, s in Timetable.of(Schedules()).schedules.items() if a.startswith("backup/")]
    day = timedelta(days=1)
    starts = [
        {(s.anchor_date + n * s.interval).time() for n in range(day // s.interval)}
        for s in backups
        if s.anchor_date and s.interval
    ]
    assert [len(times) for times in starts] == [1, 4, 96]
    assert not any(one & other for one, other in combinations(starts, 2))
