"""Garbage is looked for later in a command's own process, and as always in anybody else's."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from flows.cli.garbage import postpone, resume


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threshold, frozen = gc.get_threshold(), gc.get_freeze_count()
    yield
    gc.set_threshold(*threshold)
    if not frozen:
        gc.unfreeze()


def test_what_was_imported_is_left_aside_once_work_begins() -> None:
    gc.unfreeze()
    postpone()
    starting = gc.get_threshold()[0]
    resume()
    assert gc.get_threshold()[0] < starting
    assert gc.get_freeze_count() > 0


def test_a_process_of_somebody_else_is_left_alone() -> None:
    gc.unfreeze()
    before = gc.get_threshold()
    resume()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
