"""Which alerts can fire at the cadences of real jobs: what docs/monitoring.md says is what promtool does."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, takewhile
from pathlib import Path

import pytest

from blocks.plan.schedule_times import times_after
from blocks.plan.schedules import Schedules
from deployments.monitoring.files import ALERTS, monitoring_files
from tests.deployments.monitoring.promtool import Series, rules_of, wrong

TEXT = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
RULES = monitoring_files()[ALERTS]
PUBLISHED = list(rules_of(RULES)["backup_alerts"])
OURS = {"LastgoodBackupFailed", "LastgoodNoGoodBackup", "LastgoodRetentionFailed", "LastgoodBackupSizeUnusual"}
"""What says the same of states and moments."""
TOOK = 20
"""Seconds after which a run ends, in whatever way."""
SIZE = 10**12
SCRAPED = 30
"""Seconds between scrapes, as our configuration has it."""
DAY = 86_400
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


def usual(days: int) -> Mapping[str, Sequence[int]]:
    """When backups and retention start where a plan does not say it: seconds after midnight."""
    schedules, end = Schedules(), MIDNIGHT + timedelta(days=days)

    def seconds(*schedules: object) -> list[int]:
        return sorted(
            int((time - MIDNIGHT).total_seconds())
            for schedule in schedules
            for time in takewhile(lambda time: time < end, times_after(schedule, MIDNIGHT))
        )

    return {
        "backup": seconds(schedules.full, schedules.differential, schedules.incremental),
        "retention": seconds(schedules.retention),
    }


def starts(cadence: str, days: int) -> Mapping[str, Sequence[int]]:
    """When runs of each verb start: seconds after the first sample."""
    if cadence == "the usual schedules":
        return usual(days)
    apart = {"every 15 minutes": 900, "every hour": 3600, "every day": DAY, "every 4 minutes": 240}[cadence]
    times = list(range(120, days * DAY, apart))
    return {"backup": times, "retention": times}


def sampled(values: Sequence[float]) -> str:
    return " ".join(f"{value}+0x{len(list(same)) - 1}" for value, same in groupby(values))


def counted(times: Sequence[int], days: int, step: int, each: int = 1) -> str:
    """A counter that grows at these moments, as it is scraped."""
    return sampled([bisect_right(times, moment) * each for moment in range(0, days * DAY, step)])


def counters(runs: Mapping[str, Sequence[int]], days: int, step: int) -> Mapping[str, str]:
    """The published metrics where each run fails, and is huge all the same."""
    backups = runs["backup"]
    ends = {verb: [time + TOOK for time in times] for verb, times in runs.items()}
    return {
        "backup_operations_created_total": counted(backups, days, step),
        "backup_operations_created_success": counted([], days, step),
        "backup_operations_created_failed": counted(ends["backup"], days, step),
        "backup_operations_size_bytes_total_sum": counted(ends["backup"], days, step, SIZE),
        "backup_operations_size_bytes_total_count": counted(ends["backup"], days, step),
        "backup_retention_cleaned_total": counted(runs["retention"], days, step),
        "backup_retention_cleaned_failed": counted(ends["retention"], days, step),
    }


def states(runs: Mapping[str, Sequence[int]], days: int, step: int, good: int) -> Mapping[str, str]:
    """Our metrics where each run after some days fails, and is huge all the same."""
    apart = max(later - earlier for earlier, later in zip(runs["backup"], runs["backup"][1:], strict=False))

    def last(verb: str, ok: bool) -> str:
        ends = [0, *(time + TOOK for time in runs[verb] if (time < good * DAY) is ok)]
        return sampled([ends[bisect_right(ends, moment) - 1] for moment in range(0, days * DAY, step)])

    first_bad = next(time for time in runs["backup"] if time >= good * DAY)
    sizes = sampled([SIZE if moment > first_bad else SIZE // 10 for moment in range(0, days * DAY, step)])
    found = {'lastgood_backup_size_bytes{plan="books",type="full"}': sizes}
    for verb in runs:
        for moment, ok in (("success", True), ("failure", False)):
            found[f'lastgood_last_{moment}_timestamp_seconds{{plan="books",verb="{verb}",type="full"}}'] = last(
                verb, ok
            )
    found['lastgood_newest_good_backup_timestamp_seconds{plan="books"}'] = last("backup", True)
    found['lastgood_rpo_target_seconds{plan="books"}'] = sampled([2 * apart] * (days * DAY // step))
    return found


def firing(alerts: Mapping[str, bool], values: Mapping[str, str], days: int, step: int, folder: Path) -> str:
    """Return what alerts do otherwise than is expected: whether each of them ever fires."""
    samples = {
        f'clamp_max(sum(count_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[{days}d])), 1)': [("", 1.0)]
        if fires
        else []
        for alert, fires in alerts.items()
    }
    at = f"{days * DAY - step}s"
    return wrong(RULES, alerts, Series("cadence", values, at, f"{step}s", samples=samples), folder)


TABLE = {
    cells[0]: {name: cell == "fires" for name, cell in zip([*PUBLISHED, "ours"], cells[1:], strict=True)}
    for line in re.findall(r"^\| ((?:every|the usual).*(?:fires|never)) \|$", TEXT, re.MULTILINE)
    if (cells := line.split(" | "))
}


def test_the_document_has_the_real_cadences() -> None:
    assert list(TABLE) == ["every 15 minutes", "every hour", "every day", "the usual schedules", "every 4 minutes"]


@pytest.mark.parametrize("cadence", TABLE)
def test_the_published_alerts_fire_where_the_document_says_it(cadence: str, tmp_path: Path) -> None:
    said = {alert: TABLE[cadence][alert] for alert in PUBLISHED}
    days = 2 if cadence == "every day" else 1
    assert firing(said, counters(starts(cadence, days), days, SCRAPED), days, SCRAPED, tmp_path) == ""


@pytest.mark.parametrize("cadence", TABLE)
def test_ours_fire_at_every_cadence(cadence: str, tmp_path: Path) -> None:
    assert TABLE[cadence]["ours"]
    values = states(starts(cadence, 10), 10, 900, good=7)
    assert firing(dict.fromkeys(OURS, True), values, 10, 900, tmp_path) == ""


@pytest.mark.parametrize("cadence", ["every 15 minutes", "every day"])
def test_ours_are_quiet_while_all_goes_well(cadence: str, tmp_path: Path) -> None:
    values = states(starts(cadence, 12), 9, 900, good=11)
    assert firing(dict.fromkeys(OURS, False), values, 9, 900, tmp_path) == ""
