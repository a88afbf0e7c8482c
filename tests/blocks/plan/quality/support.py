"""Suites on tables that tests make, run as a verification runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from blocks.plan.expression import Value
from blocks.plan.parameters import BACKUP_TIMESTAMP, EXPECTED_ROWS, Missing
from blocks.plan.quality import QualitySuite
from blocks.records import BackupMetadata, Collection, Part, SourceState
from blocks.verification import RuleOutcome, RuleResult
from flows.proving.suites import SuiteRows

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


class Known:
    """Values of parameters that a test knows; of others there was no earlier verification."""

    def __init__(self, **values: Value) -> None:
        self.values: Mapping[str, Value] = values

    def of(self, collection: Collection, names: Iterable[str], profile: str) -> dict[str, Value | Missing]:
        known: dict[str, Value] = {EXPECTED_ROWS: collection.rows, BACKUP_TIMESTAMP: NOW, **self.values}
        return {name: known.get(name, Missing("no earlier verification")) for name in names}


def expect(kind: str, severity: str | None = None, **kwargs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": f"expect_{kind}", "kwargs": kwargs}
    return made if severity is None else {**made, "severity": severity}


def query(sql: str, **more: Any) -> dict[str, Any]:
    return {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": sql}, **more}


def suite_of(*expectations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "orders", "collection": "ledger/orders", **fields, "expectations": list(expectations)}


def collection_of(name: str, number: int, rows: int, columns: Mapping[str, str], *key: str) -> Collection:
    part = Part(number=0, bounds={}, rows=rows)
    return Collection(
        number=number, name=name, key=key, label=key, columns=tuple(columns.items()), definition={}, parts=(part,)
    )


def backup_of(*collections: Collection, **kinds: str) -> BackupMetadata:
    states = tuple(SourceState.model_construct(name=name, type=kind) for name, kind in kinds.items())
    return BackupMetadata.model_construct(plan="plan", collections=collections, sources=states)


def run_on(
    tables: Mapping[str, pa.Table],
    *suites: dict[str, Any],
    expected: Mapping[str, int] = {},
    columns: Mapping[str, Mapping[str, str]] = {},
    known: Known | None = None,
    **kinds: str,
) -> list[RuleResult]:
    """Run suites on tables by full name; their first column is the key."""
    collections = [
        collection_of(
            name,
            number,
            expected.get(name, rows.num_rows),
            columns.get(name) or dict.fromkeys(rows.column_names, ""),
            *rows.column_names[:1],
        )
        for number, (name, rows) in enumerate(tables.items())
    ]
    made = [QualitySuite.model_validate(suite) for suite in suites]
    for suite in made:
        suite.check()
    with SuiteRows("plan", made, backup_of(*collections, **kinds)) as kept:
        for name, rows in tables.items():
            kept.add(name, rows)
        return kept.run(known or Known())


def run(
    rows: pa.Table, *expectations: dict[str, Any], expected_rows: int | None = None, **more: Any
) -> list[RuleResult]:
    expected = {} if expected_rows is None else {"ledger/orders": expected_rows}
    known = more.pop("known", None)
    return run_on({"ledger/orders": rows}, suite_of(*expectations, **more), expected=expected, known=known)


def broken(rules: Iterable[RuleResult]) -> list[RuleResult]:
    return [rule for rule in rules if rule.outcome is RuleOutcome.BROKEN]


def outcomes(rules: Iterable[RuleResult]) -> list[str]:
    return [rule.outcome.value + (f": {rule.kind}" if rule.kind else "") for rule in rules]
