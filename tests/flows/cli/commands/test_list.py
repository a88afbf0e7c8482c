"""The list command: one line a backup wherever it is shown, and which backups are wanted."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.flows.cli.desk import Desk
from tests.flows.cli.test_app import COMMAND, all_said, environment

LONG = "a-tag-of-which-a-narrow-terminal-shows-as-much-as-it-has-room-for"


@pytest.fixture
def kinds(desk: Desk) -> dict[str, str]:
    """Backups of all types, one of them verified, by type."""
    made = {"full": desk.backup("--tag", "nightly")}
    for kind in ("incremental", "differential", "snapshot", "emergency"):
        desk.sql("update orders set price = price + 1 where id < 9")
        made[kind] = desk.backup("--type", kind, "--tag", f"of-{kind}", "--tag", LONG)
    desk.done("verify", "PLAN", made["full"])
    return made


def on_terminal(columns: int, *words: str) -> list[str]:
    """Run the command in a terminal of that width and return the lines that it shows, without colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=theirs, stderr=theirs, env=environment(TERM="xterm", COLUMNS=str(columns))
    )
    os.close(theirs)
    seen = all_said(ours)
    os.close(ours)
    assert process.wait() == 0, seen
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).replace("\r", "").splitlines()


@pytest.mark.parametrize(
    ("columns", "headers"),
    [
        (60, "id age status BRDQ tags"),
        (80, "id age rows stored status BRDQ tags"),
        (100, "id age rows size stored status BRDQ tags"),
        (300, "id type when age rows changed size stored status proof proved chain tags"),
    ],
)
def test_a_terminal_shows_one_line_a_backup(desk: Desk, kinds: dict[str, str], columns: int, headers: str) -> None:
    lines = on_terminal(columns, "list", str(desk.plan))
    assert lines[0].split() == headers.split()
    assert [line.split()[0] for line in lines[1:]] == list(kinds.values())
    assert max(map(len, lines)) <= columns
    assert "verified" in lines[1]
    assert ("bytes+" if columns == 300 else "+...") in lines[1]
    assert "nightly" in lines[1]
    assert "of-inc" in lines[2]


def test_a_narrow_terminal_has_all_that_is_asked_for_with_wide(desk: Desk, kinds: dict[str, str]) -> None:
    lines = on_terminal(60, "list", str(desk.plan), "--wide")
    assert [line.split()[0] for line in lines] == ["id", *kinds.values()]
    assert lines[0].split() == desk.done("list", "PLAN").out.splitlines()[0].split()
    assert all(line.endswith(LONG) for line in lines[2:])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--last 2", "snapshot emergency"),
        ("--type full", "full"),
        ("--type differential --last 1", "differential"),
        ("--tag nightly", "full"),
        ("--tag night* --tag of-s*", "full snapshot"),
        ("--since 1h", None),
        ("--since '1h ago' --tag of-* --last 1", "emergency"),
        ("--since tomorrow", ""),
        ("--tag none", ""),
    ],
)
def test_which_backups_are_wanted(desk: Desk, kinds: dict[str, str], words: str, found: str | None) -> None:
    said = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", words)]
    if "tomorrow" in said:
        said[-1] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    ran = desk.run("list", "PLAN", "--json", *said)
    if found is None:
        assert ran.code == 2
        assert "is not a time" in ran.err
    else:
        assert [one["id"] for one in ran.json["backups"]] == [kinds[kind] for kind in found.split()]


def test_what_is_no_number_of_backups_is_refused(desk: Desk) -> None:
    for wrong in ("0", "-1", "many"):
        ran = desk.run("list", "PLAN", "--last", wrong)
        assert ran.code == 2


def test_where_none_is_wanted_that_is_said(desk: Desk) -> None:
    desk.backup()
    ran = desk.done("list", "PLAN", "--tag", "no-such")
    assert ran.out == ""
    assert "none of the 1 backups" in ran.err


def test_times_are_those_of_the_persons_zone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        desk.backup()
        line = desk.done("list", "PLAN").out.splitlines()[1]
    finally:
        monkeypatch.undo()
        time.tzset()
    moment = desk.manifest(line.split()[0]).timestamp + timedelta(hours=5, minutes=30)
    assert f"{moment:%Y-%m-%d %H:%M:%S} XYZ" in line


def test_what_people_read_is_in_the_zone_of_the_machine_and_what_programs_read_in_utc(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.backup()
    desk.done("verify", "PLAN")
    utc = datetime.fromisoformat(desk.done("list", "PLAN", "--json").json["backups"][0]["timestamp"])
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        local = f"{utc + timedelta(hours=5, minutes=30):%Y-%m-%d %H:%M}"
        ran = desk.done("stats", "PLAN")
        assert re.search(rf"newest +{local}:\d\d XYZ", ran.out)
        assert re.search(r"deep|compared", shown := desk.done("show", "PLAN", made).out)
        assert "UTC" not in shown
        assert re.search(rf"\d +{local[:10]} \d\d:\d\d:\d\d XYZ", shown)
        assert desk.done("stats", "PLAN", "--json").json["newest"].endswith("+00:00")
        told = desk.run("restore", "PLAN", "--at", "2001-01-01T00:00:00Z", "--yes")
        assert "as old as 2001-01-01 05:30:00 XYZ" in told.err
        desk.done("restore", "PLAN", "--yes")
        undone = desk.done("undo", "PLAN", "--yes")
        assert re.search(rf"this takes back the restore of {made} at {local[:10]} [\d:]+ XYZ", undone.out + undone.err)
    finally:
        monkeypatch.undo()
        time.tzset()
