from __future__ import annotations

import gzip
import os
import shutil
from datetime import UTC, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import ConfigurationError, CorruptionDetected, ObjectUnreadable, UnsupportedState
from blocks.records import BackupStatus, Expiry, Link
from blocks.repository.catalogue import decode_record, encode_record
from blocks.repository.checksums import objects_of
from tests.blocks.repository_support import (
    HOUR,
    PLAN,
    START,
    sealed_by_hand,
    verification,
)

# Damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "6 bytes instead of 7"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "8 bytes instead of 7"),
        (lambda path: path.write_bytes(b"segPART"), "changed"),
        (lambda path: (path.unlink(), path.mkdir()), "missing"),
    ],
)
def test_a_damaged_object_is_named_with_what_is_wrong(shelf, damage, words):
    backup = shelf.back_up()
    stored = objects_of(backup)[1]
    damage(shelf.folder(backup) / stored.name)
    with pytest.raises(CorruptionDetected, match=words) as caught:
        shelf.repository.get_object(PLAN, backup.backup_id, stored)
    assert f"{backup.backup_id}/00000.seg" in caught.value.message
    assert shelf.repository.missing(backup) == ([] if words == "changed" else ["00000.seg"])
    assert shelf.repository.audit(PLAN) or words == "changed"


def test_a_range_beyond_the_end_is_told_as_cut_off(shelf):
    backup = shelf.back_up()
    with pytest.raises(CorruptionDetected, match="cut off"):
        shelf.repository.read_range(PLAN, backup.backup_id, "00000.seg", 5, 10)


def test_a_manifest_is_refused_wherever_a_byte_of_it_is_flipped(shelf):
    backup = shelf.back_up()
    path = shelf.folder(backup) / "manifest"
    good = path.read_bytes()
    for position in {0, 8, 9, 10, 41, 42, len(good) // 2, len(good) - 17, len(good) - 1}:
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with pytest.raises(CorruptionDetected, match=backup.backup_id):
            shelf.open().manifest(PLAN, backup.backup_id)
    for size in (0, 9, 42, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(CorruptionDetected, match=backup.backup_id):
            shelf.open().manifest(PLAN, backup.backup_id)


def test_one_damaged_manifest_does_not_hide_the_other_backups(shelf):
    first, second, third = shelf.back_up(), shelf.back_up(), shelf.back_up()
    (shelf.folder(second) / "manifest").write_bytes(b"damaged")
    repository = shelf.open()
    survey = repository.survey(PLAN)
    assert (survey.backups, survey.damaged) == ([first, third], [second.backup_id])
    assert second.backup_id in survey.findings[0]
    with pytest.raises(CorruptionDetected, match=second.backup_id):
        repository.backups(PLAN)
    assert repository.find(PLAN) == third
    assert len(repository.audit(PLAN)) == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format_version": 3, "news": 1}, ConfigurationError),
        ({"requires": ["news"]}, ConfigurationError),
        ({"format_version": 1}, CorruptionDetected),
        ({"inherits": True}, CorruptionDetected),
        ({"objects": []}, CorruptionDetected),
        ({"backup_id": "FUL_20200101_000000_0000"}, CorruptionDetected),
        ({"plan": "other"}, CorruptionDetected),
        ({"repository_id": "0" * 32}, CorruptionDetected),
        ({"sequence": "first"}, CorruptionDetected),
    ],
)
def test_a_manifest_that_is_newer_foreign_or_hostile_is_refused(shelf, changes, error):
    backup = shelf.back_up()
    (shelf.folder(backup) / "manifest").write_bytes(sealed_by_hand(shelf, backup, **changes))
    with pytest.raises(error) as caught:
        shelf.open().manifest(PLAN, backup.backup_id)
    assert ("newer lastgood" in caught.value.message) == (error is ConfigurationError)


def test_what_a_later_one_adds_without_requiring_it_does_not_matter(shelf):
    backup = shelf.back_up()
    (shelf.folder(backup) / "manifest").write_bytes(sealed_by_hand(shelf, backup, surprise={"new": 1}))
    assert shelf.open().manifest(PLAN, backup.backup_id) == backup


def test_equal_manifests_are_encoded_to_equal_bytes(shelf):
    backup = shelf.back_up()
    assert encode_record(backup) == encode_record(shelf.open().manifest(PLAN, backup.backup_id))


# Verifications


def test_the_newest_verification_by_number_says_the_status_whatever_the_clock_says(shelf):
    backup = shelf.back_up()
    repository = shelf.repository
    assert repository.status(backup) is BackupStatus.COMPLETED
    ahead = repository.record_verification(verification(shelf, backup, at=START + HOUR))
    bad = repository.record_verification(verification(shelf, backup, BackupStatus.CORRUPTED))
    assert (ahead.sequence, bad.sequence) == (1, 2)
    assert bad.verified_at == ahead.verified_at + timedelta(microseconds=1)
    assert repository.verifications(PLAN, backup.backup_id) == [ahead, bad]
    assert repository.status(backup) is BackupStatus.CORRUPTED
    assert repository.audit(PLAN) == []


def test_two_verifications_in_one_microsecond_are_both_kept(shelf):
    backup = shelf.back_up()
    for _ in range(3):
        shelf.repository.record_verification(verification(shelf, backup))
    assert len(shelf.repository.verifications(PLAN, backup.backup_id)) == 3


def test_a_verification_that_was_changed_moved_or_is_of_another_manifest_proves_nothing(shelf):
    first, second = shelf.back_up(), shelf.back_up()
    repository = shelf.repository
    repository.record_verification(verification(shelf, first))
    folder = shelf.root / "verifications" / PLAN
    (record,) = (folder / first.backup_id).iterdir()
    later = record.with_name("20270101T000000.000000Z")
    shutil.copy(record, later)
    assert repository.status(first) is BackupStatus.COMPLETED
    assert [f for f in repository.audit(PLAN) if later.name in f]
    later.unlink()
    shutil.copytree(folder / first.backup_id, folder / second.backup_id)
    assert repository.status(second) is BackupStatus.COMPLETED
    record.write_bytes(record.read_bytes()[:-1])
    assert repository.status(first) is BackupStatus.COMPLETED
    assert repository.verifications(PLAN, first.backup_id) == []
    assert len(repository.audit(PLAN)) == 2
    other = verification(shelf, first, at=START + HOUR).model_copy(update={"manifest_sha256": "0" * 64})
    repository.record_verification(other)
    assert repository.status(first) is BackupStatus.COMPLETED


# Encoding


@given(
    reasons=st.dictionaries(st.text(), st.text()),
    removed=st.lists(st.builds(Link, backup_id=st.text(), manifest_sha256=st.text())),
    moment=st.datetimes(timezones=st.just(UTC)),
)
def test_a_record_is_decoded_to_what_was_encoded(reasons, removed, moment):
    made = Expiry(plan=PLAN, expired_at=moment, removed=tuple(removed), reasons=reasons, head=None)
    data = encode_record(made)
    assert decode_record(data, Expiry, "the record") == made
    assert gzip.decompress(data).isascii()


def test_a_record_that_is_cut_prolonged_or_no_json_is_refused():
    good = encode_record(Expiry(plan=PLAN, expired_at=START, removed=(), reasons={}, head=None))
    for bad in (b"", good[:-1], good + b"x", good + good, b"{}", gzip.compress(b"{}"), gzip.compress(b"[]")):
        with pytest.raises(CorruptionDetected, match="the record"):
            decode_record(bad, Expiry, "the record")


def test_a_record_that_unpacks_to_more_than_any_record_is_refused(monkeypatch):
    monkeypatch.setattr("blocks.repository.catalogue.MAX_RECORD_BYTES", 1000)
    with pytest.raises(CorruptionDetected, match="larger than any record"):
        decode_record(gzip.compress(b" " * 1_000_000), Expiry, "the record")


@pytest.mark.parametrize("value", ["not unicode \udc80", float("nan"), float("inf")])
def test_a_manifest_that_could_not_be_read_back_is_never_committed(shelf, value):
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        collection = metadata.collections[0].model_copy(update={"definition": {"sql": value}})
        metadata = metadata.model_copy(update={"collections": (collection,)})
        with pytest.raises(UnsupportedState, match=metadata.backup_id):
            shelf.repository.commit(metadata, objects, lease)
    assert shelf.repository.backups(PLAN) == []


@pytest.mark.parametrize("what", ["a FIFO", "a folder", "8 GiB", "an I/O error"])
def test_a_manifest_that_cannot_be_read_is_named_and_stops_nothing_else(shelf, what):
    first, second, third = (shelf.back_up() for _ in range(3))
    path = shelf.folder(second) / "manifest"
    path.unlink()
    if what == "8 GiB":
        path.touch()
        os.truncate(path, 8 << 30)
    elif what == "an I/O error":
        path.symlink_to("/proc/self/mem")
    else:
        os.mkfifo(path) if what == "a FIFO" else path.mkdir()
    repository = shelf.open()
    survey = repository.survey(PLAN)
    assert (survey.backups, survey.damaged) == ([first, third], [second.backup_id])
    assert second.backup_id in survey.findings[0]
    assert repository.find(PLAN) == third
    assert repository.find(PLAN, first.backup_id) == first
    with pytest.raises(CorruptionDetected if what in ("a folder", "8 GiB") else ObjectUnreadable):
        repository.find(PLAN, second.backup_id)
    assert any(second.backup_id in finding for finding in repository.audit(PLAN))
    shelf.repository = repository
    assert shelf.back_up().sequence == 4
