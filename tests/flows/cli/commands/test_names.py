"""Files are selected by their names as `diff` prints them, whatever bytes these are, and folders with all beneath."""

from __future__ import annotations

import os
from pathlib import Path

from flows.cli.tables import visible
from tests.flows.cli.desk import Desk

NAMES = (b"\xff\xfe no text", "caf\u00e9".encode(), b"esc\x1b[1m", b"x[1].txt", b"two\xc2\x85lines", b"\\xff")
BENEATH = (b"d\xff/deep/x", b"d\xff/y")


def write(tree: Path, content: bytes) -> None:
    for path in (*NAMES, *BENEATH, b"d"):
        place = os.path.join(os.fsencode(tree), path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)


def contents(tree: Path) -> dict[bytes, bytes]:
    found = {}
    for path in (*NAMES, *BENEATH, b"d"):
        with open(os.path.join(os.fsencode(tree), path), "rb") as file:
            found[path] = file.read()
    return found


def labels(desk: Desk, *words: str) -> set[str]:
    found = desk.done("diff", "PLAN", *words, "--collection", "conf/*", "--json", "--limit", "0").json
    return {change["label"] for one in found["collections"] for change in one["changes"]} - {""}


def test_what_diff_prints_selects_in_diff_preview_and_restore_as_text_and_as_bytes(desk: Desk) -> None:
    write(desk.conf, b"old")
    first = desk.backup("--type", "full")
    write(desk.conf, b"newer")
    second = desk.backup()
    said = {name: name.decode("utf-8", "backslashreplace") for name in (*NAMES, *BENEATH, b"d")}
    assert set(said.values()) <= labels(desk, first, second)
    shown = desk.done("diff", "PLAN", first, second).out
    for name in NAMES:
        assert f"conf/tree {visible(said[name])}" in shown
        for key in (said[name], os.fsdecode(name), visible(said[name])):
            assert said[name] in labels(desk, first, second, "--key", key), (name, key)
    for key in ("d\\xff", "./d\\xff/", os.fsdecode(b"d\xff")):
        assert labels(desk, first, second, "--key", key) - {"d\\xff"} == {said[path] for path in BENEATH}
    desk.done("restore", "PLAN", first, "--key", os.fsdecode(b"d\xff"), "--mode", "preview", "--json")
    desk.done("restore", "PLAN", first, "--key", os.fsdecode(NAMES[0]), "--key", "d\\xff", "--key", "x[1].txt", "--yes")
    restored = {NAMES[0], *BENEATH, b"x[1].txt"}
    assert contents(desk.conf) == {path: b"old" if path in restored else b"newer" for path in said}
    desk.done("undo", "PLAN", "--yes")
    assert set(contents(desk.conf).values()) == {b"newer"}
    missing = desk.run("restore", "PLAN", first, "--key", os.fsdecode(b"none\xff"), "--yes")
    assert missing.code == 6
    assert "none\\xff" in missing.err
