"""What a plan has on record after months of work, made by hand: chains, proofs, expiries, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupMetadata, BackupType, Expiry, Link
from blocks.repository.verdict import Verdict, depending
from blocks.verification import Axis, Standing, Verification
from flows.reading.report import Recorded
from flows.reading.status import Seen
from flows.reporting.report_facts import PlanFacts
from tests.flows.reporting.records import BAD, GOOD, UNTRIED, backup, verification

NOW = datetime(2026, 6, 30, 9, 40, tzinfo=UTC)
FULL, DIFFERENTIAL, INCREMENTAL = BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL
SNAPSHOT = BackupType.SNAPSHOT
MIB = 2**20

PLAN = """
name: {name}
sources: {{ledger: {{type: sqlite, path: ./ledger.db}}}}
repository: {{url: ./backups}}
encryption: {{type: none}}
objectives: {{rpo: 2h, rto: 15m}}
"""


def plan(folder: Path, name: str = "trading", more: str = "") -> BackupPlan:
    """A plan with an RPO of two hours and an RTO of a quarter of one."""
    path = folder / f"{name}.yaml"
    path.write_text(PLAN.format(name=name) + more)
    return read_plan(path)


def history(days: float, now: datetime = NOW, every: timedelta = timedelta(hours=1)) -> list[BackupMetadata]:
    """Backups as schedules make them: a full a day, a differential every six hours, and incrementals between."""
    made: list[BackupMetadata] = []
    moment = now - timedelta(days=days)
    full: BackupMetadata | None = None
    newest: BackupMetadata | None = None
    count = 0
    while moment <= now - timedelta(minutes=10):
        kind = _kind(count, every)
        base = {FULL: None, DIFFERENTIAL: full, INCREMENTAL: newest}[kind]
        one = entry(kind, moment, base, len(made) + 1)
        made.append(one)
        newest = one
        full = one if kind is FULL else full
        moment, count = moment + every, count + 1
    return made


def _kind(count: int, every: timedelta) -> BackupType:
    a_day = round(timedelta(days=1) / every)
    if count % max(a_day, 1) == 0:
        return FULL
    return DIFFERENTIAL if count % max(a_day // 4, 1) == 0 else INCREMENTAL


@cache
def _like(plan_name: str) -> BackupMetadata:
    return backup(plan=plan_name)


def entry(
    kind: BackupType, moment: datetime, base: BackupMetadata | None, sequence: int, size: int | None = None
) -> BackupMetadata:
    """One manifest; its size grows with the number of backups."""
    usual = {FULL: 40 * MIB + sequence * MIB // 20, DIFFERENTIAL: 3 * MIB, INCREMENTAL: MIB // 2}
    backup_id = f"{kind.prefix}_{moment:%Y%m%d_%H%M%S}_{sequence % 0x10000:04x}"
    chain = (*base.chain, Link(backup_id=base.backup_id, manifest_sha256="0" * 64)) if base else ()
    return _like("trading").model_copy(
        update={
            "backup_id": backup_id,
            "backup_type": kind,
            "requested_type": kind,
            "timestamp": moment,
            "sequence": sequence,
            "base": base.backup_id if base else None,
            "chain": chain,
            "size_bytes": 4 * (size or usual.get(kind, 40 * MIB)),
            "size_stored": size or usual.get(kind, 40 * MIB),
        }
    )


def standing(axis: Axis, at: datetime, good: bool = True, finding: str = "it is damaged") -> Standing:
    """What a verification left on one axis."""
    depth = {Axis.BYTES: "rows", Axis.RESTORABLE: "restored"}.get(axis, "restored")
    outcome = GOOD if good else BAD
    return Standing(outcome=outcome, depth=depth, sequence=1, verified_at=at, findings=() if good else (finding,))


def verdicts(
    backups: Sequence[BackupMetadata],
    verified: Sequence[str] = (),
    corrupted: Sequence[str] = (),
    wrong: Sequence[str] = (),
) -> dict[str, Verdict]:
    """What is known of backups: which were verified, whose bytes are damaged, whose data are not as expected."""
    own: dict[str, Verdict] = {}
    for one in backups:
        at = min(one.timestamp + timedelta(minutes=20), NOW - timedelta(minutes=2))
        axes = {}
        if one.backup_id in (*verified, *wrong):
            axes = {axis: standing(axis, at) for axis in (Axis.BYTES, Axis.RESTORABLE, Axis.QUALITY)}
        if one.backup_id in wrong:
            axes[Axis.QUALITY] = standing(Axis.QUALITY, at, False, "ledger/orders: 73 of 2,737 prices are negative")
        if one.backup_id in corrupted:
            axes = {Axis.BYTES: standing(Axis.BYTES, at, False, "pack 3 was cut off")}
        own[one.backup_id] = Verdict(axes)
    return {
        one.backup_id: depending(own[one.backup_id], [(link.backup_id, own[link.backup_id]) for link in one.chain])
        for one in backups
    }


def verifications(backups: Sequence[BackupMetadata], ids: Sequence[str]) -> Iterator[Verification]:
    """Deep verifications of some backups, twenty minutes after each was made."""
    for number, one in enumerate(each for each in backups if each.backup_id in ids):
        axes = {"bytes": GOOD, "restorable": GOOD, "definitions": UNTRIED, "quality": GOOD}
        at = one.timestamp + timedelta(minutes=20)
        made = verification(0, axes, restore_seconds=38.0 + number % 7 * 6, backup_id=one.backup_id)
        yield made.model_copy(update={"verified_at": at})


def expiries(
    backups: Sequence[BackupMetadata], limits: dict[BackupType, int]
) -> tuple[list[BackupMetadata], list[Expiry]]:
    """Remove what is older than some days by its type, as daily runs did; return what stays, and their records."""
    gone = [one for one in backups if one.timestamp < NOW - timedelta(days=limits[one.backup_type])]
    ids = {one.backup_id for one in gone}
    by_day: dict[datetime, list[BackupMetadata]] = {}
    for one in gone:
        went = one.timestamp + timedelta(days=limits[one.backup_type] + 1)
        by_day.setdefault(went.replace(hour=4, minute=0, second=0), []).append(one)
    records = [
        Expiry(
            plan="trading",
            expired_at=day,
            removed=tuple(Link(backup_id=one.backup_id, manifest_sha256="0" * 64) for one in found),
            reasons={one.backup_id: "old" for one in found},
            head=None,
        )
        for day, found in sorted(by_day.items())
    ]
    return [one for one in backups if one.backup_id not in ids], records


def recorded(
    backups: Sequence[BackupMetadata],
    known: dict[str, Verdict] | None = None,
    expired: Sequence[Expiry] = (),
    proofs: Sequence[Verification] = (),
    findings: Sequence[str] = (),
    settled: Sequence[str] = (),
) -> Recorded:
    """What is on record of a plan that has these backups."""
    found = verdicts(backups) if known is None else known
    return Recorded(
        Seen("file:///srv/backups", backups, found, frozenset(settled), None, list(findings)), expired, proofs
    )


def typical(*, settled: bool = False) -> Recorded:
    """Two months of a plan: retention at work, most incrementals proved, and one of each that something is against.

    Args:
        settled: Whether a person has accepted the suspicious one.
    """
    made, gone = expiries(history(60), {FULL: 90, DIFFERENTIAL: 30, INCREMENTAL: 7})
    fulls = [one for one in made if one.backup_type is FULL]
    damaged = next(one for one in made if one.timestamp >= NOW - timedelta(days=3) and one.backup_type is DIFFERENTIAL)
    strange, wrong = fulls[-3], fulls[-6]
    before = made[made.index(strange) - 1]
    said = f"ledger/orders holds 1,204 rows, and held 48,817 in {before.backup_id}"
    said += "; the 214 backups before lost at most 0.4 %."
    made = [
        one.model_copy(update={"suspicions": (said,)}) if one.backup_id == strange.backup_id else one for one in made
    ]
    proved = [one.backup_id for one in made if _is_proved(one) and one.backup_id != damaged.backup_id]
    known = verdicts(made, proved, [damaged.backup_id], [wrong.backup_id])
    accepted = [strange.backup_id] if settled else []
    return recorded(made, known, gone, list(verifications(made, proved[-40:])), settled=accepted)


def _is_proved(one: BackupMetadata) -> bool:
    if one.backup_type is FULL:
        return True
    return one.timestamp < NOW - timedelta(days=1) and one.sequence % 3 > 0


def with_plan(facts: PlanFacts, name: str) -> PlanFacts:
    """The same under another name."""
    return replace(facts, plan=name)
