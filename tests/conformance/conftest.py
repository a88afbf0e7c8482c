"""The adapter of each source, for every test."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.suite import SourceAdapter, adapters


class Shared:
    """What each kind of adapter shares, opened when a test first asks for it."""

    def __init__(self, stack: ExitStack, factory: pytest.TempPathFactory) -> None:
        self._stack, self._factory = stack, factory
        self._opened: dict[type[SourceAdapter], Any] = {}

    def of(self, kind: type[SourceAdapter]) -> Any:
        if kind not in self._opened:
            self._opened[kind] = self._stack.enter_context(kind.share(self._factory.mktemp(kind.name)))
        return self._opened[kind]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with ExitStack() as stack:
        yield Shared(stack, tmp_path_factory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with every adapter; where only restores are looked at, with one for each way to write."""
    if "kind" in metafunc.fixturenames:
        restores_only = getattr(metafunc.module, "RESTORES_ONLY", False)
        kinds = [kind for kind in adapters() if not (restores_only and kind.restores_as)]
        metafunc.parametrize("kind", kinds, ids=[kind.name for kind in kinds])


@pytest.fixture
def shared(kind: type[SourceAdapter], opened: Shared) -> tuple[type[SourceAdapter], Any]:
    return kind, opened.of(kind)


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
