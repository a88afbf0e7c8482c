"""What of a database a plan takes, and how it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, TableShape


@dataclass(frozen=True)
class Choice:
    """What of a database is backed up.

    Attributes:
        included: Returns for a schema and a name whether a table (or a sequence) is.
        narrowed: Whether that may leave something out.
        words: What the plan says, to distinguish one choice from another.
        schemas_only: Whether whole schemas are chosen.
    """

    included: Callable[[str, str], bool] = field(compare=False)
    narrowed: bool
    schemas_only: bool
    words: str

    def without(self, names: Collection[tuple[str, str]]) -> Choice:
        """Return what is left where some tables are taken out."""
        if not names:
            return self
        included, left_out = self.included, frozenset(names)
        return replace(self, included=lambda schema, name: (schema, name) not in left_out and included(schema, name))

    def covers(self, collection: CollectionSpec) -> bool:
        """Whether a collection of a backup is among what is chosen; large objects only where all is."""
        if collection.name == LARGE_OBJECTS:
            return not self.narrowed
        shape = TableShape.of(collection)
        return self.included(shape.schema, shape.table)

    def covers_sequence(self, schema: str, name: str, owner_schema: str, owner: str) -> bool:
        """Whether a sequence is among what is chosen: with its schema, or with the table that owns it."""
        if self.schemas_only or not self.narrowed:
            return self.included(schema, "" if self.narrowed else name)
        return bool(owner) and self.included(owner_schema, owner)


@dataclass(frozen=True)
class Settings:
    """How a view is opened; `salvage` goes on past tables that cannot be read, and asks no replication slot."""

    conninfo: str = field(repr=False)
    choice: Choice
    part_size_bytes: int
    connect_timeout_seconds: float
    lock_timeout_seconds: float
    pg_dump: str | None
    slot: str | None = None
    salvage: bool = False

    @property
    def followed(self) -> str | None:
        """The replication slot that is asked; one that is made waits for all transactions, those of a restore too."""
        return None if self.salvage else self.slot
