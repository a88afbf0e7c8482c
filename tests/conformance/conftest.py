"""The adapter of each source, for every test."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.suite import SourceAdapter, adapters

_VARIANTS = frozenset({"mapping-async", "mapping-tiered", "redis-cluster", "redis-consistent"})
"""Adapters that differ from another one in how state is reached, not in what it is."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave half of the cases of such adapters to `make faults`, always the same ones."""
    for item in items:
        kind = (
            item.callspec.params.get("kind")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        if getattr(kind, "name", None) in _VARIANTS and zlib.crc32(item.nodeid.encode()) % 2:
            item.add_marker("long")


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
