"""Where the values of parameters come from: the manifest, the backup before, and the newest one proved good."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from blocks.plan.parameters import Missing
from blocks.records import BackupMetadata, BackupStatus, Collection
from blocks.verification import Axis, AxisResult, CheckOutcome, CollectionProfile, ColumnProfile, Verification
from flows.proving.earlier import Earlier
from flows.proving.parameters import NO_BACKUP, NO_COLUMN, NO_NUMBER, NO_VERIFICATION, Parameters
from tests.flows.flow_support import Shop

ORDERS = "ledger/orders"
PRICE = ColumnProfile(nulls=5, distinct=9, minimum="0.25", maximum="10.00", mean=5.5)
AT = ColumnProfile(nulls=0, distinct=2, minimum="2026-01-01T00:00:00+00:00", maximum="2026-01-02T00:00:00+00:00")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def orders(backup: BackupMetadata) -> Collection:
    return next(one for one in backup.collections if one.name == ORDERS)


def verified(shop: Shop, backup: BackupMetadata, rows: int, outcome: CheckOutcome, **fields: Any) -> None:
    record = Verification(
        plan="trading",
        backup_id=backup.backup_id,
        manifest_sha256=shop.repository.link(backup).manifest_sha256,
        verified_at=datetime.now(UTC),
        deep=False,
        status=BackupStatus.VERIFIED,
        rows=rows,
        expectations=1,
        seconds=1,
        results={Axis.QUALITY.value: AxisResult(outcome=outcome)},
        profile={ORDERS: CollectionProfile(rows=rows, columns={"price": PRICE, "at": AT})},
    )
    shop.repository.record_verification(record.model_copy(update=fields))


def value(shop: Shop, backup: BackupMetadata, name: str) -> Any:
    return Parameters(shop.repository, backup).of(orders(backup), [name])[name]


def test_the_first_backup_knows_only_itself(shop: Shop) -> None:
    made = shop.back_up()
    names = ["expected_rows", "backup_timestamp", "previous_rows", "previous_verified.rows"]
    verified(shop, made, 40, CheckOutcome.GOOD)  # its own verifications are no earlier ones
    assert Parameters(shop.repository, made).of(orders(made), names) == {
        "expected_rows": 40,
        "backup_timestamp": made.timestamp,
        "previous_rows": Missing(NO_BACKUP),
        "previous_verified.rows": Missing(NO_VERIFICATION),
    }


def test_previous_rows_are_those_of_the_backup_before(shop: Shop) -> None:
    made = [shop.back_up()]
    for count in (30, 20):
        shop.db.execute(f"DELETE FROM orders WHERE id > {count}")
        made.append(shop.back_up())
    assert [value(shop, one, "previous_rows") for one in made] == [Missing(NO_BACKUP), 40, 30]
    shop.db.execute("CREATE TABLE later (id INTEGER PRIMARY KEY)")
    last = shop.back_up()
    later = next(one for one in last.collections if one.name == "ledger/later")
    assert Parameters(shop.repository, last).of(later, ["previous_rows"]) == {"previous_rows": Missing(NO_BACKUP)}


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "previous_verified.rows": 40,
        "previous_verified.price.nulls": 5,
        "previous_verified.price.null_share": 0.125,
        "previous_verified.price.distinct": 9,
        "previous_verified.price.min": Decimal("0.25"),
        "previous_verified.price.max": Decimal("10.00"),
        "previous_verified.price.mean": 5.5,
        "previous_verified.at.max": datetime(2026, 1, 2, tzinfo=UTC),
        "previous_verified.at.mean": Missing(NO_NUMBER),
        "previous_verified.nothing.min": Missing(NO_COLUMN),
    }.items(),
)
def test_numbers_of_a_column_come_from_the_profile(shop: Shop, name: str, expected: object) -> None:
    verified(shop, shop.back_up(), 40, CheckOutcome.GOOD)
    assert value(shop, shop.back_up(), name) == expected


def test_the_newest_earlier_backup_that_stands_good_counts(shop: Shop) -> None:
    made = [shop.back_up() for _ in range(5)]
    verified(shop, made[0], 10, CheckOutcome.GOOD)
    verified(shop, made[1], 11, CheckOutcome.GOOD)
    verified(shop, made[1], 12, CheckOutcome.GOOD)
    verified(shop, made[2], 13, CheckOutcome.GOOD)
    verified(shop, made[2], 14, CheckOutcome.BAD)  # what was found since counts against what was good
    verified(shop, made[3], 15, CheckOutcome.UNPROVEN)
    assert value(shop, made[4], "previous_verified.rows") == 12
    assert value(shop, made[1], "previous_verified.rows") == 10


def test_what_a_record_of_an_earlier_version_found_counts_against_a_backup(shop: Shop) -> None:
    made = shop.back_up()
    assert not Earlier(shop.repository, made).is_bad(made)
    old = {"results": {}, "profile": {}}  # as records were before there were axes
    verified(shop, made, 10, CheckOutcome.BAD, status=BackupStatus.COMPLETED, findings=("prices below 0",), **old)
    assert Earlier(shop.repository, made).is_bad(made)


def test_a_record_without_a_profile_is_passed_over(shop: Shop) -> None:
    made = [shop.back_up() for _ in range(2)]
    verified(shop, made[0], 10, CheckOutcome.GOOD)
    verified(shop, made[0], 11, CheckOutcome.GOOD, profile={})
    verified(shop, made[0], 12, CheckOutcome.GOOD, results={}, manifest_sha256="00" * 32)
    assert value(shop, made[1], "previous_verified.rows") == 10


def test_earlier_backups_are_read_only_where_that_is_asked_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop.back_up()
    repository = shop.repository
    monkeypatch.setattr(repository, "survey", None)
    found = Parameters(repository, made).of(orders(made), ["expected_rows", "backup_timestamp"])
    assert found["expected_rows"] == 40
