"""`verify_after_backup`: the run that makes a backup proves it; the backup stays, and the run says both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.errors import QualityFailed
from blocks.plan.plan import parse_plan
from blocks.records import BackupStatus
from flows.backup import backup_and_verify, made_unproved
from tests.flows.flow_support import FULL, Shop

BROKEN = {
    "name": "few", "collection": "ledger/orders",
    "expectations": [{"type": "expect_table_row_count_to_equal", "kwargs": {"value": 1}}],
}  # fmt: skip


def test_off_is_the_default_and_yaml_may_say_it() -> None:
    raw = {"name": "p", "sources": {"a": {"type": "sqlite", "path": "x"}}, "repository": {"url": "./r"},
           "encryption": "none"}  # fmt: skip
    assert parse_plan(raw, "p").verify_after_backup == "off"
    assert parse_plan(raw | {"verify_after_backup": False}, "p").verify_after_backup == "off"


@pytest.mark.parametrize("depth", ["quick", "deep"])
def test_a_backup_is_verified_by_the_run_that_made_it(tmp_path: Path, depth: str) -> None:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    plan = shop.plan.model_copy(update={"verify_after_backup": depth})
    made = backup_and_verify(plan, FULL)
    (result,) = shop.repository.verifications("trading", made.backup_id)
    assert (result.deep, result.status) == (depth == "deep", BackupStatus.VERIFIED)


def test_a_backup_that_is_bad_stays_and_the_error_says_both(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    (tmp_path / "q.json").write_text(json.dumps(BROKEN))
    plan = shop.plan.model_copy(update={"verify_after_backup": "quick", "quality": [str(tmp_path / "q.json")]})
    with pytest.raises(QualityFailed, match="is there, and its verification says") as caught:
        backup_and_verify(plan, FULL)
    there = made_unproved(caught.value)
    assert there is not None
    assert [one.backup_id for one in shop.repository.backups("trading")] == [there.made.backup_id]
    assert there.result.findings
