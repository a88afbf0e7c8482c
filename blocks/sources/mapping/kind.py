"""How values of one class are kept by their parts: taken apart into simpler values, and put together again.

They are written as a dataclass is: `{"$dataclass": ["package.module:Class", [[part, value], ..]]}`. Parts are values
themselves, so kinds may be made of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Parts = dict[str, Any]


class NotKept(Exception):
    """A value of a class that is known holds what cannot be kept; says what, as a clause."""


@dataclass(frozen=True)
class NamedClass:
    """A class as a part, which comes back as the class itself; the plan has to allow it unless it is Python's own."""

    kind: type


@dataclass(frozen=True)
class Kind:
    """How values of one class are kept.

    Attributes:
        path: The import path that names it in a backup.
        apart: Takes a value apart.
        together: Puts parts together again; may raise anything where they are not those of a value.
    """

    path: str
    apart: Callable[[Any], Parts]
    together: Callable[[Parts], object]
