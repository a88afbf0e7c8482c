"""What docs/format.md says of Python objects: its own Python restores them as JSON that says every type."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from blocks.plan.plan import parse_plan
from blocks.records import BackupType
from blocks.sources.mapping.decoding import _READERS
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import encode
from flows.backup import make_backup
from tests.conformance import mapping_states
from tests.conformance.mapping_states import Order, Side, StateManager
from tests.format_support import DOCUMENT, restore


def test_the_document_restores_an_objects_state_as_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = StateManager()
    monkeypatch.setattr(mapping_states, "documented", manager, raising=False)
    plan = parse_plan(
        {
            "name": "trading",
            "sources": {
                "manager": {
                    "type": "mapping",
                    "object": f"{mapping_states.__name__}:documented",
                    "part_size_bytes": 500,
                }
            },
            "repository": {"url": str(tmp_path / "backups")},
            "encryption": "none",
        },
        "the test's plan",
    )
    plan.repository.initialize(plan.encryption)
    manager.values = {f"key {n}": {"n": n} for n in range(50)} | {"über": {1: Side.BUY}, "gone": 1}
    make_backup(plan, BackupType.FULL)
    manager.values |= {"key 7": (Decimal("1.50"), None), "order": Order(Side.SELL, float("inf"))}
    del manager.values["gone"]
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert len(made.collections[0].parts) > 1
    done = restore(tmp_path, "--to", str(tmp_path / "restored"), "--check", "--no-encryption")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "restored" / "manager").read_text().splitlines()]
    types = Types("tests", ())
    expected = {key: json.loads(encode(value, key, types)) for key, value in manager.values.items()}
    assert {line["key"]: line["value"] for line in lines} == expected
    assert len(lines) == len(expected)


def test_the_document_names_every_tag() -> None:
    text = DOCUMENT.read_text().partition("## Python objects")[2].partition("```python")[0]
    assert [tag for tag in _READERS if tag not in text] == []
