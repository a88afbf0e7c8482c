"""The original system's state manager through the whole command: what it swallows is never a success."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.blocks.sources.mapping import shop
from tests.blocks.sources.mapping.kit import Shelf
from tests.blocks.sources.mapping.shop import Deal, Spot
from tests.flows.cli.desk import Desk
from tests.tiered_manager import StateCategory, StateManager

SOURCE_AWAY, PARTIAL = 3, 11
HOT, WARM, COLD = StateCategory
KEPT: dict[str, object] = {
    "position:1": OrderedDict(b=Spot(1, 2), a=deque([1], maxlen=3)),
    "position:2": defaultdict(list, {"x": [Fraction(1, 3), 2j, bytearray(b"1")]}),
    "config:paths": [Path("/a/b"), Deal(amount="1.50")],  # type: ignore[arg-type]
}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(shop, name)


@pytest.fixture
def manager(desk: Desk, shelf: Shelf) -> StateManager:
    made = StateManager()
    made.tiers[HOT] = {key: value for key, value in KEPT.items() if key.startswith("position")}
    made.tiers[WARM] = {"config:paths": KEPT["config:paths"], "ml_model:w": np.arange(6).reshape(2, 3)}
    made.tiers[COLD] = {"history:1": pd.DataFrame({"at": pd.to_datetime(["2024-01-01"], utc=True), "x": [np.nan]})}
    desk.plan.write_text(
        f"name: trading\nsources:\n  manager: {{type: mapping, object: '{shelf.put(made)}', protocol: tiered,\n"
        "    categories: {'history:*': cold}}\n"
        "repository: {url: ./backups}\nencryption: {credential: {key_file: ./own.key}}\n"
    )
    return made


def test_a_backup_of_it_is_proven_and_restored_into_its_tiers(desk: Desk, manager: StateManager) -> None:
    desk.backup()
    desk.done("verify", "PLAN", "--deep")
    frame, weights = manager.tiers[COLD]["history:1"], manager.tiers[WARM]["ml_model:w"]
    manager.tiers = {HOT: {"later": 1}, WARM: {}, COLD: {}}
    desk.done("restore", "PLAN", "--yes")
    assert {key: manager.values[key] for key in KEPT} == KEPT
    assert [sorted(tier) for tier in manager.tiers.values()] == [
        ["position:1", "position:2"],
        ["config:paths", "ml_model:w"],
        ["history:1"],
    ]
    pd.testing.assert_frame_equal(manager.values["history:1"], frame)
    assert np.array_equal(manager.values["ml_model:w"], weights)  # type: ignore[arg-type]
    desk.done("undo", "PLAN", "--yes")
    assert manager.values == {"later": 1}


@pytest.mark.parametrize("failing", ["set_state", "delete_state"])
def test_a_restore_that_stored_nothing_is_no_success(desk: Desk, manager: StateManager, failing: str) -> None:
    desk.backup()
    manager.tiers = {HOT: {"later": 1}, WARM: {}, COLD: {}}
    manager.failing = {failing}
    ran = desk.run("restore", "PLAN", "--yes")
    assert ran.code == PARTIAL, ran.err
    assert "later" in manager.values
    manager.failing.clear()
    desk.done("restore", "PLAN", "--yes")
    assert manager.values.keys() == KEPT.keys() | {"ml_model:w", "history:1"}


def test_a_manager_that_lists_nothing_because_it_fails_is_not_backed_up(desk: Desk, manager: StateManager) -> None:
    made = desk.backup()
    manager.failing = {"get_keys_by_pattern", "create_snapshot"}
    for kind in ("full", "incremental"):
        ran = desk.run("backup", "PLAN", "--type", kind)
        assert ran.code == SOURCE_AWAY
        assert "source manager holds no records at all now" in ran.err
    manager.failing.clear()
    assert desk.done("show", "PLAN", "latest", "--json").json["id"] == made
