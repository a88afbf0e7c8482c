"""State objects for the `mapping` source under the conformance suite; each is an attribute of this module."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase


class Side(Enum):
    BUY = "buy"
    SELL = "sell"


@dataclass(frozen=True)
class Order:
    side: Side
    amount: float


def passing() -> object:
    """Return an instance of a class `Passing` of this module, which can be deleted from it."""
    global Passing

    @dataclass(frozen=True)
    class Passing:
        of: str = "this version of the application"

    Passing.__qualname__ = "Passing"
    return Passing()


class StateManager:
    """A plain state manager, as an application might have one."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def get_keys_by_pattern(self, pattern: str) -> list[str]:
        return [key for key in self.values if fnmatchcase(key, pattern)]

    def get_state(self, key: str) -> object:
        if isinstance(value := self.values[key], Exception):
            raise value
        return value

    def set_state(self, key: str, value: object) -> None:
        self.values[key] = value

    def delete_state(self, key: str) -> None:
        del self.values[key]


class AsyncStateManager(StateManager):
    """The same, async, in batches, with points in time."""

    async def get_keys_by_pattern(self, pattern: str) -> list[str]:  # type: ignore[override]
        return super().get_keys_by_pattern(pattern)

    async def get_state(self, key: str) -> object:
        return super().get_state(key)

    async def set_state(self, key: str, value: object) -> None:  # type: ignore[override]
        self.values[key] = value

    async def batch_set_state(self, values: dict[str, object]) -> None:
        self.values |= values

    async def delete_state(self, key: str) -> None:  # type: ignore[override]
        del self.values[key]

    async def create_snapshot(self) -> AsyncStateManager:
        snapshot = AsyncStateManager()
        snapshot.values = copy.deepcopy(self.values)
        return snapshot
