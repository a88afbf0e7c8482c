"""What list, show, verify and restore say of what is known of backups."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from flows.cli import output
from tests.flows.cli.desk import Desk
from tests.flows.flow_support import blobs, flip


def test_list_and_show_say_the_four_axes_when_and_how_deep(desk: Desk) -> None:
    made = desk.backup("--type", "full")
    untouched = desk.backup("--type", "full")
    desk.done("verify", "PLAN", made, "--deep")
    lines = {line.split()[0]: line for line in desk.done("list", "PLAN").out.splitlines()}
    assert "  bytes+ restore+" in lines[made]
    assert "bytes" not in lines[untouched]
    listed = {one["id"]: one for one in desk.done("list", "PLAN", "--json").json["backups"]}
    proof = listed[made]["proof"]
    assert {axis: one["outcome"] for axis, one in proof.items()}.items() >= {
        "bytes": "good",
        "restorable": "good",
    }.items()
    assert (proof["bytes"]["depth"], proof["restorable"]["depth"]) == ("rows", "restored")
    assert proof["bytes"]["sequence"] == 1
    assert listed[untouched]["proof"]["bytes"] == {"outcome": "untried"}
    shown = desk.done("show", "PLAN", made).out
    assert "every row compared" in shown
    assert "really restored" in shown
    assert "not tried" in desk.done("show", "PLAN", untouched).out
    assert desk.done("show", "PLAN", made, "--json").json["proof"] == proof


def test_a_damaged_base_is_shown_of_what_depends_on_it(desk: Desk) -> None:
    full = desk.backup("--type", "full")
    desk.sql("update orders set price = 1 where id = 3")
    incremental = desk.backup()
    flip(desk.objects(full)[0].parent, blobs(desk.manifest(full))[0])
    assert desk.run("verify", "PLAN", full).code == 8
    lines = {line.split()[0]: line for line in desk.done("list", "PLAN").out.splitlines()}
    assert "corrupted  bytes-" in lines[incremental]
    assert f"it depends on {full}, whose bytes are bad" in desk.done("show", "PLAN", incremental).out


class Ahead(datetime):
    """A clock that is three hours ahead."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime.now(UTC) + timedelta(hours=3)


@pytest.mark.parametrize("width", [80, 100, 159])
def test_a_narrow_terminal_folds_no_word_of_a_list(desk: Desk, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    made = desk.backup("--type", "full")
    desk.done("verify", "PLAN", "--deep")
    printed = io.StringIO()
    monkeypatch.setattr(output, "narrow", lambda columns: width < columns)
    monkeypatch.setattr("flows.cli.commands.list_backups.narrow", lambda columns: width < columns)
    monkeypatch.setattr(output, "_has_styles", lambda stream: True)
    console = Console(file=printed, width=width, force_terminal=False, markup=False, emoji=False)
    monkeypatch.setattr(output, "stdout", lambda: console)
    desk.done("list", "PLAN")
    lines = printed.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    assert {made, "verified", "bytes+", "restore+"} <= set(words)


def test_verify_says_each_axis_and_what_stands(desk: Desk) -> None:
    desk.backup()
    told = desk.done("verify", "PLAN", "--deep").out
    assert "good, every row compared" in told
    assert "good, really restored" in told
    again = desk.done("verify", "PLAN").out
    assert "not tried; good by verification 1 of " in again
    assert "(really restored)" in again


def test_verify_shows_its_own_result_whatever_the_clock_of_an_earlier_one_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.backup()
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["flows.verify"], "datetime", Ahead)
        desk.done("verify", "PLAN")
    flip(desk.objects(made)[0].parent, blobs(desk.manifest(made))[0])
    ran = desk.run("verify", "PLAN", "--json")
    assert (ran.code, ran.json["status"], ran.json["sequence"]) == (8, "corrupted", 2)
    ran = desk.run("verify", "PLAN")
    assert ran.code == 8
    assert "corrupted" in ran.out
    assert "verified" not in ran.out


def test_restore_takes_the_latest_verified_and_says_what_is_known_against_another(desk: Desk) -> None:
    good = desk.backup("--type", "full")
    desk.done("verify", "PLAN", "--deep")
    bad = desk.backup("--type", "full")
    flip(desk.objects(bad)[0].parent, blobs(desk.manifest(bad))[0])
    assert desk.run("verify", "PLAN").code == 8
    shown = desk.done("restore", "PLAN", "--verified", "--mode", "preview", "--json").json
    assert shown["backup_id"] == good
    assert not any("bad" in note for note in shown["notes"])
    at = desk.done("restore", "PLAN", "--verified", "--at", "now", "--mode", "preview", "--json").json
    assert at["backup_id"] == good
    assert desk.run("restore", "PLAN", bad, "--verified", "--mode", "preview").code == 2
    told = desk.run("restore", "PLAN", "--to", str(desk.folder / "there"), "--yes")
    assert told.code == 8
    assert f"{bad}: its stored bytes are bad, found " in told.err


def test_restore_of_the_latest_verified_where_there_is_none_exits_6(desk: Desk) -> None:
    desk.backup()
    ran = desk.run("restore", "PLAN", "--verified", "--yes")
    assert ran.code == 6
    assert "was restored in a verification and found good" in ran.err
