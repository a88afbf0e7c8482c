"""What this machine remembers of restores, also where the file of it was cut off or damaged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.repository.restore_memory import RestoreMemory


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = tmp_path / "lastgood" / "id" / "shop.unchanged"
    file.parent.mkdir(parents=True)
    return file


@pytest.mark.parametrize("left", [b"without:", b"without:2026-", b"\xff", b"without:2026-01-01T00:00:00", b"\0" * 9])
def test_a_line_that_was_cut_off_hides_none_of_the_others(file: Path, left: bytes) -> None:
    memory = RestoreMemory("id", "shop")
    file.write_bytes(b"EME_1\n" + left)
    assert memory.without_backup() is None
    before = datetime.now(UTC)
    memory.remember_without_backup()
    memory.remember("EME_2")
    assert {"EME_1", "EME_2"} <= memory.changed_nothing()
    moment = memory.without_backup()
    assert moment is not None
    assert before <= moment <= datetime.now(UTC)
