"""Merges by content, through the flows: the preview counts them, and an undo takes back what they added and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.undo import make_undo
from tests.flows.flow_support import EXACT, FULL, MERGE, Shop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    shop.db.executescript("CREATE TABLE log (line, n); INSERT INTO log VALUES ('x', 1), ('y', 2), ('z', 3)")
    return shop


def counts(shop: Shop, **what: object) -> tuple[int | None, ...]:
    previewed = shop.restore("latest", MERGE, ["ledger/log"], preview=True, **what)
    (log,) = previewed.collections
    return log.added, log.changed, log.removed


def log(shop: Shop) -> list[tuple[object, ...]]:
    return shop.rows("SELECT * FROM log ORDER BY line, n")


def test_a_merge_and_its_undo_take_nothing_that_others_wrote(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.db.executescript("DELETE FROM log WHERE line = 'z'; INSERT INTO log VALUES ('NEW', 4)")
    assert counts(shop) == (1, 0, 0)
    shop.restore("latest", MERGE, ["ledger/log"])
    assert log(shop) == [("NEW", 4), ("x", 1), ("y", 2), ("z", 3)]
    assert counts(shop) == (0, 0, 0)
    shop.db.execute("INSERT INTO log VALUES ('later', 5)")
    (undone,) = make_undo(shop.plan, preview=True).collections
    assert (undone.added, undone.changed, undone.removed) == (0, 0, 1)
    make_undo(shop.plan)
    assert log(shop) == [("NEW", 4), ("later", 5), ("x", 1), ("y", 2)]


def test_the_undo_of_one_row_keeps_that_row_where_it_was_there_under_another_rowid(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.db.execute("UPDATE log SET rowid = rowid + 50")
    before = log(shop)
    shop.restore("latest", MERGE, ["ledger/log"], ["3"])
    assert log(shop) == before
    make_undo(shop.plan)
    assert log(shop) == before


def test_an_exact_restore_of_a_row_that_is_gone_is_taken_back(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.db.execute("DELETE FROM log WHERE n = 2")
    before = log(shop)
    shop.restore("latest", EXACT, ["ledger/log"], ["2"])
    assert log(shop) == [("x", 1), ("y", 2), ("z", 3)]
    make_undo(shop.plan)
    assert log(shop) == before
