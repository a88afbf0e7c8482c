"""Records of backups and verifications as they could be on record, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from blocks.records import BackupMetadata, BackupStatus, BackupType, Collection, Part
from blocks.repository.verdict import standing_after
from blocks.verification import (
    AxisResult,
    CheckOutcome,
    CollectionProfile,
    ColumnProfile,
    RuleOutcome,
    RuleResult,
    Verification,
)
from flows.reporting.evidence import Evidence
from flows.reporting.wording import known

START = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
GOOD, BAD = CheckOutcome.GOOD, CheckOutcome.BAD
UNPROVEN, UNTRIED = CheckOutcome.UNPROVEN, CheckOutcome.UNTRIED
HOLDS, BROKEN, UNJUDGED = RuleOutcome.HOLDS, RuleOutcome.BROKEN, RuleOutcome.UNJUDGED
PROVED = {"bytes": GOOD, "restorable": GOOD, "definitions": GOOD, "quality": GOOD}
DEPTHS = {"bytes": "rows", "restorable": "restored", "definitions": "restored", "quality": "restored"}


def backup_id(day: int) -> str:
    return f"FUL_{START + timedelta(days=day):%Y%m%d_%H%M%S}_9f3a"


def backup(day: int = 0, collections: Mapping[str, int] | None = None, plan: str = "trading") -> BackupMetadata:
    """A manifest that says how many rows each collection has."""
    wanted = {"ledger/orders": 1000} if collections is None else collections
    return BackupMetadata(
        repository_id="0" * 32,
        plan=plan,
        backup_id=backup_id(day),
        backup_type=BackupType.FULL,
        requested_type=BackupType.FULL,
        timestamp=START + timedelta(days=day),
        sequence=day + 1,
        fencing_token=day + 1,
        base=None,
        chain=(),
        previous=None,
        sources=(),
        collections=tuple(
            Collection(
                number=number,
                name=name,
                key=("id",),
                label=("id",),
                columns=(("id", "int64"),),
                definition={},
                parts=(Part(number=0, bounds={}, rows=rows),),
            )
            for number, (name, rows) in enumerate(wanted.items())
        ),
        size_bytes=1,
        size_compressed=1,
        size_stored=1,
        checksum="0" * 64,
        encryption_key_id="none",
        encapsulated_key=None,
        storage_tiers=(),
        retention_days=None,
        source_system="here",
        backup_duration_seconds=1.0,
        tool_versions={},
    )


def rule(outcome: RuleOutcome = HOLDS, **fields: Any) -> RuleResult:
    """One expectation about the prices of orders."""
    given = {
        "suite": "orders",
        "collection": "ledger/orders",
        "rule": "expect_column_values_to_be_between",
        "columns": ("price",),
        "bound": "between 1 and 100",
        "total": 1000,
        "unexpected": 0 if outcome is HOLDS else 30,
        "outcome": outcome,
    }
    if outcome is BROKEN:
        given |= {"sentence": "ledger/orders: 30 of 1,000 values of price are not between 1 and 100 (3 %)"}
    if outcome is UNJUDGED:
        given |= {"sentence": "ledger/orders: expect_column_values_to_be_between on price: no rows", "kind": "no rows"}
    return RuleResult(**given | fields)


def verification(
    day: int = 0,
    axes: Mapping[str, CheckOutcome] = PROVED,
    rules: Sequence[RuleResult] = (),
    findings: Mapping[str, Sequence[str]] | None = None,
    **fields: Any,
) -> Verification:
    """The first verification of a day's backup, an hour after it was made; by axis what it came to and found."""
    said = {axis: tuple(sentences) for axis, sentences in (findings or {}).items()}
    when = START + timedelta(days=day, hours=1)
    results = {
        axis: AxisResult(
            outcome=outcome,
            depth="" if outcome is UNTRIED else DEPTHS[axis],
            findings=said.get(axis, ()) if outcome is BAD else (),
            warnings=said.get(axis, ()) if outcome is UNPROVEN else (),
        )
        for axis, outcome in axes.items()
    }
    wrong = tuple(sentence for result in results.values() for sentence in result.findings)
    status = BackupStatus.CORRUPTED if axes.get("bytes") is BAD else BackupStatus.COMPLETED
    given: dict[str, Any] = {
        "plan": "trading",
        "backup_id": backup_id(day),
        "manifest_sha256": "0" * 64,
        "verified_at": when,
        "deep": axes.get("restorable") is not UNTRIED,
        "status": status if wrong else BackupStatus.VERIFIED,
        "rows": 1000 + day,
        "expectations": len(rules),
        "seconds": 2.5,
        "findings": wrong,
        "warnings": tuple(sentence for result in results.values() for sentence in result.warnings),
        "sequence": 1,
        "results": results,
        "rules": tuple(rules),
        "restore_seconds": 1.25,
    }
    made = Verification(**given | fields)
    stands = standing_after({}, made, made.sequence or 0)
    return made.model_copy(update={"standing": {axis.value: one for axis, one in stands.items()}})


def profile(rows: int, **columns: Any) -> CollectionProfile:
    """The profile of a collection; by column the number of NULLs and the mean."""
    return CollectionProfile(
        rows=rows, columns={name: ColumnProfile(nulls=nulls, mean=mean) for name, (nulls, mean) in columns.items()}
    )


def evidence(
    result: Verification | None, history: Sequence[Verification] = (), made: BackupMetadata | None = None
) -> Evidence:
    """What is on record of a backup; the verification that is reported is the newest."""
    found = () if result is None else (result,)
    day = (result.verified_at - START).days if result else 0
    return Evidence(made or backup(day), known(result), result, (*history, *found))
