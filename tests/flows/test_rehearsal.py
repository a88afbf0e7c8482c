"""A dry run counts what the backup after it stores, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.records import BackupType
from flows.backup import make_backup
from flows.rehearsal import rehearse
from tests.flows.flow_support import DIFFERENTIAL, FULL, INCREMENTAL, Shop


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL, DIFFERENTIAL])
@pytest.mark.parametrize("based", [False, True])
def test_a_dry_run_counts_what_the_next_backup_stores(tmp_path: Path, kind: BackupType, based: bool) -> None:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    if based:
        make_backup(shop.plan, FULL)
        shop.db.execute("delete from orders where id % 2")
        shop.db.execute("update orders set price = price + 1 where id % 3 = 0")
        (shop.tree / "new.bin").write_bytes(b"x" * 1000)
    before = files(tmp_path / "repository")
    found = rehearse(shop.plan, kind)
    assert files(tmp_path / "repository") == before
    made = make_backup(shop.plan, kind)
    assert (found.backup_type, found.promoted_because, found.base) == (
        made.backup_type, made.promoted_because, made.base,
    )  # fmt: skip
    assert [(one.collection, one.rows, one.upserts, one.tombstones, one.parts) for one in found.collections] == [
        (one.name, one.rows, one.upserts, one.tombstones, len(one.parts)) for one in made.collections
    ]
    assert sum(one.size_bytes for one in found.collections) == made.size_bytes


def test_a_dry_run_needs_no_lease(tmp_path: Path) -> None:
    shop = Shop(tmp_path, encrypted=False)
    with shop.repository.lease("trading", "backup", holder="somebody else"):
        assert rehearse(shop.plan, FULL).backup_type is FULL
