"""A state manager that keeps values in tiers: which one each key is written to, in the manager's own words."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from fnmatch import fnmatchcase

from blocks.errors import ConfigurationError
from blocks.sources.mapping.running import FAILURES

HOT, WARM, COLD = "hot", "warm", "cold"
DEFAULTS = {"ml_model:*": WARM, "config:*": WARM}
"""Globs of keys and where they belong; all other keys are hot."""

_SETTERS = ("set_state", "batch_set_state")


class Tiers:
    """Which tier each key belongs to.

    Args:
        categories: Globs of keys with `hot`, `warm` or `cold`; the first that matches counts, then the defaults.
    """

    def __init__(self, categories: Mapping[str, str]) -> None:
        self._globs = [
            *categories.items(),
            *((glob, tier) for glob, tier in DEFAULTS.items() if glob not in categories),
        ]

    def of(self, key: str, manager: object) -> object:
        """Return the category of a key: a member of the manager's own enum where it has one, else the word.

        Raises:
            ConfigurationError: Its enum has no such member.
        """
        return _member(_enum_of(manager), self._word(key))

    def batch(self, values: Mapping[str, object], manager: object) -> dict[str, tuple[object, object]]:
        """Return what `batch_set_state` takes: each value with its category."""
        kind = _enum_of(manager)
        return {key: (value, _member(kind, self._word(key))) for key, value in values.items()}

    def _word(self, key: str) -> str:
        return next((tier for glob, tier in self._globs if fnmatchcase(key, glob)), HOT)


def _member(kind: type[Enum] | None, word: str) -> object:
    if kind is None:
        return word
    for member in kind:
        if word in (str(member.value).lower(), member.name.lower()):
            return member
    raise ConfigurationError(
        f"{kind.__module__}:{kind.__qualname__} has no member {word}",
        hint="`categories` of the source names the tier of each key: hot, warm or cold.",
    )


def _enum_of(manager: object) -> type[Enum] | None:
    """Find the enum of a manager's categories: in what its methods declare, else in the module of its class."""
    return next((kind for kind in (*_declared(manager), *_beside(manager)) if _names_tiers(kind)), None)


def _names_tiers(kind: object) -> typing.TypeGuard[type[Enum]]:
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return False
    words = {word for member in kind for word in (str(member.value).lower(), member.name.lower())}
    return words >= {HOT, WARM, COLD}


def _declared(manager: object) -> Iterator[object]:
    for name in _SETTERS:
        try:
            method = getattr(manager, name, None)
            yield from (type(p.default) for p in inspect.signature(method).parameters.values())  # type: ignore[arg-type]
            for hint in typing.get_type_hints(method).values():
                yield from _within(hint)
        except FAILURES:  # it cannot be asked, or declares what is not there
            continue


def _within(hint: object) -> Iterator[object]:
    yield hint
    for part in typing.get_args(hint):
        yield from _within(part)


def _beside(manager: object) -> Iterator[object]:
    for kind in type(manager).__mro__:
        yield from vars(sys.modules.get(kind.__module__, object)).values()
