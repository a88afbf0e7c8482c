"""What a retention policy decides, as tables of backups: kind, age in days, what it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from blocks.plan.retention import Duration, RetentionPolicy, Verdicts, decide, records_of
from blocks.records import BackupMetadata, BackupStatus, BackupType, Collection, Link, Part, SourceState
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Depth, Standing

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = RetentionPolicy(full="90d", differential="30d", incremental="7d", snapshot="7d", emergency="180d")


def collection(number: int, source: str, rows: int) -> Collection:
    return Collection(
        number=number, name=f"{source}/c", key=("k",), label=("k",), columns=(("k", "int64"),), definition={},
        fingerprint="", parts=(Part(number=0, bounds={}, rows=rows),),
    )  # fmt: skip


def backup(
    name: str,
    age_days: float,
    chain: tuple[str, ...] = (),
    *,
    rows: dict[str, int] | None = None,
    types: dict[str, str] | None = None,
    tags: tuple[str, ...] = (),
    whole: bool = True,
    suspicious: bool = False,
) -> BackupMetadata:
    """Make a backup; `rows` are those of its sources by name, `types` what their sources are where it matters."""
    held, kinds = rows or {}, types or {}
    kind = next(kind for kind in BackupType if kind.prefix == name[:3].upper())
    return BackupMetadata(
        repository_id="r", plan="p", backup_id=name, backup_type=kind, requested_type=kind,
        timestamp=NOW - timedelta(days=age_days), sequence=1, fencing_token=1, base=chain[-1] if chain else None,
        chain=tuple(Link(backup_id=link, manifest_sha256="") for link in chain), previous=None,
        sources=tuple(SourceState(
            name=n, type=kinds.get(n, "sqlite"), system="", taken_at=NOW, token=None, definition={}) for n in held),
        collections=tuple(collection(i, n, count) for i, (n, count) in enumerate(held.items())),
        tags=tags, whole=whole, size_bytes=0, size_compressed=0, size_stored=0, checksum="", encryption_key_id="k",
        encapsulated_key=None, storage_tiers=(), retention_days=None, source_system="", backup_duration_seconds=0,
        tool_versions={}, suspicions=("db/c holds nothing.",) if suspicious else (),
    )  # fmt: skip


TABLES = {
    "nothing there": ([], []),
    "the only full never goes": ([("ful1", 1000)], []),
    "an old full goes once there is a newer one": ([("ful1", 100), ("ful2", 50)], ["ful1"]),
    "just young enough": ([("ful1", 89.9), ("ful2", 1)], []),
    "exactly as old as allowed is too old": ([("ful1", 90), ("ful2", 1)], ["ful1"]),
    "each type by its own limit": (
        [("ful1", 8), ("dif1", 8, "ful1"), ("inc1", 8, "ful1"), ("sna1", 8), ("eme1", 8), ("inc2", 1, "ful1")],
        ["inc1", "sna1"],
    ),
    "an old full stays while an increment depends on it": (
        [("ful1", 200), ("inc1", 5, "ful1"), ("ful2", 1)],
        [],
    ),
    "a whole chain stays for its last link": (
        [("ful1", 200), ("inc1", 100, "ful1"), ("inc2", 50, "ful1", "inc1"), ("inc3", 3, "ful1", "inc1", "inc2"),
         ("ful2", 1)],
        [],
    ),
    "links that nobody needs go": (
        [("ful1", 200), ("inc1", 100, "ful1"), ("dif1", 20, "ful1"), ("ful2", 1)],
        ["inc1"],
    ),
    "a chain goes when its last link goes": (
        [("ful1", 200), ("inc1", 100, "ful1"), ("ful2", 1)],
        ["ful1", "inc1"],
    ),
    "the newest restorable backup stays with its chain": (
        [("ful1", 200), ("inc1", 150, "ful1"), ("inc2", 140, "ful1", "inc1"), ("eme1", 1)],
        [],
    ),
    "a newest snapshot stays, the newest full too": ([("ful1", 200), ("sna1", 100)], []),
    "an emergency backup is not what keeps a state": (
        [("ful1", 200), ("eme1", 190), ("eme2", 181)],
        ["eme1", "eme2"],
    ),
    "only emergency backups expire by age alone": ([("eme1", 200)], ["eme1"]),
    "from the future": ([("ful1", 1), ("inc1", -3, "ful1")], []),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_what_goes(name: str) -> None:
    rows, gone = TABLES[name]
    backups = [backup(name, age, tuple(chain)) for name, age, *chain in rows]
    decisions = POLICY.decide(backups, NOW)
    assert [d.backup for d in decisions] == backups
    assert [d.backup.backup_id for d in decisions if d.remove] == gone


def test_each_decision_says_why() -> None:
    rows = [("ful1", 200), ("inc1", 6, "ful1"), ("ful2", 100), ("sna1", 8), ("eme1", 3), ("ful3", 0.5), ("inc2", 0.1)]
    reasons = {d.backup.backup_id: d.reason for d in POLICY.decide([backup(n, a, tuple(c)) for n, a, *c in rows], NOW)}
    assert reasons == {
        "ful1": "inc1 depends on it",
        "inc1": "6d old, kept for 7d",
        "ful2": "100d old, full backups are kept for 90d",
        "sna1": "8d old, snapshot backups are kept for 7d",
        "eme1": "3d old, kept for 180d",
        "ful3": "among the newest 1 full backups",
        "inc2": "the newest backup",
    }


@pytest.mark.parametrize(("keep", "gone"), [(1, ["ful1", "ful2"]), (2, ["ful1"]), (3, []), (9, [])])
def test_the_newest_fulls_are_kept_however_old(keep: int, gone: list[str]) -> None:
    policy = RetentionPolicy(keep_last=keep)
    decisions = policy.decide([backup(f"ful{n}", 1000 - n) for n in (1, 2, 3)], NOW)
    assert [d.backup.backup_id for d in decisions if d.remove] == gone


@given(
    st.lists(st.tuples(st.sampled_from(list(BackupType)), st.integers(0, 300), st.integers(0, 30)), max_size=25),
    st.integers(1, 3),
)
def test_nothing_goes_that_a_kept_backup_stands_on(plan: list[tuple[BackupType, int, int]], keep: int) -> None:
    made: list[BackupMetadata] = []
    ages = sorted((age for _, age, _ in plan), reverse=True)
    for n, ((kind, _, pick), age) in enumerate(zip(plan, ages, strict=True)):
        bases = [b for b in made if b.backup_type.can_be_base]
        if kind.needs_base and not bases:
            continue
        base = bases[pick % len(bases)] if kind.needs_base else None
        chain = (*[link.backup_id for link in base.chain], base.backup_id) if base else ()
        made.append(backup(f"{kind.value[:3]}{n}", age, chain))
    decisions = RetentionPolicy(keep_last=keep).decide(made, NOW)
    kept = {d.backup.backup_id for d in decisions if not d.remove}
    for decision in decisions:
        if not decision.remove:
            assert {link.backup_id for link in decision.backup.chain} <= kept
        else:
            assert decision.backup.timestamp <= NOW - POLICY.age_limit(decision.backup.backup_type)
    whole = [b.backup_id for b in made if b.backup_type is not BackupType.EMERGENCY]
    assert kept.issuperset(whole[-1:])


@pytest.mark.parametrize(
    ("text", "span"),
    [("90d", 90 * DAY), ("12h", DAY / 2), ("15m", timedelta(minutes=15)), ("4w", 28 * DAY), ("30s", timedelta(0, 30)),
     (" 1d ", DAY), ("P1DT12H", 1.5 * DAY), (2 * DAY, 2 * DAY)],
)  # fmt: skip
def test_durations_are_written_with_a_unit(text: object, span: timedelta) -> None:
    assert TypeAdapter(Duration).validate_python(text) == span


@pytest.mark.parametrize("text", ["90", 90, 1.5, "", "d", "-1d", "1y", "0d", "ninety days", timedelta(0), -DAY, None])
def test_a_duration_that_does_not_say_how_long_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize(
    ("text", "span"),
    [("90d", 90 * DAY), ("1 day", DAY), ("4w", 28 * DAY), ("2 weeks", 14 * DAY), ("6mo", 180 * DAY),
     ("6 months", 180 * DAY), ("1y", 365 * DAY), ("2 Years", 730 * DAY), (" 1d ", DAY), ("P6M", 180 * DAY),
     ("P1DT12H", 1.5 * DAY), ("PT36H", 1.5 * DAY), ("2 days, 0:00:00", 2 * DAY), (2 * DAY, 2 * DAY),
     (timedelta(seconds=1), timedelta(seconds=1))],
)  # fmt: skip
def test_an_age_is_written_in_days_or_longer(text: object, span: timedelta) -> None:
    assert RetentionPolicy(full=text).full == span


@pytest.mark.parametrize("name", ["full", "differential", "incremental", "snapshot", "emergency"])
@pytest.mark.parametrize(
    ("text", "hint"),
    [("6m", "write 6mo for months, or days such as 180d"), ("6M", "180d"), ("90 min", "90mo"),
     ("12h", "days or longer"), ("48h", "days or longer"), ("3600s", "days or longer"),
     ("24 hours", "days or longer"), ("PT6M", "less than a day"), ("PT23H", "less than a day"),
     ("01:00:00", "less than a day"), ("6 moons", "no unit"), ("90", "needs a unit"),
     (90, "needs a unit"), ("9" * 30 + "y", "longer than time"), ("0d", "longer than nothing"),
     (-DAY, "longer than nothing")],
)  # fmt: skip
def test_an_age_under_a_day_is_refused_with_a_hint(name: str, text: object, hint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetentionPolicy(**{name: text})
    assert hint in str(caught.value)


def test_the_grace_of_leftovers_may_be_hours() -> None:
    assert RetentionPolicy(sweep_grace="6h").sweep_grace == timedelta(hours=6)


@pytest.mark.parametrize("full", ["90d", "6mo", "1y", "P1DT12H", timedelta(days=2, seconds=1)])
def test_a_policy_survives_its_json(full: object) -> None:
    policy = RetentionPolicy(full=full, keep_last=3)
    again = RetentionPolicy.model_validate(policy.model_dump(mode="json"))
    assert again.full == policy.full
    assert (again.keep_last, again.sweep_grace) == (3, DAY)


@pytest.mark.parametrize("fields", [{"keep_last": 0}, {"full": "0d"}, {"sweep_grace": "-1h"}])
def test_a_policy_that_would_keep_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetentionPolicy(**fields)


CORRUPTED, VERIFIED, COMPLETED = BackupStatus.CORRUPTED, BackupStatus.VERIFIED, BackupStatus.COMPLETED


def verdict(good: str = "", bad: str = "") -> Verdict:
    """Say on which axes a backup is good and on which bad, by the first letters of their names."""
    axes = {axis.value[0]: axis for axis in Axis}
    said = dict.fromkeys(good, CheckOutcome.GOOD) | dict.fromkeys(bad, CheckOutcome.BAD)
    return Verdict(
        {axes[a]: Standing(outcome=o, depth=Depth.ROWS.value, sequence=1, verified_at=NOW) for a, o in said.items()}
    )


OF_STATUS: dict[BackupStatus | None, Verdict | None] = {
    VERIFIED: verdict("b"), CORRUPTED: verdict(bad="b"), COMPLETED: verdict(), None: None,
}  # fmt: skip


def gone(
    backups: list[BackupMetadata],
    known: Mapping[str, BackupStatus | Verdict | None] | None = None,
    settled: tuple[str, ...] = (),
    **fields: object,
) -> list[str]:
    verdicts = {name: one if isinstance(one, Verdict) else OF_STATUS[one] for name, one in (known or {}).items()}
    return [d.backup.backup_id for d in decide(backups, RetentionPolicy(**fields), NOW, verdicts, settled) if d.remove]


def test_the_last_good_backup_before_a_suspicious_one_stays_until_that_is_accepted() -> None:
    old = [backup("ful1", 500), backup("inc1", 490, ("ful1",)), backup("inc2", 480, ("ful1", "inc1"))]
    lost = [backup("inc3", 470, ("ful1", "inc1", "inc2"), suspicious=True), backup("inc4", 460, ("ful1",))]
    after = [backup("ful2", 300), backup("ful3", 200), backup("ful4", 100)]
    assert gone([*old, *lost, *after]) == ["inc4", "ful2", "ful3"], "those after it hold the same"
    assert gone([*old, *lost, *after], settled=("inc3",)) == ["ful1", "inc1", "inc2", "inc3", "inc4", "ful2", "ful3"]
    # verified is not accepted: a proof of half of the rows is a proof
    assert gone([*old, *lost, *after], {"ful4": verdict("brdq"), "inc3": verdict("brdq")}) == ["inc4", "ful2", "ful3"]


def test_each_of_several_suspicious_backups_keeps_the_one_before() -> None:
    backups = [
        backup("ful1", 900), backup("ful2", 800), backup("ful3", 700, suspicious=True),
        backup("ful4", 600, suspicious=True), backup("ful5", 500), backup("ful6", 400),
        backup("ful7", 300, suspicious=True), backup("ful8", 200), backup("ful9", 100),
    ]  # fmt: skip
    assert gone(backups) == ["ful1", "ful5", "ful8"]
    assert gone(backups, settled=("ful4",)) == ["ful1", "ful4", "ful5", "ful8"]
    assert gone(backups, settled=("ful3", "ful4")) == ["ful1", "ful2", "ful3", "ful4", "ful5", "ful8"]
    assert gone(backups, {"ful2": CORRUPTED, "ful6": CORRUPTED}) == ["ful2", "ful6", "ful8"]
    emergency = [backup("ful1", 900), backup("eme1", 800), backup("ful2", 700, suspicious=True), backup("ful3", 100)]
    assert gone(emergency) == ["eme1"]
    reasons = {d.backup.backup_id: d.reason for d in decide(emergency, RetentionPolicy(), NOW, {})}
    assert reasons["ful1"] == "the newest good backup before ful2, which is suspicious"
    assert reasons["ful2"] == "it is suspicious, and nobody has accepted it"


def test_a_corrupted_newest_full_is_not_what_keeps_the_history() -> None:
    fulls = [backup("ful1", 300), backup("ful2", 200), backup("ful3", 100)]
    assert gone(fulls, {"ful3": CORRUPTED}) == ["ful1", "ful3"]
    assert gone(fulls, {"ful3": CORRUPTED, "ful2": CORRUPTED}) == ["ful2", "ful3"]
    assert gone(fulls, {"ful3": CORRUPTED}, keep_last=2) == ["ful3"]


def test_where_no_full_is_known_to_be_good_none_goes() -> None:
    fulls = [backup("ful1", 300), backup("ful2", 200)]
    assert gone(fulls, {"ful1": CORRUPTED, "ful2": CORRUPTED}) == []


def test_a_backup_whose_base_is_corrupted_is_not_the_newest_good_one() -> None:
    backups = [
        backup("ful1", 300), backup("inc1", 250, ("ful1",)),
        backup("ful2", 200), backup("inc2", 190, ("ful2",)), backup("inc3", 180, ("ful2", "inc2")),
    ]  # fmt: skip
    assert gone(backups, {"ful2": CORRUPTED, "inc3": VERIFIED}) == ["ful2", "inc2", "inc3"]
    assert gone(backups, {"inc2": CORRUPTED, "inc3": VERIFIED}) == ["ful1", "inc1", "inc2", "inc3"]


def test_a_backup_whose_status_cannot_be_told_neither_goes_nor_counts() -> None:
    fulls = [backup("ful1", 300), backup("ful2", 200), backup("ful3", 100)]
    assert gone(fulls, {"ful3": None}) == ["ful1"]


def test_the_newest_verified_backup_stays() -> None:
    backups = [backup("ful1", 300), backup("inc1", 290, ("ful1",)), backup("ful2", 200), backup("ful3", 100)]
    assert gone(backups, {"inc1": VERIFIED}) == ["ful2"]
    assert gone(backups, {"inc1": VERIFIED, "ful2": VERIFIED}) == ["ful1", "inc1"]


def test_the_newest_backup_that_is_good_in_all_that_was_proved_stays() -> None:
    fulls = [backup(f"ful{n}", 400 - 50 * n) for n in range(1, 6)]
    compared = {"ful3": verdict("b"), "ful4": verdict("b")}
    assert gone(fulls, compared) == ["ful1", "ful2", "ful3"]
    restored = compared | {"ful1": verdict("br"), "ful2": verdict("br")}
    assert gone(fulls, restored) == ["ful1", "ful3"]
    assert gone(fulls, restored | {"ful1": verdict("brdq")}) == ["ful2", "ful3"]
    assert gone(fulls, restored | {"ful1": verdict("brd", "q")}) == ["ful1", "ful3"]


def test_a_backup_that_cannot_be_restored_is_not_the_newest_good_one() -> None:
    fulls = [backup("ful1", 300), backup("ful2", 200), backup("ful3", 100)]
    assert gone(fulls, {"ful3": verdict("b", "r")}) == ["ful1", "ful3"]
    # bad data are faithfully kept
    assert gone(fulls, {"ful3": verdict("br", "q")}) == ["ful1", "ful2"]


def test_the_empty_fulls_of_an_unmounted_folder_do_not_age_the_real_one_out() -> None:
    real = {"db": 5, "tree": 1000}
    empty = {"db": 5, "tree": 1}
    tree = {"tree": "files"}
    backups = [backup("ful1", 300, rows=real, types=tree), backup("ful2", 200, rows=real, types=tree)]
    backups += [backup(f"ful{n}", 150 - n, rows=empty, types=tree) for n in (3, 4, 5)]
    assert gone(backups) == ["ful1", "ful3", "ful4"]


def test_a_source_that_is_no_longer_in_the_plan_keeps_its_newest_backup() -> None:
    backups = [
        backup("ful1", 300, rows={"old": 7, "db": 1}), backup("sna1", 290, rows={"old": 0, "db": 1}),
        backup("ful2", 200, rows={"renamed": 7, "db": 1}), backup("ful3", 100, rows={"renamed": 8, "db": 1}),
    ]  # fmt: skip
    assert gone(backups) == ["ful2"]
    assert gone(backups, {"ful1": CORRUPTED}) == ["ful2"], "it is all that there is of its records"


def test_a_source_that_was_added_later_changes_nothing_for_the_others() -> None:
    backups = [backup("ful1", 300, rows={"a": 1}), backup("ful2", 200, rows={"a": 1, "b": 1})]
    assert gone(backups) == ["ful1"]


def test_a_manifest_as_it_is_stored_holds_what_its_sources_say_it_holds() -> None:
    whole = [backup("ful1", 200, rows={"s": 5, "t": 1}), backup("inc1", 199, ("ful1",), rows={"s": 5, "t": 0})]
    # what is as in the base is not in it, and its sources are counted all the same
    counted = [
        one.model_copy(
            update={
                "collections": () if one.base else one.collections,
                "sources": tuple(s.model_copy(update={"rows": records_of(one)[s.name]}) for s in one.sources),
            }
        )
        for one in whole
    ]
    assert [records_of(one) for one in counted] == [{"s": 5, "t": 1}, {"s": 5, "t": 0}]
    assert [d.reason for d in POLICY.decide(counted, NOW)] == [d.reason for d in POLICY.decide(whole, NOW)]


def test_half_a_backup_does_not_count_for_a_source() -> None:
    backups = [
        backup("ful1", 300, rows={"a": 1, "b": 1}), backup("ful2", 250, rows={"b": 1}),
        backup("eme1", 200, rows={"a": 1}, whole=False),
    ]  # fmt: skip
    assert gone(backups) == ["eme1"]
    assert gone(backups[2:]) == [], "unless there is no other"


def test_what_an_undo_needs_stays_until_a_later_full_is_verified() -> None:
    before = [backup("ful1", 400), backup("eme1", 300, tags=("before-restore",)), backup("eme2", 300)]
    after = [backup("ful2", 200), backup("inc1", 190, ("ful2",))]
    assert gone(before + after) == ["ful1", "eme2"]
    assert gone(before + after, {"ful1": VERIFIED, "inc1": VERIFIED}) == ["ful1", "eme2"]
    assert "eme1" in gone(before + after, {"ful2": VERIFIED})
    young = [backup("eme3", 100, tags=("before-restore",))]
    assert gone([*before, *young, *after], {"ful2": VERIFIED}) == ["ful1", "eme1", "eme2"]


def test_the_backup_whose_restore_may_be_undone_stays_as_long_as_the_emergency_backup_does() -> None:
    before = [backup("ful1", 400), backup("inc1", 390, ("ful1",)), backup("ful2", 380)]
    undone = [
        backup("eme1", 300, tags=("before-restore", "restored=inc1")),
        backup("eme2", 299, tags=("before-restore", "restored=eme1")),
    ]
    after = [backup("ful3", 200)]
    assert gone([*before, *undone, *after]) == ["ful2"]
    assert gone([*before, *undone, *after], {"ful3": VERIFIED}) == ["ful1", "inc1", "ful2", "eme1", "eme2"]
    young = [backup("eme3", 100, tags=("before-restore", "restored=ful2"))]
    assert gone([*before, *after, *young], {"ful3": VERIFIED}) == ["ful1", "inc1"]
    other = [backup("eme4", 300, tags=("restored=ful2",)), backup("sna1", 1, tags=("before-restore", "restored=ful2"))]
    assert gone([*before, *other, *after], {"ful3": VERIFIED}) == ["ful1", "inc1", "ful2", "eme4"]


@pytest.mark.parametrize("years", [-100, -1, 30, 500])
def test_a_clock_that_jumped_never_empties_a_repository(years: int) -> None:
    backups = [backup("ful1", 40), backup("ful2", 30), backup("inc1", 1, ("ful2",)), backup("ful3", -2)]
    decisions = decide(backups, RetentionPolicy(), NOW + years * 365 * DAY, {"inc1": verdict("b")})
    kept = {d.backup.backup_id for d in decisions if not d.remove}
    assert kept >= {"ful2", "inc1", "ful3"}


_VERDICTS = (
    st.sampled_from(
        [
            *(verdict(good) for good in ("", "b", "br", "bq", "brd")),
            verdict("br", "q"),
            verdict("b", "r"),
            verdict("", "b"),
        ]
    )
    | st.none()
)


def _tags_of(draw: st.DrawFn, earlier: list[str]) -> tuple[str, ...]:
    before = ("before-restore",) if draw(st.booleans()) else ()
    restored = draw(st.sampled_from([None, "gone1", *earlier]))
    return before if restored is None else (*before, f"restored={restored}")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[BackupMetadata], dict[str, Verdict | None], frozenset[str]]:
    made: list[BackupMetadata] = []
    for n in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(list(BackupType)))
        bases = [b for b in made if b.backup_type.can_be_base]
        if kind.needs_base and not bases:
            continue
        base = draw(st.sampled_from(bases)) if kind.needs_base else None
        emergency = kind is BackupType.EMERGENCY
        made.append(
            backup(
                f"{kind.value[:3]}{n}",
                draw(st.integers(-5, 400)),
                (*[link.backup_id for link in base.chain], base.backup_id) if base else (),
                rows=draw(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))),
                types={"a": "files"},
                tags=_tags_of(draw, [b.backup_id for b in made]) if emergency else (),
                whole=not emergency or draw(st.booleans()),
                suspicious=draw(st.integers(0, 3)) == 0,
            )
        )
    settled = frozenset(b.backup_id for b in made if draw(st.booleans()))
    return made, {b.backup_id: draw(_VERDICTS) for b in made if draw(st.booleans())}, settled


def slowly_kept(
    backups: list[BackupMetadata],
    policy: RetentionPolicy,
    verdicts: Verdicts,
    settled: frozenset[str],
    now: datetime = NOW,
) -> set[str]:
    """Say what is kept, backup by backup and rule by rule, without a thought of speed."""

    def status(one: BackupMetadata) -> BackupStatus | None:
        known = verdicts.get(one.backup_id, Verdict())
        return known and known.status

    def good_on(one: BackupMetadata) -> set[Axis]:
        known = verdicts.get(one.backup_id)
        return {axis for axis in Axis if known and known.outcome(axis) is CheckOutcome.GOOD}

    by_id = {b.backup_id: b for b in backups}
    sources = {name for b in backups for name in b.data_sources}

    def good(one: BackupMetadata) -> bool:
        chain = [by_id[link.backup_id] for link in one.chain]
        return one.whole and all(status(b) in (COMPLETED, VERIFIED) for b in [*chain, one])

    def later(one: BackupMetadata) -> list[BackupMetadata]:
        return backups[backups.index(one) + 1 :]

    def records(one: BackupMetadata, source: str) -> int:
        folders = [s.name for s in one.sources if s.type == "files"]
        return sum(c.rows - (source in folders) for c in one.collections if c.source == source)

    def holds(one: BackupMetadata, source: str) -> bool:
        return source in one.data_sources

    def last_that(one: BackupMetadata, wanted: Callable[[BackupMetadata], bool]) -> bool:
        """Whether it is the last one that something holds for; emergency backups give way to all others."""
        fit = [b for b in backups if wanted(b)]
        best = [b for b in fit if good(b) and b.backup_type is not BackupType.EMERGENCY]
        best = best or [b for b in fit if good(b)]
        return one in fit and (not best or one == best[-1])

    def usable_ever(one: BackupMetadata) -> bool:
        return good(one) and one.backup_type is not BackupType.EMERGENCY

    def doubted(one: BackupMetadata) -> bool:
        return bool(one.suspicions) and one.backup_id not in settled

    def before_suspicious(one: BackupMetadata) -> bool:
        """Whether nothing usable stands between it and a later one that is suspicious."""
        if not usable_ever(one) or doubted(one):
            return False
        between = [later(one).index(b) for b in later(one) if usable_ever(b) and not doubted(b)]
        return any(doubted(b) for b in later(one)[: min(between, default=None)])

    def by_itself(one: BackupMetadata) -> bool:
        full, emergency = one.backup_type is BackupType.FULL, one.backup_type is BackupType.EMERGENCY
        usable = good(one) and not emergency
        if now - one.timestamp < policy.age_limit(one.backup_type) or status(one) is None:
            return True
        newer_fulls = [b for b in later(one) if b.backup_type is BackupType.FULL]
        if full and good(one) and sum(map(good, newer_fulls)) < policy.keep_last:
            return True
        if full and not any(good(b) for b in backups if b.backup_type is BackupType.FULL):
            return True
        newer = [b for b in later(one) if good(b) and b.backup_type is not BackupType.EMERGENCY]
        if usable and (not newer or (status(one) is VERIFIED and not any(status(b) is VERIFIED for b in newer))):
            return True
        proved = [good_on(b) for b in backups if usable_ever(b) and status(b) is VERIFIED]
        most = max(map(len, proved), default=0)
        best = [axes for axes in proved if len(axes) == most][-1:]
        as_good = [b for b in [one, *newer] if best and status(b) is VERIFIED and best[0] <= good_on(b)]
        if usable and as_good == [one]:
            return True
        proved_since = any(status(b) is VERIFIED for b in newer_fulls)
        if emergency and "before-restore" in one.tags and not proved_since:
            return True
        if doubted(one) or before_suspicious(one):
            return True
        held = any(last_that(one, lambda b, s=s: holds(b, s)) for s in sources)
        return held or any(last_that(one, lambda b, s=s: records(b, s) > 0) for s in sources)

    kept = {b.backup_id for b in backups if by_itself(b)}
    while True:
        more = kept | {link.backup_id for name in kept for link in by_id[name].chain}
        for name in kept:
            if by_id[name].backup_type is BackupType.EMERGENCY and "before-restore" in by_id[name].tags:
                more |= {b for b in by_id if f"restored={b}" in by_id[name].tags}
        if more == kept:
            return kept
        kept = more


@given(histories(), st.integers(1, 3))
def test_what_is_kept_is_what_a_slow_reading_of_the_rules_keeps(
    history: tuple[list[BackupMetadata], dict[str, Verdict | None], frozenset[str]], keep: int
) -> None:
    backups, verdicts, settled = history
    policy = RetentionPolicy(keep_last=keep)
    decisions = decide(backups, policy, NOW, verdicts, settled)
    assert {d.backup.backup_id for d in decisions if not d.remove} == slowly_kept(backups, policy, verdicts, settled)
    assert [d.backup for d in decisions] == backups
