"""Progress: what is said of a run, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from blocks.sources.files.view import FilesView
from flows.cli.manner import speak
from flows.cli.progress import PlainLines, ShownProgress, open_progress
from tests.flows.cli.desk import Desk

MIB = 1024 * 1024


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shown(clock: Callable[[], float]) -> ShownProgress:
    return ShownProgress("parts", lambda _: None, clock)


def step(progress: ShownProgress, clock: Clock, seconds: float, size_bytes: int) -> None:
    progress.entered("a/b#0")
    clock.now += seconds
    progress.moved(size_bytes)
    progress.left("a/b#0")


def test_what_is_done_before_there_are_parts_is_said(clock: Clock) -> None:
    progress = shown(clock)
    progress.doing("looking what is in a/b")
    assert progress.line == "looking what is in a/b"
    progress.entered("a/b#0")
    assert progress.line == "0 parts done, a/b#0"


@pytest.mark.parametrize(
    ("expected", "seconds", "size", "line"),
    [
        (100, 2, 25, "25%, 25.0 MiB of 100.0 MiB, 12.5 MiB/s, 6.0 s left, 1 part done"),
        (100, 4, 100, "100%, 100.0 MiB of 100.0 MiB, 25.0 MiB/s, 1 part done"),
        (100, 4, 200, "200.0 MiB, 50.0 MiB/s, 1 part done"),  # it has grown: no percent is known
        (0, 4, 200, "200.0 MiB, 50.0 MiB/s, 1 part done"),
        (100, 0.1, 50, "50%, 50.0 MiB of 100.0 MiB, 1 part done"),  # too early for a rate
        (100, 4, 0, "1 part done"),
        (200_000, 60, 100_000, "50%, 97.7 GiB of 195.3 GiB, 1.6 GiB/s, 1 min 0 s left, 1 part done"),
    ],
)
def test_percent_rate_and_time_left(clock: Clock, expected: int, seconds: float, size: int, line: str) -> None:
    progress = shown(clock)
    progress.expect(expected * MIB)
    step(progress, clock, seconds, size * MIB)
    assert progress.line == line


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    ticks: Iterator[float] = (number / 100 for number in count())
    lines = PlainLines("backup", lambda: next(ticks))
    progress = ShownProgress("parts", lines.show, lambda: 0.0)
    for number in range(500):
        progress.entered(f"a/b#{number}")
        progress.left(f"a/b#{number}")
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 5
    assert printed[0].startswith("backup: 100 parts done")


@pytest.mark.parametrize(("words", "lines"), [([], 0), (["--quiet"], 0), (["--verbose"], 1)])
def test_without_a_terminal_there_is_progress_only_with_verbose(
    words: list[str], lines: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.progress.PLAIN_EVERY_SECONDS", 0)
    speak(words)
    with open_progress("backup") as progress:
        progress.doing("opening ledger")
    assert len(capsys.readouterr().err.splitlines()) == lines
    speak([])


def test_the_first_backup_has_percents_where_all_sources_know_their_size(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[int] = []
    monkeypatch.setattr(ShownProgress, "expect", lambda _, size: expected.append(size))
    (desk.conf / "curve.bin").write_bytes(bytes(300_000))
    desk.done("backup", "PLAN")
    held = desk.database.stat().st_size + 300_000
    assert held < expected[0] < 1.1 * held


def test_where_one_source_does_not_know_it_there_are_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[int] = []
    monkeypatch.setattr(ShownProgress, "expect", lambda _, size: expected.append(size))
    monkeypatch.setattr(FilesView, "estimated_bytes", lambda _: None)
    desk.done("backup", "PLAN")
    assert not any(expected)
