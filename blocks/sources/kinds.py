"""The types of sources a plan can name: our own, and those that other packages add.

A process that does without Prefect imports only those that its plan names. Packages are looked for only where a plan
names a type that is not our own, or where all types are listed: in a form.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field

from blocks.host.plugins import Group, PluginUnusable, plugin, plugins
from blocks.prefect_compat import keep_registered, without_prefect

_KINDS = {
    "files": "FilesSource",
    "mapping": "MappingSource",
    "postgres": "PostgresSource",
    "redis": "RedisSource",
    "sqlite": "SQLiteSource",
}
"""Name of the class in the package of the type's name."""

OWN_TYPES = frozenset(_KINDS)

if TYPE_CHECKING or not without_prefect():
    from blocks.sources.files import FilesSource
    from blocks.sources.mapping import MappingSource
    from blocks.sources.postgres import PostgresSource
    from blocks.sources.redis import RedisSource
    from blocks.sources.sqlite import SQLiteSource

    Source = Annotated[
        FilesSource | MappingSource | PostgresSource | RedisSource | SQLiteSource,
        Field(discriminator="type"),
    ]


def source_of(kinds: Iterable[object]) -> Any:
    """Return what a source of some types is validated as: of all types, where one of them is unknown.

    Args:
        kinds: What a plan says as the types of its sources.
    """
    named = list(kinds)
    found = {str(kind): one for kind in named if isinstance(kind, str) and (one := _class(kind)) is not None}
    if not named or len(found) < len(set(map(repr, named))):
        found |= {kind: _own(kind) for kind in _KINDS} | added_sources()
    classes = [found[kind] for kind in sorted(found)]
    union: Any = classes[0]
    for other in classes[1:]:
        union = union | other
    return Annotated[union, Field(discriminator="type")] if len(classes) > 1 else union


def added_source(kind: object) -> type[Any] | None:
    """Return the class of a type of sources that another package adds; None where none adds it.

    Raises:
        PluginUnusable: One does, and it cannot be used.
    """
    return plugin(Group.SOURCES, kind, _checked) if isinstance(kind, str) and kind not in _KINDS else None


def added_sources() -> dict[str, type[Any]]:
    """Return all types of sources that other packages add, by name; those that cannot be used are warned of."""
    return plugins(Group.SOURCES, _KINDS, _checked)


def _class(kind: str) -> type[Any] | None:
    if kind in _KINDS:
        return _own(kind)
    try:
        return added_source(kind)
    except PluginUnusable:  # who reads the source says so, with its line
        return None


def _own(kind: str) -> type[Any]:
    one: type[Any] = getattr(import_module(f"blocks.sources.{kind}"), _KINDS[kind])
    return one


def _checked(kind: str, one: object) -> type[Any]:
    from blocks.sources.source import StateSource

    if not (isinstance(one, type) and issubclass(one, StateSource)):
        raise TypeError("it is no class that derives from StateSource")
    if inspect.isabstract(one):
        missing = ", ".join(sorted(one.__abstractmethods__))
        raise ValueError(f"it lacks {missing}")
    field = one.model_fields.get("type")
    if field is None or get_args(field.annotation) != (kind,):
        raise ValueError(f"its field `type` is not Literal[{kind!r}]")
    bases = [base for base in one.__mro__[1:] if issubclass(base, StateSource)]
    if (base := next((base for base in bases if _slug(base) and _slug(base) == _slug(one)), None)) is not None:
        keep_registered(base)  # Prefect would take the one for the other
        raise ValueError(f"its `_block_type_slug` is that of {base.__name__}, and has to be its own")
    try:
        one.model_rebuild()
    except NameError as exc:
        raise ValueError(f"its fields cannot be understood: {exc}") from exc
    return one


def _slug(kind: type[Any]) -> str | None:
    own = kind.__private_attributes__.get("_block_type_slug")  # without Prefect
    slug: str | None = own.default if own is not None else getattr(kind, "_block_type_slug", None)
    return slug
