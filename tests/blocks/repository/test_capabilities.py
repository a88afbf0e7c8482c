"""What a storage can do is proved before a repository begins there, and said by a check ever after."""

from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import AlreadyExists, ConfigurationError
from blocks.plan.plan import parse_plan
from blocks.repository.block import BackupRepository
from blocks.repository.capabilities import WRITERS, Capabilities, prove
from blocks.storage import kinds
from blocks.storage.base import StorageTier
from blocks.storage.kinds import open_tier
from blocks.storage.local import LocalTier
from flows.check import CheckResult, check_repository
from flows.cli.commands.check import _show_check
from tests.object_servers import KEY_ID_ENV, READER_ID, READER_SECRET, SECRET_ENV, Rclone, Seaweed

OPEN = NoEncryption(type="none")
ALL = Capabilities(exclusive_creation=True, ranges=True, list_after_write=True)
CREATED_TWICE = "lets an existing object be created again"


@pytest.fixture(autouse=True)
def _no_opened_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_opened", {})


def repository(server: Rclone | Seaweed, bucket: str, **more: Any) -> BackupRepository:
    return BackupRepository(url=f"s3://{bucket}/x", storage=server.settings, **more)


def checked(repository: BackupRepository) -> CheckResult:
    raw = {"name": "p", "sources": {"a": {"type": "sqlite", "path": "/none"}}, "repository": {"url": "/none"}}
    plan = parse_plan(raw | {"encryption": "none"}, "p")
    return check_repository(plan.model_copy(update={"repository": repository}))


def test_a_storage_that_ignores_preconditions_is_refused(careless_s3: Rclone) -> None:
    made = repository(careless_s3, careless_s3.bucket())
    for _ in range(3):
        with pytest.raises(ConfigurationError, match=CREATED_TWICE) as caught:
            made.initialize(OPEN)
        assert "single_writer: true" in caught.value.hint
    assert made.tier.list() == []


def test_it_is_taken_for_a_single_writer_and_then_opened_by_no_other(careless_s3: Rclone) -> None:
    bucket = careless_s3.bucket()
    alone = repository(careless_s3, bucket, single_writer=True)
    alone.initialize(OPEN)
    config = json.loads(alone.tier.get("lastgood.json"))
    # a tier for a single writer looks first, which is no proof of what the storage does
    assert config["capabilities"] == {"exclusive_creation": False, "ranges": True, "list_after_write": True}
    alone.unlock(OPEN)
    with pytest.raises(ConfigurationError, match=CREATED_TWICE):
        repository(careless_s3, bucket).unlock(OPEN)
    with pytest.raises(ConfigurationError, match="already"):
        alone.initialize(OPEN)


def test_a_single_writer_looks_before_it_creates(careless_s3: Rclone) -> None:
    tier = open_tier(f"s3://{careless_s3.bucket()}/x", careless_s3.settings, single_writer=True)
    tier.put("object", b"first", exclusive=True)
    tier.put("object", b"first", exclusive=True)
    with pytest.raises(AlreadyExists):
        tier.put("object", b"second", exclusive=True)
    assert tier.get("object") == b"first"


def test_ranges_are_right_where_a_server_answers_them_wrongly(careless_s3: Rclone) -> None:
    tier = open_tier(f"s3://{careless_s3.bucket()}/x", careless_s3.settings)
    tier.put("object", b"0123456789")
    found = [tier.get("object", *where) for where in ((0, 4), (3, 4), (8, 9), (10, 1), (20, 5), (4, None), (11, None))]
    assert found == [b"0123", b"3456", b"89", b"", b"", b"456789", b""]


def test_a_race_that_one_writer_won_by_luck_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = LocalTier(str(tmp_path / "r"))
    tier.prepare()
    came, put = itertools.count(), LocalTier.put

    def careless(self: LocalTier, name: str, data: bytes, exclusive: bool = False) -> None:
        if 0 < next(came) < WRITERS:
            raise AlreadyExists(name)
        put(self, name, data)

    monkeypatch.setattr(LocalTier, "put", careless)
    assert prove(tier) == ALL.model_copy(update={"exclusive_creation": False})
    assert tier.list() == []


def test_a_check_proves_it_again_and_says_it(s3: Seaweed, capsys: pytest.CaptureFixture[str]) -> None:
    made = repository(s3, s3.bucket())
    made.initialize(OPEN)
    result = checked(made)
    assert (result.capabilities, result.findings, result.notes) == (ALL, [], [])
    assert [stored.name for stored in made.tier.list()] == ["lastgood.json"]
    _show_check(result)
    said = "storage     creates an object once, reads parts of objects, lists what was just written"
    assert " ".join(said.split()) in " ".join(capsys.readouterr().out.split())


def test_a_check_finds_that_objects_can_be_created_twice_by_now(careless_s3: Rclone, tmp_path: Path) -> None:
    bucket = careless_s3.bucket()
    folder = careless_s3.folder / "data" / bucket / "x"
    BackupRepository(url=str(folder)).initialize(OPEN)
    now = repository(careless_s3, bucket)
    result = checked(now)
    assert result.capabilities is not None
    assert not result.capabilities.exclusive_creation
    assert [CREATED_TWICE in finding for finding in result.findings] == [True]
    assert checked(now.model_copy(update={"single_writer": True})).findings == []


def test_credentials_that_only_read_are_a_note_and_no_finding(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = repository(s3, s3.bucket())
    made.initialize(OPEN)
    kinds._opened.clear()
    monkeypatch.setenv(KEY_ID_ENV, READER_ID)
    monkeypatch.setenv(SECRET_ENV, READER_SECRET)
    result = checked(made)
    assert (result.capabilities, result.findings) == (None, [])
    assert [note.startswith("what the storage can do was not proved again: ") for note in result.notes] == [True]
    assert "AccessDenied" in result.notes[0]
    _show_check(result)
    assert "not tried" in capsys.readouterr().out


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_cannot_be_written_is_a_note_and_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    made = BackupRepository(url=str(tmp_path / "r"))
    made.initialize(OPEN)

    def refuse(*_: str) -> None:
        raise OSError(reason, "no")

    monkeypatch.setattr(StorageTier, "durable", staticmethod(refuse))
    result = checked(made)
    assert (result.capabilities, result.findings, len(result.notes)) == (None, [], 1)
