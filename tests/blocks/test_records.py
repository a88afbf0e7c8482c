"""The records of a backup are what the format says: a golden manifest, and what is refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks.records import (
    BackupMetadata,
    BackupType,
    Blob,
    Collection,
    Expiry,
    Link,
    Part,
    Segment,
    SourceState,
    StoredObject,
    new_backup_id,
)
from blocks.verification import Verification

GOLDEN = Path(__file__).parent / "vectors" / "manifest.json"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def stored(name: str, size: int) -> StoredObject:
    return StoredObject(name=name, size_bytes=size, sha256=f"{size:064x}")


def blob(name: str, size: int) -> Blob:
    return Blob(**stored(name, size).model_dump())


SEGMENT = Segment(
    number=4, data=blob("00004.seg", 900), index=blob("00004.idx", 300), upserts=2, tombstones=1,
    size_bytes=4096, size_compressed=1000,
)  # fmt: skip
MANIFEST = BackupMetadata(
    format_version=1,
    repository_id="0123456789abcdef0123456789abcdef",
    plan="trading",
    backup_id="INC_20260102_030405_9f3a",
    backup_type=BackupType.INCREMENTAL,
    requested_type=BackupType.INCREMENTAL,
    timestamp=MOMENT,
    sequence=7,
    fencing_token=9,
    base="FUL_20260101_000000_0001",
    chain=(Link(backup_id="FUL_20260101_000000_0001", manifest_sha256="a" * 64),),
    previous=Link(backup_id="SNA_20260101_120000_0002", manifest_sha256="b" * 64),
    sources=(
        SourceState(
            name="ledger", type="sqlite", system="SQLite 3.45.1, ledger.db", taken_at=MOMENT - timedelta(seconds=1),
            token="17 42", definition={"user_version": 3, "objects": []}, warnings=("a warning with é",),
        ),
    ),
    collections=(
        Collection(
            number=0, name="ledger/orders", key=("id",), label=("id",), columns=(("id", "INTEGER"), ("_note", "TEXT")),
            definition={"rowid": None}, fingerprint="c" * 64,
            parts=(
                Part(number=0, bounds={"after": None, "upto": [100]}, rows=100),
                Part(number=1, bounds={"after": [100], "upto": None}, rows=51, segment=SEGMENT),
            ),
        ),
        Collection(
            number=1, name="models/tree", key=("path", "offset"), label=("path",), columns=(("path", "large_binary"),),
            tracking=("inode",), definition={}, fingerprint="d" * 64, selected_keys=("live/*",), parts=(),
        ),
    ),
    size_bytes=4096, size_compressed=1000, size_stored=1200, checksum="e" * 64,
    encryption_key_id="epoch-1", encapsulated_key="AAAA", storage_tiers=("primary",), retention_days=7.0,
    source_system="host (Linux x86_64)", backup_duration_seconds=1.25, whole=False, tags=("before-restore",),
    tool_versions={"lastgood": "0.1.0"},
)  # fmt: skip


def test_the_golden_manifest_of_version_1_is_read_for_ever() -> None:
    again = BackupMetadata.model_validate_json(GOLDEN.read_bytes())
    assert again == MANIFEST
    assert again.format_version == 1


def test_fields_that_came_later_may_be_missing_and_unknown_ones_may_not() -> None:
    data = MANIFEST.model_dump(mode="json")
    with pytest.raises(ValidationError, match="surprise"):
        BackupMetadata.model_validate(data | {"surprise": 1})
    del data["tags"], data["whole"], data["promoted_because"]
    again = BackupMetadata.model_validate(data)
    assert (again.tags, again.whole, again.promoted_because) == ((), True, None)


@pytest.mark.parametrize("name", ["backup_id", "chain", "collections", "checksum", "encryption_key_id", "sequence"])
def test_what_a_restore_needs_may_not_be_missing(name: str) -> None:
    data = MANIFEST.model_dump(mode="json")
    del data[name]
    with pytest.raises(ValidationError, match=name):
        BackupMetadata.model_validate(data)


def test_numbers_are_sums_of_the_parts() -> None:
    orders = MANIFEST.collections[0]
    assert (orders.source, orders.rows, orders.upserts, orders.tombstones) == ("ledger", 151, 2, 1)
    assert (MANIFEST.rows, MANIFEST.upserts, MANIFEST.tombstones) == (151, 2, 1)
    assert MANIFEST.data_sources == ("ledger",)


def test_records_do_not_change() -> None:
    with pytest.raises(ValidationError):
        MANIFEST.plan = "other"  # type: ignore[misc]


def test_times_are_kept_in_utc_and_need_a_zone() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    data = MANIFEST.model_dump()
    moved = BackupMetadata.model_validate(data | {"timestamp": MOMENT.astimezone(there)})
    assert moved.timestamp.tzinfo is UTC
    assert moved == MANIFEST
    with pytest.raises(ValidationError, match="a time needs a zone"):
        BackupMetadata.model_validate(data | {"timestamp": MOMENT.replace(tzinfo=None)})


@pytest.mark.parametrize(
    ("kind", "prefix", "needs", "carries"),
    [
        (BackupType.FULL, "FUL", False, True),
        (BackupType.DIFFERENTIAL, "DIF", True, True),
        (BackupType.INCREMENTAL, "INC", True, True),
        (BackupType.SNAPSHOT, "SNA", False, False),
        (BackupType.EMERGENCY, "EME", False, False),
    ],
)
def test_each_type_says_what_it_needs(kind: BackupType, prefix: str, needs: bool, carries: bool) -> None:
    assert (kind.prefix, kind.needs_base, kind.can_be_base) == (prefix, needs, carries)
    local = MOMENT.astimezone(timezone(timedelta(hours=-7)))
    assert re.fullmatch(rf"{prefix}_20260102_030405_[0-9a-f]{{4}}", new_backup_id(kind, local))


def test_results_and_expiries_survive_their_json() -> None:
    link = Link(backup_id="FUL_20260101_000000_0001", manifest_sha256="a" * 64)
    result = Verification(
        plan="trading", backup_id=link.backup_id, manifest_sha256=link.manifest_sha256, verified_at=MOMENT, deep=True,
        status="corrupted", rows=3, expectations=0, seconds=0.5, findings=("ledger/orders#0: 1 rows are missing",),
    )  # fmt: skip
    expiry = Expiry(plan="trading", expired_at=MOMENT, removed=(link,), reasons={link.backup_id: "old"}, head=None)
    assert Verification.model_validate_json(result.model_dump_json()) == result
    assert Expiry.model_validate_json(expiry.model_dump_json()) == expiry
