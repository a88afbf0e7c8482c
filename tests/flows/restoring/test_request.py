"""What a restore is asked for with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain
from flows.restoring.change_list import ChangeList
from flows.restoring.request import RestoreRequest, TakenBack
from flows.restoring.undo import find_undo
from tests.flows.flow_support import EXACT, FULL, MERGE, PREVIEW, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, encrypted=False)


def test_a_preview_says_how_the_restore_would_be_made() -> None:
    for mode in (MERGE, EXACT):
        asked = RestoreRequest(mode=mode)
        assert (asked.mode, asked.preview) == (mode, False)
        assert replace(asked, preview=True) == RestoreRequest(mode=mode, preview=True)
    assert RestoreRequest(mode=PREVIEW) == RestoreRequest(mode=EXACT, preview=True)


@pytest.mark.parametrize("mode", [MERGE, EXACT])
def test_a_preview_changes_nothing_and_counts_for_the_mode_that_was_asked_for(shop: Shop, mode: str) -> None:
    shop.fill()
    made = shop.back_up(FULL)
    shop.db.execute("INSERT INTO orders VALUES (1000, 'new', 0)")
    before = shop.picture()
    seen = shop.restore(made, preview=True, mode=mode, collections=["ledger/orders"])
    assert (seen.mode, seen.previewed) == (PREVIEW, mode)
    assert [one.removed for one in seen.collections] == [1 if mode is EXACT else 0]
    assert shop.picture() == before


def test_an_undo_asks_for_the_backup_before_with_all_that_is_known_of_the_restore(shop: Shop) -> None:
    shop.fill()
    made = shop.back_up(FULL)
    shop.db.execute("DROP TABLE positions")
    restored = shop.restore(made, mode=MERGE, collections=["ledger/*"], keys=["S1"])
    shop.reopen()
    asked = find_undo(shop.plan, shop.repository).request(preview=True, without_emergency_backup=False)
    assert (asked.backup, asked.mode, asked.preview) == (restored.rescue_id, MERGE, True)
    assert asked.selection == Selection()
    assert asked.takes_back is not None
    assert asked.takes_back == TakenBack(("ledger/positions",), ("S1",), asked.takes_back.definitions)
    assert asked.takes_back.definitions.keys() == {"ledger", "models"}


def test_scratch_places_are_those_of_each_source(shop: Shop) -> None:
    shop.fill()
    shop.back_up(FULL)
    repository = shop.repository
    chain = Chain(repository, repository.find("trading"))
    places = {name: str(shop.folder / "scratch" / name) for name in shop.plan.sources}
    assert ChangeList(shop.plan, chain, RestoreRequest(scratch=places)).places == places
    assert set(ChangeList(shop.plan, chain, RestoreRequest()).places.values()) == {None}
