"""What is suspicious about a backup, seeing those before: sentences, simulated histories, and planted faults."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from blocks.plan.census import Census, Tally, census_of
from blocks.plan.suspicion import MOST_SAID, is_emptying_suspicious, judged, suspicions
from blocks.plan.suspicion_history import (
    GONE_WEEKS,
    MOST_GONE,
    MOST_WEEKS,
    REMEMBERED,
    WEEKS,
    History,
    family,
    history_of,
)
from blocks.records import BackupMetadata, BackupType, Blob, Collection, Link, Part, Segment
from tests.blocks.plan.suspicion_histories import CLOSE, FAULTS, SCHEDULES, SEEN_BY_CHANGES, Simulated, State
from tests.blocks.plan.test_retention import backup

BEGIN = datetime(2026, 1, 5, 2, tzinfo=UTC)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
FULL, DIFFERENTIAL, INCREMENTAL = BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL


def tally(rows: int, changed: int | None = 0, width: float = 100, ratio: float = 0.2, full: bool = False) -> Tally:
    stored = rows if full else min(rows, changed or 0)
    size = round(stored * width)
    return Tally(rows, None if full else changed, stored, size, round(size * ratio), "columns")


def known(days: int, rows: int = 40_000, step: timedelta = DAY, growth: int = 100, changed: int = 800) -> History:
    """Know backups of a table that grows a little; every seventh is a full one."""
    history = History()
    for n in range(days):
        one = tally(rows + n * growth, changed + growth, full=n % 7 == 0)
        history.add(Census(f"B{n}", BEGIN + n * step, {"db/orders": one}))
    return history


def said(history: History, now: Tally, later: timedelta = DAY) -> list[str]:
    assert history.newest is not None
    return list(suspicions(history, Census("NEW", history.newest.at + later, {"db/orders": now})))


SENTENCES = {
    "nothing": (tally(43_100, 900), []),
    "rows lost": (
        tally(12, 42_988),
        ["db/orders holds 12 rows, and held 42,900 in B29; the 29 backups before lost at most 0.0 %."],
    ),
    "half of them": (
        tally(21_000, 21_900),
        ["db/orders holds 21,000 rows, and held 42,900 in B29; the 29 backups before lost at most 0.0 %."],
    ),
    "a third of them is much, and happens": (tally(28_600, 14_300), []),
    "twice as many": (
        tally(85_800, 42_900),
        ["db/orders holds 85,800 rows, and held 42,900 in B29; the 29 backups before added at most 0.3 %."],
    ),
    "all changed": (
        tally(42_900, 42_900),
        [
            "db/orders: 100 % of 42,900 rows were changed or replaced since B29; in the 29 backups before at most "
            "2.0 %."
        ],
    ),
    "all replaced by others": (
        tally(42_900, 85_800),
        [
            "db/orders: 100 % of 42,900 rows were changed or replaced since B29; in the 29 backups before at most "
            "2.0 %."
        ],
    ),
    "values twice as long": (
        tally(43_000, width=200, full=True),
        [
            "a row of db/orders takes 200 bytes, and took 100 bytes in the 5 backups before that stored most of its "
            "rows."
        ],
    ),
    "values cut off": (
        tally(43_000, width=50, full=True),
        [
            "a row of db/orders takes 50 bytes, and took 100 bytes in the 5 backups before that stored most of its "
            "rows."
        ],
    ),
    "encrypted": (
        tally(43_000, ratio=1.0, full=True),
        [
            "db/orders is compressed to 100 %, and was to 20 % in the 5 backups before that stored most of its rows."
        ],
    ),
    "emptied, which is said elsewhere": (tally(0, 42_900), []),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
def test_what_is_said_has_its_numbers(name: str) -> None:
    now, wanted = SENTENCES[name]
    assert said(known(30), now) == wanted


def test_before_a_whole_week_and_ten_steps_are_known_nothing_is_compared() -> None:
    lost = tally(12, 40_000)
    assert [bool(said(known(n), lost)) for n in (2, 9, 10, 11, 20)] == [False, False, False, True, True]
    # an hour apart they say nothing of a night or a weekend
    assert said(known(150, step=timedelta(hours=1)), lost) == []
    assert said(known(400, step=timedelta(hours=1)), lost) != []


def test_of_backups_that_are_minutes_apart_ten_steps_are_enough() -> None:
    minute, lost = timedelta(minutes=1), tally(12, 40_000)
    assert [bool(said(known(n, step=minute), lost, minute)) for n in (10, 11)] == [False, True]
    assert said(known(30, step=minute), tally(42_900, 42_900), minute) != []
    assert said(known(30, step=minute), lost, timedelta(hours=8)) == [], "a night lies between"
    assert said(known(30, step=10 * minute), lost, minute) == []


def test_small_tables_jump() -> None:
    assert said(known(30, rows=90, growth=0, changed=0), tally(30, 60)) == []
    assert said(known(30, rows=150, growth=0, changed=0), tally(320, 170)) == []
    assert said(known(30, rows=800, growth=0, changed=0), tally(800, 800)) == []


def test_a_step_is_compared_with_those_of_as_much_time() -> None:
    steady = known(30, changed=10_000)
    assert said(steady, tally(42_900, 42_900)) != []
    assert said(steady, tally(42_900, 42_900), later=5 * DAY) == []
    assert said(steady, tally(21_000, 21_900), later=5 * DAY) != [], "it never lost any"


def test_other_columns_make_rows_of_another_width() -> None:
    wider = tally(43_000, width=300, full=True)._replace(shape="other columns")
    history = known(30)
    assert said(history, wider) == []
    history.add(Census("B30", BEGIN + 30 * DAY, {"db/orders": wider}))
    assert said(history, tally(43_000, width=200, full=True)._replace(shape="other columns")) == []


def test_what_happened_once_is_expected_for_a_quarter_of_a_year() -> None:
    history, lost = known(30), tally(15_000, 28_000)
    assert said(history, lost) != []
    history.add(Census("B30", BEGIN + 30 * DAY, {"db/orders": lost}))
    assert said(history, tally(5_250, 9_750)) == []
    for n in range(31, 31 + 7 * (WEEKS + 1)):
        history.add(Census(f"B{n}", BEGIN + n * DAY, {"db/orders": tally(15_000, 300)}))
    assert said(history, tally(5_250, 9_750)) != []


@pytest.mark.parametrize(("rows", "suspicious"), [(1, False), (9, False), (10, True), (4000, True)])
def test_a_collection_that_is_emptied_is_suspicious_at_once(rows: int, suspicious: bool) -> None:
    history = History()
    assert is_emptying_suspicious(history, "db/orders", rows) is suspicious
    history.add(Census("B0", BEGIN, {"db/orders": tally(rows)}))
    assert is_emptying_suspicious(history, "db/orders", rows) is suspicious


def test_a_queue_that_was_drained_before_is_not_suspicious() -> None:
    history = History()
    for n, rows in enumerate((50, 60, 5, 40)):
        history.add(Census(f"B{n}", BEGIN + n * DAY, {"db/jobs": tally(rows, rows)}))
    assert not is_emptying_suspicious(history, "db/jobs", 40)
    young = History()
    for n, rows in enumerate((0, 30)):
        young.add(Census(f"B{n}", BEGIN + n * DAY, {"db/jobs": tally(rows, rows)}))
    assert not is_emptying_suspicious(young, "db/jobs", 30)
    filled = known(20)
    filled.add(Census("B20", BEGIN + 20 * DAY, {"db/orders": tally(0), "db/late": tally(0)}))
    for n in range(21, 40):
        filled.add(Census(f"B{n}", BEGIN + n * DAY, {"db/late": tally(900, 900)}))
    assert is_emptying_suspicious(filled, "db/late", 900), "an empty table that was filled once is no queue"


def test_a_table_that_comes_and_goes_is_suspicious_once() -> None:
    history, said, every = History(), [], 7
    for n in range(20 * every):
        here = {} if n % every == every - 1 else {"db/import": tally(5_000 + n, 100)}
        census = Census(f"B{n}", BEGIN + n * DAY, {"db/orders": tally(900), **here})
        if not here:
            said.append(is_emptying_suspicious(history, "db/import", 5_000))
        history.add(census)
        history = History(history.kept, history.newest)
    assert said == [True] + [False] * 19


def test_what_is_gone_for_long_and_partitions_are_not_remembered() -> None:
    history, late = History(), BEGIN + (GONE_WEEKS + 2) * 7 * DAY
    history.add(Census("B0", BEGIN, {name: tally(900) for name in ("db/orders", "db/import", "db/log_2026_01")}))
    history.add(Census("B1", BEGIN + DAY, {name: tally(900) for name in ("db/orders", "db/log_2026_02")}))
    assert set(history.kept) == {"db/orders", "db/log_2026_02", "db/import"}
    history.add(Census("B2", late, {"db/orders": tally(900)}))
    assert "db/import" not in history.kept
    many = {f"db/{'x' * n}": tally(900) for n in range(1, 2 * MOST_GONE)}
    history.add(Census("B3", late + DAY, {"db/orders": tally(900), **many}))
    history.add(Census("B4", late + 2 * DAY, {"db/orders": tally(900)}))
    assert len(history.kept) == 1 + MOST_GONE


def test_no_more_weeks_are_remembered_than_say_something() -> None:
    def weeks(step: timedelta) -> int:
        history = known(420, step=step)
        return len(history.kept["db/orders"].split())

    assert weeks(DAY) == WEEKS
    assert weeks(2 * DAY) == 19, "as many as hold sixty backups"
    assert weeks(WEEK) == MOST_WEEKS
    assert weeks(4 * WEEK) == MOST_WEEKS


def test_a_clock_that_jumps_loses_nothing_of_what_is_known() -> None:
    history = known(30)
    history.add(Census("JUMPED", BEGIN + 5000 * DAY, {"db/orders": tally(43_000, 900)}))
    history.add(Census("BACK", BEGIN + 31 * DAY, {"db/orders": tally(43_100, 900)}))
    assert said(history, tally(43_200, 900)) == []
    assert said(history, tally(12, 43_088)) != []


def test_a_history_survives_its_manifest_and_may_have_more_numbers_in_later_versions() -> None:
    history = known(30)
    again = History(history.kept, history.newest)
    assert again.kept == history.kept
    longer = {name: " ".join(f"{week},17" for week in weeks.split()) for name, weeks in history.kept.items()}
    assert History(longer, history.newest).kept == history.kept


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("log_2026_01", "log_2026_02", True), ("p1", "p22", True), ("orders", "positions", False)],
)
def test_partitions_are_of_one_family(one: str, other: str, same: bool) -> None:
    assert (family(one) == family(other)) is same


# Backups: what they tell of themselves and of those before


def segment(upserts: int, tombstones: int) -> Segment:
    blob = Blob(name="p", size_bytes=1, sha256="", number=0)
    size = 100 * upserts
    return Segment(
        data=blob, index=blob, upserts=upserts, tombstones=tombstones, size_bytes=size, size_compressed=size // 5
    )


def made(name: str, at: int, rows: int, stored: tuple[int, int] | None, chain: Sequence[str] = ()) -> BackupMetadata:
    """Make a backup of one table, `at` days after the beginning; `stored` are upserts and tombstones."""
    part = Part(number=0, bounds={}, rows=rows, segment=None if stored is None else segment(*stored))
    orders = Collection(
        number=0, name="db/orders", key=("k",), label=("k",), columns=(("k", "int64"),), definition={}, parts=(part,)
    )
    return backup(name, 0, tuple(chain)).model_copy(
        update={"collections": (orders,), "timestamp": BEGIN + at * DAY, "total_rows": rows}
    )


def steps(one: BackupMetadata) -> list[int]:
    """Return how many backups were compared with the one before, by week."""
    return [int(week.split(",")[1]) for week in one.history["db/orders"].split()]


def chain_of(lineage: Sequence[BackupMetadata]) -> list[str]:
    return [one.backup_id for one in lineage]


def test_fulls_carry_what_the_chain_before_them_showed() -> None:
    lineage = [judged(made("ful0", 0, 5000, (5000, 0)), (), History())]
    assert lineage[0].history == {"db/orders": "2922,0,0,0,0,0,5000,1,100,100,200,200"}
    for n in range(1, 12):
        new = made(f"inc{n}", n, 5000 + n, (21, 10), chain_of(lineage))
        lineage.append(judged(new, lineage, history_of(lineage)))
    assert [bool(one.history) for one in lineage] == [True, *[False] * 11]
    full = judged(made("ful1", 12, 5020, (5020, 0)), lineage, history_of(lineage))
    assert steps(full) == [2, 7, 3], "weeks begin on Thursdays"
    assert full.history["db/orders"].split()[1] == "2923,7,86400,0,1,6,5003,0,0,0,0,0"
    # the chain of the next ones begins with it, and what is known is the same
    half = made("inc13", 13, 2500, (0, 2520), ["ful1"])
    assert judged(half, [full], history_of([full])).suspicions == (
        "db/orders holds 2,500 rows, and held 5,020 in ful1; the 12 backups before lost at most 0.0 %.",
    )


def test_what_a_differential_stores_again_did_not_change_again() -> None:
    full = judged(made("ful0", 0, 5000, (5000, 0)), (), History())
    lineage = [full]
    for n in range(1, 4):
        lineage.append(judged(made(f"inc{n}", n, 5000, (700, 0), chain_of(lineage)), lineage, history_of(lineage)))
    differential = made("dif4", 4, 5000, (2300, 0), ["ful0"])
    assert census_of(differential, lineage).counts["db/orders"].changed == 200
    kept = judged(differential, lineage, history_of(lineage))
    assert kept.history, "the chain of those after it is without the incrementals"
    assert sum(steps(kept)) == 4
    assert census_of(made("inc5", 5, 5000, (50, 3), ["ful0", "dif4"]), [full, kept]).counts["db/orders"].changed == 53
    assert census_of(made("dif1", 5, 5000, (50, 3), ["another"]), [full, kept]).counts["db/orders"].changed is None


def test_of_a_long_chain_only_so_many_are_looked_at() -> None:
    lineage = [judged(made("ful0", 0, 5000, (5000, 0)), (), History())]
    for n in range(1, 3 * REMEMBERED):
        lineage.append(judged(made(f"inc{n}", n, 5000 + n, (21, 10), chain_of(lineage)), lineage, history_of(lineage)))
    kept = [n for n, one in enumerate(lineage) if one.history]
    assert kept == [0, REMEMBERED + 1, 2 * REMEMBERED + 2]
    # and what is known is what all of them say
    bare = [one.model_copy(update={"history": {}}) for one in lineage]
    assert history_of(lineage).kept == history_of(bare).kept


def test_snapshots_are_judged_and_not_learned_from_and_emergency_backups_are_neither() -> None:
    lineage = [judged(made("ful0", 0, 5000, (5000, 0)), (), History())]
    for n in range(1, 20):
        lineage.append(judged(made(f"inc{n}", n, 5000 + n, (21, 10), chain_of(lineage)), lineage, history_of(lineage)))
    for name, suspicious in (("sna1", True), ("eme1", False)):
        one = judged(made(name, 20, 2000, (2000, 0)), lineage, history_of(lineage), lost=["db/jobs is empty."])
        assert (len(one.suspicions), one.history) == (2 if suspicious else 0, {})


def test_a_database_that_was_exchanged_is_not_said_a_thousand_times() -> None:
    one = judged(made("ful0", 0, 5000, (5000, 0)), (), History(), lost=[f"db/t{n} is empty." for n in range(1000)])
    assert len(one.suspicions) == MOST_SAID + 1
    assert one.suspicions[-1] == "p: the same may be said 980 times more."


def test_a_backup_on_a_chain_that_is_not_known_begins_a_history() -> None:
    one = judged(made("inc1", 1, 5000, (5, 0), ["ful0"]), (), History(), lost=["db/jobs is empty."])
    assert (steps(one), one.suspicions) == ([0], ("db/jobs is empty.",))


def test_a_manifest_without_a_history_is_the_beginning_of_one() -> None:
    link = Link(backup_id="ful0", manifest_sha256="")
    old = made("ful0", 0, 5000, (5000, 0))
    new = judged(made("inc1", 1, 5000, (5, 0), ["ful0"]), [old], history_of([old]))
    assert new.chain == (link,)
    assert steps(new) == [1]


# Simulated histories


MADE = {"a full a week": 104}
"""Backups of a simulated history, where they are not 500."""


def wrongly_marked(
    seeds: Sequence[int], length: int = 500, schedules: Sequence[str] = tuple(SCHEDULES)
) -> tuple[Counter[str], Counter[str], list[str]]:
    """Simulate histories without any fault; return backups and suspicious ones by schedule, and what was said."""
    total, marked, sentences = Counter[str](), Counter[str](), list[str]()
    for schedule in schedules:
        for seed in seeds:
            plan = Simulated.begin(schedule, seed)
            for _ in range(MADE.get(schedule, length)):
                found = plan.back_up()
                total[schedule] += 1
                marked[schedule] += bool(found)
                sentences += found
    return total, marked, sentences


def test_at_most_one_of_a_thousand_backups_is_marked_wrongly() -> None:
    total, marked, sentences = wrongly_marked(range(3))
    assert total.total() > 7_500
    assert marked.total() <= total.total() / 1000, sentences


@pytest.mark.long
@pytest.mark.timeout(900)
def test_at_most_one_of_a_thousand_of_very_many_backups_is_marked_wrongly() -> None:
    total, marked, sentences = wrongly_marked(range(100, 125), 2000)
    assert total.total() > 250_000
    assert marked.total() <= total.total() / 1000, (marked, sentences)


@pytest.mark.long
def test_minutes_apart_at_most_one_of_a_thousand_is_marked_wrongly_from_the_first_day_on() -> None:
    total, marked, sentences = wrongly_marked(range(4), 4000, [CLOSE])
    assert marked.total() <= total.total() / 1000, sentences


QUIET = ("growing", "appending", "ledger", "rolling", "prices")
"""Tables of which no fault may be missed; of others a fault may be what happens to them every day."""

ALL_CHANGE = {"prices"}
"""And of these every row changes all the time."""


def planted(seeds: Sequence[int]) -> Iterator[tuple[str, str, bool]]:
    """Plant each fault into each table of simulated histories; yield it, where it was, and whether it was found."""
    for schedule in SCHEDULES:
        for seed in seeds:
            plan = Simulated.begin(schedule, seed)
            for _ in range(60 if schedule == "a full a week" else 350):
                plan.back_up()
            assert plan.at is not None
            kinds = ("full",) if schedule.startswith("a full") else ("full", "incremental")
            for fault, table, kind in itertools.product(FAULTS, QUIET, kinds):
                if can_be_seen(fault, table, kind, plan.tables[table].state):
                    now = copy.copy(plan)
                    now.tables = copy.deepcopy(plan.tables)
                    now.schedule = iter([(plan.at + timedelta(hours=1), kind)])
                    found = any(table in sentence for sentence in now.back_up(table, FAULTS[fault], learn=False))
                    yield fault, f"{kind}, {table}, {schedule}, {seed}", found


def can_be_seen(fault: str, table: str, kind: str, state: State) -> bool:
    if fault in SEEN_BY_CHANGES and (kind == "full" or table in ALL_CHANGE):
        return False
    if fault == "encrypted" and state.ratio > 0.6:  # it is about as random as what is encrypted
        return False
    return state.rows >= 2000 and state.rows * state.width >= 2**18


def test_each_of_the_planted_faults_is_found() -> None:
    assert len(FAULTS) >= 10
    assert [one for one in planted(range(2)) if not one[2]] == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_each_of_the_planted_faults_is_found_in_many_histories() -> None:
    assert [one for one in planted(range(100, 120)) if not one[2]] == []
