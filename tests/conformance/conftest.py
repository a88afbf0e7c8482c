"""The adapter of each source, for every test."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.suite import SourceAdapter, adapters


@pytest.fixture(scope="module", params=list(adapters()), ids=lambda kind: kind.name)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    kind: type[SourceAdapter] = request.param
    with kind.share(tmp_path_factory.mktemp(kind.name)) as opened:
        yield kind, opened


@pytest.fixture
def state(shared: tuple[Any, Any], tmp_path: Path) -> Iterator[SourceAdapter]:
    kind, opened = shared
    adapter: SourceAdapter = kind(tmp_path, opened)
    try:
        yield adapter
    finally:
        adapter.close()


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


@pytest.fixture
def filled(state: SourceAdapter, rng: random.Random) -> SourceAdapter:
    state.fill(rng)
    return state
