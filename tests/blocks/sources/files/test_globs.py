"""Globs mean what gitignore means, and `include` confines what is looked at."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import ConfigurationError
from blocks.sources.files import FilesSource
from blocks.sources.files.cover import Judge, Rules, backed_up
from blocks.sources.files.rows import TREE
from blocks.sources.target import RestoreMode
from tests.blocks.sources.files.kit import InPlace, back_up, look, source_of
from tests.blocks.sources.files.test_cover import definition_of, make
from tests.forked import as_nobody

PATHS = (
    "a.tmp",
    "build",
    "cache/x",
    "deep/a.tmp",
    "deep/build/o",
    "deep/cache/x",
    "foo/bar/keep",
    "foo/bar/x",
    "foo/x",
    "#odd",
    "new\nline/x",
    "sp ace",
)


def kept(source: FilesSource) -> set[str]:
    with source.view() as view:
        (only,) = view.partition(TREE)
        rows = view.read(TREE, only, None).rows
    files = rows.filter(pc.equal(rows["kind"], "file"))
    return {os.fsdecode(path) for path in files["path"].to_pylist()}


# what `git ls-files --others --ignored` leaves of PATHS with these lines in .gitignore
@pytest.mark.parametrize(
    ("globs", "gone"),
    [
        (["*.tmp"], {"a.tmp", "deep/a.tmp"}),
        (["/*.tmp"], {"a.tmp"}),
        (["./cache"], {"cache/x"}),
        (["cache"], {"cache/x", "deep/cache/x"}),
        (["/cache/"], {"cache/x"}),
        (["build/"], {"deep/build/o"}),
        (["build"], {"build", "deep/build/o"}),
        (["deep/*.tmp"], {"deep/a.tmp"}),
        (["*/x"], {"cache/x", "foo/x", "new\nline/x"}),
        (["**/x"], {"cache/x", "deep/cache/x", "foo/bar/x", "foo/x", "new\nline/x"}),
        (["foo/**"], {"foo/bar/keep", "foo/bar/x", "foo/x"}),
        (["foo/**/x"], {"foo/bar/x", "foo/x"}),
        (["/foo/*", "!/foo/bar"], {"foo/x"}),
        (["foo/bar/*", "!keep"], {"foo/bar/x"}),
        (["foo", "!foo/bar/keep"], {"foo/bar/keep", "foo/bar/x", "foo/x"}),
        (["*", "!*/", "!*.tmp"], {path for path in PATHS if not path.endswith(".tmp")}),
        (["\\#odd", "sp\\ ace "], {"#odd", "sp ace"}),
        (["foo/***/x", "!/foo/b*/x"], {"foo/x"}),
        (["[bc]u?ld", "new*"], {"build", "deep/build/o", "new\nline/x"}),
    ],
)
def test_what_is_left_out_is_what_git_ignores(tmp_path: Path, globs: list[str], gone: set[str]) -> None:
    make(tmp_path, *PATHS)
    assert kept(source_of(tmp_path, exclude=globs)) == set(PATHS) - gone
    judge = Judge(Rules(exclude=tuple(globs)))
    assert {path for path in PATHS if not judge.covers(os.fsencode(path), folder=False)} == gone
    if not globs[0].startswith(("*", "foo/bar", "/foo/*", "foo")) or globs in (["*.tmp"], ["foo/**"]):
        assert kept(source_of(tmp_path, include=globs)) == gone


def test_a_glob_that_names_nothing_is_refused() -> None:
    for glob in ("", "  ", "/", "# a remark", "!", "./", "a/../b", "a["):
        for field in ("include", "exclude"):
            with pytest.raises(ConfigurationError, match="names nothing inside"):
                FilesSource(url="x", **{field: [glob]})
    with pytest.raises(ConfigurationError, match="nothing is included"):
        FilesSource(url="x", include=["!a"])


def test_a_backup_made_before_globs_were_gitignores_keeps_their_meaning(tmp_path: Path) -> None:
    make(tmp_path, "models/a/b.bin", "deep/cache/x", "k")
    source = source_of(tmp_path)
    _, backup = back_up(source)
    before = {"exclude": ["models/*.bin", "cache"]}
    assert not backed_up(before, source._cover())[0].covers(b"models/a/b.bin")
    assert not source.as_backed_up(before)._cover().rules.step(b"models/a/b.bin", True, folder=False)
    make(tmp_path, "models/a/new.bin", "deep/cache/new")
    InPlace(source, backup, RestoreMode.EXACT, definition=before).run()
    assert (tmp_path / "models" / "a" / "new.bin").exists()
    assert not (tmp_path / "deep" / "cache" / "new").exists()
    now = definition_of(source_of(tmp_path, exclude=["cache"]))
    assert now["globs"] == "gitignore"
    make(tmp_path, "deep/cache/new")
    InPlace(source, backup, RestoreMode.EXACT, definition=now).run()
    assert (tmp_path / "deep" / "cache" / "new").exists()


def spied_on(root: Path, includes: list[str]) -> None:
    """Print what is looked at in a tree for each of some globs; the spy stays for as long as this process."""
    names, scanned = set[bytes](), set[bytes]()

    def spy(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.scandir", "os.listdir", "os.listxattr", "os.getxattr"):
            place = arguments[0]
            if isinstance(place, int):
                place = os.readlink(f"/proc/self/fd/{place}")
            names.add(os.path.basename(os.fsencode(place)))
            if event == "os.scandir":
                scanned.add(os.path.relpath(os.fsencode(place), os.fsencode(root)))

    sys.addaudithook(spy)
    for include in includes:
        names.clear()
        scanned.clear()
        source = source_of(root, include=[include])
        _, tables = back_up(source)
        print(sorted(scanned), sorted(names & {b"shut", b"beside", b"other"}))
        print(sorted(set(tables[0]["path"].to_pylist())))
        with source.view() as view:
            print(view.warnings)


@pytest.fixture
def half_shut(anybodys: Path) -> Path:
    root = anybodys / "tree"
    make(root, "a/b/c/file", "a/b/beside/x", "a/other", "shut/x", "a/shut/x")
    (root / "a" / "b" / "link").symlink_to("c")
    for path in (anybodys, root, *root.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for name in ("shut", "a/shut"):
        (root / name).chmod(0)
    return root


def test_nothing_outside_of_what_is_included_is_looked_at(half_shut: Path) -> None:
    confined = ["a/b/c/**", "/a/b/c", "a/b/c/*", "./a/b/c/f*"]
    lines = as_nobody(lambda: spied_on(half_shut, [*confined, "file"])).splitlines()
    paths = "[b'', b'a', b'a/b', b'a/b/c', b'a/b/c/file']"
    for number, glob in enumerate(confined):
        seen = ["[b'.', b'a', b'a/b', b'a/b/c'] []", paths, "()"]
        assert lines[3 * number : 3 * number + 3] == seen, glob
    # a plain name may be anywhere: what cannot be looked into is named, and is no reason to fail
    assert lines[-2] == paths
    assert lines[-1].count("whether it holds what `include` names is not known") == 2


_NAMES = st.lists(st.sampled_from(["a", "b", "a.c", "*", "**", "?", "*.c", "[ab]"]), min_size=1, max_size=3)
_GLOB = st.builds(
    lambda sign, start, names, end: sign + start + "/".join(names) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    _NAMES,
    st.sampled_from(["", "/"]),
)


@settings(max_examples=40)
@given(st.lists(_GLOB, min_size=1, max_size=3))
def test_a_folder_that_is_not_entered_holds_nothing_that_is_included(globs: list[str]) -> None:
    rules = Rules(include=tuple(globs))
    judge = Judge(rules)
    names = [b"a", b"b", b"a.c"]
    for path in [b"/".join([x, y, z]) for x in names for y in names for z in names]:
        if judge.covers(path, folder=False):
            for count in (1, 2):
                folder = b"/".join(path.split(b"/")[:count])
                assert judge.covers(folder, folder=True) or judge.may_lead(folder)


def test_a_folder_that_only_names_lead_to_stays_as_it_is_in_an_exact_restore(half_shut: Path) -> None:
    source = source_of(half_shut, include=["file"])
    _, backup = back_up(source)
    (half_shut / "a" / "b" / "c" / "file").write_text("newer")
    before = look(half_shut)
    InPlace(source, backup).run()
    after = look(half_shut)
    assert {path for path in before if before[path] != after.get(path)} == {b"a/b/c/file"}
