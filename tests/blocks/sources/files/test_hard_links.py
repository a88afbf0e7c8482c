"""Further names of a file come back as names of one file, whatever comes and goes between backups."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import RestoreRefused
from blocks.sources.files.rows import TREE
from blocks.sources.target import RestoreMode
from tests.blocks.sources.files.kit import MIB, InPlace, back_up, follow_up, look, restore, rewrite, source_of


@pytest.fixture(params=[None, "/dev/shm"], ids=["disk", "memory"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=request.param))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def linked(place: Path) -> Path:
    tree = place / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "m").write_text("content")
    (tree / "alone").write_text("alone")
    (tree / "empty").write_text("")
    (tree / "big").write_bytes(random.Random(1).randbytes(3 * MIB + 5))
    os.setxattr(tree / "m", "user.note", b"of all names")
    for name, other in (("m", "d/n"), ("m", "z"), ("empty", "d/empty"), ("big", "d/big"), ("big", "zbig")):
        os.link(tree / name, tree / other)
    os.link(tree / "alone", place / "outside")
    return tree


def same(tree: Path, *names: str) -> bool:
    return len({(tree / name).stat().st_ino for name in names}) == 1


@pytest.mark.parametrize("part", [MIB, 64 * MIB])
def test_names_of_one_file_come_back_as_such_elsewhere_and_in_place(linked: Path, place: Path, part: int) -> None:
    source = source_of(linked, part_size_bytes=part)
    before, (bounds, backup) = look(linked), back_up(source)
    assert (len(bounds) > 3) == (part == MIB)
    restore(source, backup, place / "copy")
    assert look(place / "copy") == before
    assert same(place / "copy", "m", "d/n", "z")
    assert (place / "copy" / "alone").stat().st_nlink == 1
    (linked / "z").unlink()
    (linked / "z").write_text("another")
    (linked / "d" / "big").unlink()
    os.link(linked / "alone", linked / "d" / "alone")
    changed = look(linked)
    restoring = InPlace(source, backup)
    assert restoring.run() == ()
    assert look(linked) == before
    InPlace(source, restoring.emergency).run()
    assert look(linked) == changed


def test_a_merge_brings_names_back_and_leaves_others(linked: Path) -> None:
    source = source_of(linked)
    before, (_, backup) = look(linked), back_up(source)
    (linked / "d" / "n").unlink()
    rewrite(linked / "m", b"newer")
    (linked / "new").write_text("new")
    InPlace(source, backup, RestoreMode.MERGE).run()
    (linked / "new").unlink()
    os.utime(linked, ns=(1, before[b"."][1]))
    assert look(linked) == before


@pytest.mark.parametrize("part", [MIB, 64 * MIB])
def test_one_name_alone_comes_back_with_its_content_as_a_file_of_its_own(linked: Path, place: Path, part: int) -> None:
    source = source_of(linked, part_size_bytes=part)
    before, (_, backup) = look(linked), back_up(source)
    for number, (key, path) in enumerate({"z": b"z", "d/n": b"d/n", "zbig": b"zbig", "m": b"m"}.items()):
        target = restore(source, backup, place / f"copy{number}", RestoreMode.MERGE, (key,))
        assert look(place / f"copy{number}")[path][:6] == before[path][:6]
        assert (place / f"copy{number}" / key).stat().st_nlink == 1
        assert [note for note in target.notes if "by one name only" in note]
    (linked / "z").unlink()
    InPlace(source, backup, RestoreMode.EXACT, ("z",)).run()
    assert same(linked, "m", "d/n")
    assert not same(linked, "m", "z")
    # the names that are chosen together stay together
    (linked / "z").unlink()
    InPlace(source, backup, RestoreMode.EXACT, ("z", "m")).run()
    assert same(linked, "m", "z")
    assert not same(linked, "m", "d/n")


def test_what_the_plan_leaves_out_now_keeps_no_other_name_from_coming_back(linked: Path) -> None:
    _, backup = back_up(source_of(linked))
    for name in ("m", "d/n", "z"):
        (linked / name).unlink()
    (linked / "m").write_text("left out now")
    InPlace(source_of(linked, exclude=["/m"]), backup).run()
    assert (linked / "m").read_text() == "left out now"
    assert (linked / "z").read_text() == "content"
    assert same(linked, "d/n", "z")


NAMES = ("a", "d/a", "m", "d/m", "z")
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("link"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from([0, 3, MIB, 2 * MIB + 1])),
        st.tuples(st.just("new"), st.sampled_from(NAMES), st.sampled_from([0, 3, 2 * MIB + 1])),
        st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just("")),
        st.tuples(st.just("attribute"), st.sampled_from(NAMES), st.integers(0, 9)),
    ),
    max_size=6,
)


def change(tree: Path, what: str, name: str, value: object, rng: random.Random) -> None:
    path = tree / name
    if what == "new":
        path.unlink(missing_ok=True)
        path.write_bytes(rng.randbytes(int(str(value))))
    elif not path.exists() or path == tree / str(value):
        return
    elif what == "write":
        rewrite(path, rng.randbytes(int(str(value))))
    elif what == "attribute":
        os.setxattr(path, "user.note", b"%d" % int(str(value)))
    elif what == "remove":
        path.unlink()
    else:
        (tree / str(value)).unlink(missing_ok=True)
        (path.rename if what == "move" else (tree / str(value)).hardlink_to)(
            tree / str(value) if what == "move" else path
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(CHANGES, min_size=2, max_size=4), st.booleans())
def test_a_chain_of_backups_restores_exactly_whichever_names_come_and_go(generations: list, in_place: bool) -> None:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # of the host's memory
        tree = Path(folder, "tree")
        (tree / "d").mkdir(parents=True)
        bounds, tables = [], []
        for generation, changes in enumerate(generations):
            for what, name, value in changes:
                change(tree, what, name, value, rng)
            source = source_of(tree, part_size_bytes=MIB)
            if generation:
                tables, warnings = follow_up(source, bounds, tables)
                assert warnings == []
            else:
                bounds, tables = back_up(source)
            before = look(tree)
            restore(source, tables, Path(folder, f"copy{generation}"))
            assert look(Path(folder, f"copy{generation}")) == before
            if in_place:
                other = Path(folder, "other")
                other.mkdir(exist_ok=True)
                InPlace(source_of(other), tables).run()
                assert look(other) == before


def test_names_in_parts_that_begin_between_them_are_one_file(place: Path) -> None:
    tree = place / "tree"
    tree.mkdir()
    for name in "abcdef":
        (tree / name).write_bytes(random.Random(name).randbytes(MIB - 300))
    for name in "abc":
        os.link(tree / name, tree / f"{name}2")
        os.link(tree / name, tree / f"z{name}")
    source = source_of(tree, part_size_bytes=MIB)
    bounds, backup = back_up(source)
    assert len(bounds) >= 6
    for tables in (backup, backup[::-1]):
        restore(source, tables, place / "copy")
        assert look(place / "copy") == look(tree)


def test_a_name_that_is_kept_as_the_base_has_it_is_not_tied_to_what_another_became(linked: Path, place: Path) -> None:
    bounds, backup = back_up(source_of(linked))
    was = look(linked)
    rewrite(linked / "m", b"changed behind the back")

    def step(path: bytes) -> None:
        if path == b"z":
            os.utime(linked / "z", ns=(1, len(source._watch.opened)))

    source = source_of(linked, step, on_change="skip")
    after, warnings = follow_up(source, bounds, backup)
    assert [warning.split(";")[0] for warning in warnings] == ["z kept changing"]
    restore(source, after, place / "copy")
    assert (place / "copy" / "z").read_bytes() == b"content"
    assert look(place / "copy")[b"z"][:6] == was[b"z"][:6]
    assert (place / "copy" / "m").read_bytes() == b"changed behind the back"
    assert same(place / "copy", "m", "d/n")
    assert not same(place / "copy", "m", "z")


def test_a_file_that_changes_between_the_readings_of_its_names_is_told(linked: Path, place: Path) -> None:
    source = source_of(linked, lambda path: rewrite(linked / "m", b"new") if path == b"empty" else None)
    with source.view() as view:
        readings = [view.read(TREE, piece, None) for piece in view.partition(TREE)]
        view.finish()
    told = [warning for reading in readings for warning in reading.warnings]
    assert [warning.split(";")[0] for warning in told] == [
        "m is another name of a file that changed while its names were read",
        "z is another name of a file that changed while its names were read",
    ]
    restore(source, [reading.rows for reading in readings], place / "copy")
    assert (place / "copy" / "d" / "n").read_bytes() == b"content"
    assert (place / "copy" / "m").read_bytes() == (place / "copy" / "z").read_bytes() == b"new"
    assert same(place / "copy", "m", "z")


def test_a_name_that_became_another_file_since_the_walk_is_one_of_its_own(linked: Path, place: Path) -> None:
    source = source_of(linked)
    with source.view() as view:
        (linked / "d" / "n").unlink()
        (linked / "d" / "n").write_text("another")
        rows = [view.read(TREE, piece, None).rows for piece in view.partition(TREE)]
    assert {row["path"]: row["target"] for table in rows for row in table.to_pylist() if row["offset"] == -1}[
        b"d/n"
    ] is None
    restore(source, rows, place / "copy")
    assert (place / "copy" / "d" / "n").read_text() == "another"
    assert same(place / "copy", "m", "z")


def test_a_place_without_hard_links_is_refused_or_gets_files_of_their_own(
    linked: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no file system here is without them: their limit is reached instead (ext4: 65,000 names of a file)
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    source = source_of(linked)
    _, backup = back_up(source)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(RestoreRefused, match="hard link of d/big, empty, m and 2 more: Too many links"):
        restore(source, backup, place / "copy")
    assert not (place / "copy").exists()
    target = restore(source, backup, place / "copy", keep_going=True)
    assert [one.name for one in target.not_rebuilt] == ["hard link of d/big, empty, m and 2 more"]
    assert {path: one[:6] for path, one in look(place / "copy").items()} == {
        path: one[:6] for path, one in look(linked).items()
    }


def test_rows_say_which_name_is_the_first_and_each_has_its_content(linked: Path) -> None:
    _, backup = back_up(source_of(linked))
    entries = [row for row in pa.concat_tables(backup).to_pylist() if row["offset"] == -1 and row["kind"] == "file"]
    assert {row["path"]: row["target"] for row in entries} == {
        b"alone": None,
        b"big": b"big",
        b"d/big": b"big",
        b"d/empty": b"d/empty",
        b"d/n": b"d/n",
        b"empty": b"d/empty",
        b"m": b"d/n",
        b"z": b"d/n",
        b"zbig": b"big",
    }
