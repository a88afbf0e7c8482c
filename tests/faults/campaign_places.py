# ruff: noqa: E501  rows of attempts are read as rows
"""Restores to the wrong place."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.campaign_attempts import attempt, expect
from tests.faults.campaign_world import World

REFUSED = 10


def _refused(to: str, *more: str, codes: tuple[int, ...] = (REFUSED,)) -> None:
    @attempt(f"restore FUL --to {to} {' '.join(more)}")
    def _(world: World) -> list[str]:
        return expect(
            world.run("restore", "FUL", "--to", to.replace("FOLDER", str(world.folder)), *more, "--yes"), *codes
        )


for _to in (".", "..", "./", "repo", "./repo/", "repo/backups", "repo/backups/shop", "repo/new", "plan.yaml", "key", "tree/..",
            "file://FOLDER", "file://FOLDER/repo", "FOLDER/./tree/../repo", "stranger", "stranger/", "state"):  # fmt: skip
    for _more in ((), ("--overwrite",), ("--mode", "merge")):
        _allowed = (REFUSED, 0, 2) if _to.startswith(("stranger", "state", "..")) else (REFUSED, 2)
        _refused(_to, *_more, codes=_allowed)

for _to in ("/", "/etc", "/proc"):
    _refused(_to, "--collection", "nothing/at-all", codes=(6, REFUSED))

for _one, _tos in {
    "tree/*": (".", "..", "repo", "repo/", "REPO", "repo/x", "plan.yaml", "key", "state", "state/app.db", "stranger", "tree", "./tree/",
                   "tree/sub", "file://FOLDER/tree", "file:FOLDER/tree", "~", "~/x", "home", "", " ", "tree ", "stranger/thesis.txt", "tree/new", "home/../tree"),
    "ledger/*": (".", "repo", "repo/lastgood.json", "plan.yaml", "key", "tree", "tree/a.txt", "tree/new.db", "state/other.db", "state/app.db", "./state//app.db",
                 "file://FOLDER/state/app.db", "stranger/thesis.txt", "stranger/new.db", "state/app.db-wal", "state/app.db-journal", "repo/new.db", "state/APP.db", "",
                 "file:state/app.db?mode=ro", ":memory:", "state/app.db/x"),
}.items():  # fmt: skip
    for _to in _tos:
        for _more in ((), ("--overwrite",), ("--mode", "merge")):
            _refused(_to, "--collection", _one, *_more, codes=(0, 2, 3, REFUSED))


@contextmanager
def _links(world: World) -> Iterator[None]:
    for name, to in (
        ("l-repo", "repo"),
        ("l-tree", "tree"),
        ("l-db", "state/app.db"),
        ("l-here", "."),
        ("l-plan", "plan.yaml"),
        ("l-dangling", "nowhere/x"),
    ):
        world.path(name).symlink_to(to)
    yield


for _name in ("l-repo", "l-tree", "l-db", "l-here", "l-plan", "l-dangling", "l-repo/x", "l-tree/sub", "l-here/repo"):
    for _glob in ("tree/*", "ledger/*"):
        for _more in ((), ("--overwrite",)):

            @attempt(f"restore of {_glob} through a symbolic link --to {_name} {' '.join(_more)}", _links)
            def _(world: World, name: str = _name, glob: str = _glob, more: tuple[str, ...] = _more) -> list[str]:
                return expect(
                    world.run("restore", "FUL", "--collection", glob, "--to", name, *more, "--yes"), 0, 2, REFUSED
                )


def bound(what: str, where: str = "bound") -> object:
    @contextmanager
    def around(world: World) -> Iterator[None]:
        there = world.path(where)
        if world.path(what).is_dir():
            there.mkdir(exist_ok=True)
        else:
            there.parent.mkdir(exist_ok=True)
            there.touch()
        subprocess.run(["mount", "--bind", world.path(what), there], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", there], check=True)

    return around


for _what, _glob in (
    ("repo", "tree/*"),
    ("tree", "tree/*"),
    ("tree", "ledger/*"),
    ("state", "tree/*"),
    ("state/app.db", "ledger/*"),
    ("repo/backups", "tree/*"),
):
    for _more in ((), ("--overwrite",)):

        @attempt(f"restore of {_glob} --to a bind mount of {_what} {' '.join(_more)}", bound(_what))
        def _(world: World, glob: str = _glob, more: tuple[str, ...] = _more) -> list[str]:
            return expect(
                world.run("restore", "FUL", "--collection", glob, "--to", "bound", *more, "--yes"), 0, 2, REFUSED
            )


@attempt(
    "restore --to ./tree from another folder, where that is a stranger's",
    lambda w: w.write("elsewhere/tree/mine.txt", "mine") and None,
)
def _(world: World) -> list[str]:
    home = world.folder
    world.plan, world.folder = str(home / "plan.yaml"), home / "elsewhere"
    try:
        return expect(world.run("restore", "FUL", "--collection", "tree/*", "--to", "./tree", "--yes"), REFUSED)
    finally:
        world.folder = home


@attempt(
    "restore of both sources --to a folder that holds a stranger's `tree/tree`",
    lambda w: w.write("out/tree/tree/mine.txt", "mine") and None,
)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--to", "out", "--yes"), REFUSED)


@attempt(
    "the same with --overwrite",
    lambda w: w.write("out/tree/tree/mine.txt", "mine") and w.write("out/ledger/app.db", "mine too") and None,
)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--to", "out", "--overwrite", "--yes"), 0, REFUSED)


@attempt(
    "restore of both sources --to a folder where `tree` is a link to the live tree",
    lambda w: w.path("out").mkdir() or w.path("out/tree").symlink_to("../tree"),
)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--to", "out", "--overwrite", "--yes"), 0, REFUSED)


@attempt(
    "restore of both sources --to a folder where `tree` is a link to the repository",
    lambda w: w.path("out").mkdir() or w.path("out/tree").symlink_to("../repo"),
)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--to", "out", "--overwrite", "--yes"), REFUSED)


@attempt(
    "restore of both sources --to a folder where `ledger` is a link to the live state",
    lambda w: w.path("out").mkdir() or w.path("out/ledger").symlink_to("../state"),
)
def _(world: World) -> list[str]:
    return expect(world.run("restore", "FUL", "--to", "out", "--overwrite", "--yes"), 0, REFUSED)
