"""Simulated histories of backups: plans of twelve tables that live as tables do, and faults planted into them.

All is drawn from a seed. A table has rows, and says at each backup how many changed since the last one, how wide a row
is, and how well rows compress; a schedule says when backups are made, and of what type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from blocks.plan.census import Census, Tally
from blocks.plan.suspicion import is_emptying_suspicious, suspicions
from blocks.plan.suspicion_history import History, family

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def activity(at: datetime) -> float:
    """How much people do at a time, about 1 on average: by day, on weekdays, and less in the last days of a year."""
    by_day = 1.6 if 8 <= at.hour < 20 else 0.3
    by_week = 0.25 if at.weekday() >= 5 else 1.3
    return by_day * by_week * (0.3 if (at.month, at.day) >= (12, 23) else 1)


def over(begin: datetime, end: datetime) -> float:
    """Days of activity between two times."""
    steps = max(1, min(48, round((end - begin) / HOUR)))
    return (
        sum(activity(begin + (end - begin) * (n + 0.5) / steps) for n in range(steps)) / steps * ((end - begin) / DAY)
    )


def ends_month(begin: datetime, end: datetime) -> bool:
    return begin.month != end.month


def nights(begin: datetime, end: datetime) -> int:
    """Count the times of three o'clock at night between two times."""
    return math.floor((end - timedelta(hours=3)).timestamp() / 86_400) - math.floor(
        (begin - timedelta(hours=3)).timestamp() / 86_400
    )


@dataclass(frozen=True)
class State:
    """A table at a time; `changed` is since the time before."""

    rows: int
    changed: int = 0
    width: float = 120
    ratio: float = 0.25


class Table:
    """A table that lives; `live` returns it as it is at a time, from what it was."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.state = State(self.begins(), width=random.uniform(40, 400), ratio=random.uniform(0.08, 0.6))

    def noise(self, span: timedelta, spread: float = 0.3) -> float:
        """Return by how much a time differs from others; longer ones differ less."""
        return self.random.lognormvariate(0, spread / math.sqrt(max(1.0, span / DAY)))

    def begins(self) -> int:
        return round(self.random.lognormvariate(math.log(20_000), 1.2))

    def moved(self, added: float, removed: float, updated: float) -> None:
        held = self.state
        added, removed = round(max(0, added)), min(held.rows, round(max(0, removed)))
        updated = min(held.rows - removed, round(max(0, updated)))
        self.state = replace(
            held,
            rows=held.rows + added - removed,
            changed=added + removed + updated,
            width=held.width * self.random.lognormvariate(0, 0.002),
            ratio=min(1.0, held.ratio * self.random.lognormvariate(0, 0.004)),
        )

    def live(self, begin: datetime, end: datetime) -> None:
        raise NotImplementedError


class Growing(Table):
    """Orders: some come, the young ones change."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.daily = random.uniform(0.0005, 0.02) * self.state.rows

    def live(self, begin: datetime, end: datetime) -> None:
        added = self.daily * over(begin, end) * self.noise(end - begin)
        self.moved(added, added * 0.02, 2.5 * added)


class Appending(Growing):
    """Events: nothing ever changes; some days bring ten times as many."""

    def live(self, begin: datetime, end: datetime) -> None:
        burst = 10 if self.random.random() < 0.02 else 1
        self.moved(self.daily * over(begin, end) * burst * self.noise(end - begin, 0.5), 0, 0)


class Young(Table):
    """A table of an application that takes off: from 200 rows to a million, at 3 % a day."""

    def begins(self) -> int:
        return 200

    def live(self, begin: datetime, end: datetime) -> None:
        room = max(0.0, 1 - self.state.rows / 1_000_000)
        added = self.state.rows * 0.03 * room * over(begin, end) * self.noise(end - begin, 0.5)
        self.moved(added, 0, added)


class Shrinking(Table):
    """An archive that is given up: a little goes each night, and up to a tenth on Sundays."""

    def live(self, begin: datetime, end: datetime) -> None:
        share = 0.002 * nights(begin, end)
        if end.weekday() == 6 and nights(begin, end):
            share += self.random.uniform(0.01, 0.1)
        self.moved(0, min(share, 0.5) * self.state.rows if self.state.rows > 500 else 0, 0)


class Sessions(Table):
    """Sessions of people who are there: ten thousand by day, few hundred at weekends, all of them short."""

    def live(self, begin: datetime, end: datetime) -> None:
        level = round(7000 * activity(end) * self.noise(end - begin, 0.15))
        stays = 0 if end - begin > 6 * HOUR else min(level, self.state.rows) * 0.6
        self.moved(level - stays, self.state.rows - stays, stays * 0.8)


class Queue(Table):
    """Jobs that wait: many in the day, often none."""

    def begins(self) -> int:
        return 0

    def live(self, begin: datetime, end: datetime) -> None:
        waiting = 0 if self.random.random() < 0.3 else round(400 * activity(end) * self.random.expovariate(1))
        self.moved(waiting, self.state.rows, 0)


class Settings(Table):
    """A few hundred rows that hardly ever change; a new version of the application brings some."""

    def begins(self) -> int:
        return self.random.randint(20, 600)

    def live(self, begin: datetime, end: datetime) -> None:
        days = (end - begin) / DAY
        if self.random.random() < 0.02 * days:
            self.moved(self.random.randint(0, 30), 0, self.state.rows * self.random.random())
        else:
            self.moved(0, 0, self.random.randint(0, 3) if self.random.random() < 0.3 * days else 0)


class Seasonal(Table):
    """Stock of a shop that sells for Christmas: ten times as much in December as in February."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.most = max(self.state.rows, 5000)

    def live(self, begin: datetime, end: datetime) -> None:
        day = end.timetuple().tm_yday
        level = self.most * (0.55 + 0.45 * math.cos(2 * math.pi * (day + 10) / 365)) * self.noise(end - begin, 0.01)
        change, busy = level - self.state.rows, over(begin, end)
        self.moved(change, -change, self.state.rows * min(0.5, 0.05 * busy))


class Ledger(Growing):
    """Accounts: at the end of a month a third of them changes, and as much as otherwise in a month is posted."""

    def live(self, begin: datetime, end: datetime) -> None:
        added = self.daily * over(begin, end) * self.noise(end - begin)
        if ends_month(begin, end):
            self.moved(added + 20 * self.daily, 0, self.state.rows * self.random.uniform(0.2, 0.35))
        else:
            self.moved(added, 0, added)


class Prices(Table):
    """A hot table: all rows are written again all the time."""

    def live(self, begin: datetime, end: datetime) -> None:
        hot = min(1.0, 4 * over(begin, end))
        self.moved(0, 0, self.state.rows * hot * self.random.uniform(0.9, 1))


class Rolling(Table):
    """A log of 30 days: what is older goes each night."""

    def live(self, begin: datetime, end: datetime) -> None:
        added = self.state.rows / 30 * over(begin, end) * self.noise(end - begin, 0.2)
        due = max(0.0, self.state.rows + added - self.level) if nights(begin, end) else 0
        self.moved(added, due, 0)

    def begins(self) -> int:
        self.level = super().begins()
        return self.level


class Staging(Table):
    """A copy of elsewhere that is emptied and loaded again each night, all of it."""

    def live(self, begin: datetime, end: datetime) -> None:
        if nights(begin, end):
            self.moved(self.state.rows * self.random.uniform(0.9, 1.12) + 1, self.state.rows, 0)
        else:
            self.moved(0, 0, 0)


TABLES: dict[str, type[Table]] = {
    kind.__name__.lower(): kind
    for kind in (
        Growing, Appending, Young, Shrinking, Sessions, Queue, Settings, Seasonal, Ledger, Prices, Rolling, Staging,
    )
}  # fmt: skip


# Schedules: times and types; some runs are late, some days none is made at all


Kind = str
"""`full`, `incremental` or `differential`."""


def _every(span: timedelta, full: Callable[[int], Kind]) -> Callable[[Random], Iterator[tuple[datetime, Kind]]]:
    def schedule(random: Random) -> Iterator[tuple[datetime, Kind]]:
        at, number = datetime(2025, 1, 1, 2, tzinfo=UTC) + random.randrange(365) * DAY, 0
        while True:
            yield at + random.random() * min(span / 10, HOUR), full(number)
            at, number = at + span, number + 1
            if random.random() < 0.0005 * span / HOUR:
                at += span * math.ceil(random.uniform(0.2, 4) * DAY / span)  # nobody was there, and the machine was off

    return schedule


def _office(random: Random) -> Iterator[tuple[datetime, Kind]]:
    """Make backups while people work, and none at night."""
    made = 0
    for at, _ in _every(HOUR, lambda _: "incremental")(random):
        if at.weekday() < 5 and 8 <= at.hour < 18:
            yield at, "full" if made % 50 == 0 else "incremental"
            made += 1


CLOSE = "every four minutes, a full a day"

SCHEDULES: dict[str, Callable[[Random], Iterator[tuple[datetime, Kind]]]] = {
    "hourly, a full a week": _every(HOUR, lambda n: "incremental" if n % 168 else "full"),
    "daily, a full a week": _every(DAY, lambda n: "incremental" if n % 7 else "full"),
    "every six hours, differentials": _every(
        6 * HOUR, lambda n: "full" if n % 28 == 0 else "differential" if n % 4 == 0 else "incremental"
    ),
    "a full a day": _every(DAY, lambda _: "full"),
    "a full a week": _every(7 * DAY, lambda _: "full"),
    "hourly while people work": _office,
}
ALL_SCHEDULES = SCHEDULES | {CLOSE: _every(timedelta(minutes=4), lambda n: "incremental" if n % 360 else "full")}


Fault = Callable[[State], State | None]
"""What becomes of a table that is hit: None where it is gone."""


@dataclass
class Simulated:
    """A plan whose backups are simulated one by one.

    Attributes:
        tables: By name.
        history: What is known of its backups.
    """

    tables: dict[str, Table]
    history: History
    schedule: Iterator[tuple[datetime, Kind]]
    at: datetime | None = None
    number: int = 0

    @classmethod
    def begin(cls, schedule: str, seed: int) -> Simulated:
        random = Random(f"{schedule} {seed}")
        tables = {name: kind(random) for name, kind in TABLES.items()}
        return cls(tables, History(), ALL_SCHEDULES[schedule](random))

    def back_up(self, hit: str | None = None, fault: Fault | None = None, learn: bool = True) -> list[str]:
        """Let the tables live until the next backup, and return what is suspicious about it.

        Args:
            hit: Name of the table that a fault hits just before the backup.
            fault: What happens to it.
            learn: Whether the backup is remembered; else the next call simulates the time after it.
        """
        at, kind = next(self.schedule)
        counts = {}
        for name, table in self.tables.items():
            if self.at is not None:
                table.live(self.at, at)
            state: State | None = table.state
            if name == hit and fault is not None and state is not None:
                state = fault(state)
            if state is not None:
                counts[name] = _tally(state, kind, first=self.at is None)
        census = Census(f"{kind[:3].upper()}_{self.number}", at, counts)
        found = [*self._emptied(census), *suspicions(self.history, census)]
        self.at, self.number = at, self.number + 1
        if learn:
            self.history.add(census)
        return found

    def _emptied(self, census: Census) -> Iterator[str]:
        before = self.history.newest.counts if self.history.newest is not None else {}
        for name, last in before.items():
            now = census.counts.get(name)
            if (now is None or not now.rows) and is_emptying_suspicious(self.history, name, last.rows):
                yield f"{name} is empty" if now is not None else f"{name} is gone ({family(name)})"


def _tally(state: State, kind: Kind, first: bool) -> Tally:
    full = kind == "full" or first
    stored = state.rows if full else min(state.changed, state.rows)
    size = round(stored * state.width)
    # small objects are more frame than rows
    return Tally(state.rows, None if full else state.changed, stored, size, round(size * state.ratio) + 400, "shape")


def _rewritten(state: State, width: float = 1.0, ratio: float = 1.0) -> State:
    tight = min(1.0, state.ratio * ratio)
    return replace(state, changed=state.rows, width=state.width * width, ratio=tight)


def _of_rows(state: State, factor: float) -> State:
    rows = round(state.rows * factor)
    return replace(state, rows=rows, changed=abs(rows - state.rows))


FAULTS: dict[str, Fault] = {
    "emptied": lambda state: _of_rows(state, 0),
    "gone": lambda _: None,
    "half of the rows gone": lambda state: _of_rows(state, 0.5),
    "all but the last days gone": lambda state: _of_rows(state, 0.05),
    "every row twice": lambda state: _of_rows(state, 2),
    "flooded": lambda state: _of_rows(state, 5),
    "every row changed": _rewritten,
    "rows of another database": lambda state: replace(state, changed=2 * state.rows),
    "values twice as long": lambda state: _rewritten(state, width=2),
    "values cut off": lambda state: _rewritten(state, width=0.45),
    "encrypted": lambda state: replace(_rewritten(state, width=1.05), ratio=1.0),
    "a column set to null": lambda state: _rewritten(state, width=0.75, ratio=0.4),
}
"""What can happen to a table."""

SEEN_BY_CHANGES = {"every row changed", "rows of another database"}
"""Faults that leave the number and the width of rows as they were: a full backup cannot tell."""
