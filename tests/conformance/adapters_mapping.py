"""Python objects under the conformance suite."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from blocks.sources.mapping import MappingSource
from tests.conformance import mapping_states
from tests.conformance.mapping_states import AsyncStateManager, Order, Side, StateManager
from tests.conformance.suite import Cause, Fault, PathAdapter, Picture, Unbuildable
from tests.tiered_manager import StateCategory
from tests.tiered_manager import StateManager as TieredStateManager

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)


class MappingAdapter(PathAdapter):
    """A plain object."""

    name = "mapping"
    manager: type[StateManager | TieredStateManager] = StateManager

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

    def outside(self) -> str:
        self._places += 1
        return str(self.folder / f"place{self._places}.db")

    def spellings(self) -> list[str]:
        attribute = f"made_{uuid.uuid4().hex}"
        setattr(mapping_states, attribute, getattr(mapping_states, self._live.partition(":")[2]))
        self._made.append(attribute)
        return [self._live, f"{mapping_states.__name__}:{attribute}"]

    def narrowed(self) -> tuple[MappingSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"patterns": ["[ka]:*"]}), lambda key: key[1][:2] not in ("k:", "a:")

    def put_unbuildable(self) -> Unbuildable:
        self._values()["unbuildable"] = mapping_states.passing()

        def spoil() -> None:
            del mapping_states.Passing  # type: ignore[attr-defined]
            self._values()["unbuildable"] = "live"

        return Unbuildable("key 'unbuildable'", spoil, ("state", "unbuildable"), rows=1, blamed="Passing")

    def faults(self) -> Iterator[Fault]:
        missing = f"{mapping_states.__name__}:not_there"
        yield Fault(Cause.MISSING, missing, self.source.at(missing), (self._live,))
        self._values()["k:77"] = object()
        yield Fault(Cause.OBJECT, "'k:77'", others=("'k:00'",))
        self._values()["k:77"] = ValueError("not this one")
        yield Fault(Cause.OBJECT, "'k:77'", others=("'k:00'",))
        del self._values()["k:77"]

    def unwritable(self) -> str:
        return f"{mapping_states.__name__}:not_there"

    def close(self) -> None:
        for attribute in self._made:
            delattr(mapping_states, attribute)


class AsyncMappingAdapter(MappingAdapter):
    """An async object with batches and snapshots."""

    name = "mapping-async"
    manager = AsyncStateManager


class TieredMappingAdapter(MappingAdapter):
    """A state manager that keeps values in tiers, as the original system's does."""

    name = "mapping-tiered"
    manager = TieredStateManager

    @property
    def source(self) -> MappingSource:
        return super().source.model_copy(update={"protocol": "tiered"})

    def _values(self, place: str | None = None) -> dict[str, object]:
        manager = getattr(mapping_states, (place or self._live).partition(":")[2])
        tier: dict[str, object] = manager.tiers[StateCategory.HOT]
        return tier
