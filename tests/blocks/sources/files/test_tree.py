"""Climbing folders by descriptors: wherever it was before, a ladder stands where it is asked to."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.sources.files.cover import Coverage, Rules
from blocks.sources.files.tree import FolderHandles, Walk, shown

FOLDERS = [b"", b"a", b"a/b", b"a/b/c", b"a/d", b"e", b"/".join([b"x"] * 70), b"/".join([b"x"] * 80)]
MISSING = [b"m", b"a/m", b"a/b/m/n", b"a/file", b"a/file/n", b"link", b"link/b", b"a/b/c/m", b"/".join([b"x"] * 81)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    for path in FOLDERS:
        (folder / os.fsdecode(path)).mkdir(parents=True, exist_ok=True)
    (folder / "a" / "file").write_text("x")
    os.symlink("a", folder / "link")
    return folder


@pytest.fixture
def _others_are_closed() -> None:
    """What other tests left open is closed before it is counted."""
    gc.collect()


@pytest.mark.usefixtures("_others_are_closed")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FOLDERS + MISSING), max_size=20))
def test_a_ladder_stands_where_it_is_asked_to_after_any_walk_and_any_failure(root: Path, asked: list[bytes]) -> None:
    held = len(os.listdir("/proc/self/fd"))
    fd = os.open(root, os.O_RDONLY)
    try:
        with FolderHandles(fd) as handles:
            for path in asked:
                if path in MISSING:
                    with pytest.raises((FileNotFoundError, NotADirectoryError)):
                        handles.folder(path)
                else:
                    there = os.fstat(handles.folder(path))
                    assert there.st_ino == os.lstat(os.fsencode(root) + b"/" + path).st_ino
            assert len(os.listdir("/proc/self/fd")) <= held + 66
    finally:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == held


def test_a_listing_is_sorted_by_the_bytes_of_whole_paths(root: Path) -> None:
    (root / "a-b").write_text("sorts between a and a/b")
    fd = os.open(root, os.O_RDONLY)
    try:
        paths = Walk(fd, Coverage(Rules(exclude=("x",)), one_file_system=True)).listing().paths
    finally:
        os.close(fd)
    assert paths == [b"", b"a", b"a-b", b"a/b", b"a/b/c", b"a/d", b"a/file", b"e", b"link"]


def test_paths_are_shown_so_that_nothing_hides_in_a_message() -> None:
    assert shown("grün/x y".encode()) == "grün/x y"
    assert shown(b"a\nb") == "a\\nb"
    assert shown(b"\xffx") == "\\xffx"
    assert shown(b"") == "the tree's root"
