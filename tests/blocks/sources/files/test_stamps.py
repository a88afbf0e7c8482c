"""The stamps of files prove something only once the clock that makes them has moved on."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.sources.files.reading.stats import trusted, unsettled_ns
from tests.blocks.sources.files.kit import Bystander, back_up, follow_up, source_of


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 100)
    return tmp_path


def test_a_stamp_counts_only_when_a_later_change_must_differ_from_it() -> None:
    now = 1_700_000_000_500_000_000
    assert unsettled_ns(now - 21_000_000, now) == 0
    assert unsettled_ns(now - 5_000_000, now) == 15_000_000
    assert unsettled_ns(now + 5_000_000, now) == 25_000_000
    assert unsettled_ns(1_700_000_000_000_000_000, now) == 1_600_000_000, "whole seconds are a coarse clock"
    assert unsettled_ns(now + 60_000_000_001, now) == 0
    assert not trusted(now + 60_000_000_001, now)
    assert trusted(now - 21_000_000, now)


def test_a_file_just_written_is_read_only_when_the_clock_has_moved_on(tree: Path) -> None:
    (tree / "b").write_text("now")
    source = source_of(tree)
    watch = source._watch
    assert isinstance(watch, Bystander)
    watch.ahead_ns = (tree / "b").stat().st_ctime_ns + 1_000_001 - watch.now_ns()
    back_up(source)
    assert watch.opened.count(b"b") == 1
    assert watch.now_ns() - (tree / "b").stat().st_ctime_ns > 20_000_000


def test_a_file_stamped_in_the_future_is_never_taken_as_unchanged(tree: Path) -> None:
    source = source_of(tree)
    watch = source._watch
    assert isinstance(watch, Bystander)
    watch.ahead_ns = -3_600_000_000_000
    bounds, tables = back_up(source)
    follow_up(source, bounds, tables)
    assert watch.opened == [b"a", b"b", b"c"] * 2
