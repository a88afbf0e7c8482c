"""A proof by a backup's own objects finds what is wrong in them, also where a later backup covers it up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from blocks.crypto.stream import ObjectKind
from blocks.records import BackupMetadata
from blocks.verification import Axis, CheckOutcome, Verification
from flows.proving.own_objects import prove_own
from tests.flows.flow_support import CORRUPTED, DIFFERENTIAL, FULL, INCREMENTAL, VERIFIED, Shop, store_apart
from tests.flows.test_verify import FORGERIES, Forger

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.fill()
    shop.back_up(FULL)
    return shop


def own(shop: Shop, backup: BackupMetadata) -> Verification:
    repository = shop.repository
    return prove_own(shop.plan, repository, repository.manifest("trading", backup.backup_id), {}, NOW)


def test_what_a_backup_stored_is_counted_and_good(shop: Shop) -> None:
    shop.db.execute("UPDATE orders SET price = price + 1 WHERE id < 4")
    shop.db.execute("DELETE FROM orders WHERE id = 9")
    first = shop.back_up(INCREMENTAL)
    found = own(shop, first)
    assert (found.status, found.rows, found.findings) == (VERIFIED, first.upserts + first.tombstones, ())
    nothing = own(shop, shop.back_up(INCREMENTAL))
    assert (nothing.status, nothing.rows) == (VERIFIED, 0)
    again = shop.back_up(DIFFERENTIAL)
    assert own(shop, again).rows == again.upserts + again.tombstones > 0


def test_files_that_are_stored_once_are_proved_with_what_they_refer_to(shop: Shop) -> None:
    (shop.tree / "first.bin").write_bytes(b"x" * 5000)
    (shop.tree / "second.bin").hardlink_to(shop.tree / "first.bin")
    made = shop.back_up(INCREMENTAL)
    (shop.tree / "third.bin").hardlink_to(shop.tree / "first.bin")
    later = shop.back_up(INCREMENTAL)
    assert (own(shop, made).findings, own(shop, later).findings) == ((), ())


def another_deletion(index: pa.Table) -> pa.Table:
    """Say that a key which the segment has as a row is deleted, and the other way round."""
    return index.set_column(2, "_deleted", pc.invert(index.column("_deleted")))


OF_INDEXES = {
    "what is deleted is another": (another_deletion, ObjectKind.INDEX, "deletions are not those of its index")
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", [*FORGERIES, *OF_INDEXES])
def test_rows_that_are_not_those_of_the_index_are_found_though_every_seal_is_right(
    shop: Shop, name: str, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        store_apart(monkeypatch)
    change: Callable[[pa.Table], pa.Table]
    change, kind, words = (FORGERIES | OF_INDEXES)[name]
    shop.db.execute("UPDATE orders SET price = price + 1 WHERE id < 4")
    if name in OF_INDEXES:
        shop.db.execute("DELETE FROM orders WHERE id = 4")
    made = shop.back_up(INCREMENTAL)
    Forger(shop, made).forge(change, kind)
    found = own(shop, made)
    assert found.status is CORRUPTED
    assert "ledger/orders#0" in found.findings[0]
    assert words in found.findings[0]
    assert found.results[Axis.BYTES].outcome is CheckOutcome.BAD


@pytest.mark.parametrize("by", [-5, 4])
def test_a_count_of_rows_that_cannot_come_of_the_base_is_found(shop: Shop, by: int) -> None:
    shop.db.execute("UPDATE orders SET price = price + 1 WHERE id < 4")
    made = shop.back_up(INCREMENTAL)
    forger = Forger(shop, made)
    forger.backup["collections"][0]["parts"][0]["rows"] += by
    forger.backup["total_rows"] += by
    forger.seal_manifest()
    assert "which do not come of" in own(shop, made).findings[0]
