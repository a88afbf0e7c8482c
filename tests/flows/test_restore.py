"""Restores: what the preview promises, what merge and exact do, where to, and the way back."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.crypto.keyring import Credential, Role, generate_key_file
from blocks.crypto.repository_keys import add_slot
from blocks.errors import BackupNotFound, ConfigurationError, RestoreRefused, WrongKey
from flows.pipeline.results import RestoreResult
from flows.restoring.change_list import shown_place
from tests.flows.flow_support import EMERGENCY, EXACT, MERGE, PREVIEW, Shop, picture, walk


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def counts(result: RestoreResult) -> dict[str, tuple[int, int | None, int | None, int | None]]:
    return {c.collection: (c.rows, c.added, c.changed, c.removed) for c in result.collections}


def test_a_preview_counts_exactly_and_writes_nothing(shop: Shop) -> None:
    shop.back_up()
    shop.db.execute("DELETE FROM orders WHERE id IN (1, 2, 39)")
    shop.db.execute("UPDATE orders SET price = -1 WHERE id IN (5, 38)")
    shop.db.execute("INSERT INTO orders VALUES (500, 'new', 0), (-1, 'new', 0), (501, 'new', 0), (502, 'new', 0)")
    (shop.tree / "a.bin").write_bytes(b"changed")
    (shop.tree / "link").unlink()
    os.utime(shop.tree, ns=(0, walk(shop.tree)["."][2]))
    live, before = shop.picture(), shop.ids
    found = counts(shop.restore(mode=PREVIEW))
    assert found["ledger/orders"] == (40, 3, 2, 4)
    assert found["ledger/positions"] == (7, 0, 0, 0)
    assert found["models/tree"][1:] == (1, 3, 0)  # the link; the root's time, the file's entry and its content
    assert (shop.picture(), shop.ids) == (live, before)


def test_after_an_exact_restore_the_preview_has_nothing_to_do(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DELETE FROM orders")
    shutil.rmtree(shop.tree / "deep")
    shop.restore(made)
    assert {numbers[1:] for numbers in counts(shop.restore(made, PREVIEW)).values()} == {(0, 0, 0)}


def test_a_row_that_moved_to_another_part_counts_as_changed(shop: Shop) -> None:
    shop.db.executemany("INSERT INTO positions VALUES (?, 0)", [(f"T{n}" * 5,) for n in range(60)])
    made = shop.back_up()
    assert len(made.collections[1].parts) > 1
    shop.db.execute("INSERT OR REPLACE INTO positions VALUES ('S0', 1)")  # takes a rowid at the end
    assert counts(shop.restore(made, PREVIEW))["ledger/positions"] == (67, 0, 1, 0)


def test_a_preview_counts_a_table_that_an_exact_restore_removes(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.executescript("CREATE TABLE later (a); INSERT INTO later VALUES (1), (2)")
    assert counts(shop.restore(made, PREVIEW))["ledger/later"] == (0, 0, 0, 2)
    assert counts(shop.restore(made, PREVIEW, collections=["ledger/*"]))["ledger/later"] == (0, 0, 0, 2)
    named = ["ledger/orders", "ledger/positions"]  # what came since is not among them, and stays
    assert "ledger/later" not in counts(shop.restore(made, PREVIEW, collections=named))
    shop.restore(made, collections=named)
    assert shop.rows("SELECT count(*) FROM later") == [(2,)]
    shop.restore(made)
    assert shop.rows("SELECT name FROM sqlite_schema WHERE name = 'later'") == []


@pytest.mark.parametrize(
    "migration",
    [
        "CREATE TABLE new (symbol TEXT PRIMARY KEY NOT NULL, quantity) WITHOUT ROWID",
        "CREATE TABLE new (symbol TEXT, quantity, PRIMARY KEY (symbol, quantity)) WITHOUT ROWID",
        "CREATE TABLE new (symbol TEXT, quantity)",
        "CREATE TABLE new (symbol TEXT, quantity, note TEXT)",
    ],
)
def test_a_preview_over_a_migrated_table_counts_what_an_exact_restore_replaces(shop: Shop, migration: str) -> None:
    before, made = shop.picture(), shop.back_up()
    shop.db.executescript(
        f"{migration}; INSERT INTO new (symbol, quantity) SELECT * FROM positions;"
        "DROP TABLE positions; ALTER TABLE new RENAME TO positions"
    )
    rows, added, changed, removed = counts(shop.restore(made, PREVIEW))["ledger/positions"]
    assert (rows, (added or 0) + (changed or 0)) == (7, 7)
    assert removed == added
    shop.restore(made)
    assert shop.picture() == before


def test_a_preview_where_nothing_is_left_says_so(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.close()
    shop.database.unlink()
    shutil.rmtree(shop.tree)
    result = shop.restore(made, PREVIEW)
    assert counts(result)["ledger/orders"] == (40, 40, 0, 0)
    assert [note.partition(":")[0] for note in result.notes[:2]] == ["ledger", "models"]
    assert not shop.database.exists()


def test_merge_leaves_what_the_backup_does_not_know_and_exact_removes_it(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("UPDATE orders SET symbol = 'X' WHERE id = 1")
    shop.db.execute("INSERT INTO orders VALUES (500, 'new', 0)")
    (shop.tree / "new").write_text("new")
    shop.restore(made, MERGE)
    assert shop.rows("SELECT count(*), sum(symbol = 'X'), sum(symbol = 'new') FROM orders") == [(41, 0, 1)]
    assert (shop.tree / "new").exists()
    shop.restore(made, EXACT)
    assert shop.rows("SELECT count(*) FROM orders") == [(40,)]
    assert not (shop.tree / "new").exists()


def test_a_single_key_comes_back_by_a_glob(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("UPDATE positions SET quantity = -1")
    (shop.tree / "deep" / "b.txt").write_text("changed")
    (shop.tree / "a.bin").write_text("changed")
    result = shop.restore(made, MERGE, keys=["S3", "deep/*"])
    assert shop.rows("SELECT symbol, quantity FROM positions WHERE quantity >= 0") == [("S3", 30)]
    assert (shop.tree / "deep" / "b.txt").read_text() == "hello"
    assert (shop.tree / "a.bin").read_text() == "changed"
    assert {c.collection: c.rows for c in result.collections} == {
        "ledger/orders": 0,
        "ledger/positions": 1,
        "models/tree": 2,
    }


def test_an_exact_restore_of_a_key_removes_live_rows_of_that_key_only(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("INSERT INTO positions VALUES ('S10', 1), ('T1', 1)")
    preview = counts(shop.restore(made, PREVIEW, ["ledger/positions"], ["S1*"]))
    assert preview == {"ledger/positions": (1, 0, 0, 1)}
    shop.restore(made, EXACT, ["ledger/positions"], ["S1*"])
    assert shop.rows("SELECT symbol FROM positions WHERE symbol IN ('S1', 'S10', 'T1')") == [("S1",), ("T1",)]


def test_a_single_collection_comes_back_and_nothing_else_is_touched(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DELETE FROM orders")
    shop.db.execute("DELETE FROM positions")
    (shop.tree / "a.bin").unlink()
    result = shop.restore(made, collections=["ledger/ord*"])
    assert shop.rows("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM positions)") == [(40, 0)]
    assert not (shop.tree / "a.bin").exists()
    assert list(result.places) == ["ledger"]
    rescue = shop.repository.manifest("trading", result.rescue_id or "")
    assert rescue.data_sources == ("ledger",)


def test_a_collection_that_the_backup_does_not_hold_is_named_with_those_it_holds(shop: Shop) -> None:
    shop.back_up()
    with pytest.raises(BackupNotFound, match="no collection ledger/nothing") as caught:
        shop.restore(collections=["ledger/nothing"])
    assert "ledger/orders" in caught.value.hint


def test_one_source_goes_to_a_place_of_its_kind_and_several_to_a_folder(shop: Shop, tmp_path: Path) -> None:
    state, made = shop.picture(), shop.back_up()
    one = shop.restore(made, collections=["ledger/*"], to=str(tmp_path / "copy.db"))
    assert one.places == {"ledger": str(tmp_path / "copy.db")}
    assert picture(tmp_path / "copy.db", shop.tree) == state
    shop.restore(made, MERGE, to=str(tmp_path / "both"))
    assert picture(tmp_path / "both" / "ledger" / "ledger.db", tmp_path / "both" / "models" / "tree") == state
    assert one.rescue_id is one.undo is None
    assert shop.ids == [made.backup_id]
    assert shop.picture() == state


def test_an_exact_restore_onto_an_older_copy_makes_it_equal(shop: Shop, tmp_path: Path) -> None:
    first = shop.back_up()
    shop.restore(first, to=str(tmp_path / "both"))
    shop.db.execute("DELETE FROM orders WHERE id > 3")
    (shop.tree / "a.bin").unlink()
    state, second = shop.picture(), shop.back_up()
    shop.restore(second, to=str(tmp_path / "both"), overwrite=True)
    assert picture(tmp_path / "both" / "ledger" / "ledger.db", tmp_path / "both" / "models" / "tree") == state


def test_an_in_place_restore_can_be_undone(shop: Shop) -> None:
    old, made = shop.picture(), shop.back_up()
    shop.db.executescript("CREATE TABLE later (a); INSERT INTO later VALUES (1); DELETE FROM orders WHERE id < 30")
    (shop.tree / "new").write_text("new")
    new = shop.picture()
    result = shop.restore(made)
    assert shop.picture() == old
    rescue = shop.repository.manifest("trading", result.rescue_id or "")
    assert rescue.backup_type is EMERGENCY
    assert rescue.tags[:3] == ("before-restore", f"restored={made.backup_id}", "mode=exact")
    assert result.undo == "lastgood undo PLAN --yes"
    shop.restore(rescue)
    assert shop.picture() == new


def test_an_undo_brings_back_what_the_plan_does_not_call_critical_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False, critical=["ledger/orders"])
    shop.fill()
    made = shop.back_up()
    shop.db.executescript("CREATE TABLE later (a); INSERT INTO later VALUES (1)")
    (shop.tree / "new").write_text("new")
    before = shop.picture()
    result = shop.restore(made)
    assert shop.picture() != before
    shop.restore(shop.repository.manifest("trading", result.rescue_id or ""))
    assert shop.picture() == before
    only_models = shop.restore(made, collections=["models/*"])
    assert shop.repository.manifest("trading", only_models.rescue_id or "").data_sources == ("models",)


def test_live_state_that_is_gone_is_no_obstacle(shop: Shop) -> None:
    state, made = shop.picture(), shop.back_up()
    shop.db.close()
    shop.database.unlink()
    shutil.rmtree(shop.tree)
    result = shop.restore(made)
    assert shop.picture() == state
    assert result.rescue_id is result.undo is None
    assert [note.partition(":")[0] for note in result.notes if "no emergency backup" in note] == ["ledger", "models"]


def test_damaged_live_state_is_replaced_and_what_is_readable_is_rescued(shop: Shop) -> None:
    state, made = shop.picture(), shop.back_up()
    shop.db.close()
    shop.database.write_bytes(b"no database at all" * 100)
    result = shop.restore(made)
    assert shop.picture() == state
    rescue = shop.repository.manifest("trading", result.rescue_id or "")
    assert rescue.data_sources == ("models",)
    assert any(note.startswith("ledger: no emergency backup") for note in result.notes)


def test_a_writer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.fill()
    made = shop.back_up()
    writer = tmp_path / "writer"
    generate_key_file(writer)
    repository = shop.plan.repository
    credential = Credential(key_file=writer)
    repository.save_encryption(
        add_slot(repository.read_config().encryption, shop.repository.keys, credential, Role.WRITER, "worker")
    )
    reader = shop.plan.encryption
    shop.plan = shop.plan.model_copy(update={"encryption": reader.model_copy(update={"credential": credential})})
    shop.db.execute("DELETE FROM orders WHERE id = 1")
    live = shop.picture()
    later = shop.back_up()
    assert (later.base, later.tombstones) == (made.backup_id, 1)
    for mode in (PREVIEW, MERGE, EXACT):
        for to in (None, str(tmp_path / "to")):
            with pytest.raises(WrongKey):
                shop.restore(made, mode, to=to)
    assert (shop.picture(), shop.ids) == (live, [made.backup_id, later.backup_id])
    assert not (tmp_path / "to").exists()
    shop.plan = shop.plan.model_copy(update={"encryption": reader})
    shop.restore(later)
    assert shop.picture() == live


def test_a_refused_restore_leaves_everything_as_it_was(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("ALTER TABLE orders ADD COLUMN note TEXT")
    (shop.tree / "a.bin").unlink()
    live = shop.picture()
    with pytest.raises(RestoreRefused, match="other columns"):
        shop.restore(made, MERGE)
    assert (shop.picture(), shop.ids) == (live, [made.backup_id])


def test_a_source_that_the_plan_no_longer_has_is_named(shop: Shop) -> None:
    made = shop.back_up()
    only = {"ledger": shop.plan.sources["ledger"]}
    shop.plan = shop.plan.model_copy(update={"sources": only})
    for mode in (PREVIEW, EXACT):
        with pytest.raises(ConfigurationError, match="models"):
            shop.restore(made, mode)
    shop.restore(made, collections=["ledger/*"])


def test_a_preview_counts_nothing_that_the_backup_did_not_cover(shop: Shop) -> None:
    whole = shop.plan.sources
    narrow = {**whole, "models": whole["models"].model_copy(update={"exclude": ["deep*"]})}
    shop.plan = shop.plan.model_copy(update={"sources": narrow})
    made = shop.back_up()
    shop.plan = shop.plan.model_copy(update={"sources": whole})
    (shop.tree / "new").write_text("new")
    os.utime(shop.tree, ns=(0, walk(shop.tree)["."][2]))
    assert counts(shop.restore(made, PREVIEW))["models/tree"][3] == 2  # the new file's entry and content
    shop.restore(made)
    assert (shop.tree / "deep" / "b.txt").exists()
    assert not (shop.tree / "new").exists()


def test_a_time_before_the_first_backup_finds_nothing(shop: Shop) -> None:
    made = shop.back_up()
    with pytest.raises(BackupNotFound):
        shop.restore(at=made.timestamp - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (None, "live"),
        ("/srv/copy.db", "/srv/copy.db"),
        ("postgresql://me:se@cret@host:5432/books", "postgresql://me@host:5432/books"),
        ("postgresql://me:secret@host/books?sslpassword=secret&x=1", "postgresql://me@host/books?sslpassword=***&x=1"),
        ("redis://:secret@host:6379/1", "redis://@host:6379/1"),
        ("host=db password='a secret' dbname=books", "host=db password=*** dbname=books"),
    ],
)
def test_a_place_is_shown_without_its_password(place: str | None, shown: str) -> None:
    assert shown_place(place) == shown
    assert "secret" not in shown_place(place)
