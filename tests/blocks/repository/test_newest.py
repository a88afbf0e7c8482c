from __future__ import annotations

import os
from pathlib import Path

import pytest

from blocks.records import BackupType
from tests.blocks.repository_support import PLAN, Shelf, expire


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def newest(shelf: Shelf, types=tuple(BackupType)):
    repository = shelf.open()
    return repository.newest(PLAN, repository.stock(PLAN), types)


def written(shelf: Shelf, backup, seconds: float) -> None:
    """Say when the storage wrote a manifest."""
    os.utime(shelf.folder(backup) / "manifest", (seconds, seconds))


def test_the_newest_of_some_types_is_found_and_few_manifests_are_read(shelf, monkeypatch):
    full = shelf.back_up()
    for _ in range(20):
        last = shelf.back_up(BackupType.INCREMENTAL, full)
    emergency = shelf.back_up(BackupType.EMERGENCY)
    for n, folder in enumerate(sorted(shelf.root.glob("backups/*/*/manifest"), key=os.path.getmtime)):
        os.utime(folder, (1000 + n, 1000 + n))
    tier, read = type(shelf.block.tier), []
    get = tier.get
    monkeypatch.setattr(tier, "get", lambda self, name, *a, **k: read.append(name) or get(self, name, *a, **k))
    assert newest(shelf).backup == emergency
    assert newest(shelf, (BackupType.INCREMENTAL,)).backup == last
    assert len([name for name in read if name.endswith("manifest")]) <= 4
    assert newest(shelf, (BackupType.FULL,)).backup == full
    assert newest(shelf, (BackupType.SNAPSHOT,)) == type(newest(shelf))(None, None)


def test_the_clock_of_a_host_that_made_a_backup_does_not_decide(shelf):
    shelf.back_up()
    shelf.clock.turn(-86_400)
    behind = shelf.back_up()
    assert newest(shelf).backup == behind
    assert shelf.back_up().previous == shelf.repository.link(behind)


def test_the_times_of_a_repository_that_was_copied_do_not_decide(shelf):
    first, second, third = (shelf.back_up() for _ in range(3))
    for backup, moment in ((third, 1000), (second, 2000), (first, 3000)):
        written(shelf, backup, moment)
    assert newest(shelf).backup == third
    for backup in (first, second, third):
        written(shelf, backup, 1000)
    assert newest(shelf).backup == third


def test_where_both_are_wrong_the_numbers_tell(shelf):
    shelf.back_up()
    shelf.clock.turn(-86_400)
    last = shelf.back_up()
    written(shelf, last, 1000)
    assert newest(shelf).backup == last


def test_damage_counts_where_it_may_be_of_a_newer_one(shelf):
    first, second = shelf.back_up(), shelf.back_up()
    (shelf.folder(second) / "manifest").write_bytes(b"damaged")
    found = newest(shelf)
    assert found.backup == first
    assert second.backup_id in (found.damage or "")
    third = shelf.back_up()
    assert (newest(shelf).backup, newest(shelf).damage) == (third, None)


def test_numbers_of_removed_and_of_damaged_backups_do_not_come_back(shelf):
    made = [shelf.back_up() for _ in range(3)]
    expire(shelf, made[2])
    assert shelf.open().next_position(PLAN) == (4, shelf.repository.link(made[1]))
    expire(shelf, made[0])
    assert shelf.back_up().sequence == 4
    newer = shelf.back_up()
    (shelf.folder(newer) / "manifest").write_bytes(b"damaged")
    assert shelf.open().next_position(PLAN)[0] == 6
