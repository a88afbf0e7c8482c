"""A restore in place takes nothing away that the backup made before it does not hold."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.files.rows import TREE
from blocks.sources.target import RestoreMode
from blocks.sources.view import Unread
from tests.blocks.sources.files.kit import InPlace, back_up, look, restore, rewrite, source_of
from tests.forked import as_nobody

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE


def spoil(tree: Path) -> None:
    """Change, add, delete, and turn kinds around."""
    (tree / "a").write_text("newer")
    (tree / "d" / "b").unlink()
    (tree / "d" / "new").write_text("new")
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "new" / "deep" / "file").write_bytes(b"x" * 2_000_000)
    (tree / "l").unlink()
    (tree / "l").mkdir()
    (tree / "l" / "inside").write_text("x")


@pytest.mark.parametrize("keys", [(), ("d/*",), ("a",), ("new*",)])
def test_what_a_restore_replaced_comes_back_from_the_backup_that_was_made_before_it(
    tree: Path, keys: tuple[str, ...]
) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    spoil(tree)
    before = look(tree)
    first = InPlace(source, backup, EXACT, keys)
    assert first.run() == ()
    assert look(tree) != before
    undo = InPlace(source, first.emergency, EXACT, keys, first.definition)
    assert undo.run() == ()
    contents = {path: (seen[0], *seen[2:]) for path, seen in look(tree).items()}
    assert contents == {path: (seen[0], *seen[2:]) for path, seen in before.items()}
    if not keys:
        assert look(tree) == before
    assert [name for name in os.listdir(tree.parent) if "lastgood" in name] == []


def test_a_merge_is_taken_back_by_removing_what_it_made_and_putting_what_was_there(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "a").write_text("newer")
    (tree / "d" / "b").unlink()
    (tree / "d").rmdir()
    (tree / "own").write_text("own")
    before = look(tree)
    first = InPlace(source, backup, MERGE)
    first.run()
    assert (tree / "d" / "b").read_text() == "b"
    undo = InPlace(source, first.emergency, MERGE)
    undo.make_ready()
    made = (
        backup[0].filter([path in (b"d", b"d/b") for path in backup[0]["path"].to_pylist()]).select(["path", "offset"])
    )
    assert undo.target.remove(TREE, made) == made.num_rows
    undo.target.check_unwritten()
    undo.target.commit()
    assert look(tree) == before


def test_a_folder_that_got_something_else_stays_when_a_merge_is_taken_back(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "d" / "mine").write_text("mine")
    undo = InPlace(source, [backup[0].slice(0, 0)], MERGE)
    undo.make_ready()
    assert undo.target.remove(TREE, backup[0].filter([p == b"gone" for p in backup[0]["path"].to_pylist()])) == 0
    undo.target.remove(TREE, backup[0].filter([p.startswith(b"d") for p in backup[0]["path"].to_pylist()]))
    undo.target.commit()
    assert os.listdir(tree / "d") == ["mine"]


def _new(tree: Path) -> None:
    (tree / "d" / "unseen").write_text("unseen")


CHANGES: dict[str, Callable[[Path], None]] = {
    "a was written to": lambda tree: rewrite(tree / "a", b"w"),
    "d/unseen is new": _new,
    "unseen is new": lambda tree: (tree / "unseen").mkdir(),
    "d/b was deleted": lambda tree: (tree / "d" / "b").unlink(),
    "d got another mode or owner": lambda tree: (tree / "d").chmod(0o711),
    "a was written to (mode)": lambda tree: (tree / "a").chmod(0o600),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_written_since_stops_a_restore_before_anything_is_changed(tree: Path, what: str) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "a").write_text("newer")
    restoring = InPlace(source, backup)
    restoring.make_ready()
    CHANGES[what](tree)
    before = look(tree)
    with pytest.raises(RestoreRefused, match=what.removesuffix(" (mode)")):
        restoring.target.check_unwritten()
    assert not restoring.target.changed
    restoring.target.abort()
    assert look(tree) == before


def test_who_has_a_file_open_for_writing_is_named(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    restoring = InPlace(source, backup)
    restoring.make_ready()
    rewrite(tree / "a", b"w")
    with (tree / "a").open("a"), pytest.raises(RestoreRefused, match=rf"open for writing in .*process {os.getpid()}\)"):
        restoring.target.check_unwritten()
    restoring.target.abort()


def test_what_lies_beside_the_selection_may_be_written_to(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    restoring = InPlace(source, backup, EXACT, ("d/*",))
    restoring.make_ready()
    rewrite(tree / "a", b"acknowledged")
    restoring.target.check_unwritten()
    restoring.target.commit()
    assert (tree / "a").read_bytes() == b"acknowledged"


def test_what_is_written_at_the_last_moment_is_kept_aside_and_named(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "surplus").write_text("surplus")
    restoring = InPlace(source, backup)
    restoring.make_ready()
    restoring.target.check_unwritten()
    rewrite(tree / "a", b"last")
    rewrite(tree / "surplus", b"moment")
    os.replace(tree.parent / "tree" / "surplus", tree / "surplus")
    restoring.target.commit()
    (kept,) = tree.parent.glob("lastgood-kept-aside-trading-*")
    assert (kept / "tree" / "a").read_bytes() == b"last"
    assert (kept / "tree" / "surplus").read_bytes() == b"moment"
    notes = " ".join(restoring.target.notes)
    assert f"a was written to while the restore was at work; it is kept as {kept}/tree/a." in notes
    assert (tree / "a").read_text() == "a"


def test_what_lies_aside_in_a_tree_is_neither_backed_up_nor_deleted(tree: Path) -> None:
    (tree / "lastgood-kept-aside-trading-20260101T000000").mkdir()
    (tree / "lastgood-kept-aside-trading-20260101T000000" / "file").write_text("kept")
    source = source_of(tree)
    with source.view() as view:
        assert any("moved aside" in sentence for sentence in view.warnings)
    _, backup = back_up(source)
    restore(source, backup)
    assert (tree / "lastgood-kept-aside-trading-20260101T000000" / "file").read_text() == "kept"


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Path]:
    """A file system on a disk that fails where the file `late` lies."""
    image, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-O", "^has_journal", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    (place / "tree").mkdir()
    (place / "tree" / "early").write_bytes(b"e" * 1000)
    (place / "tree" / "late").write_bytes(b"l" * (9 << 20))
    subprocess.run(["umount", str(place)], check=True)
    told = subprocess.run(
        ["debugfs", "-R", "blocks tree/late", str(image)], check=True, capture_output=True, text=True
    ).stdout.split()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    list((place / "tree").iterdir())
    (place / "tree" / "early").read_bytes()
    os.truncate(image, max(map(int, told)) * 1024)
    yield place / "tree"
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_that_fails_to_be_read_is_moved_aside_and_the_rest_is_backed_up(damaged: Path) -> None:
    source = source_of(damaged)
    backup = [back_up(source_of(damaged, exclude=["late"]))[1][0]]
    restoring = InPlace(source, backup)
    notes = " ".join(restoring.run())
    assert [(one.reason, one.collection, one.key) for one in restoring.unread] == [
        ("Input/output error", "tree", "late")
    ]
    assert "late could not be read (Input/output error)" in notes
    assert os.listdir(damaged) == ["early"]
    (kept,) = damaged.parent.glob("lastgood-kept-aside-*")
    assert (kept / "tree" / "late").stat().st_size == 9 << 20


def test_a_file_that_changes_each_time_is_moved_aside(tree: Path) -> None:
    def change(path: bytes) -> None:
        if path == b"a":
            rewrite(tree / "a", os.urandom(10))

    _, backup = back_up(source_of(tree))
    restoring = InPlace(source_of(tree, change), backup)
    notes = restoring.run()
    assert [one.key for one in restoring.unread] == ["a"]
    assert "a could not be read (it changed each of the 3 times it was read)" in notes[0]
    assert (tree / "a").read_text() == "a"
    assert restoring.emergency[0]["path"].to_pylist().count(b"a") == 0


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_what_a_user_may_not_read_is_moved_aside_and_the_rest_is_backed_up(anybodys: Path, mode: RestoreMode) -> None:
    root = anybodys / "tree"
    for folder in ("folder", "half"):
        (root / folder).mkdir(parents=True)
        (root / folder / "inside").write_text(folder)
    (root / "file").write_text("file")
    (root / "other").write_text("other")
    for path in (anybodys, root, *root.rglob("*")):
        os.chown(path, 65534, 65534)

    def restored() -> None:
        _, backup = back_up(source_of(root))
        (root / "file").chmod(0)
        (root / "folder").chmod(0)
        (root / "half").chmod(0o400)
        (root / "other").write_text("newer")
        restoring = InPlace(source_of(root), backup, mode)
        restoring.run()
        print(sorted((one.key, one.reason) for one in restoring.unread))

    assert as_nobody(restored) == (
        "[('file', 'Permission denied'), ('folder', 'Permission denied'), ('half/inside', 'Permission denied')]\n"
    )
    (kept,) = anybodys.glob("lastgood-kept-aside-*")
    assert (kept / "tree" / "file").stat().st_mode & 0o777 == 0
    assert (kept / "tree" / "folder" / "inside").read_text() == "folder"
    assert (kept / "tree" / "half" / "inside").read_text() == "half"
    assert {path.name: path.read_text() for path in root.rglob("*") if path.is_file()} == {
        "file": "file",
        "inside": "half",
        "other": "other",
    }


def test_a_root_that_cannot_be_listed_is_moved_aside_as_a_whole_or_refused(tree: Path) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    target = source.target(InPlace(source, backup).scope)
    (sentence,) = target.keep_aside([Unread("Permission denied")])
    assert "the tree's root cannot be read (Permission denied)" in sentence
    before = look(tree)
    target.apply(TREE, backup[0])
    target.check_unwritten()
    target.commit()
    (kept,) = tree.parent.glob("lastgood-kept-aside-*")
    assert look(kept / "tree") == before == look(tree)
    guarded = source.around([tree / "d" / "repository"], []).target(InPlace(source, backup).scope)
    with pytest.raises(RestoreRefused, match="d/repository in it belongs to others"):
        guarded.keep_aside([Unread("Permission denied")])
    assert target.keep_aside([Unread("x", "tree", "nothing/there")]) == ()


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_fifo_in_the_place_of_a_file_is_named_for_what_it_is_and_stays(tree: Path, mode: RestoreMode) -> None:
    source = source_of(tree)
    _, backup = back_up(source)
    (tree / "a").unlink()
    os.mkfifo(tree / "a")
    with pytest.raises(RestoreRefused, match=r"a in .* is a FIFO now, which no backup holds") as refused:
        InPlace(source, backup, mode).run()
    assert refused.value.hint.startswith("Move it away")
    assert (tree / "a").is_fifo()
