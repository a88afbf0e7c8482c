"""A name of a file that a place refuses takes no other name of the file along."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.files.staging import Staging
from tests.blocks.sources.files.kit import back_up, look, source_of
from tests.blocks.sources.files.test_keep_going import MERGE, Going, files_of_at_most, going_on


@pytest.fixture
def linked(tree: Path) -> Path:
    """A tree with a file of three names, the first of which is in a folder."""
    (tree / "m").write_text("content")
    os.setxattr(tree / "m", "user.note", b"of all names")
    for name in ("d/n", "z"):
        os.link(tree / "m", tree / name)
    return tree


def test_names_of_a_file_whose_first_one_is_in_a_place_that_is_refused_stay_one_file(linked: Path) -> None:
    source = source_of(linked)
    _, backup = back_up(source)
    for name in ("m", "z", "d/n"):
        (linked / name).unlink()
    shutil.rmtree(linked / "d")
    (linked / "d").write_text("in the way")
    going = Going(source, backup, MERGE)
    notes = going.run()
    assert going.left_out == ["entry d"]
    assert (linked / "d").read_text() == "in the way"
    assert (linked / "z").read_text() == "content"
    assert (linked / "m").stat().st_ino == (linked / "z").stat().st_ino
    assert os.getxattr(linked / "z", "user.note") == b"of all names"
    assert not any("by one name only" in note for note in notes)


def test_the_next_name_takes_the_content_of_a_first_one_that_cannot_be_finished(
    linked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(linked)
    _, backup = back_up(source)
    whole, failed = Staging.settle, []

    def settle(staging: Staging, number: int, size: int) -> None:
        if number == staging.number(b"d/n"):
            failed.append(number)
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        whole(staging, number, size)

    monkeypatch.setattr(Staging, "settle", settle)
    with pytest.raises(RestoreRefused, match=r"^d/n cannot be restored to .*: Operation not permitted"):
        going_on(source, backup, tmp_path / "copy", keep_going=False)
    assert not (tmp_path / "copy").exists()
    target = going_on(source, backup, tmp_path / "copy")
    assert len(failed) == 2
    assert [left.name for left in target.not_rebuilt] == ["entry d/n"]
    assert target.rows_left_out == {"tree": 2}
    assert not (tmp_path / "copy" / "d" / "n").exists()
    assert (tmp_path / "copy" / "z").read_text() == "content"
    assert (tmp_path / "copy" / "m").stat().st_ino == (tmp_path / "copy" / "z").stat().st_ino
    assert os.getxattr(tmp_path / "copy" / "z", "user.note") == b"of all names"


def test_a_first_name_that_is_lost_at_the_last_moment_takes_no_other_one_along(linked: Path) -> None:
    source = source_of(linked)
    _, backup = back_up(source)
    for name in ("m", "z", "d/n"):
        (linked / name).unlink()
    going = Going(source, backup)
    going.make_ready()
    going.target.check_unwritten()
    (linked / "d").rename(linked / "e")
    (linked / "d").write_text("somebody's")
    try:
        going.target.commit()
    finally:
        going.target.abort()
    assert "entry d/n" in going.left_out
    assert (linked / "d").read_text() == "somebody's"
    assert (linked / "m").read_text() == "content"
    assert (linked / "m").stat().st_ino == (linked / "z").stat().st_ino
    assert [name for name in os.listdir(linked.parent) if name.startswith(".lastgood")] == []


def test_all_names_of_a_file_that_is_too_large_are_left_out(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_bytes(b"x" * (3 << 20))
    os.link(tree / "large", tree / "again")
    _, backup = back_up(source_of(tree))
    with files_of_at_most(2 << 20):
        target = going_on(source_of(tree), backup, tmp_path / "copy")
    assert [left.name for left in target.not_rebuilt] == ["entry again", "entry large"]
    wanted = {path: seen for path, seen in look(tree).items() if path not in (b"large", b"again")}
    assert look(tmp_path / "copy") == wanted
