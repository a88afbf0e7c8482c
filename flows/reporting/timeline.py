"""The backups of a plan over time, as drawings: a lane for each type, chains as links, marks that differ in shape.

Places in time are percents of the width, so that one drawing fits a telephone and a desktop; heights are pixels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from blocks.records import BackupType
from flows.reporting.report_facts import Mark, MarkedBackup
from flows.reporting.units import human_bytes, human_span
from flows.reporting.wording import clipped

LANE = 30
"""Height of a lane."""
CELL = 16
"""Height of what stands for several backups."""
AXIS = 22
"""Height of the line of dates below."""
SINGLE = 30
"""Up to so many backups of a lane are drawn one by one."""

KINDS = tuple(BackupType)
WORDS = {
    Mark.VERIFIED: "verified",
    Mark.COMPLETED: "not verified",
    Mark.SUSPICIOUS: "suspicious",
    Mark.WRONG: "not as expected",
    Mark.CORRUPTED: "corrupted",
}
_BAD = (Mark.SUSPICIOUS, Mark.WRONG, Mark.CORRUPTED)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROUND = (1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 800, 1000)
_LEAST_LATE = 0.6
"""So wide is at least what stands for a time without a good backup, in percent."""
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """A time that is shown.

    Attributes:
        days: How far it goes back.
        cell: How much of it one cell stands for, where there are many backups.
        tick: How far the dates below are apart, in days.
    """

    days: int
    cell: timedelta
    tick: int


WINDOWS = (Window(7, 3 * _HOUR, 1), Window(30, 12 * _HOUR, 5), Window(90, 2 * _DAY, 15))


@dataclass(frozen=True)
class Lane:
    """The backups of one type: where its middle is, and how many are shown."""

    name: str
    y: int
    total: int


@dataclass(frozen=True)
class Cell:
    """Several backups: how high the part of them is that was verified, in pixels."""

    x: float
    width: float
    y: int
    verified: float
    title: str


@dataclass(frozen=True)
class Symbol:
    """One backup, or the worst of those of a cell."""

    x: float
    y: int
    mark: str
    title: str


@dataclass(frozen=True)
class Line:
    """A link from a backup to those that depend on it; `broken` where that is corrupted."""

    x1: float
    x2: float
    y1: int
    y2: int
    broken: bool


@dataclass(frozen=True)
class Gap:
    """A time in which the newest good backup was older than it may be.

    Attributes:
        good_at: The point in time of that backup.
        began: When it became too old.
        ended: When the next good one was made; now where there is none.
    """

    good_at: datetime
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Late:
    """A gap, as it is drawn."""

    x: float
    width: float
    title: str


@dataclass(frozen=True)
class Timeline:
    """One drawing.

    Attributes:
        days: How far back it goes.
        label: What it shows, in words.
        height: In pixels.
        floor: Where its lanes end.
        ticks: Places and dates.
        late: When the newest good backup was too old.
    """

    days: int
    label: str
    height: int
    floor: int
    lanes: Sequence[Lane]
    links: Sequence[Line]
    cells: Sequence[Cell]
    symbols: Sequence[Symbol]
    ticks: Sequence[tuple[float, str]]
    late: Sequence[Late] = ()


def timelines(
    backups: Sequence[MarkedBackup], now: datetime, late: Sequence[Gap] = (), coarser: int = 1
) -> list[Timeline]:
    """Draw what there is in each window.

    Args:
        backups: In the order of their times.
        now: Where the windows end, aware.
        late: When the newest good backup was too old.
        coarser: How many times longer a cell is, where the page would be too large.
    """
    longest = now - timedelta(days=WINDOWS[-1].days)
    kinds = [kind for kind in KINDS if any(one.kind is kind and one.at >= longest for one in backups)]
    drawn = [_Drawing(backups, kinds, now, window, coarser) for window in WINDOWS]
    return [one.timeline(late) for one in drawn]


def gaps(backups: Sequence[MarkedBackup], now: datetime, rpo: timedelta | None) -> list[Gap]:
    """Return when the newest good backup was too old, by the backups that there are.

    Args:
        backups: In the order of their times.
        now: Until when, aware.
        rpo: How old it may be; None where nothing says that.
    """
    if rpo is None:
        return []
    good = [one.at for one in backups if one.kind is not BackupType.EMERGENCY and one.mark not in _BAD[1:]]
    return [Gap(one, one + rpo, later) for one, later in pairwise([*good, now]) if later - one > rpo]


class _Drawing:
    """One window of a plan's backups."""

    def __init__(
        self, backups: Sequence[MarkedBackup], kinds: Sequence[BackupType], now: datetime, window: Window, coarser: int
    ) -> None:
        self._window, self._cell, self._single = window, window.cell * coarser, max(1, SINGLE // coarser)
        self._start, self._now = now - timedelta(days=window.days), now
        self._by_id = {one.backup_id: one for one in backups}
        self._shown = [one for one in backups if one.at >= self._start]
        self._count = Counter(one.kind for one in self._shown)
        self._lanes = {kind: LANE * number + LANE // 2 for number, kind in enumerate(kinds)}

    def timeline(self, late: Sequence[Gap]) -> Timeline:
        floor = LANE * len(self._lanes)
        cells, worst = self._cells()
        return Timeline(
            days=self._window.days,
            label=self._label(),
            height=floor + AXIS,
            floor=floor,
            lanes=[Lane(kind.value, y, self._count[kind]) for kind, y in self._lanes.items()],
            links=[*self._links()],
            cells=cells,
            symbols=[self._symbol(one) for one in self._shown if not self._many(one.kind)] + worst,
            ticks=self._ticks(),
            late=[*self._late(late)],
        )

    def _many(self, kind: BackupType) -> bool:
        return self._count[kind] > self._single

    def _label(self) -> str:
        marks = Counter(one.mark for one in self._shown)
        kinds = ", ".join(f"{number:,} {kind.value}" for kind, number in sorted(self._count.items()))
        said = ", ".join(f"{marks[mark]:,} {WORDS[mark]}" for mark in Mark if marks[mark])
        if not self._shown:
            return f"No backup in the last {self._window.days} days."
        return f"Backups of the last {self._window.days} days: {kinds}; of these {said}. The table below lists them."

    def _x(self, moment: datetime) -> float:
        part = (moment - self._start) / (self._now - self._start)
        return round(100 * min(1.0, max(0.0, part)), 2)

    def _place(self, one: MarkedBackup) -> float:
        if not self._many(one.kind):
            return self._x(one.at)
        began = self._began(one.at)
        return round((self._x(began) + self._x(began + self._cell)) / 2, 2)

    def _began(self, moment: datetime) -> datetime:
        """Return when the cell of a moment began; the same moment whenever the page is made."""
        return moment - (moment - _EPOCH) % self._cell

    def _symbol(self, one: MarkedBackup) -> Symbol:
        return Symbol(self._place(one), self._lanes[one.kind], one.mark.value, title_of(one))

    def _cells(self) -> tuple[list[Cell], list[Symbol]]:
        """Return the cells of the lanes that have many backups, and what stands out in them."""
        held: defaultdict[tuple[BackupType, datetime], list[MarkedBackup]] = defaultdict(list)
        for one in self._shown:
            if self._many(one.kind):
                held[one.kind, self._began(one.at)].append(one)
        cells, worst = [], []
        for (kind, began), backups in held.items():
            x, end, y = self._x(began), self._x(began + self._cell), self._lanes[kind]
            verified = sum(one.mark is Mark.VERIFIED for one in backups)
            title = self._title(began, kind, backups)
            width = round(max(0.92 * (end - x), 0.1), 2)
            cells.append(Cell(x, width, y, round(CELL * verified / len(backups), 1), title))
            found = [mark for mark in _BAD if any(one.mark is mark for one in backups)]
            worst += [Symbol(round(x + width / 2, 2), y, mark.value, title) for mark in found[-1:]]
        return cells, worst

    def _title(self, began: datetime, kind: BackupType, backups: Sequence[MarkedBackup]) -> str:
        marks = Counter(one.mark for one in backups)
        said = ", ".join(f"{marks[mark]:,} {WORDS[mark]}" for mark in Mark if marks[mark])
        size = human_bytes(sum(one.size_stored for one in backups))
        end = began + self._cell
        return f"{began:%d %b %H:%M} to {end:%d %b %H:%M} UTC: {len(backups):,} {kind.value} ({said}), {size}"

    def _links(self) -> Iterable[Line]:
        """Return the chains: from a base down to the lane of those that depend on it, and along to the last of them."""
        down: set[Line] = set()
        along: defaultdict[tuple[int, bool], list[tuple[float, float]]] = defaultdict(list)
        for one in self._shown:
            base = self._by_id.get(one.base or "")
            if base is None:
                continue
            broken = base.mark is Mark.CORRUPTED
            x, y = self._place(one), self._lanes[one.kind]
            from_x = self._place(base) if base.at >= self._start else 0.0
            along[y, broken].append((min(x, from_x), max(x, from_x)))
            if base.at >= self._start and base.kind is not one.kind:
                down.add(Line(from_x, from_x, self._lanes[base.kind], y, broken))
        flat = [Line(a, b, y, y, broken) for (y, broken), spans in along.items() for a, b in _joined(spans)]
        return sorted([*down, *flat], key=lambda line: (line.broken, line.y1, line.x1, line.y2))

    def _late(self, late: Sequence[Gap]) -> Iterable[Late]:
        end = -1.0
        for gap in late:
            if gap.ended <= self._start:
                continue
            x = max(self._x(gap.began), end)
            end = max(self._x(gap.ended), round(x + _LEAST_LATE, 2))
            age = human_span(gap.ended - gap.good_at)
            if x < 100:
                yield Late(x, round(min(end, 100.0) - x, 2), f"until {gap.ended:%d %b %H:%M} UTC: {age}")

    def _ticks(self) -> list[tuple[float, str]]:
        midnight = self._now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        days = [midnight - n * _DAY for n in range(0, self._window.days, self._window.tick)]
        shown: list[tuple[float, str]] = []
        month = 0
        for day in reversed(days):
            if day >= self._start:
                # the month stands where it is another one than before
                text = f"{day.day} {day:%b}" if day.month != month or self._window.tick > 1 else str(day.day)
                shown.append((self._x(day), text))
                month = day.month
        return shown


def _joined(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join spans that touch."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def title_of(one: MarkedBackup) -> str:
    """Say of one backup what its mark stands for."""
    base = f" on {one.base}" if one.base else ""
    why = f": {clipped(one.why[0])}" if one.why else ""
    size = human_bytes(one.size_stored)
    return f"{one.backup_id}, {one.at:%d %b %H:%M} UTC, {one.kind.value}{base}, {size}, {WORDS[one.mark]}{why}"


@dataclass(frozen=True)
class GrowthChart:
    """What is stored over time, in a field of 1000 by 100 that is stretched.

    Attributes:
        label: What it shows, in words.
        area: The path of what was stored.
        line: Its upper edge.
        ahead: The path of how it goes on; empty where that is not known.
        full: How high the line is from where on there is no room; None where that is above.
        now: Where now is, in percent.
        top: The value at the top, in words.
        middle: The value in the middle, in words.
        ends: The dates of both ends, in words.
    """

    label: str
    area: str
    line: str
    ahead: str
    full: float | None
    now: float
    top: str
    middle: str
    ends: tuple[str, str] = field(default=("", ""))


def growth_chart(
    history: Sequence[tuple[datetime, int]],
    ahead: Mapping[int, int],
    capacity: int | None,
    now: datetime,
    label: str,
) -> GrowthChart | None:
    """Draw what was stored, and how it goes on; None where there is nothing to draw.

    Args:
        history: Moments, oldest first, and bytes.
        ahead: Bytes after so many days; empty where that is not known.
        capacity: How many bytes there is room for; None where that is not known.
        now: The moment of the last value, aware.
        label: What it shows, in words.
    """
    if len(history) < 2:
        return None
    first = history[0][0]
    days = max(ahead, default=0)
    span = now - first + timedelta(days=days)
    most = max([size for _, size in history] + list(ahead.values()))
    near = capacity is not None and capacity <= 2 * most
    top = _round_size(max(most, capacity if near and capacity is not None else 0, 1))

    def point(moment: datetime, size: int) -> str:
        return f"{1000 * ((moment - first) / span):.1f} {100 * (1 - size / top):.2f}"

    line = "L".join(point(moment, size) for moment, size in history)
    end = 1000 * ((now - first) / span)
    later = [(now, history[-1][1]), *((now + timedelta(days=day), size) for day, size in sorted(ahead.items()))]
    return GrowthChart(
        label=label,
        area=f"M0 100L{line}L{end:.1f} 100z",
        line=f"M{line}",
        ahead="M" + "L".join(point(moment, size) for moment, size in later) if ahead else "",
        full=round(100 * (1 - capacity / top), 2) if near and capacity is not None else None,
        now=round(end / 10, 2),
        top=human_bytes(top).replace(".0 ", " "),
        middle=human_bytes(top / 2).replace(".0 ", " "),
        ends=(f"{first:%-d %b}", f"{now + timedelta(days=days):%-d %b %Y}" if days else ""),
    )


def _round_size(size: int) -> int:
    """Return a round number of bytes that is not less."""
    unit = 1
    while size > 1000 * unit:
        unit *= 1024
    return next(number * unit for number in _ROUND if number * unit >= size)
