"""Python objects under the conformance suite."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from blocks.sources.mapping import MappingSource
from tests.conformance import mapping_states
from tests.conformance.mapping_states import AsyncStateManager, Order, Side, StateManager
from tests.conformance.suite import Picture, SourceAdapter

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)


class MappingAdapter(SourceAdapter):
    """A plain object."""

    name = "mapping"
    manager: type[StateManager] = StateManager

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._made: list[str] = []
        self._live = self._new()

    def _new(self) -> str:
        attribute = f"made_{uuid.uuid4().hex}"
        setattr(mapping_states, attribute, self.manager())
        self._made.append(attribute)
        return f"{mapping_states.__name__}:{attribute}"

    @property
    def source(self) -> MappingSource:
        return MappingSource(object=self._live, part_size_bytes=400)

    def _values(self, place: str | None = None) -> dict[str, object]:
        values: dict[str, object] = getattr(mapping_states, (place or self._live).partition(":")[2]).values
        return values

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        falsy: list[object] = [None, False, 0, 0.0, -0.0, "", b"", [], {}, set(), (), Decimal(0), timedelta(0)]
        self._values().update({f"falsy {n}": value for n, value in enumerate(falsy)})
        self._values()["odd"] = {(1, MOMENT): Side.BUY, "$x": float("nan"), None: {Order(Side.SELL, 1.5)}}

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        self._values()["odd"] = [Order(rng.choice(list(Side)), rng.random()), 10**40, (MOMENT,)]
        self._values().pop(f"falsy {rng.randrange(13)}", None)

    def put(self, key: str, n: int) -> None:
        self._values()[key] = {"n": n, "list": [n] * (n % 4), "text": "é" * (n % 7)}

    def remove(self, key: str) -> None:
        del self._values()[key]

    def picture(self, place: str | None = None) -> Picture:
        return {("state", key): repr(value) for key, value in self._values(place).items()}

    def place(self) -> str:
        return self._new()

    def unwritable(self) -> str:
        return f"{mapping_states.__name__}:not_there"

    def close(self) -> None:
        for attribute in self._made:
            delattr(mapping_states, attribute)


class AsyncMappingAdapter(MappingAdapter):
    """An async object with batches and snapshots."""

    name = "mapping-async"
    manager = AsyncStateManager
