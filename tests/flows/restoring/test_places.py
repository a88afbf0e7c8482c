"""Places: which may lie in which, what is refused before anything is written, and what counts as in place."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import BackupNotFound, ConfigurationError, RestoreRefused
from blocks.plan.plan import BackupPlan, load_plan
from blocks.records import BackupStatus
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from blocks.sources.redis import RedisSource
from blocks.sources.sqlite import SQLiteSource
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.places import settle_places
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from flows.verify import make_verification
from tests.flows.flow_support import EXACT, FULL, INCREMENTAL, MERGE, PREVIEW, Shop, walk


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def planned(shop: Shop, **update: Any) -> BackupPlan:
    plan = shop.plan.model_copy(update=update)
    if "repository" in update:
        plan.repository.initialize(plan.encryption)
    return plan


def files(plan: BackupPlan) -> dict[str, bytes]:
    """Read every file of a plan's repository."""
    root = Path(plan.repository.url)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_journal_inside_a_source_is_left_out_and_never_what_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = shop.tree / "deep" / "journal"
    monkeypatch.setenv("LASTGOOD_JOURNAL", str(journal))
    made = make_backup(shop.plan, FULL)
    assert make_backup(shop.plan, INCREMENTAL).upserts == 0
    assert not any("journal" in str(path) for path in restored_paths(shop.plan, made.backup_id, shop.folder / "look"))
    noted = (journal / "00000001.jsonl").read_bytes()
    make_restore(shop.plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert (journal / "00000001.jsonl").read_bytes().startswith(noted)


def test_a_repository_inside_a_source_is_left_out_and_survives_an_exact_restore(shop: Shop) -> None:
    inside = shop.tree / "deep" / "repository"
    plan = planned(shop, repository=BackupRepository(url=str(inside)))
    made = make_backup(plan, FULL)
    assert not any("repository" in str(path) for path in restored_paths(plan, made.backup_id, shop.folder / "look"))
    assert any(str(inside) in w or "deep/repository" in w for s in made.sources for w in s.warnings)
    (shop.tree / "new").write_text("new")
    shutil.rmtree(shop.tree / "deep" / "b.txt", ignore_errors=True)
    before = {name for name in files(plan) if name.startswith("backups/")}
    result = make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert before <= set(files(plan))
    assert result.rescue_id in [b.backup_id for b in plan.repository.unlock(plan.encryption).backups("trading")]
    assert not (shop.tree / "new").exists()


def test_what_this_machine_remembers_in_a_source_is_left_out_and_stops_no_restore_in_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(shop.tree / "home"))
    make_backup(shop.plan, FULL)
    made = make_backup(shop.plan, FULL)
    assert not any("lastgood" in path for path in restored_paths(shop.plan, made.backup_id, shop.folder / "look"))
    (shop.tree / "new").write_text("new")
    make_restore(shop.plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert list((shop.tree / "home" / "lastgood").rglob("trading.json"))
    make_undo(shop.plan)
    assert (shop.tree / "new").read_text() == "new"
    make_undo(shop.plan)
    assert not (shop.tree / "new").exists()


def test_a_source_that_is_of_another_type_than_its_backup_is_neither_restored_nor_verified(shop: Shop) -> None:
    made = make_backup(shop.plan, FULL)
    sources = {"models": shop.plan.sources["models"], "ledger": FilesSource(url=str(shop.folder / "other"))}
    changed = planned(shop, sources=sources)
    (shop.folder / "other").mkdir()
    for act in (
        lambda: make_restore(changed, RestoreRequest(made.backup_id, preview=True)),
        lambda: make_restore(changed, RestoreRequest(made.backup_id, mode=EXACT)),
        lambda: make_restore(changed, RestoreRequest(made.backup_id, mode=EXACT, to=str(shop.folder / "elsewhere"))),
        lambda: make_verification(changed, made.backup_id, deep=True),
    ):
        with pytest.raises(ConfigurationError, match=r"of type files, and backup .* holds one of type sqlite"):
            act()
    assert shop.ids == [made.backup_id]
    assert shop.repository.verdict(made).status is BackupStatus.COMPLETED


def test_the_folder_for_temporary_data_in_a_source_outlives_an_exact_restore(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_backup(shop.plan, FULL)
    temporary = shop.tree / "above" / "tmp"
    temporary.mkdir(parents=True)
    (temporary / "surplus").write_text("surplus")
    monkeypatch.setenv("TMPDIR", str(temporary))
    make_restore(shop.plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert list(temporary.iterdir()) == []
    make_undo(shop.plan)
    assert (temporary / "surplus").read_text() == "surplus"


@pytest.mark.parametrize("lost", ["gone", "damaged"])
def test_a_database_inside_a_tree_is_built_anew_beside_a_restore_of_that_tree(tmp_path: Path, lost: str) -> None:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    shop.db.close()
    plan = planned(shop, sources=shop.plan.sources | {"models": FilesSource(url=str(shop.database.parent))})
    made = make_backup(plan, FULL)
    for path in shop.database.parent.glob("ledger.db*"):
        path.unlink()
    if lost == "damaged":
        shop.database.write_bytes(b"SQLite format 3\0" + b"damaged" * 1000)
    (shop.tree / "new").write_text("new")
    result = make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert not (shop.tree / "new").exists()
    shop.reopen()
    assert shop.rows("SELECT count(*) FROM orders") == [(40,)]
    shop.db.close()
    asides = list(shop.database.parent.glob("ledger.db.lastgood-aside-*"))
    assert len(asides) == (lost == "damaged")
    assert all(any(aside.name in note for note in result.notes) for aside in asides)
    undone = make_undo(plan)
    make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    # what a restore put where nothing was is moved aside by the undo, and then stays as it is
    later = sorted(set(shop.database.parent.glob("ledger.db.lastgood-aside-*")) - {*asides})
    assert len(later) == (lost == "gone")
    assert all(any(aside.name in note for note in undone.notes) for aside in later)


@pytest.mark.parametrize("spelled", ["file://{}", "file://localhost{}", "{}/../elsewhere"])
def test_several_sources_are_restored_into_a_folder_however_it_is_spelled(shop: Shop, spelled: str) -> None:
    made = make_backup(shop.plan, FULL)
    to = shop.folder / "elsewhere"
    to.mkdir()
    make_restore(shop.plan, RestoreRequest(made.backup_id, mode=EXACT, to=spelled.format(to)))
    assert sorted(path.name for path in to.iterdir()) == ["ledger", "models"]


@pytest.mark.parametrize("to", ["redis://localhost/3", "postgresql:///there", "s3://bucket/x", "file://host/x", ""])
def test_several_sources_are_not_restored_to_what_is_no_folder(shop: Shop, to: str) -> None:
    made = make_backup(shop.plan, FULL)
    before = walk(shop.folder)
    with pytest.raises(ConfigurationError):
        make_restore(shop.plan, RestoreRequest(made.backup_id, mode=EXACT, to=to))
    assert walk(shop.folder) == before


def restored_paths(plan: BackupPlan, backup_id: str, to: Path) -> list[str]:
    make_restore(plan, RestoreRequest(backup_id, mode=EXACT, to=str(to)))
    return [str(path.relative_to(to)) for path in to.rglob("*")]


@pytest.mark.parametrize("spelled", ["plain", "file", "link", "relative"])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_target_on_or_in_the_repository_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, spelled: str, mode: Any
) -> None:
    shop.back_up()
    repository = shop.folder / "repository"
    (shop.folder / "link").symlink_to(repository)
    monkeypatch.chdir(shop.folder)
    place = {
        "plain": str(repository),
        "file": f"file://{repository}",
        "link": str(shop.folder / "link"),
        "relative": "./repository",
    }
    before = files(shop.plan)
    for suffix in ("", "/backups/trading", "/new"):
        with pytest.raises(RestoreRefused, match="repository"):
            shop.restore(collections=["models/*"], to=place[spelled] + suffix, mode=mode, overwrite=True)
    assert files(shop.plan) == before


def test_a_target_around_repository_plan_or_keys_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path)
    shop.fill()
    shop.back_up()
    monkeypatch.chdir(tmp_path)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "precious").write_text("precious")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for place in (".", str(tmp_path), str(tmp_path.parent)):
        with pytest.raises(RestoreRefused):
            shop.restore(collections=["models/*"], to=place, overwrite=True)
    with pytest.raises(RestoreRefused, match="key"):
        shop.restore(collections=["ledger/*"], to=str(tmp_path / "key"), overwrite=True)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_target_that_is_another_sources_live_place_is_refused(shop: Shop) -> None:
    shop.back_up()
    live = shop.picture()
    for place in (shop.tree, shop.tree / "deep", shop.tree.parent):
        with pytest.raises(RestoreRefused):
            shop.restore(collections=["models/*"], to=str(place / "."), overwrite=True) if place != shop.tree else (
                shop.restore(collections=["ledger/*"], to=str(place), overwrite=True)
            )
    with pytest.raises(RestoreRefused):
        shop.restore(collections=["models/*"], to=str(shop.database), overwrite=True)
    assert shop.picture() == live


def test_two_sources_that_are_one_place_are_an_error_of_the_plan(shop: Shop) -> None:
    (shop.folder / "link").symlink_to(shop.tree)
    os.link(shop.database, shop.folder / "hard.db")
    twice = [
        FilesSource(url=str(shop.folder / "link")),
        FilesSource(url=f"file://{shop.tree}"),
        SQLiteSource(path=str(shop.database.parent / ".." / "state" / "ledger.db")),
        SQLiteSource(path=str(shop.folder / "hard.db")),
    ]
    for source in twice:
        plan = planned(shop, sources={**shop.plan.sources, "again": source})
        with pytest.raises(ConfigurationError, match="again"):
            make_backup(plan, FULL)


def test_a_file_of_redis_inside_a_source_is_left_to_its_own(shop: Shop) -> None:
    (shop.tree / "dump.rdb").write_bytes(b"REDIS0011")
    cache = RedisSource(url=str(shop.tree / "deep" / ".." / "dump.rdb"))
    plan = settle_places(planned(shop, sources={**shop.plan.sources, "cache": cache}))
    with plan.sources["models"].view() as view:
        (tree,) = view.collections()
        rows = [view.read(tree, bounds, None).rows for bounds in view.partition(tree)]
    paths = {path for part in rows for path in part.column("path").to_pylist()}
    assert b"a.bin" in paths
    assert b"dump.rdb" not in paths


def test_a_source_inside_a_source_is_left_to_itself(shop: Shop) -> None:
    sources = {"ledger": shop.plan.sources["ledger"], "state": FilesSource(url=str(shop.database.parent))}
    plan = planned(shop, sources=sources)
    made = make_backup(plan, FULL)
    paths = restored_paths(plan, made.backup_id, shop.folder / "look")
    assert "state/tree/models/a.bin" in paths
    assert not any("ledger.db" in path for path in paths if path.startswith("state/"))
    shop.db.execute("INSERT INTO orders VALUES (900, 'new', 0)")
    (shop.tree / "new").write_text("new")
    make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT, selection=_only("state/*")))
    assert not (shop.tree / "new").exists()
    assert shop.rows("SELECT count(*) FROM orders WHERE id = 900") == [(1,)]


def _only(*collections: str) -> Any:
    from blocks.rows.selection import Selection

    return Selection(collections)


def test_the_plan_and_its_key_inside_a_source_are_backed_up_and_never_taken_back(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.fill()
    key, plan_file = shop.tree / "own.key", shop.tree / "plan.yaml"
    shutil.move(tmp_path / "key", key)
    plan_file.write_text(
        "name: trading\n"
        f"sources: {{models: {{type: files, url: {shop.tree}}}}}\n"
        f"repository: {{url: {tmp_path / 'repository'}}}\n"
        "encryption: {credential: {key_file: ./own.key}}\n"
    )
    made = make_backup(load_plan(str(plan_file)), FULL)
    changed = plan_file.read_text() + "tags: []\n".replace("tags: []\n", "# changed\n")
    plan_file.write_text(changed)
    os.utime(key, ns=(1, 1))
    result = make_restore(load_plan(str(plan_file)), RestoreRequest(made.backup_id, mode=EXACT))
    assert plan_file.read_text() == changed
    assert any("plan.yaml" in note for note in result.notes)
    look = tmp_path / "look"
    make_restore(load_plan(str(plan_file)), RestoreRequest(made.backup_id, mode=EXACT, to=str(look)))
    assert (look / "plan.yaml").exists()
    assert (look / "own.key").exists()


@pytest.mark.parametrize("spelled", ["plain", "file", "link", "relative", "dots"])
def test_a_place_that_is_the_live_one_is_in_place_however_it_is_spelled(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    made = shop.back_up()
    monkeypatch.chdir(shop.folder)
    (shop.folder / "link").symlink_to(shop.tree)
    (shop.folder / "db").symlink_to(shop.database.parent)
    tree = {
        "plain": str(shop.tree),
        "file": f"file://{shop.tree}",
        "link": "link",
        "relative": "state/models",
        "dots": "state/../state/models/.",
    }
    (shop.tree / "new").write_text("new")
    shop.db.execute("DELETE FROM orders")
    live = shop.picture()
    one = shop.restore(made, collections=["models/*"], to=tree[spelled])
    two = shop.restore(made, collections=["ledger/*"], to="db/ledger.db")
    assert one.rescue_id
    assert two.rescue_id
    shop.restore(two.rescue_id)
    shop.restore(one.rescue_id)
    assert shop.picture() == live


def test_an_exact_restore_to_a_place_that_is_not_empty_is_refused(shop: Shop, tmp_path: Path) -> None:
    made = shop.back_up()
    there = tmp_path / "there"
    there.mkdir()
    (there / "precious").write_text("precious")
    with pytest.raises(RestoreRefused, match="there is"):
        shop.restore(made, collections=["models/*"], to=str(there))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE precious (a)")
    with pytest.raises(RestoreRefused, match="there is"):
        shop.restore(made, collections=["ledger/*"], to=str(other))
    assert (there / "precious").read_text() == "precious"
    assert shop.restore(made, collections=["models/*"], to=str(there), mode=MERGE).rescue_id is None
    assert (there / "precious").read_text() == "precious"
    assert (there / "a.bin").exists()


def test_what_an_overwriting_restore_replaces_elsewhere_is_kept_aside(shop: Shop, tmp_path: Path) -> None:
    made = shop.back_up()
    there = tmp_path / "there"
    there.mkdir()
    (there / "precious").write_text("precious")
    result = shop.restore(made, collections=["models/*"], to=str(there), overwrite=True)
    assert walk(there) == walk(shop.tree)
    assert [path for path in tmp_path.rglob("precious") if path.read_text() == "precious"]
    assert any("is replaced" in note for note in result.notes)


@pytest.mark.parametrize("content", [b"", b"a letter to my love\n", b"\x7fELF" + bytes(4000)])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_strangers_file_is_never_replaced_by_a_database(
    shop: Shop, tmp_path: Path, content: bytes, mode: Any, overwrite: bool
) -> None:
    made = shop.back_up()
    file = tmp_path / "letter"
    file.write_bytes(content)
    names = sorted(os.listdir(tmp_path))
    if content:
        with pytest.raises(RestoreRefused) as refused:
            shop.restore(made, collections=["ledger/*"], to=str(file), mode=mode, overwrite=overwrite)
        assert "damaged" not in refused.value.message
        assert file.read_bytes() == content
        assert sorted(os.listdir(tmp_path)) == names


def test_a_preview_says_that_a_restore_would_be_refused(shop: Shop) -> None:
    made = shop.back_up()
    result = shop.restore(made, PREVIEW, collections=["models/*"], to=str(shop.folder / "repository"))
    assert any("would be refused" in note for note in result.notes)


def test_the_log_of_a_live_database_is_no_place(shop: Shop) -> None:
    made = shop.back_up()
    shop.db.execute("PRAGMA journal_mode = WAL")
    shop.db.execute("INSERT INTO orders VALUES (777, 'later', 1)")
    for suffix in ("-wal", "-shm"):
        log = Path(f"{shop.database}{suffix}")
        before = log.stat().st_ino
        for mode in (EXACT, MERGE):
            with pytest.raises(RestoreRefused, match="live state of source ledger"):
                shop.restore(made, mode, collections=["ledger/*"], to=str(log), overwrite=True)
        assert log.stat().st_ino == before
    assert shop.rows("SELECT count(*) FROM orders") == [(41,)]


def test_another_name_of_the_live_database_is_restored_under_its_own(shop: Shop) -> None:
    made, live = shop.back_up(), shop.picture()
    shop.db.execute("PRAGMA journal_mode = WAL")
    shop.db.execute("DELETE FROM orders")
    other = shop.folder / "hard.db"
    os.link(shop.database, other)
    result = shop.restore(made, collections=["ledger/*"], to=str(other))
    assert result.rescue_id is not None
    assert shop.rows("SELECT count(*) FROM orders") == [(40,)]
    assert shop.picture()["rows"] == live["rows"]
    assert [path.name for path in shop.folder.glob("hard*")] == ["hard.db"]


def test_a_target_around_the_folder_for_temporary_data_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop.back_up()
    temporary = shop.folder / "scratch" / "tmp"
    temporary.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    for place in (temporary, temporary.parent):
        with pytest.raises(RestoreRefused, match="temporary data"):
            shop.restore(made, collections=["models/*"], to=str(place), overwrite=True)
    shop.restore(made, collections=["models/*"], to=str(temporary / "copy"))


@pytest.mark.parametrize("mode", [EXACT, MERGE, PREVIEW])
def test_a_collection_that_the_plan_leaves_out_now_is_not_said_to_be_restored(shop: Shop, mode: Any) -> None:
    made = shop.back_up()
    shop.plan = planned(shop, sources={"ledger": SQLiteSource(path=str(shop.database), exclude=["orders"])})
    shop.db.execute("DELETE FROM orders")
    for chosen in (["ledger/orders"], ["ledger/positions", "ledger/o*"]):
        with pytest.raises(BackupNotFound, match="leaves out"):
            shop.restore(made, mode, collections=chosen)


@pytest.mark.parametrize("mode", [EXACT, MERGE, PREVIEW])
def test_a_restore_of_which_the_plan_leaves_out_everything_is_no_success(shop: Shop, mode: Any) -> None:
    shop.plan = planned(shop, sources={"ledger": SQLiteSource(path=str(shop.database))})
    made = shop.back_up()
    shop.plan = planned(shop, sources={"ledger": SQLiteSource(path=str(shop.database), tables=["nothing"])})
    before = shop.picture()
    with pytest.raises(BackupNotFound, match="leaves out all that the backup holds: ledger/orders"):
        shop.restore(made, mode)
    assert shop.picture() == before


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_two_sources_of_one_file_are_restored_one_by_one(shop: Shop, mode: Any) -> None:
    parts = {name: SQLiteSource(path=str(shop.database), tables=[name]) for name in ("orders", "positions")}
    shop.plan = planned(shop, sources=dict(parts))
    made = shop.back_up()
    first = shop.rows("SELECT * FROM orders"), shop.rows("SELECT * FROM positions")
    shop.db.executescript("DELETE FROM orders; DELETE FROM positions")
    with pytest.raises(RestoreRefused, match="parts of one file") as refused:
        shop.restore(made, mode)
    assert "'orders/*'" in refused.value.hint
    assert "'positions/*'" in refused.value.hint
    for name in parts:
        shop.restore(made, mode, [f"{name}/*"])
    assert (shop.rows("SELECT * FROM orders"), shop.rows("SELECT * FROM positions")) == first
