"""What other packages add to lastgood: found by their entry points, and only where something asks for it.

An entry point that cannot be used is named, and left out; it stops nothing that does not ask for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from blocks.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Group(StrEnum):
    """What can be added. The name of an entry point is what plans call it."""

    SOURCES = "lastgood.sources"
    TIERS = "lastgood.tiers"
    COLLECTORS = "lastgood.collectors"


class PluginUnusable(ConfigurationError):
    """A package that adds something cannot be imported, or adds what it should not."""


def plugin(group: Group, name: str, check: Callable[[str, object], T]) -> T | None:
    """Import what packages add by a name; None where none does.

    Args:
        group: What it is.
        name: Its name. Names that lastgood has itself are not to be asked for.
        check: Is given the name and what was imported; returns that, or raises TypeError or ValueError with a clause of
            what is wrong with it.

    Raises:
        PluginUnusable: There is one that cannot be used; says which package it is of, and why.
    """
    found = _found(group).get(name, ())
    if len({one.value for one in found}) > 1:
        packages = " and ".join(sorted(_package(one) for one in found))
        raise PluginUnusable(
            f"{name!r} of {group.value} is added by more than one package: {packages}", hint="Uninstall one of them."
        )
    return _loaded(group, found[0], check) if found else None


def plugins(group: Group, builtin: Collection[str], check: Callable[[str, object], T]) -> dict[str, T]:
    """Import all that packages add, by name. What cannot be used is left out, and a warning says so.

    Args:
        group: What it is.
        builtin: Names that lastgood has itself, which nothing can take.
        check: See `plugin`.
    """
    usable: dict[str, T] = {}
    for name, found in sorted(_found(group).items()):
        if name in builtin:
            logger.warning("%s cannot take the name %s, which is lastgood's own", _package(found[0]), name)
            continue
        try:
            one = plugin(group, name, check)
        except PluginUnusable as exc:
            logger.warning("%s; it is left out", exc.message)
            continue
        if one is not None:
            usable[name] = one
    return usable


def names(group: Group) -> list[str]:
    """Return the names that packages add, without importing any of them."""
    return sorted(_found(group))


@cache
def _found(group: Group) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a group by name. It reads what is said of every package: tens of milliseconds."""
    from importlib.metadata import entry_points  # takes ten milliseconds, which most processes do without

    found: dict[str, list[EntryPoint]] = {}
    for one in entry_points(group=group.value):
        found.setdefault(one.name, []).append(one)
    return found


def _loaded(group: Group, found: EntryPoint, check: Callable[[str, object], T]) -> T:
    where = f"the plugin {found.name!r} of {group.value}, from {_package(found)},"
    try:
        one = found.load()
    except (Exception, SystemExit) as exc:  # importing runs the package's code, which may raise anything
        said = f"{type(exc).__name__}: {exc}".splitlines()[0]
        raise PluginUnusable(
            f"{where} cannot be imported: {said}", hint="Mend, update or uninstall that package."
        ) from exc
    try:
        return check(found.name, one)
    except (TypeError, ValueError) as exc:
        raise PluginUnusable(f"{where} cannot be used: {exc}", hint="docs/plugins.md says what it has to be.") from exc


def _package(found: EntryPoint) -> str:
    return f"{found.dist.name} {found.dist.version}" if found.dist is not None else found.value


def forget() -> None:
    """Look for packages anew: for tests, which install some."""
    _found.cache_clear()
