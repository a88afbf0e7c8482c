"""Drawings of backups over time: lanes, chains, marks, and cells where there are many."""

from __future__ import annotations

from datetime import timedelta

import pytest

from blocks.records import BackupType
from flows.reporting.report_facts import Mark, MarkedBackup
from flows.reporting.timeline import LANE, SINGLE, WINDOWS, Line, Timeline, gaps, growth_chart, timelines
from tests.flows.reporting.report_records import DIFFERENTIAL, FULL, INCREMENTAL, NOW

DAY = timedelta(days=1)


def made(
    name: str, kind: BackupType, days_ago: float, base: str | None = None, mark: Mark = Mark.VERIFIED
) -> MarkedBackup:
    return MarkedBackup(
        name, kind, NOW - days_ago * DAY, mark, base, 2**20, ("odd",) if mark is Mark.SUSPICIOUS else ()
    )


CHAIN = [
    made("F1", FULL, 6),
    made("D1", DIFFERENTIAL, 5, "F1"),
    made("I1", INCREMENTAL, 4.5, "D1"),
    made("I2", INCREMENTAL, 4, "I1"),
    made("D2", DIFFERENTIAL, 3, "F1"),
    made("F2", FULL, 2),
    made("I3", INCREMENTAL, 1, "F2", Mark.COMPLETED),
]


def week(backups: list[MarkedBackup]) -> Timeline:
    return timelines(backups, NOW)[0]


def at(days_ago: float) -> float:
    return round(100 * (7 - days_ago) / 7, 2)


def test_each_type_has_a_lane_where_its_backups_stand_by_their_times() -> None:
    drawn = week(CHAIN)
    assert [(lane.name, lane.y, lane.total) for lane in drawn.lanes] == [
        ("full", LANE // 2, 2), ("differential", 3 * LANE // 2, 2), ("incremental", 5 * LANE // 2, 3),
    ]  # fmt: skip
    assert [(one.x, one.y, one.mark) for one in drawn.symbols[:3]] == [
        (at(6), 15, "verified"), (at(5), 45, "verified"), (at(4.5), 75, "verified"),
    ]  # fmt: skip
    assert drawn.symbols[-1].mark == "completed"
    assert drawn.symbols[1].title.startswith("D1, 25 Jun 09:40 UTC, differential on F1, 1.0 MiB, verified")
    assert drawn.cells == []


def test_a_chain_goes_down_from_its_base_and_along_to_the_last_that_depends_on_it() -> None:
    links = week(CHAIN).links
    assert set(links) == {
        Line(at(6), at(6), 15, 45, False),  # F1 to its differentials
        Line(at(6), at(3), 45, 45, False),  # as far as D2
        Line(at(5), at(5), 45, 75, False),  # D1 to the incrementals on it
        Line(at(5), at(4), 75, 75, False),  # as far as I2
        Line(at(2), at(2), 15, 75, False),
        Line(at(2), at(1), 75, 75, False),
    }


def test_what_depends_on_a_corrupted_backup_hangs_on_a_broken_link() -> None:
    broken = [made("F1", FULL, 6, mark=Mark.CORRUPTED), made("I1", INCREMENTAL, 5, "F1", Mark.CORRUPTED)]
    assert {line.broken for line in week(broken).links} == {True}


def test_a_chain_that_began_before_the_window_comes_in_from_its_edge() -> None:
    drawn = week([made("F0", FULL, 20), made("I1", INCREMENTAL, 3, "F0")])
    assert drawn.links == [Line(0.0, at(3), 45, 45, False)]
    assert [lane.total for lane in drawn.lanes] == [0, 1]


def test_many_backups_of_a_lane_become_cells_that_are_filled_as_far_as_they_are_verified() -> None:
    many = [made(f"I{n}", INCREMENTAL, 7 - n / 16, mark=Mark.VERIFIED if n % 2 else Mark.COMPLETED) for n in range(112)]
    many[60] = made("I60", INCREMENTAL, 7 - 60 / 16, mark=Mark.CORRUPTED)
    many[61] = made("I61", INCREMENTAL, 7 - 61 / 16, mark=Mark.SUSPICIOUS)
    drawn = week(many)
    assert len(drawn.cells) <= 58
    assert {cell.verified for cell in drawn.cells} <= {0.0, 5.3, 8.0, 10.7, 16.0}
    assert [(one.mark, "1 suspicious, 1 corrupted" in one.title) for one in drawn.symbols] == [("corrupted", True)]
    assert sum(int(cell.title.split("UTC: ")[1].split()[0]) for cell in drawn.cells) == 112
    assert "112 incremental" in drawn.label


def test_cells_stand_where_they_stood_when_the_page_is_made_a_minute_later() -> None:
    many = [made(f"I{n}", INCREMENTAL, 7 - n / 16) for n in range(1, 112)]
    later = timelines(many, NOW + timedelta(minutes=1))[0]
    assert [cell.title for cell in week(many).cells][1:] == [cell.title for cell in later.cells][1:]


@pytest.mark.parametrize("number", [0, 1, SINGLE, SINGLE + 1, 2000])
def test_nothing_is_outside_of_the_drawing(number: int) -> None:
    ahead = made("I-1", INCREMENTAL, -2)  # of a clock that was ahead
    many = [made(f"I{n}", INCREMENTAL, 90 - 90 * n / max(number, 1)) for n in range(number)]
    for drawn, window in zip(timelines([*many, ahead], NOW), WINDOWS, strict=True):
        assert drawn.days == window.days
        places = [x for one in drawn.symbols for x in (one.x,)] + [x for x, _ in drawn.ticks]
        places += [cell.x for cell in drawn.cells] + [cell.x + cell.width for cell in drawn.cells]
        assert all(0 <= place <= 100.1 for place in places)
        assert len(drawn.cells) + len(drawn.symbols) <= 70
        assert len(drawn.links) <= 130


def test_times_without_a_good_backup_are_marked_until_the_next_one_or_now() -> None:
    found = [
        made("F1", FULL, 6),
        made("F2", FULL, 5, mark=Mark.CORRUPTED),
        made("E1", BackupType.EMERGENCY, 4.5),
        made("F3", FULL, 4, mark=Mark.SUSPICIOUS),
        made("F4", FULL, 3.5),
    ]
    late = timelines(found, NOW, gaps(found, NOW, DAY))[0].late
    assert [(one.x, one.title) for one in late] == [
        (at(5), "until 26 Jun 09:40 UTC: 2 days"), (at(2.5), "until 30 Jun 09:40 UTC: 3.5 days"),
    ]  # fmt: skip
    assert [one.width for one in late] == pytest.approx([100 / 7, 250 / 7], abs=0.02)
    assert gaps(found, NOW, None) == []
    hourly = [made(f"F{n}", FULL, 90 - n / 24) for n in range(90 * 24)]
    assert all(len(one.late) <= 170 for one in timelines(hourly, NOW, gaps(hourly, NOW, timedelta(minutes=30))))


def test_a_window_without_backups_says_so() -> None:
    assert [drawn.label for drawn in timelines([made("F1", FULL, 60)], NOW)][:2] == [
        "No backup in the last 7 days.",
        "No backup in the last 30 days.",
    ]


def test_dates_name_the_month_where_it_changes() -> None:
    texts = [text for _, text in timelines([], NOW + 3 * DAY)[0].ticks]
    assert texts == ["27 Jun", "28", "29", "30", "1 Jul", "2", "3"]


def test_growth_is_drawn_with_what_comes_and_with_the_room_where_that_is_near() -> None:
    history = [(NOW - 10 * DAY, 0), (NOW, 2**30)]
    chart = growth_chart(history, {30: 4 * 2**30}, 5 * 2**30, NOW, "said")
    assert chart is not None
    assert (chart.line, chart.ahead) == ("M0.0 100.00L250.0 83.33", "M250.0 83.33L1000.0 33.33")
    assert (chart.top, chart.middle, chart.full, chart.now) == ("6 GiB", "3 GiB", 16.67, 25.0)
    far = growth_chart(history, {30: 4 * 2**30}, 500 * 2**30, NOW, "said")
    assert far is not None
    assert far.full is None
    assert growth_chart(history[1:], {}, None, NOW, "said") is None
