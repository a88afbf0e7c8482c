"""A source that held records and holds none now fails its backup; of a collection that is suspicious, or a warning."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.errors import SourceGone
from blocks.records import BackupType
from flows.undo import make_undo
from tests.flows.flow_support import DIFFERENTIAL, EMERGENCY, FULL, INCREMENTAL, SNAPSHOT, Shop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def truncated(shop: Shop) -> None:
    shop.db.close()
    os.truncate(shop.database, 0)


def dropped(shop: Shop) -> None:
    shop.db.executescript("DROP TABLE orders; DROP TABLE positions")


def deleted(shop: Shop) -> None:
    shop.db.executescript("DELETE FROM orders; DELETE FROM positions")


def unmounted(shop: Shop) -> None:
    shutil.rmtree(shop.tree)
    shop.tree.mkdir()


@pytest.mark.parametrize("kind", [FULL, DIFFERENTIAL, INCREMENTAL, SNAPSHOT])
@pytest.mark.parametrize(
    ("lose", "source"), [(truncated, "ledger"), (dropped, "ledger"), (deleted, "ledger"), (unmounted, "models")]
)
def test_a_source_that_is_gone_as_a_whole_fails_its_backup(
    shop: Shop, lose: Callable[[Shop], None], source: str, kind: BackupType
) -> None:
    made = shop.back_up(FULL)
    lose(shop)
    with pytest.raises(SourceGone, match=rf"source {source} holds no records at all now, and held \d+ in") as gone:
        shop.back_up(kind)
    assert made.backup_id in gone.value.message
    assert "allow_empty: true" in gone.value.hint
    assert gone.value.exit_code == 3
    assert shop.ids == [made.backup_id], "the latest backup is the one with the records"


def test_a_source_that_may_be_empty_is_backed_up_and_the_warning_says_so(shop: Shop) -> None:
    made = shop.back_up(FULL)
    deleted(shop)
    sources = {name: source.model_copy(update={"allow_empty": True}) for name, source in shop.plan.sources.items()}
    shop.plan = shop.plan.model_copy(update={"sources": sources})
    empty = shop.back_up(FULL)
    (warnings,) = (source.warnings for source in empty.sources if source.name == "ledger")
    assert warnings == (
        f"ledger/orders held 40 rows in {made.backup_id}, and holds none now.",
        f"ledger/positions held 7 rows in {made.backup_id}, and holds none now.",
    )
    assert [s.warnings for s in shop.back_up(FULL).sources] == [(), ()]


def test_a_source_that_never_held_anything_is_backed_up(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False)
    for kind in (FULL, INCREMENTAL, FULL):
        assert shop.back_up(kind).rows == 1, "the folder"


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL])
def test_one_collection_that_is_emptied_is_backed_up_and_suspicious(shop: Shop, kind: BackupType) -> None:
    made = shop.back_up(FULL)
    shop.db.execute("DELETE FROM orders")
    emptied = shop.back_up(kind)
    assert emptied.suspicions == (f"ledger/orders held 40 rows in {made.backup_id}, and holds none now.",)
    assert [source.warnings for source in emptied.sources] == [(), ()], "it is said once"
    shop.db.execute("DROP TABLE positions")
    shop.db.execute("INSERT INTO orders VALUES (1, 'S', 1)")
    gone = shop.back_up(kind)
    assert f"ledger/positions held 7 rows in {emptied.backup_id}, and is not there now." in gone.sources[0].warnings
    assert gone.suspicions == (), "seven rows are few"


def test_what_is_emptied_again_and_again_is_a_warning(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.db.execute("CREATE TABLE kept AS SELECT * FROM orders")
    shop.db.execute("DELETE FROM orders")
    assert len(shop.back_up(FULL).suspicions) == 1
    shop.db.execute("INSERT INTO orders SELECT * FROM kept")
    assert shop.back_up(INCREMENTAL).suspicions == ()
    shop.db.execute("DELETE FROM orders")
    again = shop.back_up(INCREMENTAL)
    assert (again.suspicions, len(again.sources[0].warnings)) == ((), 1)


def test_a_partition_that_goes_while_others_stay_is_a_warning(shop: Shop) -> None:
    shop.db.executescript("CREATE TABLE log_2026_01 AS SELECT * FROM orders; CREATE TABLE log_2026_02 (n)")
    shop.back_up(FULL)
    shop.db.executescript("DROP TABLE log_2026_01; DROP TABLE orders")
    gone = shop.back_up(FULL)
    assert [sentence.partition(" held")[0] for sentence in gone.suspicions] == ["ledger/orders"]
    assert [sentence.partition(" held")[0] for sentence in gone.sources[0].warnings] == ["ledger/log_2026_01"]


def test_an_emptied_source_can_be_restored_and_backed_up_before(shop: Shop) -> None:
    shop.back_up(FULL)
    before = shop.picture()
    deleted(shop)
    unmounted(shop)
    shop.restore()
    assert shop.picture()["rows"] == before["rows"]
    make_undo(shop.plan)
    assert shop.rows("SELECT count(*) FROM orders") == [(0,)]
    assert shop.back_up(EMERGENCY).backup_type is EMERGENCY
    with pytest.raises(SourceGone):
        shop.back_up(INCREMENTAL)


def test_a_source_that_is_gone_is_noticed_although_the_history_is_damaged(shop: Shop) -> None:
    full = shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = -1 WHERE id = 1")
    shop.back_up(INCREMENTAL)
    (shop.objects(full) / "manifest").write_bytes(b"LASTGOOD")
    unmounted(shop)
    with pytest.raises(SourceGone, match=r"source models holds no records at all now"):
        shop.back_up(INCREMENTAL)
