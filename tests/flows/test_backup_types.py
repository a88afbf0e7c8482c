"""The five types of backup: what each depends on, what it stores, and when it becomes a full one and says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import BackupNotFound, ConfigurationError, RepositoryLocked, SourceUnavailable
from blocks.plan.retention import RetentionPolicy
from flows.retention import apply_retention
from tests.flows.flow_support import (
    DIFFERENTIAL,
    EMERGENCY,
    EXACT,
    FULL,
    INCREMENTAL,
    MERGE,
    PREVIEW,
    SNAPSHOT,
    Shop,
    blobs,
    bounds,
    flip,
    picture,
    segments,
    store_apart,
)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def elsewhere(shop: Shop, backup: object, place: Path) -> dict[str, object]:
    shop.restore(backup, to=str(place))
    return picture(place / "ledger" / "ledger.db", place / "models" / "tree")


def test_a_first_run_of_a_type_that_needs_a_base_becomes_a_full_and_says_so(shop: Shop) -> None:
    for kind, words in ((INCREMENTAL, "full or differential or incremental"), (DIFFERENTIAL, "full")):
        made = Shop(shop.folder / kind.value).back_up(kind)
        assert (made.backup_type, made.requested_type) == (FULL, kind)
        assert made.promoted_because == f"there is no {words} backup to depend on"
        assert made.backup_id.startswith("FUL_")


def test_each_type_stands_on_what_it_should(shop: Shop) -> None:
    full = shop.back_up(FULL)
    first = shop.back_up(INCREMENTAL)
    shop.back_up(SNAPSHOT)
    differential = shop.back_up(DIFFERENTIAL)
    shop.back_up(EMERGENCY)
    second = shop.back_up(INCREMENTAL)
    third = shop.back_up(INCREMENTAL)
    assert (full.base, full.chain) == (None, ())
    assert first.base == full.backup_id
    assert differential.base == full.backup_id
    assert second.base == differential.backup_id
    assert [link.backup_id for link in third.chain] == [b.backup_id for b in (full, differential, second)]
    assert [b.sequence for b in shop.repository.backups("trading")] == list(range(1, 8))


@pytest.mark.parametrize("kind", [SNAPSHOT, EMERGENCY])
def test_a_snapshot_and_an_emergency_backup_stand_alone_and_carry_nobody(shop: Shop, kind: object) -> None:
    alone = shop.back_up(kind, tags=["before the migration"])
    assert alone.chain == ()
    assert alone.promoted_because is None
    assert alone.tags == ("before the migration",)
    assert shop.back_up(INCREMENTAL).promoted_because is not None
    assert shop.back_up(DIFFERENTIAL).base != alone.backup_id


def test_an_incremental_stores_only_what_changed(shop: Shop) -> None:
    shop.back_up()
    shop.db.execute("UPDATE orders SET price = -1 WHERE id IN (3, 4)")
    shop.db.execute("DELETE FROM orders WHERE id = 30")
    (shop.tree / "a.bin").unlink()
    made = shop.back_up()
    by_name = {c.name: c for c in made.collections}
    assert (by_name["ledger/orders"].upserts, by_name["ledger/orders"].tombstones) == (2, 1)
    assert (by_name["ledger/positions"].upserts, by_name["ledger/positions"].tombstones) == (0, 0)
    assert by_name["ledger/orders"].rows == 39
    assert by_name["models/tree"].tombstones == 2  # the entry and its content
    assert made.rows == sum(c.rows for c in made.collections)


def test_nothing_changed_is_a_backup_without_segments(shop: Shop) -> None:
    shop.back_up()
    made = shop.back_up()
    assert not any(part.segment for c in made.collections for part in c.parts)
    assert (made.size_bytes, made.size_stored, made.upserts, made.tombstones) == (0, 0, 0, 0)
    assert made.rows == shop.repository.backups("trading")[0].rows


def test_deletions_are_kept_and_restored(shop: Shop, tmp_path: Path) -> None:
    shop.back_up()
    shop.db.execute("DELETE FROM orders WHERE id % 2 = 0")
    (shop.tree / "deep" / "b.txt").unlink()
    (shop.tree / "deep").rmdir()
    without = shop.picture()
    deleted = shop.back_up()
    shop.db.execute("INSERT INTO orders VALUES (2, 'again', 0)")
    again, put = shop.picture(), shop.back_up()
    assert elsewhere(shop, deleted, tmp_path / "one") == without
    assert elsewhere(shop, put, tmp_path / "two") == again


def test_a_differential_holds_all_that_changed_since_the_full(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = 0 WHERE id = 1")
    shop.back_up(INCREMENTAL)
    shop.db.execute("UPDATE orders SET price = 0 WHERE id = 2")
    assert shop.back_up(INCREMENTAL).upserts == 1
    assert shop.back_up(DIFFERENTIAL).upserts == 2


def test_part_boundaries_are_those_of_the_full_although_rows_grow(shop: Shop) -> None:
    full = shop.back_up(FULL)
    assert len(bounds(full, "ledger/orders")) > 1
    shop.db.executemany("INSERT INTO orders VALUES (?, 'new', 0)", [(n,) for n in range(-50, 0)])
    shop.db.executemany("INSERT INTO orders VALUES (?, 'new', 0)", [(n,) for n in range(1000, 1020)])
    for kind in (INCREMENTAL, DIFFERENTIAL, INCREMENTAL):
        made = shop.back_up(kind)
        assert made.promoted_because is None
        for collection in ("ledger/orders", "ledger/positions", "models/tree"):
            assert bounds(made, collection) == bounds(full, collection)
    fresh = shop.back_up(FULL)
    assert len(bounds(fresh, "ledger/orders")) > len(bounds(full, "ledger/orders"))


def test_a_part_that_has_outgrown_its_bounds_ends_the_chain(shop: Shop) -> None:
    full = shop.back_up(FULL)
    shop.db.executemany("INSERT INTO orders VALUES (?, 'new', 0)", [(n,) for n in range(1000, 1200)])
    made = shop.back_up(INCREMENTAL)
    assert made.promoted_because == "a part of ledger/orders has outgrown its bounds"
    assert len(bounds(made, "ledger/orders")) > len(bounds(full, "ledger/orders"))
    assert shop.back_up(INCREMENTAL).base == made.backup_id


def test_a_single_row_larger_than_any_part_does_not_end_every_chain(shop: Shop) -> None:
    shop.db.execute("INSERT INTO orders VALUES (9999, ?, 0)", ("x" * 40_000,))
    shop.back_up(FULL)
    assert shop.back_up(INCREMENTAL).promoted_because is None
    shop.db.execute("INSERT INTO orders VALUES (10000, 'small', 0)")
    assert shop.back_up(INCREMENTAL).promoted_because == "a part of ledger/orders has outgrown its bounds"
    assert shop.back_up(INCREMENTAL).promoted_because is None


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_token_that_did_not_change_saves_the_scan_of_an_incremental_only(shop: Shop, journal_mode: str) -> None:
    shop.db.execute(f"PRAGMA journal_mode = {journal_mode}")
    shop.db.execute("UPDATE orders SET price = 7 WHERE id = 7")
    shop.age_database()
    full = shop.back_up(FULL)
    seen = {kind: Entered() for kind in (INCREMENTAL, DIFFERENTIAL)}
    made = {kind: shop.back_up(kind, progress=entered) for kind, entered in seen.items()}
    for backup in made.values():
        assert backup.sources[0].token == full.sources[0].token is not None
        assert [[p.rows for p in c.parts] for c in backup.collections] == [
            [p.rows for p in c.parts] for c in full.collections
        ]
    assert seen[INCREMENTAL].parts == ["models/tree#0"]
    assert len(seen[DIFFERENTIAL].parts) == sum(len(c.parts) for c in full.collections)


class Entered:
    """Remembers which parts were read."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def entered(self, part: str) -> None:
        self.parts.append(part)

    def left(self, part: str) -> None:
        pass


def test_a_change_after_the_token_is_seen(shop: Shop) -> None:
    shop.age_database()
    shop.back_up()
    shop.db.execute("UPDATE orders SET price = 7 WHERE id = 7")
    shop.age_database()
    made = shop.back_up()
    assert made.sources[0].token is not None
    assert made.collections[0].upserts == 1


SCHEMA_CHANGES = {
    "new column": ("ALTER TABLE orders ADD COLUMN note TEXT", "collection ledger/orders changed its columns"),
    "dropped column": ("ALTER TABLE orders DROP COLUMN price", "collection ledger/orders changed its columns"),
    "dropped table": ("DROP TABLE positions", "collection ledger/positions is gone"),
    "new table": ("CREATE TABLE audits (line TEXT)", "collection ledger/audits is new"),
    "changed key": (
        "CREATE TABLE new (symbol TEXT NOT NULL, quantity, PRIMARY KEY (symbol, quantity));"
        "INSERT INTO new SELECT * FROM positions; DROP TABLE positions; ALTER TABLE new RENAME TO positions",
        "collection ledger/positions changed its columns or its key",
    ),
    "gained a key": (
        "CREATE TABLE new (line TEXT PRIMARY KEY NOT NULL); INSERT INTO new SELECT DISTINCT line FROM logs;"
        "DROP TABLE logs; ALTER TABLE new RENAME TO logs",
        "collection ledger/logs changed its columns or its key",
    ),
    "another storage": (
        "CREATE TABLE new (symbol TEXT PRIMARY KEY NOT NULL, quantity) WITHOUT ROWID;"
        "INSERT INTO new SELECT * FROM positions; DROP TABLE positions; ALTER TABLE new RENAME TO positions",
        "collection ledger/positions changed its columns or its key",
    ),
    "a NULL in the key": ("INSERT INTO notes VALUES (NULL, 1)", "collection ledger/notes changed its columns or its"),
}


@pytest.mark.parametrize("change", SCHEMA_CHANGES)
@pytest.mark.parametrize("kind", [INCREMENTAL, DIFFERENTIAL])
def test_a_changed_schema_makes_a_full_that_says_how(shop: Shop, tmp_path: Path, change: str, kind: object) -> None:
    shop.db.executescript("CREATE TABLE logs (line TEXT); CREATE TABLE notes (k TEXT PRIMARY KEY, v)")
    shop.db.executemany("INSERT INTO logs VALUES (?)", [("a",), ("b",), ("a",)])
    before, old = shop.picture(), shop.back_up(FULL)
    statements, words = SCHEMA_CHANGES[change]
    shop.db.executescript(statements)
    after, new = shop.picture(), shop.back_up(kind)
    assert new.backup_type is FULL
    assert words in str(new.promoted_because)
    assert shop.back_up(kind).promoted_because is None
    assert elsewhere(shop, old, tmp_path / "old") == before
    assert elsewhere(shop, new, tmp_path / "new") == after


def test_an_index_or_a_trigger_is_no_change_of_the_rows_and_comes_back(shop: Shop, tmp_path: Path) -> None:
    shop.back_up()
    shop.db.executescript("CREATE INDEX by_symbol ON orders (symbol); CREATE VIEW cheap AS SELECT * FROM orders")
    after, made = shop.picture(), shop.back_up()
    assert made.promoted_because is None
    assert elsewhere(shop, made, tmp_path / "to") == after


def test_a_base_that_retention_removed_makes_a_full(shop: Shop) -> None:
    full = shop.back_up(FULL)
    shop.repository.remove("trading", [full.backup_id])
    made = shop.back_up(INCREMENTAL)
    assert made.promoted_because == "there is no full or differential or incremental backup to depend on"


def test_expired_incrementals_leave_their_full_as_the_base(shop: Shop) -> None:
    full, _ = shop.back_up(FULL), shop.back_up(INCREMENTAL)
    shop.back_up(SNAPSHOT)
    plan = shop.plan.model_copy(update={"retention": RetentionPolicy(snapshot=timedelta(days=900))})
    apply_retention(plan, now=datetime.now(UTC) + timedelta(days=365), accept_clock=True)
    assert shop.back_up(INCREMENTAL).base == full.backup_id


@pytest.mark.parametrize("lost", ["pack", "data", "index"])
def test_a_base_that_lost_an_object_makes_a_full_that_names_it(
    shop: Shop, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lost != "pack":
        store_apart(monkeypatch)
    full, middle = shop.back_up(FULL), None
    shop.db.execute("UPDATE orders SET price = 0")
    middle = shop.back_up(INCREMENTAL)
    victim = blobs(full, lost == "index")[-1].name
    (shop.objects(full) / victim).unlink()
    made = shop.back_up(INCREMENTAL)
    assert made.backup_type is FULL
    assert full.backup_id in str(made.promoted_because)
    assert victim in str(made.promoted_because)
    assert middle.base == full.backup_id
    assert shop.back_up(INCREMENTAL).base == made.backup_id


@pytest.mark.parametrize("apart", [True, False])
def test_a_base_with_a_damaged_index_makes_a_full_that_says_so(
    shop: Shop, tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        store_apart(monkeypatch)
    full = shop.back_up(FULL)
    flip(shop.objects(full), blobs(full, index=True)[2 if apart else 0])
    shop.db.execute("UPDATE orders SET price = 0")
    state, made = shop.picture(), shop.back_up(INCREMENTAL)
    assert (made.backup_type, made.requested_type, made.base) == (FULL, INCREMENTAL, None)
    assert f"base {full.backup_id}" in str(made.promoted_because)
    assert elsewhere(shop, made, tmp_path / "to") == state
    assert [b.backup_id for b in shop.repository.backups("trading")] == [full.backup_id, made.backup_id]


def test_a_damaged_manifest_makes_a_full_that_says_so(shop: Shop) -> None:
    full = shop.back_up(FULL)
    manifest = shop.objects(full) / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    made = shop.back_up(DIFFERENTIAL)
    assert str(made.promoted_because).startswith("the history is damaged: ")
    assert full.backup_id in str(made.promoted_because)


def test_a_repository_whose_key_is_lost_starts_again_with_a_full(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.fill(5)
    shop.back_up(FULL)
    (tmp_path / "repository" / "lastgood.json").rename(tmp_path / "lost.json")
    with pytest.raises(ConfigurationError):  # new keys beside backups they do not open
        shop.plan.repository.initialize(shop.plan.encryption)
    backups = tmp_path / "repository" / "backups"
    backups.rename(tmp_path / "old backups")
    shop.plan.repository.initialize(shop.plan.encryption)
    (tmp_path / "old backups").rename(backups)
    made = shop.back_up(INCREMENTAL)
    assert made.backup_type is FULL
    assert str(made.promoted_because).startswith("the history is damaged: ")


def test_a_plan_that_says_none_never_writes_to_an_encrypted_repository(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.plan = shop.plan.model_copy(update={"encryption": NoEncryption(type="none")})
    with pytest.raises(ConfigurationError):
        shop.back_up()


def test_all_sources_or_none(shop: Shop) -> None:
    kept = shop.back_up()
    (shop.tree / "deep" / "b.txt").unlink()
    shop.db.execute("DELETE FROM orders")
    shop.db.close()
    shop.database.rename(shop.folder / "gone.db")
    shop.plan.sources["ledger"].busy_timeout_seconds = 0.1
    with pytest.raises(SourceUnavailable, match="source ledger"):
        shop.back_up()
    assert shop.ids == [kept.backup_id]
    assert shop.repository.current_lease("trading") is None


def test_two_backups_at_once_are_refused_or_wait(shop: Shop) -> None:
    repository = shop.repository
    with repository.lease("trading", "backup", holder="elsewhere:1") as lease:
        with pytest.raises(RepositoryLocked, match="elsewhere:1"):
            shop.back_up()
        lease.work_on("FUL_20260101_000000_0000")
    assert shop.ids == []
    assert shop.back_up(wait_seconds=5).sequence == 1


def test_an_empty_state_is_backed_up_and_restored(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False)
    shop.db.execute("PRAGMA user_version = 7")
    empty = shop.picture()
    made = shop.back_up()
    assert [c.name for c in made.collections] == ["models/tree"]
    assert shop.back_up().promoted_because is None
    shop.fill()
    full = shop.picture()
    result = shop.restore(made)
    assert shop.picture() == empty
    shop.restore(result.rescue_id)
    assert shop.picture() == full
    (tmp_path / "to").mkdir()
    assert elsewhere(shop, made, tmp_path / "to") == empty


def test_a_database_without_tables_is_a_state_of_its_own(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False)
    shop.db.execute("PRAGMA user_version = 7")
    shop.plan = shop.plan.model_copy(update={"sources": {"ledger": shop.plan.sources["ledger"]}})
    made = shop.back_up()
    shop.db.execute("CREATE TABLE t (a)")
    shop.restore(made)
    assert shop.rows("SELECT count(*) FROM sqlite_schema") == [(0,)]


def test_parts_without_rows_fill_and_empty_again(shop: Shop, tmp_path: Path) -> None:
    shop.db.execute("CREATE TABLE audits (id INTEGER PRIMARY KEY, line TEXT)")
    full = shop.back_up(FULL)
    assert segments(full, "ledger/audits") == [None]
    shop.db.execute("DELETE FROM orders")
    shop.db.execute("INSERT INTO audits VALUES (1, 'x')")
    one, first = shop.picture(), shop.back_up()
    assert [p.rows for p in first.collections[0].parts] == [0] * len(bounds(full, "ledger/orders"))
    shop.db.execute("DELETE FROM audits")
    two, second = shop.picture(), shop.back_up()
    for n, (state, made) in enumerate([(one, first), (two, second)]):
        (tmp_path / str(n)).mkdir()
        assert elsewhere(shop, made, tmp_path / str(n)) == state


def test_the_point_in_time_is_that_of_the_views(shop: Shop) -> None:
    first = shop.back_up()
    shop.db.execute("DELETE FROM orders")
    second = shop.back_up(SNAPSHOT)
    shop.back_up(EMERGENCY)
    repository = shop.repository
    assert repository.find("trading").backup_id == second.backup_id
    assert repository.find("trading", at=second.timestamp).backup_id == second.backup_id
    between = second.timestamp - timedelta(microseconds=1)
    assert repository.find("trading", at=between).backup_id == first.backup_id
    shop.restore(at=between, collections=["ledger/orders"])
    assert shop.rows("SELECT count(*) FROM orders") == [(40,)]


CRITICAL = ["ledger/orders:1*", "ledger/positions", "models/tree:deep*"]


def test_an_emergency_backup_is_narrowed_to_what_is_critical(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False, critical=CRITICAL)
    shop.fill()
    shop.db.execute("CREATE TABLE dull (a)")
    made = shop.back_up(EMERGENCY)
    assert not made.whole
    assert {c.name: c.selected_keys for c in made.collections} == {
        "ledger/orders": ("1*",),
        "ledger/positions": (),
        "models/tree": ("deep*",),
    }
    assert {c.name: c.rows for c in made.collections} == {"ledger/orders": 11, "ledger/positions": 7, "models/tree": 3}


def test_a_narrowed_emergency_backup_is_restored_within_its_keys_only(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False, critical=CRITICAL)
    shop.fill()
    before, made = shop.picture(), shop.back_up(EMERGENCY)
    shop.db.execute("UPDATE orders SET price = -1")
    shop.db.execute("INSERT INTO orders VALUES (100, 'new', 0), (200, 'new', 0)")
    shop.db.execute("DELETE FROM positions")
    shop.db.execute("INSERT INTO positions VALUES ('new', 0)")
    (shop.tree / "deep" / "b.txt").write_text("changed")
    (shop.tree / "deep" / "c.txt").write_text("new")
    (shop.tree / "d.txt").write_text("outside")
    counts = {c.collection: (c.added, c.changed, c.removed) for c in shop.restore(made, mode=PREVIEW).collections}
    assert counts["ledger/orders"] == (0, 11, 1)
    assert counts["ledger/positions"] == (7, 0, 1)
    shop.restore(made, EXACT)
    after = shop.picture()
    mine = {row for row in after["rows"]["orders"] if str(row[1]).startswith("1")}
    assert mine == {row for row in before["rows"]["orders"] if str(row[1]).startswith("1")}
    assert {row[3] for row in after["rows"]["orders"] if not str(row[1]).startswith("1")} == {-1, 0}
    assert after["rows"]["positions"] == before["rows"]["positions"]
    assert (shop.tree / "deep" / "b.txt").read_text() == "hello"
    assert not (shop.tree / "deep" / "c.txt").exists()
    assert (shop.tree / "d.txt").read_text() == "outside"


def test_a_narrowed_emergency_backup_merges(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False, critical=CRITICAL)
    shop.fill()
    made = shop.back_up(EMERGENCY)
    shop.db.execute("DELETE FROM orders")
    shop.db.execute("INSERT INTO orders VALUES (111, 'mine', 0)")
    shop.restore(made, MERGE)
    assert shop.rows("SELECT count(*) FROM orders") == [(12,)]


def test_a_narrowed_emergency_backup_is_restored_to_another_place(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False, critical=CRITICAL)
    shop.fill()
    made = shop.back_up(EMERGENCY)
    there = elsewhere(shop, made, tmp_path / "to")
    assert len(there["rows"]["orders"]) == 11  # type: ignore[index]
    assert len(there["rows"]["positions"]) == 7  # type: ignore[index]


def test_keys_that_an_emergency_backup_does_not_hold_are_left_alone(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False, critical=CRITICAL)
    shop.fill()
    made = shop.back_up(EMERGENCY)
    shop.db.execute("INSERT INTO orders VALUES (101, 'new', 0), (201, 'new', 0)")
    live = shop.picture()
    with pytest.raises(BackupNotFound, match=r"2\*"):
        shop.restore(made, EXACT, ["ledger/orders"], ["2*"])
    assert shop.picture() == live
    shop.restore(made, EXACT, ["ledger/orders"], ["1*"])
    assert shop.rows("SELECT id FROM orders WHERE id > 100") == [(201,)]
