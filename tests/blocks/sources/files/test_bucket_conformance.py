"""What every source has to do, done by a bucket: tests of the conformance suite, with an adapter for buckets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.blocks.sources.files.bucket_adapter import BucketAdapter
from tests.conformance.test_conformance import (  # noqa: F401  pytest finds them here
    test_a_state_is_several_parts_that_hold_every_row_once,
    test_a_whole_restore_to_another_place_equals_the_picture,
    test_an_emptied_state_is_all_tombstones,
    test_an_empty_state_is_restored_empty,
    test_nothing_changed_is_an_empty_incremental,
    test_old_bounds_cover_what_came_and_moved_since,
    test_one_step_between_two_views_is_seen,
    test_parts_may_be_read_from_several_threads_in_any_order,
)
from tests.object_servers import Seaweed


@pytest.fixture
def state(s3: Seaweed, tmp_path: Path) -> BucketAdapter:
    return BucketAdapter(tmp_path, s3)


@pytest.fixture
def filled(state: BucketAdapter, rng: random.Random) -> BucketAdapter:
    state.fill(rng)
    return state


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)
