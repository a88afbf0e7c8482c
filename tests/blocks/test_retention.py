"""What a retention policy decides, as tables of backups: kind, age in days, what it stands on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from blocks.manifest import BackupMetadata, BackupType, Link
from blocks.retention import Duration, RetentionPolicy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = RetentionPolicy(full="90d", differential="30d", incremental="7d", snapshot="7d", emergency="180d")


def backup(name: str, age_days: float, chain: tuple[str, ...] = ()) -> BackupMetadata:
    kind = next(kind for kind in BackupType if kind.prefix == name[:3].upper())
    return BackupMetadata(
        repository_id="r", plan="p", backup_id=name, backup_type=kind, requested_type=kind,
        timestamp=NOW - timedelta(days=age_days), sequence=1, fencing_token=1, base=chain[-1] if chain else None,
        chain=tuple(Link(backup_id=link, manifest_sha256="") for link in chain), previous=None, sources=(),
        collections=(), size_bytes=0, size_compressed=0, size_stored=0, checksum="", encryption_key_id="k",
        encapsulated_key=None, storage_tiers=(), retention_days=None, source_system="", backup_duration_seconds=0,
        tool_versions={},
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
    "an old full stays while an increment stands on it": (
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
        "ful1": "inc1 stands on it",
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


def test_a_policy_survives_its_json() -> None:
    policy = RetentionPolicy(full="1h", keep_last=3)
    again = RetentionPolicy.model_validate(policy.model_dump(mode="json"))
    assert again.full == timedelta(hours=1)
    assert (again.keep_last, again.sweep_grace) == (3, DAY)


@pytest.mark.parametrize("fields", [{"keep_last": 0}, {"full": "0d"}, {"sweep_grace": "-1h"}])
def test_a_policy_that_would_keep_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetentionPolicy(**fields)
