"""What an application's own package may hold: classes of values, state objects and a factory."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr


class Side(Enum):
    BUY = "buy"
    SELL = "sell"
    ASK = "sell"  # an alias


class Level(IntEnum):
    LOW = 0
    HIGH = 1


class Word(StrEnum):
    YES = "yes"


class Right(Flag):
    READ = auto()
    WRITE = auto()
    ADMIN = READ | WRITE


@dataclass
class Trade:
    side: Side
    price: Decimal = Decimal(0)
    notes: list[str] = field(default_factory=list)
    hidden: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        self.notes.append("made")

    @cached_property
    def text(self) -> str:
        return f"{self.side}"


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: object = None


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    inside: T


class Outer:
    @dataclass
    class Inner:
        n: int


@dataclass
class OddList(list[int]):
    n: int = 0


@dataclass
class Partly:
    n: int


class Spot(NamedTuple):
    x: int
    y: object = None


Place = namedtuple("Place", ["name", "at"])


class Deal(BaseModel):
    amount: Decimal


class Order(BaseModel):
    side: Side
    lines: list[Deal] = []
    note: str | None = "new"
    _seen: int = PrivateAttr(default=0)

    @cached_property
    def total(self) -> int:
        return len(self.lines)


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class Bag:
    """A state object in memory."""

    def __init__(self, **values: object) -> None:
        self.values: dict[str, object] = values
        self.listed = 0

    def get_keys_by_pattern(self, pattern: str) -> list[str]:
        self.listed += 1
        return [key for key in self.values if fnmatchcase(key, pattern)]

    def get_state(self, key: str) -> object:
        return self.values[key]

    def set_state(self, key: str, value: object) -> None:
        self.values[key] = value


class Store(Bag):
    """A state object that can delete."""

    def delete_state(self, key: str) -> None:
        del self.values[key]
