"""A repository on a disk without a byte left can be freed by retention, and what was done is on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class SmallDisks:
    """Runs scenarios, each with a small disk of its own, in one namespace of mounts, that goes with its process."""

    def __init__(self) -> None:
        own = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
        self._process = subprocess.Popen(
            ["unshare", *own, sys.executable, "-m", "tests.faults.full_disk"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, scenario: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"folder": str(folder), "scenario": scenario}), file=self._process.stdin, flush=True)
        said = json.loads(self._process.stdout.readline())
        assert "error" not in said, said["error"]
        return said

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def disks() -> Iterator[SmallDisks]:
    made = SmallDisks()
    yield made
    made.close()


def test_retention_frees_a_disk_without_a_byte_left(disks: SmallDisks, tmp_path: Path) -> None:
    said = disks.run(tmp_path, "at_once")
    assert said["removed"] == said["made"][:3]
    assert said["left"] == said["made"][3:]
    assert said["findings"] == [], "every removal is on record"


def test_retention_works_right_after_a_backup_found_no_room(disks: SmallDisks, tmp_path: Path) -> None:
    said = disks.run(tmp_path, "after_a_backup_that_failed")
    assert said["failed"] == "RepositoryFull"
    assert said["left"] == said["made"][3:]
    assert said["findings"] == []


def test_where_nothing_is_old_enough_nothing_goes_and_no_error_is_raised(disks: SmallDisks, tmp_path: Path) -> None:
    said = disks.run(tmp_path, "nothing_to_remove")
    assert said["removed"] == []
    assert len(said["left"]) == 4


def test_a_retention_killed_anywhere_on_a_full_disk_never_looks_like_a_theft(disks: SmallDisks, tmp_path: Path) -> None:
    said = disks.run(tmp_path, "killed_anywhere")
    assert (said["kills"] > 10, said["died"]) == (True, 0)
    assert said["findings"] in ([], ["lacks SHA256SUMS"])


@pytest.mark.parametrize("scenario", ["verified", "verified_read_only"])
def test_a_verification_that_cannot_be_written_tells_its_result(
    disks: SmallDisks, tmp_path: Path, scenario: str
) -> None:
    said = disks.run(tmp_path, scenario)
    assert said["status"] == "verified"
    assert any("could not be recorded" in warning for warning in said["warnings"])
