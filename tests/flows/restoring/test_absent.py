"""An undo of a restore that made a source where nothing was: it goes again, unless it was changed since."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.undo import make_undo
from tests.flows.flow_support import EXACT, MERGE, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def lose_models(shop: Shop) -> None:
    shutil.rmtree(shop.tree)
    shop.db.execute("UPDATE orders SET price = -1")


def lose_ledger(shop: Shop) -> None:
    shop.db.close()
    for path in shop.database.parent.glob("ledger.db*"):
        path.unlink()
    (shop.tree / "a.bin").write_bytes(b"changed")


def place_of(shop: Shop, lose: Callable[[Shop], None]) -> Path:
    return shop.tree if lose is lose_models else shop.database


def aside(place: Path) -> list[Path]:
    return [path for path in place.parent.glob(f"{place.name}.*") if not path.name.endswith(("-wal", "-shm"))]


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("lose", [lose_models, lose_ledger])
def test_what_a_restore_made_where_nothing_was_is_moved_aside_by_its_undo(
    shop: Shop, lose: Callable[[Shop], None], mode: object
) -> None:
    made = shop.back_up()
    lose(shop)
    place = place_of(shop, lose)
    shop.restore(made, mode)  # type: ignore[arg-type]
    assert place.exists()
    result = make_undo(shop.plan)
    assert not place.exists()
    [moved] = aside(place)
    assert any(f"is moved to {moved}" in note for note in result.notes)
    name = "models" if lose is lose_models else "ledger"
    shop.restore(made, EXACT, [f"{name}/*"])  # which is how it comes back
    assert place.exists()


@pytest.mark.parametrize("lose", [lose_models, lose_ledger])
@pytest.mark.parametrize("how", ["changed", "added", "deleted", "defined"])
def test_what_was_changed_since_stays_and_the_undo_says_so(shop: Shop, lose: Callable[[Shop], None], how: str) -> None:
    made = shop.back_up()
    lose(shop)
    place = place_of(shop, lose)
    shop.restore(made, EXACT)
    if lose is lose_models:
        {
            "changed": lambda: (place / "a.bin").write_bytes(b"newer"),
            "added": lambda: (place / "newer").write_bytes(b"newer"),
            "deleted": lambda: (place / "a.bin").unlink(),
            "defined": lambda: (place / "deep").chmod(0o700),
        }[how]()
    else:
        sql = {
            "changed": "UPDATE orders SET price = 7",
            "added": "CREATE TABLE newer (id)",
            "deleted": "DELETE FROM orders",
            "defined": "CREATE VIEW newer AS SELECT 1",
        }
        connection = sqlite3.connect(place, isolation_level=None)
        connection.execute(sql[how])
        connection.close()
    result = make_undo(shop.plan)
    assert place.exists()
    assert aside(place) == []
    name = "models" if lose is lose_models else "ledger"
    said = f"{name}: nothing was there before the restore, and what is there now stays: it"
    assert any(note.startswith(said) for note in result.notes)


def test_what_the_plan_leaves_out_stays_with_what_it_is_in(shop: Shop) -> None:
    shop.plan.sources["models"] = shop.plan.sources["models"].model_copy(update={"exclude": ["*.tmp"]})
    made = shop.back_up()
    lose_models(shop)
    shop.restore(made, EXACT)
    (shop.tree / "theirs.tmp").write_text("of another program")
    result = make_undo(shop.plan)
    assert (shop.tree / "theirs.tmp").read_text() == "of another program"
    assert any("stays" in note for note in result.notes)


def test_of_one_file_that_made_its_folder_nothing_of_others_is_moved(shop: Shop) -> None:
    made = shop.back_up()
    lose_models(shop)
    shop.restore(made, EXACT, keys=["a.bin", "1"])
    (shop.tree / "theirs").write_text("of another program")
    make_undo(shop.plan)
    assert (shop.tree / "theirs").read_text() == "of another program"
    assert shop.rows("SELECT price FROM orders WHERE id = 1") == [(-1.0,)]


def test_a_preview_moves_nothing(shop: Shop) -> None:
    made = shop.back_up()
    lose_models(shop)
    shop.restore(made, EXACT)
    make_undo(shop.plan, preview=True)
    assert shop.tree.exists()
    assert aside(shop.tree) == []


def test_what_was_there_before_the_restore_is_never_moved(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("UPDATE orders SET price = -1")
    shop.restore(made, EXACT)
    make_undo(shop.plan)
    assert shop.tree.exists()
    assert aside(shop.tree) == []
