"""Another time of day for lastgood: days of backups without waiting for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any

Real = datetime


class _IsOne(type):
    """Any time is one of a moved clock, as far as `isinstance` can tell."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Real)


def _moved(by: timedelta) -> type[datetime]:
    class Moved(datetime, metaclass=_IsOne):
        def __new__(cls, *args: Any, **kwargs: Any) -> datetime:  # type: ignore[misc]
            return Real(*args, **kwargs)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return Real.now(tz) + by

    return Moved


def _readers() -> list[ModuleType]:
    """The modules of lastgood that know the class of times by its name."""
    ours = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in ("blocks", "flows")]
    return [module for module in ours if getattr(module, "datetime", None) is Real]


@contextmanager
def clock_moved(by: timedelta) -> Iterator[None]:
    """Let all of lastgood in this process read a clock that is moved."""
    moved, readers = _moved(by), _readers()
    for module in readers:
        module.datetime = moved  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in readers:
            module.datetime = Real  # type: ignore[attr-defined]
