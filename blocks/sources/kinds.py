"""The types of sources a plan can name. A process that does without Prefect imports only those that its plan names."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from blocks.prefect_compat import without_prefect

_KINDS = {
    "files": "FilesSource",
    "mapping": "MappingSource",
    "postgres": "PostgresSource",
    "redis": "RedisSource",
    "sqlite": "SQLiteSource",
}
"""Name of the class in the package of the type's name."""

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
    known = named and all(isinstance(kind, str) and kind in _KINDS for kind in named)
    wanted = sorted({str(kind) for kind in named} if known else _KINDS)
    found = tuple(getattr(import_module(f"blocks.sources.{kind}"), _KINDS[kind]) for kind in wanted)
    union: Any = found[0]
    for other in found[1:]:
        union = union | other
    return Annotated[union, Field(discriminator="type")] if len(found) > 1 else union
