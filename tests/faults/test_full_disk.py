"""A repository on a disk without a byte left can be freed by retention, and what was done is on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIZE = "600k"


def on_a_small_disk(folder: Path, scenario: str) -> Any:
    """Run a scenario with a small disk of its own; in a namespace of mounts, so that it is gone with the process."""
    (folder / "repository").mkdir(parents=True)
    own = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    script = 'mount -t tmpfs -o size=$1 tmpfs "$2/repository" && exec "$3" -m tests.faults.full_disk "$2" "$4"'
    command = ["unshare", *own, "sh", "-c", script, "sh", SIZE, str(folder), sys.executable, scenario]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_retention_frees_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    said = on_a_small_disk(tmp_path, "at_once")
    assert said["removed"] == said["made"][:3]
    assert said["left"] == said["made"][3:]
    assert said["findings"] == [], "every removal is on record"


def test_retention_works_right_after_a_backup_found_no_room(tmp_path: Path) -> None:
    said = on_a_small_disk(tmp_path, "after_a_backup_that_failed")
    assert said["failed"] == "RepositoryFull"
    assert said["left"] == said["made"][3:]
    assert said["findings"] == []


def test_where_nothing_is_old_enough_nothing_goes_and_no_error_is_raised(tmp_path: Path) -> None:
    said = on_a_small_disk(tmp_path, "nothing_to_remove")
    assert said["removed"] == []
    assert len(said["left"]) == 4


def test_a_retention_killed_anywhere_on_a_full_disk_never_looks_like_a_theft(tmp_path: Path) -> None:
    said = on_a_small_disk(tmp_path, "killed_anywhere")
    assert (said["kills"] > 10, said["died"]) == (True, 0)
    assert said["findings"] in ([], ["lacks SHA256SUMS"])


@pytest.mark.parametrize("scenario", ["verified", "verified_read_only"])
def test_a_verification_that_cannot_be_written_tells_its_result(tmp_path: Path, scenario: str) -> None:
    said = on_a_small_disk(tmp_path, scenario)
    assert said["status"] == "verified"
    assert any("could not be recorded" in warning for warning in said["warnings"])
