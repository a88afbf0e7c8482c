"""Needs in one file system are added up; what is refused is named with place, need and free bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.host.room import TEMPORARY, Need, check_room


def test_what_goes_to_one_disk_is_added_up(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    much = shutil.disk_usage(tmp_path).free * 2 // 3
    check_room(Need(one, much))
    check_room(Need(other, much, called="the folder for temporary data", hint=TEMPORARY))
    with pytest.raises(RestoreRefused, match=f"{other}, has [0-9,]+ bytes free.*{2 * much:,}") as caught:
        check_room(Need(one, much), Need(other, much, called="the folder for temporary data", hint=TEMPORARY))
    assert "TMPDIR" in caught.value.hint


def test_where_nothing_is_written_no_room_is_needed(tmp_path: Path) -> None:
    check_room(Need(Path("/proc"), 0), Need(tmp_path / "missing", 1 << 60))
