"""Restores into Python objects through the whole command: exit codes, undo, and who wrote meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.blocks.sources.mapping import shop
from tests.blocks.sources.mapping.kit import Shelf
from tests.blocks.sources.mapping.shop import Store
from tests.flows.cli.desk import Desk

REFUSED, PARTIAL, INTERRUPTED = 10, 11, 130


class Manager(Store):
    """Fails in one of its methods, from the n-th call on."""

    ends: str = ""
    error: BaseException = OSError("no space left")
    calls = 0

    def _call(self, method: str) -> None:
        if method == self.ends:
            self.calls -= 1
            if self.calls < 0:
                raise self.error

    def get_state(self, key: str) -> object:
        self._call("get_state")
        return super().get_state(key)

    def set_state(self, key: str, value: object) -> None:
        self._call("set_state")
        super().set_state(key, value)

    def delete_state(self, key: str) -> None:
        self._call("delete_state")
        super().delete_state(key)

    def fail(self, method: str, error: BaseException, after: int = 0) -> None:
        self.ends, self.error, self.calls = method, error, after


A: dict[str, object] = {f"k:{n:02d}": n for n in range(20)}
C: dict[str, object] = {f"k:{n:02d}": -n for n in range(10, 30)} | {"note": None}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(shop, name)


@pytest.fixture
def manager(desk: Desk, shelf: Shelf) -> Manager:
    """Held A when it was backed up, and holds C now."""
    manager = Manager(**A)
    desk.plan.write_text(
        f"name: trading\nsources:\n  manager: {{type: mapping, object: '{shelf.put(manager)}'}}\n"
        "repository: {url: ./backups}\nencryption: {credential: {key_file: ./own.key}}\n"
    )
    desk.backup()
    manager.values = dict(C)
    return manager


def test_an_exact_restore_and_a_merge_are_taken_back(desk: Desk, manager: Manager) -> None:
    some = C | {f"k:0{n}": n for n in range(10)}
    for words, then in (((), A), (("--mode", "merge"), C | A), (("--key", "k:0*"), some)):
        desk.done("restore", "PLAN", "--yes", *words)
        assert manager.values == then
        desk.done("undo", "PLAN", "--yes")
        assert manager.values == C
        desk.done("undo", "PLAN", "--yes")
        assert manager.values == then
        manager.values = dict(C)


@pytest.mark.parametrize("method", ["set_state", "delete_state"])
@pytest.mark.parametrize(
    "error", [OSError("no space left"), SystemExit(0), SystemExit(), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("after", [0, 5])
def test_a_restore_that_ends_early_never_succeeds_and_can_be_taken_back(
    desk: Desk, manager: Manager, method: str, error: BaseException, after: int
) -> None:
    manager.fail(method, error, after)
    ran = desk.run("restore", "PLAN", "--yes")
    touched = manager.values != C
    if isinstance(error, KeyboardInterrupt):
        assert ran.code == INTERRUPTED
    else:
        assert ran.code == (PARTIAL if touched else REFUSED), ran.err
    manager.ends = ""
    if touched:
        assert "undo" in ran.err
        desk.done("undo", "PLAN", "--yes")
        assert manager.values == C
    desk.done("restore", "PLAN", "--yes")
    assert manager.values == A


@pytest.mark.parametrize("error", [SystemExit(0), OSError("away")])
def test_an_object_that_cannot_be_read_is_not_overwritten(desk: Desk, manager: Manager, error: BaseException) -> None:
    manager.fail("get_state", error)
    assert desk.run("restore", "PLAN", "--yes").code == REFUSED
    assert manager.values == C


def test_what_an_application_writes_after_the_emergency_backup_stops_the_restore(desk: Desk, manager: Manager) -> None:
    class Busy(Manager):
        """Another thread writes right after the key has been read for the second time."""

        reads = 0

        def get_state(self, key: str) -> object:
            value = super().get_state(key)
            if key == "k:15":
                self.reads += 1
                self.values[key] = f"order {self.reads}"
            return value

    manager.__class__ = Busy
    ran = desk.run("restore", "PLAN", "--yes")
    assert ran.code == REFUSED
    assert "'k:15'" in ran.err
    assert {key: value for key, value in manager.values.items() if key != "k:15"} == {
        key: value for key, value in C.items() if key != "k:15"
    }


def test_a_plan_with_fewer_patterns_restores_fewer_keys(desk: Desk, manager: Manager) -> None:
    manager.values |= {"b": 7}
    text = desk.plan.read_text()
    desk.plan.write_text(text.replace("type: mapping", "type: mapping, patterns: ['k:0*', 'k:2*']"))
    desk.done("restore", "PLAN", "--yes")
    kept = {key: value for key, value in C.items() if key.startswith("k:1") or key == "note"} | {"b": 7}
    assert manager.values == kept | {key: value for key, value in A.items() if key.startswith("k:0")}


def test_the_live_object_by_another_path_is_restored_in_place(desk: Desk, manager: Manager, shelf: Shelf) -> None:
    desk.done("restore", "PLAN", "--yes", "--mode", "exact", "--to", shelf.put(manager))
    assert manager.values == A
    desk.done("undo", "PLAN", "--yes")
    assert manager.values == C


def test_another_object_is_not_emptied_without_a_word(desk: Desk, manager: Manager, shelf: Shelf) -> None:
    other = Store(x=1)
    place = shelf.put(other)
    assert desk.run("restore", "PLAN", "--yes", "--mode", "exact", "--to", place).code == REFUSED
    assert other.values == {"x": 1}
    desk.done("restore", "PLAN", "--yes", "--mode", "exact", "--to", place, "--overwrite")
    assert other.values == A


def test_a_restore_that_keeps_going_leaves_out_what_the_store_does_not_take(desk: Desk, manager: Manager) -> None:
    class Picky(Manager):
        def set_state(self, key: str, value: object) -> None:
            if key in ("k:03", "k:15"):
                raise ValueError("not that one")
            super().set_state(key, value)

    picky = Picky(**C)
    setattr(shop, desk.plan.read_text().partition("shop:")[2].partition("'")[0], picky)
    assert desk.run("restore", "PLAN", "--yes").code == PARTIAL
    picky.values = dict(C)
    ran = desk.run("restore", "PLAN", "--yes", "--keep-going", "--json")
    assert ran.code == PARTIAL
    assert "2 objects" in ran.err, ran.err
    assert "set_state('k:03') failed" in ran.err
    assert [(left["source"], left["name"]) for left in ran.json["not_rebuilt"]] == [
        ("manager", "key 'k:03'"),
        ("manager", "key 'k:15'"),
    ]
    assert sum(each["rows"] for each in ran.json["collections"]) == len(A) - 2
    assert picky.values == {key: value for key, value in A.items() if key != "k:03"} | {"k:15": C["k:15"]}
    desk.done("undo", "PLAN", "--yes", "--keep-going")  # one that is not taken is there already
    assert picky.values == C


def test_a_store_that_takes_nothing_is_no_restore_in_part(desk: Desk, manager: Manager) -> None:
    manager.values = {}
    manager.fail("set_state", ValueError("none of them"))
    ran = desk.run("restore", "PLAN", "--yes", "--keep-going")
    assert (ran.code, "none of the keys could be set" in ran.err) == (REFUSED, True)
    assert manager.values == {}
