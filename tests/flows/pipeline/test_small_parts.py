"""Small parts share their blobs: many tables make few objects, and few changes make little to store."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.records import BackupMetadata
from blocks.repository.catalogue import Catalogue
from flows.check import check_repository
from flows.pipeline import small_parts
from flows.stages import compress
from flows.verify import make_verification
from tests.blocks.sources.files.kit import MIB, look
from tests.flows.flow_support import DIFFERENTIAL, FULL, INCREMENTAL, VERIFIED, Shop, blobs, picture, segments
from tests.flows.test_skipped_files import Folder, rewriting

TABLES = 200


def files(shop: Shop) -> set[str]:
    """Everything in the repository but leases."""
    root = shop.folder / "repository"
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "locks" not in p.parts}


def as_stored(shop: Shop, backup: BackupMetadata) -> BackupMetadata:
    """Return the manifest as it is stored, without what it takes from its base."""
    repository = shop.repository
    catalogue = Catalogue(shop.plan.repository.tier, repository.keys)
    return catalogue._opened(backup.plan, backup.backup_id).metadata


def restored(shop: Shop, backup: BackupMetadata, place: Path) -> dict[str, object]:
    shop.restore(backup, to=str(place))
    return picture(place / "ledger" / "ledger.db", place / "models" / "tree")


def test_many_small_tables_are_one_blob_of_data_and_one_of_indexes(tmp_path: Path) -> None:
    shop = Shop(tmp_path, part_size_bytes=100_000)
    for n in range(TABLES):
        shop.db.execute(f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, c{n} TEXT)")
        shop.db.execute(f"INSERT INTO t{n} VALUES (1, 'a{n}'), (2, 'b')")
    full = shop.back_up(FULL)
    assert [one.name for one in full.objects] == ["00000.pack"]
    assert [len(blobs(full, index)) for index in (False, True)] == [1, 1]
    assert sum(segment is not None for n in range(TABLES) for segment in segments(full, f"ledger/t{n}")) == TABLES
    folder = f"backups/trading/{full.backup_id}"
    assert files(shop) == {"lastgood.json", *(f"{folder}/{name}" for name in ("00000.pack", "SHA256SUMS", "manifest"))}
    stored = [part.segment.stored_bytes for part in full.stored_parts if part.segment]
    assert 0 < sum(stored) <= full.size_stored
    assert full.size_compressed >= sum(stored)

    before, first = files(shop), shop.picture()
    for n in (3, 77, 150):
        shop.db.execute(f"UPDATE t{n} SET c{n} = 'changed' WHERE id = 2")
    small = shop.back_up(INCREMENTAL)
    folder = f"backups/trading/{small.backup_id}"
    assert files(shop) - before == {f"{folder}/{name}" for name in ("00000.pack", "SHA256SUMS", "manifest")}
    assert {change.name for change in as_stored(shop, small).changed} == {"ledger/t3", "ledger/t77", "ledger/t150"}
    assert make_verification(shop.plan, small.backup_id, deep=True).status is VERIFIED
    assert restored(shop, full, tmp_path / "full") == first
    assert restored(shop, small, tmp_path / "small") == shop.picture()


def test_a_manifest_names_only_the_parts_that_changed_and_is_read_whole(tmp_path: Path) -> None:
    shop = Shop(tmp_path, part_size_bytes=400)
    shop.fill(10)
    shop.db.execute("CREATE TABLE many (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    shop.db.executemany("INSERT INTO many VALUES (?, ?)", [(n, f"{n:060d}") for n in range(2000)])
    full = shop.back_up(FULL)
    before = segments(full, "ledger/many")
    assert len(before) > 200
    shop.db.execute("UPDATE many SET text = 'new' WHERE id % 200 = 100")
    shop.db.execute("DELETE FROM many WHERE id = 510")
    made = shop.back_up(INCREMENTAL)
    stored = as_stored(shop, made)
    (change,) = stored.changed
    assert (stored.inherits, stored.collections) == (True, ())
    assert change.name == "ledger/many"
    assert 10 <= len(change.parts) <= 11
    sizes = [(shop.objects(one) / "manifest").stat().st_size for one in (made, full)]
    assert sizes[0] < sizes[1] / 4

    whole = shop.repository.manifest("trading", made.backup_id)
    assert whole == made
    assert (whole.inherits, whole.changed) == (False, ())
    assert [c.name for c in whole.collections] == [c.name for c in full.collections]
    (many,) = (c for c in whole.collections if c.name == "ledger/many")
    assert [part.number for part in many.parts] == list(range(len(before)))
    assert [part.number for part in many.parts if part.segment] == [part.number for part in change.parts]
    assert {c.name: c.rows for c in whole.collections} == {c.name: c.rows for c in full.collections} | {
        "ledger/many": 1999
    }
    assert (whole.rows, whole.upserts, whole.tombstones) == (full.rows - 1, 10, 1)
    assert restored(shop, made, tmp_path / "to") == shop.picture()


def test_a_differential_and_what_stands_on_it_are_stored_narrowed_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.fill()
    shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = 1 WHERE id = 3")
    middle = shop.back_up(DIFFERENTIAL)
    same = shop.back_up(INCREMENTAL)
    assert [[c.name for c in as_stored(shop, one).changed] for one in (middle, same)] == [["ledger/orders"], []]
    assert [shop.repository.manifest("trading", one.backup_id) for one in (middle, same)] == [middle, same]
    assert same.objects == ()
    assert restored(shop, same, tmp_path / "to") == shop.picture()


@pytest.mark.parametrize("at", [2, 3, 4, 5])
@pytest.mark.parametrize("together", [True, False])
def test_a_part_that_is_read_again_takes_nothing_from_those_it_shared_a_blob_with(
    tmp_path: Path, at: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if together:  # all parts share one blob, which is so large that it has an object of its own
        monkeypatch.setattr(compress, "SMALL_BYTES", 64 * MIB)
        monkeypatch.setattr(small_parts, "SHARED_BYTES", 64 * MIB)
    folder = Folder(tmp_path, on_change="skip")
    (folder.tree / "big").write_bytes(bytes(4 * MIB + 100))
    first = look(folder.tree)
    full = folder.back_up(FULL, rewriting(folder.tree / "big", at))
    assert full.sources[0].warnings == ("big kept changing and is not in this backup",)
    now = look(folder.tree)
    assert folder.restored(full) == {path: seen for path, seen in now.items() if path != b"big"}
    assert check_repository(folder.plan(), 1.0).findings == []
    assert first[b"large"] == now[b"large"]
    next_one = folder.back_up(INCREMENTAL)
    assert next_one.base == full.backup_id
    assert folder.restored(next_one) == now


def test_columns_of_nulls_count_for_what_describes_them(tmp_path: Path) -> None:
    """Arrow has no bytes for a column of NULLs, and takes hundreds to describe it: too many to read."""
    shop = Shop(tmp_path)
    names = ", ".join(f"a_column_with_a_long_name_{n}" for n in range(300))
    for n in range(20):
        shop.db.execute(f"CREATE TABLE wide{n} (id INTEGER PRIMARY KEY, {names})")
        shop.db.execute(f"INSERT INTO wide{n} (id) VALUES (1)")
    made = shop.back_up(FULL)
    assert not any(segment.data.shared for n in range(20) for segment in segments(made, f"ledger/wide{n}") if segment)
    shop.restore(made, to=str(tmp_path / "restored"))
    assert picture(tmp_path / "restored" / "ledger" / "ledger.db", shop.tree)["rows"] == shop.picture()["rows"]
