"""What is due to be proved: single runs as tables, and weeks of a plan with its retention, run by run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from blocks.plan.proof import Known, ProofKind, ProofPolicy, ProofSchedule, due, everything
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata, BackupType, Link
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Depth, Standing

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
WHOLE, OWN = ProofKind.WHOLE, ProofKind.OWN
_PROVED = {Axis.BYTES: Depth.ROWS, Axis.RESTORABLE: Depth.RESTORED}
GOOD = Verdict({
    axis: Standing(outcome=CheckOutcome.GOOD, depth=depth.value, sequence=1, verified_at=NOW)
    for axis, depth in _PROVED.items()
})  # fmt: skip


def backup(
    name: str, made: datetime, chain: tuple[str, ...] = (), size: int = 10, sequence: int = 1, doubt: str | None = None
) -> BackupMetadata:
    kind = next(kind for kind in BackupType if kind.prefix == name[:3].upper())
    return BackupMetadata.model_construct(
        plan="p", backup_id=name, backup_type=kind, timestamp=made, sequence=sequence, whole=True, tags=(), sources=(),
        collections=(), base=chain[-1] if chain else None, size_stored=size, clock_doubt=doubt,
        chain=tuple(Link.model_construct(backup_id=link, manifest_sha256="") for link in chain),
    )  # fmt: skip


def aged(*rows: tuple[str, float, tuple[str, ...], int]) -> list[BackupMetadata]:
    """Make backups of rows: name, age in days, chain, stored bytes."""
    return [backup(name, NOW - DAY * age, chain, size, n) for n, (name, age, chain, size) in enumerate(rows)]


def made(schedule: ProofSchedule) -> list[tuple[str, ProofKind]]:
    return [(proof.backup.backup_id, proof.kind) for proof in schedule.proofs]


CHAIN = aged(
    ("ful1", 40, (), 100), ("inc1", 39, ("ful1",), 5), ("ful2", 20, (), 100), ("inc2", 19, ("ful2",), 5),
    ("inc3", 0.1, ("ful2", "inc2"), 5),
)  # fmt: skip
MONTH = ProofPolicy(within=30 * DAY)


def ago(**days: float) -> dict[str, datetime]:
    return {name: NOW - DAY * age for name, age in days.items()}


TABLES: dict[str, tuple[Known, ProofPolicy, list[tuple[str, ProofKind]], list[str]]] = {
    "without prove_within only the newest": (Known(), ProofPolicy(), [("inc3", WHOLE)], []),
    "what was never proved and would be late by the next run": (
        Known(),
        MONTH,
        [("inc3", WHOLE), ("ful1", WHOLE), ("inc1", OWN), ("ful2", WHOLE)],
        [],
    ),
    "what was proved long ago, oldest first": (
        Known(ago(ful1=31, inc1=35, ful2=2, inc2=2), last_run=NOW - WEEK),
        MONTH,
        [("inc3", WHOLE), ("ful1", WHOLE), ("inc1", OWN)],  # inc1 is older, and comes after what it depends on
        [],
    ),
    "its base was proved lately, and is not read again": (
        Known(ago(ful1=3, inc1=35, ful2=2, inc2=2), last_run=NOW - HOUR),
        MONTH,
        [("inc3", WHOLE), ("inc1", OWN)],
        [],
    ),
    "nothing is near its time, and a share is proved all the same": (
        Known(ago(ful1=17, inc1=16, ful2=16, inc2=16), last_run=NOW - WEEK),
        MONTH,
        [("inc3", WHOLE), ("ful1", WHOLE)],
        [],
    ),
    "all was proved lately": (
        Known(ago(ful1=3, inc1=2, ful2=2, inc2=1), last_run=NOW - WEEK),
        MONTH,
        [("inc3", WHOLE)],
        [],
    ),
    "a time without end": (Known(last_run=NOW - HOUR), ProofPolicy(timedelta.max), [("inc3", WHOLE)], []),
    "something was written since: at once, whenever it was proved": (
        Known(ago(ful1=1, inc1=1, inc2=1), doubted={"ful2"}, last_run=NOW - HOUR),
        MONTH,
        [("inc3", WHOLE), ("ful2", WHOLE)],
        [],
    ),
    "what depends on what is bad is left out": (
        Known(ago(ful2=29, inc2=1), bad={"ful1"}, last_run=NOW - WEEK),
        MONTH,
        [("inc3", WHOLE), ("ful2", WHOLE)],
        [],
    ),
    "a budget that the newest alone takes: what is late is told": (
        Known(last_run=NOW - WEEK),
        ProofPolicy(30 * DAY, budget_bytes=110),
        [("inc3", WHOLE)],
        ["ful1", "inc1"],
    ),
    "a budget for one more": (
        Known(last_run=NOW - WEEK),
        ProofPolicy(30 * DAY, budget_bytes=210),
        [("inc3", WHOLE), ("ful1", WHOLE)],
        ["inc1"],
    ),
    "what does not fit lets smaller ones by": (
        Known(ago(ful2=1), last_run=NOW - WEEK),
        ProofPolicy(30 * DAY, budget_bytes=115),
        [("inc3", WHOLE), ("inc2", OWN)],
        ["ful1", "inc1"],
    ),
    "a proof from the future is none": (
        Known(ago(ful1=-400, inc1=-400, ful2=1, inc2=1), last_run=NOW - HOUR),
        MONTH,
        [("inc3", WHOLE), ("ful1", WHOLE), ("inc1", OWN)],
        [],
    ),
    "by a clock that is a minute behind it is one": (
        Known({**ago(ful2=1, inc2=1), "ful1": NOW + timedelta(minutes=1), "inc1": NOW}, last_run=NOW - HOUR),
        MONTH,
        [("inc3", WHOLE)],
        [],
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_what_one_run_proves(case: str) -> None:
    known, policy, proofs, late = TABLES[case]
    schedule = due(CHAIN, known, NOW, policy)
    assert made(schedule) == proofs
    assert schedule.overdue(NOW) == late
    assert schedule.left_out == (("ful1", "inc1") if known.bad else ())


def test_all_reads_all_whatever_was_proved() -> None:
    known = Known(ago(ful1=0, inc1=0, ful2=0, inc2=0))
    assert made(everything(CHAIN, known)) == [
        ("inc3", WHOLE), ("ful1", WHOLE), ("inc1", OWN), ("ful2", WHOLE), ("inc2", OWN),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("timestamp", "doubt"), [(NOW + DAY, None), (NOW - HOUR, "this machine's clock says"), (NOW - 40 * DAY, None)]
)
def test_the_age_of_a_backup_is_not_taken_from_a_clock_that_was_doubted(timestamp: datetime, doubt: str | None) -> None:
    backups = [backup("ful1", timestamp, doubt=doubt), backup("ful2", NOW - HOUR, sequence=2)]
    schedule = due(backups, Known(last_run=NOW - HOUR), NOW, MONTH)
    assert made(schedule) == [("ful2", WHOLE), ("ful1", WHOLE)]


def test_an_emergency_backup_is_not_the_newest_and_is_proved_in_turn() -> None:
    backups = aged(("ful1", 3, (), 10), ("eme1", 1, (), 10))
    assert made(due(backups, Known(), NOW, ProofPolicy(within=DAY))) == [("ful1", WHOLE), ("eme1", WHOLE)]


def test_without_backups_nothing_is_due() -> None:
    assert due([], Known(), NOW, MONTH).proofs == everything([], Known()).proofs == ()


@dataclass
class World:
    """A plan whose backups are made, expire and are proved, hour by hour.

    Attributes:
        full_every: How often a full is made; each hour in between an incremental on the one before.
        policy: What its proofs go by.
        full_bytes: Stored bytes of a full; an incremental has 1.
        read: Stored bytes that each run read.
    """

    full_every: timedelta
    policy: ProofPolicy
    full_bytes: int = 50
    retention: RetentionPolicy = field(default_factory=lambda: RetentionPolicy(full="60d", incremental="7d"))
    backups: list[BackupMetadata] = field(default_factory=list)
    proved: dict[str, datetime] = field(default_factory=dict)
    restored: set[str] = field(default_factory=set)
    last_run: datetime | None = None
    read: list[int] = field(default_factory=list)
    reads: dict[str, int] = field(default_factory=dict)
    sequence: int = 0

    def hours(self, days: float) -> Iterator[datetime]:
        """Live through some days: yield each hour, after the backup of it was made."""
        start = self.backups[-1].timestamp + HOUR if self.backups else NOW
        for n in range(round(days * 24)):
            moment = start + HOUR * n
            self.make(moment)
            if moment.hour == 3:
                self.retain(moment)
            yield moment

    def make(self, moment: datetime) -> None:
        self.sequence += 1
        newest = self.backups[-1] if self.backups else None
        if newest is None or (moment - NOW) % self.full_every == timedelta(0):
            self.backups.append(backup(f"ful{self.sequence}", moment, (), self.full_bytes, self.sequence))
            return
        chain = (*(link.backup_id for link in newest.chain), newest.backup_id)
        self.backups.append(backup(f"inc{self.sequence}", moment, chain, 1, self.sequence))

    def retain(self, moment: datetime) -> None:
        known = dict.fromkeys(self.restored, GOOD)
        going = {d.backup.backup_id for d in self.retention.decide(self.backups, moment, known) if d.remove}
        self.backups = [b for b in self.backups if b.backup_id not in going]
        self.proved = {name: at for name, at in self.proved.items() if name not in going}
        self.restored -= going

    def prove(self, moment: datetime) -> ProofSchedule:
        schedule = due(self.backups, Known(self.proved, last_run=self.last_run), moment, self.policy)
        for proof in schedule.proofs:
            name, bases = proof.backup.backup_id, {link.backup_id for link in proof.backup.chain}
            if proof.kind is OWN:
                stale = {base for base in bases if moment - self.proved[base] > self.window}
                assert not stale, f"{name} would stand on old proofs of {stale}"
            else:
                self.restored.add(name)
            for one in {name, *(bases if proof.kind is WHOLE else ())}:
                self.reads[one] = self.reads.get(one, 0) + 1
            self.proved[name] = moment
        self.read.append(schedule.size_bytes)
        self.last_run = moment
        return schedule

    @property
    def window(self) -> timedelta:
        assert self.policy.within is not None
        return self.policy.within

    def late(self, moment: datetime) -> list[str]:
        """Return the kept backups that were not proved within the time, nor made in it."""
        return [b.backup_id for b in self.backups if moment - self.proved.get(b.backup_id, b.timestamp) > self.window]


def proving(days: Sequence[float], every: timedelta, phase: int = 4) -> Callable[[datetime], bool]:
    """Return when proofs run: each `every`, between two days from the beginning."""
    first, last = days

    def runs(moment: datetime) -> bool:
        since = moment - NOW - HOUR * phase
        return DAY * first <= moment - NOW < DAY * last and since % every == timedelta(0)

    return runs


SIMULATED = {
    "daily fulls, proofs each week": (DAY, 30 * DAY, WEEK, 80),
    "daily fulls, proofs each day": (DAY, 10 * DAY, DAY, 80),
    "fulls each week, and proofs": (WEEK, 30 * DAY, WEEK, 80),
    "proofs each hour": (DAY, 5 * DAY, HOUR, 14),
    "seldom proofs, each of all": (DAY, 3 * DAY, 2 * DAY, 30),
}


@pytest.mark.parametrize("case", SIMULATED)
@pytest.mark.share(2)
def test_every_kept_backup_is_proved_in_time_at_a_bounded_cost(case: str) -> None:
    full_every, within, every, days = SIMULATED[case]
    world, when = World(full_every, ProofPolicy(within=within)), proving((0, days), every)
    for moment in world.hours(days):
        if when(moment):
            schedule = world.prove(moment)
            assert schedule.proofs[0].backup is world.backups[-1]
            assert not schedule.overdue(moment)
        assert not world.late(moment)
    kept, share = sum(b.size_stored for b in world.backups), min(1.0, every * 1.5 / within)
    newest = world.full_bytes + full_every // HOUR
    runs = max(1, within // every)
    assert max(world.read) <= newest + kept * share + world.full_bytes
    # in the time that the plan says all is read about once, and the newest chain by each run
    assert sum(world.read[-runs:]) <= kept * (1 + every / within) + (newest + world.full_bytes) * runs


def test_a_full_is_not_read_again_for_each_incremental_that_depends_on_it() -> None:
    world, when = World(WEEK, ProofPolicy(within=6 * DAY)), proving((6, 7), HOUR, 0)
    for moment in world.hours(7):
        if when(moment):
            world.prove(moment)
    runs, full = len(world.read), world.backups[0].backup_id
    assert runs == 24
    assert not world.late(moment)
    assert world.reads[full] == runs + 1  # with the newest chain by each run, and once by itself


def test_a_verifier_that_was_off_for_a_week_is_in_time_again_after_its_first_run() -> None:
    world = World(DAY, ProofPolicy(within=20 * DAY))
    before, after = proving((0, 30), DAY), proving((37, 60), DAY)
    for moment in world.hours(60):
        if before(moment) or after(moment):
            schedule = world.prove(moment)
            assert not schedule.overdue(moment)
            assert not world.late(moment)


def test_a_verifier_that_was_off_for_longer_than_the_time_catches_up_at_once_without_a_budget() -> None:
    world = World(DAY, ProofPolicy(within=10 * DAY))
    before, after = proving((0, 20), DAY), proving((40, 45), DAY)
    for moment in world.hours(45):
        if before(moment) or after(moment):
            world.prove(moment)
            assert not world.late(moment)


@pytest.mark.parametrize(("budget", "days_late"), [(1000, 0), (280, 0), (180, 45), (60, 45)])
@pytest.mark.share(2)
def test_a_budget_bounds_each_run_and_what_it_leaves_late_is_told(budget: int, days_late: int) -> None:
    """A kept full a day of 50 bytes for 60 days, of which each has to be read within 20: 150 a run, and the newest."""
    world, when = World(DAY, ProofPolicy(within=20 * DAY, budget_bytes=budget)), proving((0, 80), DAY)
    told = 0
    for moment in world.hours(80):
        if when(moment):
            schedule = world.prove(moment)
            assert schedule.size_bytes <= budget or len(schedule.proofs) == 1
            assert sorted(schedule.overdue(moment)) == sorted(world.late(moment))
            told += bool(schedule.overdue(moment))
    assert (told > 0) == (days_late > 0)
    assert (schedule.needed_bytes > budget) == (days_late > 0)


def test_a_clock_that_jumps_ahead_and_back_makes_nothing_proved_for_longer() -> None:
    world, when = World(DAY, ProofPolicy(within=10 * DAY)), proving((0, 60), DAY)
    for moment in world.hours(60):
        if not when(moment):
            continue
        if moment - NOW == 20 * DAY + 4 * HOUR:
            real, world.read = dict(world.proved), []
            world.prove(moment + 400 * DAY)
            assert set(world.proved) >= set(real)  # by that clock all are due, and are proved
            world.last_run = None  # a run that is still to come says nothing of how often runs come
            continue
        world.prove(moment)
        assert not [name for name, at in world.proved.items() if at > moment], "proofs of the future are made again"


def test_proofs_and_retention_never_leave_a_plan_without_a_restored_backup() -> None:
    world = World(DAY, ProofPolicy(within=10 * DAY), retention=RetentionPolicy(full="3d", incremental="1d"))
    when = proving((0, 5), DAY)
    for moment in world.hours(40):
        if when(moment):
            world.prove(moment)
        assert not world.restored or world.restored & {b.backup_id for b in world.backups}
        if world.restored and (moment - NOW) > 10 * DAY:
            (held,) = world.restored
            chain = next(b for b in world.backups if b.backup_id == held).chain
            assert {link.backup_id for link in chain} <= {b.backup_id for b in world.backups}
