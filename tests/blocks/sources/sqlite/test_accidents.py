"""Restores in place that come to grief at every step leave old, new, or what a restore brings back exactly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blocks.sources.sqlite.crashes import try_all
from tests.forked import forked

ACCIDENTS = [
    ("wal", "kill"),
    ("rollback journal", "kill"),
    ("a bad page", "kill"),
    ("one table", "interrupt"),
    ("no header", "interrupt"),
    ("merge", "interrupt"),
    ("wal", "room"),
    ("a bad page", "room"),
    ("nothing there", "room"),
]


@pytest.fixture
def memory(tmp_path) -> Iterator[str]:
    """A folder in memory where there is one: hundreds of restores wait for no disk there."""
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield folder


@pytest.mark.parametrize(("scenario", "accident"), ACCIDENTS)
def test_an_accident_at_any_step_loses_nothing(memory, scenario, accident):
    assert int(forked(lambda: print(try_all(Path(memory), scenario, accident, stride=20)))) > 2
