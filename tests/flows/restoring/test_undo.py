"""Undo: takes back the last restore in place, as narrowly as that was, and can be taken back itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import BackupNotFound, LastgoodError, RepositoryLocked, RepositoryUnavailable, RestoreRefused
from blocks.sources.files import FilesSource
from blocks.sources.files.target import FilesTarget
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.undo import make_undo
from tests.flows.flow_support import EXACT, FULL, MERGE, Shop, walk


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def damage(shop: Shop) -> None:
    shop.db.execute("DELETE FROM orders WHERE id < 10")
    shop.db.execute("UPDATE orders SET price = -1 WHERE id > 30")
    shop.db.execute("INSERT INTO orders VALUES (500, 'new', 0)")
    shop.db.execute("UPDATE positions SET quantity = 0")
    (shop.tree / "a.bin").write_bytes(b"changed")
    (shop.tree / "new").write_text("new")
    (shop.tree / "deep" / "b.txt").unlink()


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"collections": ["ledger/orders"]},
        {"collections": ["models/*"]},
        {"keys": ["1*", "deep/*"]},
        {"mode": MERGE},
        {"mode": MERGE, "collections": ["ledger/orders"], "keys": ["2"]},
    ],
)
def test_an_undo_brings_back_what_was_there_before_and_can_be_undone(shop: Shop, what: dict[str, Any]) -> None:
    made = shop.back_up()
    damage(shop)
    before = shop.picture()
    shop.restore(made, **{"mode": EXACT} | what)
    after = shop.picture()
    assert after != before
    make_undo(shop.plan)
    assert shop.picture() == before
    make_undo(shop.plan)
    assert shop.picture() == after


def test_an_undo_of_one_key_leaves_newer_rows_alone(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DELETE FROM orders WHERE id = 2")
    shop.restore(made, MERGE, ["ledger/orders"], ["2"])
    shop.db.execute("INSERT INTO orders VALUES (777, 'later', 1)")
    shop.db.execute("UPDATE orders SET price = 9 WHERE id = 3")
    make_undo(shop.plan)
    assert shop.rows("SELECT id, price FROM orders WHERE id IN (2, 3, 777) ORDER BY id") == [(3, 9.0), (777, 1.0)]


def test_an_undo_of_a_merge_leaves_newer_rows_alone(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DELETE FROM orders WHERE id > 35")
    (shop.tree / "a.bin").unlink()
    before = shop.picture()
    shop.restore(made, MERGE)
    shop.db.execute("INSERT INTO orders VALUES (777, 'later', 1)")
    (shop.tree / "later").write_text("later")
    make_undo(shop.plan)
    assert shop.rows("SELECT count(*) FROM orders WHERE id > 35") == [(1,)]
    assert (shop.tree / "later").read_text() == "later"
    assert not (shop.tree / "a.bin").exists()
    shop.db.execute("DELETE FROM orders WHERE id = 777")
    assert shop.picture()["rows"] == before["rows"]


def test_an_undo_drops_a_table_that_the_restore_created(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DROP TABLE positions")
    before = shop.picture()
    shop.restore(made, collections=["ledger/positions"])
    assert shop.rows("SELECT count(*) FROM positions") == [(7,)]
    make_undo(shop.plan)
    assert shop.picture() == before
    make_undo(shop.plan)
    assert shop.rows("SELECT count(*) FROM positions") == [(7,)]


@pytest.mark.parametrize("collections", [["ledger/orders", "ledger/positions"], ["ledger/orders", "ledger/p*"]])
def test_tables_that_were_chosen_by_name_leave_newer_tables_alone(shop: Shop, collections: list[str]) -> None:
    made = shop.back_up()
    shop.db.executescript("CREATE TABLE later (a); INSERT INTO later VALUES (1), (2)")
    damage(shop)
    before = shop.picture()
    shop.restore(made, collections=collections)
    assert shop.rows("SELECT count(*) FROM later") == [(2,)]
    make_undo(shop.plan)
    assert shop.picture() == before


@pytest.mark.parametrize("collections", [["ledger/*"], ["led*", "models/*"], ["*"], []])
def test_newer_tables_that_go_with_all_of_a_source_come_back_with_an_undo(shop: Shop, collections: list[str]) -> None:
    made = shop.back_up()
    shop.db.executescript("CREATE TABLE later (a); INSERT INTO later VALUES (1), (2); ALTER TABLE orders ADD note")
    shop.db.execute("CREATE VIEW dear AS SELECT * FROM orders WHERE price > 5")
    before = shop.picture()
    previewed = shop.restore(made, RestoreMode.PREVIEW, collections=collections)
    assert "ledger/later" in str([previewed.notes, previewed.collections])
    shop.restore(made, collections=collections)
    assert shop.rows("SELECT name FROM sqlite_schema WHERE name IN ('later', 'dear')") == []
    make_undo(shop.plan)
    assert shop.picture() == before


def test_rows_that_came_to_a_table_after_the_restore_that_created_it_are_never_lost(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DROP TABLE orders")
    shop.restore(made, collections=["ledger/orders"], keys=["1*"])
    shop.db.execute("INSERT INTO orders VALUES (777, 'later', 1)")
    after = shop.picture()
    make_undo(shop.plan)
    assert shop.rows("SELECT * FROM orders") == [(777, "later", 1)]
    make_undo(shop.plan)
    assert shop.picture() == after


def test_a_preview_of_an_undo_writes_nothing(shop: Shop) -> None:
    made = shop.back_up()
    damage(shop)
    shop.restore(made)
    live, ids = shop.picture(), shop.ids
    counts = {c.collection: (c.added, c.changed, c.removed) for c in make_undo(shop.plan, preview=True).collections}
    assert counts["ledger/orders"] == (1, 10, 9)
    assert (shop.picture(), shop.ids) == (live, ids)


def test_without_a_restore_there_is_nothing_to_undo(shop: Shop) -> None:
    shop.back_up()
    with pytest.raises(BackupNotFound, match="no restore"):
        make_undo(shop.plan)
    shop.restore(to=str(shop.folder / "elsewhere"))
    with pytest.raises(BackupNotFound, match="no restore"):
        make_undo(shop.plan)


class Meanwhile:
    """Steps in when the first part is on its way."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step
        self.parts: list[str] = []

    def entered(self, part: str) -> None:
        self.parts.append(part)
        if len(self.parts) == 1:
            self._step()

    def left(self, part: str) -> None:
        """Nothing happens then."""


def test_a_restore_that_changed_nothing_is_not_what_an_undo_takes_back(shop: Shop) -> None:
    made = shop.back_up()
    damage(shop)
    before = shop.picture()
    shop.restore(made)

    def fail() -> None:
        raise LastgoodError("the line broke")

    with pytest.raises(LastgoodError, match="the line broke") as failed:
        shop.restore(made, progress=Meanwhile(fail))
    assert "othing was changed" in failed.value.hint
    make_undo(shop.plan)
    assert shop.picture() == before


@pytest.mark.parametrize(
    "hint",
    ["", "A foreign key points to nothing.", "The role lets nothing be written.", "Another thing goes on."],
)
def test_a_restore_that_changed_nothing_says_so_whatever_the_hint_of_its_error_is(shop: Shop, hint: str) -> None:
    made = shop.back_up()
    damage(shop)

    def fail() -> None:
        raise LastgoodError("the line broke", hint=hint)

    with pytest.raises(LastgoodError, match="the line broke") as failed:
        shop.restore(made, progress=Meanwhile(fail))
    assert failed.value.hint == f"{hint} Nothing was changed.".strip()


def test_a_restore_that_is_refused_before_it_begins_says_once_that_nothing_was_changed(shop: Shop) -> None:
    made = shop.back_up()
    elsewhere = shop.folder / "elsewhere"
    shop.restore(made, to=str(elsewhere))
    with pytest.raises(RestoreRefused) as refused:
        shop.restore(made, to=str(elsewhere))
    assert refused.value.hint.lower().count("nothing") == 1
    assert refused.value.hint.endswith("Nothing was changed.")


def test_a_restore_in_place_holds_the_plan_from_its_backup_to_its_end(shop: Shop) -> None:
    made = shop.back_up()

    def back_up() -> None:
        with pytest.raises(RepositoryLocked):
            make_backup(shop.plan, FULL)

    meanwhile = Meanwhile(back_up)
    shop.restore(made, progress=meanwhile)
    assert meanwhile.parts
    make_backup(shop.plan, FULL)


def test_the_backup_before_a_restore_can_be_done_without_in_words(shop: Shop) -> None:
    made = shop.back_up()
    damage(shop)
    result = shop.restore(made, without_emergency_backup=True)
    assert result.rescue_id is None
    assert result.undo is None


def test_where_no_backup_can_be_made_first_the_restore_says_how_to_go_on(shop: Shop) -> None:
    made = shop.back_up()
    damage(shop)
    live = shop.picture()
    locks = shop.folder / "repository" / "locks"
    shutil.move(locks, shop.folder / "locks")
    locks.write_text("no folder")
    with pytest.raises(RepositoryUnavailable) as failed:
        shop.restore(made)
    assert "--without-emergency-backup" in failed.value.hint
    assert shop.picture() == live
    assert shop.restore(made, without_emergency_backup=True).rescue_id is None
    assert shop.picture() != live


def test_the_lease_is_held_until_what_failed_is_taken_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made, abort, alone = shop.back_up(), FilesTarget.abort, []

    def look_and_abort(target: FilesTarget) -> None:
        with suppress(RepositoryLocked), shop.repository.lease("trading", "backup", holder="somebody else"):
            alone.append(target)
        abort(target)

    def fail() -> None:
        raise LastgoodError("the line broke")

    monkeypatch.setattr(FilesTarget, "abort", look_and_abort)
    with pytest.raises(LastgoodError, match="the line broke"):
        shop.restore(made, progress=Meanwhile(fail))
    assert alone == []
    with shop.repository.lease("trading", "backup", holder="somebody else"):
        pass


@pytest.mark.parametrize("selected", [["ledger/*"], ["ledger/*", "models/*"]])
def test_what_came_since_to_a_source_that_is_selected_as_a_whole_comes_back(shop: Shop, selected: list[str]) -> None:
    made = shop.back_up(FULL)
    shop.db.execute("CREATE TABLE later (x)")
    shop.db.execute("INSERT INTO later VALUES ('only here')")
    shop.db.execute("CREATE VIEW seen AS SELECT x FROM later")
    before = list(shop.db.iterdump())
    shop.restore(made, collections=selected)
    shop.reopen()
    restored = list(shop.db.iterdump())
    shop.db.execute("CREATE TABLE since (x)")
    shop.db.execute("INSERT INTO since VALUES ('here, too')")
    newer = list(shop.db.iterdump())
    make_undo(shop.plan)
    shop.reopen()
    assert list(shop.db.iterdump()) == before
    make_undo(shop.plan)
    shop.reopen()
    assert list(shop.db.iterdump()) == newer
    assert restored != before


def test_a_restore_without_a_backup_is_not_taken_for_the_one_before_it(shop: Shop) -> None:
    made = shop.back_up(FULL)
    damage(shop)
    shop.restore(made)
    damage(shop)
    shop.restore(made, without_emergency_backup=True)
    live = shop.picture()
    with pytest.raises(RestoreRefused, match="without an emergency backup"):
        make_undo(shop.plan)
    assert shop.picture() == live
    damage(shop)
    before = shop.picture()
    shop.restore(made)
    make_undo(shop.plan)
    assert shop.picture() == before


def test_an_undo_takes_back_what_was_previewed_and_says_what_that_is(shop: Shop) -> None:
    made = shop.back_up(FULL)
    damage(shop)
    shop.restore(made)
    previewed = make_undo(shop.plan, preview=True)
    assert f"restore of {made.backup_id}" in previewed.notes[0]
    later = shop.restore(made)
    with pytest.raises(RestoreRefused, match="meanwhile"):
        make_undo(shop.plan, of=previewed.backup_id)
    assert make_undo(shop.plan, of=later.rescue_id).backup_id == later.rescue_id


@pytest.mark.parametrize("source", ["ledger", "models"])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_an_undo_never_writes_to_a_place_that_the_plan_named_only_after_the_restore(
    shop: Shop, tmp_path: Path, source: str, mode: RestoreMode
) -> None:
    made = shop.back_up()
    damage(shop)
    before = shop.picture()
    shop.restore(made, mode)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(shop.database, other / "ledger.db")
    shutil.copytree(shop.tree, other / "tree")
    (other / "tree" / "theirs").write_text("theirs")
    update = {"path": str(other / "ledger.db")} if source == "ledger" else {"url": str(other / "tree")}
    there = shop.plan.sources[source].model_copy(update=update)
    edited = shop.plan.model_copy(update={"sources": shop.plan.sources | {source: there}})
    was, ids = sorted((other / "tree").iterdir()), shop.ids
    for preview in (True, False):
        with pytest.raises(RestoreRefused, match=f"source {source} of plan .* was to another place"):
            make_undo(edited, preview)
    assert sorted((other / "tree").iterdir()) == was
    assert shop.ids == ids
    link = tmp_path / "link"
    link.symlink_to(shop.database if source == "ledger" else shop.tree)
    spelled = {"path": str(link)} if source == "ledger" else {"url": str(link)}
    same = shop.plan.sources[source].model_copy(update=spelled)
    make_undo(shop.plan.model_copy(update={"sources": shop.plan.sources | {source: same}}))
    if mode is EXACT:
        assert shop.picture() == before


@pytest.mark.parametrize(("collation", "live"), [("NOCASE", "Ann"), ("RTRIM", "ann ")])
def test_a_key_that_is_equal_to_a_selected_one_is_another_record(shop: Shop, collation: str, live: str) -> None:
    shop.db.execute(f"CREATE TABLE people (k TEXT COLLATE {collation} PRIMARY KEY, v)")
    shop.db.execute("INSERT INTO people VALUES ('ann', 'old')")
    made = shop.back_up()
    shop.db.execute("DELETE FROM people")
    shop.db.execute("INSERT INTO people VALUES (?, 'newest')", (live,))
    before = shop.picture()
    for mode in (EXACT, MERGE):
        with pytest.raises(RestoreRefused, match="exclude each other"):
            shop.restore(made, mode, ["ledger/people"], ["ann"])
        assert shop.picture() == before
        shop.restore(made, mode, ["ledger/people"])
        assert shop.rows("SELECT v FROM people") == [("old",)]
        make_undo(shop.plan)
        assert shop.picture() == before


@pytest.mark.parametrize("what", [{"mode": MERGE}, {"collections": ["ledger/numbers"], "keys": ["1"]}])
def test_a_number_of_another_type_comes_back_with_an_undo(shop: Shop, what: dict[str, Any]) -> None:
    shop.db.executescript("CREATE TABLE numbers (k PRIMARY KEY, v); INSERT INTO numbers VALUES (1, 'old')")
    made = shop.back_up()
    shop.db.execute("UPDATE numbers SET k = 1.0, v = 'newest'")
    shop.restore(made, **{"mode": EXACT} | what)
    assert shop.rows("SELECT typeof(k), v FROM numbers") == [("integer", "old")]
    make_undo(shop.plan)
    assert shop.rows("SELECT typeof(k), v FROM numbers") == [("real", "newest")]


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("keys", [[], ["1"]])
def test_a_table_whose_name_differs_by_its_case_is_never_taken_for_the_one_of_the_backup(
    shop: Shop, mode: RestoreMode, keys: list[str]
) -> None:
    made = shop.back_up()
    shop.db.executescript("ALTER TABLE orders RENAME TO o; ALTER TABLE o RENAME TO ORDERS; UPDATE ORDERS SET price = 9")
    before = shop.picture()
    with pytest.raises(RestoreRefused, match="'orders' of the backup is called 'ORDERS'"):
        shop.restore(made, mode, ["ledger/orders"], keys)
    assert shop.picture() == before
    shop.restore(made)
    make_undo(shop.plan)
    assert shop.picture() == before


def test_a_table_that_was_renamed_by_its_case_since_a_restore_created_it_is_not_dropped(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("DROP TABLE orders")
    shop.restore(made, collections=["ledger/orders"])
    shop.db.executescript("ALTER TABLE orders RENAME TO o; ALTER TABLE o RENAME TO Orders; UPDATE Orders SET price = 9")
    before = shop.picture()
    make_undo(shop.plan)
    assert shop.picture() == before


@pytest.mark.parametrize("include", ["deep/**", "*.txt", "**/*.txt", "later/**"])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_folders_that_lead_to_nothing_any_more_stop_neither_a_restore_nor_its_undo(
    shop: Shop, include: str, mode: RestoreMode
) -> None:
    made = shop.back_up()
    (shop.tree / "deep" / "b.txt").unlink()
    (shop.tree / "later").mkdir(mode=0o750)
    (shop.tree / "later" / "new.txt").write_text("new")
    shop.plan = shop.plan.model_copy(
        update={"sources": shop.plan.sources | {"models": FilesSource(url=str(shop.tree), include=[include])}}
    )
    before = shop.picture()
    shop.restore(made, mode)
    after = shop.picture()
    make_undo(shop.plan)
    assert shop.picture() == before
    make_undo(shop.plan)
    assert shop.picture() == after
    assert (shop.tree / "deep" / "b.txt").exists() == (include != "later/**")


def test_a_database_that_cannot_be_read_costs_no_other_source_its_backup(shop: Shop) -> None:
    made = make_backup(shop.plan, FULL)
    shop.db.executescript("CREATE TABLE later (x); INSERT INTO later VALUES (1)")
    shop.db.close()
    (shop.tree / "new").write_text("new")
    for log in shop.database.parent.glob("ledger.db-*"):
        log.unlink()
    whole = shop.database.read_bytes()
    shop.database.write_bytes(whole[: len(whole) // 2 + 100])
    before = walk(shop.tree)
    result = shop.restore(made, EXACT)
    assert result.rescue_id
    assert not (shop.tree / "new").exists()
    make_undo(shop.plan)
    assert walk(shop.tree) == before
