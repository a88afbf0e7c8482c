"""What every source has to do, done by a bucket: tests of the conformance suite with an adapter for buckets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.blocks.sources.files.bucket_adapter import BucketAdapter
from tests.conformance.test_conformance import *  # noqa: F403
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
