"""Where local places really are: through mounts of whatever name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from blocks.host.leftovers import aside_path
from blocks.host.places import mounts, resolved
from blocks.sources.files.tree import _OF_OTHERS, mounts_beneath

NAMES = ["plain", "a b", "a\nb", "a\\040b", "a\rb", "a\x1cb", "a\x85b", "a\u2028b", os.fsdecode(b"a\xff\x0bb")]


@pytest.fixture(params=NAMES)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own at a place of a given name."""
    folder = tmp_path / request.param
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_mount_is_found_by_its_name_whatever_that_is(mounted: Path) -> None:
    assert [point for point, _, _ in mounts()].count(str(mounted)) == 1
    there = os.stat(mounted).st_dev
    found = resolved(mounted / "below")
    assert (found.device, found.path) == (f"{os.major(there)}:{os.minor(there)}", PurePosixPath("/below"))
    assert mounts_beneath(os.fsencode(mounted.parent)) == {os.fsencode(mounted.name)}


@pytest.mark.parametrize("name", ["ledger.db", "dump.rdb", "a b", "x.lastgood-aside-1"])
def test_what_any_source_moves_aside_is_known_to_a_backup_of_the_folder(name: str) -> None:
    aside = aside_path(Path("/data") / name)
    assert aside.parent == Path("/data")
    assert _OF_OTHERS.fullmatch(os.fsencode(aside.name))
