from __future__ import annotations

from datetime import timedelta

import pytest

from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
)
from blocks.records import BackupType
from tests.blocks.repository_support import (
    HOUR,
    PLAN,
    START,
    chain_of_three,
    sealed_by_hand,
)

# Finding


def test_a_backup_is_found_by_id_by_part_of_it_by_latest_and_by_time(shelf):
    full, differential, incremental = chain_of_three(shelf)
    emergency = shelf.back_up(BackupType.EMERGENCY)
    find = shelf.repository.find
    assert find(PLAN) == incremental
    assert find(PLAN, emergency.backup_id) == emergency
    assert find(PLAN, "DIF") == differential
    assert find(PLAN, full.backup_id[-6:]) == full
    assert find(PLAN, at=START) == full
    assert find(PLAN, at=START + timedelta(seconds=119)) == differential
    assert find(PLAN, at=START + HOUR) == incremental


def test_a_time_in_whole_seconds_as_it_is_shown_is_all_of_that_second(shelf):
    shelf.clock.turn(0.9)
    made = shelf.back_up()
    assert made.timestamp.microsecond
    assert shelf.repository.find(PLAN, at=made.timestamp.replace(microsecond=0)) == made
    for before in (timedelta(microseconds=1), timedelta(seconds=1)):
        with pytest.raises(BackupNotFound):
            shelf.repository.find(PLAN, at=made.timestamp - before)


def test_what_is_not_found_is_answered_with_what_there_is(shelf):
    with pytest.raises(BackupNotFound) as caught:
        shelf.repository.find(PLAN)
    assert "no backups yet" in caught.value.hint
    full, _, incremental = chain_of_three(shelf)
    for attempt in (
        lambda: shelf.repository.find(PLAN, "SNA"),
        lambda: shelf.repository.find(PLAN, at=START - HOUR),
    ):
        with pytest.raises(BackupNotFound) as caught:
            attempt()
        assert "3 backups" in caught.value.hint
        assert full.backup_id in caught.value.hint
        assert incremental.backup_id in caught.value.hint
    other = shelf.back_up(BackupType.INCREMENTAL, incremental)
    with pytest.raises(BackupNotFound, match="fits 2 backups") as caught:
        shelf.repository.find(PLAN, "INC_")
    assert other.backup_id in caught.value.hint


def test_a_time_without_zone_or_together_with_an_id_is_refused(shelf):
    shelf.back_up()
    with pytest.raises(ConfigurationError):
        shelf.repository.find(PLAN, at=START.replace(tzinfo=None))
    with pytest.raises(ConfigurationError):
        shelf.repository.find(PLAN, "FUL", START)


def test_latest_never_silently_falls_back_behind_a_damaged_backup(shelf):
    first, second = shelf.back_up(), shelf.back_up()
    (shelf.folder(second) / "manifest").write_bytes(b"damaged")
    repository = shelf.open()
    with pytest.raises(CorruptionDetected, match=second.backup_id) as caught:
        repository.find(PLAN)
    assert first.backup_id in caught.value.hint
    with pytest.raises(CorruptionDetected):
        repository.find(PLAN, at=START + HOUR)
    with pytest.raises(CorruptionDetected):
        repository.find(PLAN, second.backup_id[-6:])
    assert repository.find(PLAN, at=START) == first
    assert repository.find(PLAN, first.backup_id) == first


# Chains


def test_a_chain_is_full_first_and_ends_with_the_backup(shelf):
    chain = list(chain_of_three(shelf))
    assert shelf.open().chain(chain[-1]) == chain
    assert shelf.open().chain(chain[0]) == chain[:1]


def test_a_chain_with_a_missing_or_damaged_member_is_refused(shelf):
    _, differential, incremental = chain_of_three(shelf)
    manifest = shelf.folder(differential) / "manifest"
    manifest.write_bytes(b"damaged")
    with pytest.raises(CorruptionDetected, match=differential.backup_id):
        shelf.open().chain(incremental)
    manifest.unlink()
    with pytest.raises(CorruptionDetected, match=f"lacks {differential.backup_id}"):
        shelf.open().chain(incremental)


def test_a_swapped_member_of_a_chain_is_seen_although_it_opens(shelf):
    full, differential, incremental = chain_of_three(shelf)
    swapped = sealed_by_hand(shelf, full, tags=["swapped"])
    (shelf.folder(full) / "manifest").write_bytes(swapped)
    with pytest.raises(CorruptionDetected, match=f"{full.backup_id}: it was swapped"):
        shelf.open().chain(differential)
    findings = shelf.open().audit(PLAN)
    assert any(f"{full.backup_id}, a base of {incremental.backup_id}, was swapped" in f for f in findings)


def test_a_manifest_cannot_lie_about_its_chain(shelf):
    full, _, incremental = chain_of_three(shelf)
    for lie in ({"base": None}, {"base": full.backup_id}, {"chain": incremental.chain[1:]}, {"chain": ()}):
        with pytest.raises(CorruptionDetected):
            shelf.repository.chain(incremental.model_copy(update=lie))
