"""What recovery costs, as measured: tables of restores and of times of backups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from blocks.records import BackupMetadata, BackupStatus, BackupType, Link
from blocks.verification import Verification
from flows.reading.recovery import recovery

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def backup(name: str, hours_ago: float, *bases: str) -> BackupMetadata:
    kind = next(kind for kind in BackupType if kind.prefix == name[:3].upper())
    return BackupMetadata.model_construct(
        backup_id=name,
        backup_type=kind,
        timestamp=NOW - timedelta(hours=hours_ago),
        size_bytes=1000,
        chain=tuple(Link.model_construct(backup_id=base) for base in bases),
    )


def restored(name: str, hours_ago: float, seconds: float | None, rows: int = 7) -> Verification:
    return Verification(
        plan="p", backup_id=name, manifest_sha256="", verified_at=NOW - timedelta(hours=hours_ago), deep=True,
        status=BackupStatus.VERIFIED, rows=rows, expectations=0, seconds=1.0, restore_seconds=seconds,
    )  # fmt: skip


def test_restores_and_distances_are_counted() -> None:
    backups = [
        backup("ful1", 10),
        backup("inc2", 6),
        backup("eme3", 5),
        backup("inc4", 5, "ful1", "inc2"),
        backup("inc5", 2),
    ]
    told = [
        restored("ful1", 9, 30.0),
        restored("gone", 3, 10.0),
        restored("inc4", 1, 20.0, 8),
        restored("ful1", 0, None),
    ]
    found = recovery(backups, told, {"inc5": BackupStatus.CORRUPTED}, NOW)
    assert found.model_dump() == {
        "rto": {
            "restores": 3, "median_seconds": 20.0, "worst_seconds": 30.0, "last_seconds": 20.0, "last_rows": 8,
            "last_size_bytes": 3000,
        },
        "rpo": {"backups": 2, "median_seconds": 2.5 * 3600, "worst_seconds": 4 * 3600, "age_seconds": 5 * 3600},
    }  # fmt: skip
    assert found.sentences() == [
        "3 scratch restores: 20.0 s in the middle, 30.0 s at worst; the last one 20.0 s for 8 rows, 2.9 KiB",
        "between backups: 2.5 hours in the middle, 4 hours at worst",
        "newest good state: 5 hours old",
    ]


def test_the_newest_thirty_count() -> None:
    backups = [backup(f"inc{n}", 100 - n) for n in range(60)]
    told = [restored("inc1", 100 - n, 999.0 if n < 30 else 1.0) for n in range(60)]
    found = recovery(backups, told, {}, NOW)
    assert found.rto is not None
    assert (found.rto.restores, found.rto.worst_seconds, found.rpo.backups) == (30, 1.0, 30)


@pytest.mark.parametrize("backups", [[], [backup("ful1", 1)]])
def test_nothing_was_measured_yet(backups: list[BackupMetadata]) -> None:
    found = recovery(backups, [], {}, NOW)
    assert (found.rto, found.rpo.median_seconds) == (None, None)
    assert len(found.sentences()) == len(backups)


def test_the_size_of_a_restore_whose_base_is_gone_is_not_known() -> None:
    found = recovery([backup("inc4", 5, "ful1")], [restored("inc4", 1, 20.0)], {}, NOW)
    assert found.rto is not None
    assert found.rto.last_size_bytes is None


@pytest.mark.parametrize(("ahead", "age_hours"), [(0.2, 0.0), (24, 5.0)])
def test_a_backup_that_is_dated_ahead_does_not_make_the_newest_state_young(ahead: float, age_hours: float) -> None:
    found = recovery([backup("ful1", 5), backup("ful2", -ahead)], [], {}, NOW)
    assert found.rpo.age_seconds == age_hours * 3600
    assert recovery([backup("ful2", -24)], [], {}, NOW).rpo.age_seconds is None
