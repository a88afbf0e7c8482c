"""What the manifest says of a database."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.sources.postgres.schema.sequences import SequenceState


@dataclass(frozen=True)
class OrphanedKey:
    """A foreign key that rows of a backup break, with its table and the one that it refers to, `schema.table`."""

    name: str
    at: str
    to: str

    def to_manifest(self) -> JsonValue:
        """Write it as JSON."""
        return [self.name, self.at, self.to]

    @classmethod
    def several(cls, raw: JsonValue) -> tuple[OrphanedKey, ...]:
        """Read them from the manifest, where backups of earlier versions have none."""
        return tuple(cls(*map(str, one)) for one in (raw if isinstance(raw, list) else ()) if isinstance(one, list))


@dataclass(frozen=True)
class Backup:
    """A database as it was backed up, without its rows."""

    server_version: int
    encoding: str
    collate: str
    ctype: str
    before: str
    after: str
    sequences: tuple[SequenceState, ...]
    narrowed: bool
    orphaned: tuple[OrphanedKey, ...] = ()

    @classmethod
    def of(cls, definition: dict[str, JsonValue]) -> Backup:
        """Read it.

        Raises:
            CorruptionDetected: It is not that of a PostgreSQL database.
        """
        match definition:
            case {"server_version": int(version), "before": str(before), "after": str(after), "sequences": list(rows)}:
                return cls(
                    server_version=version,
                    encoding=str(definition.get("encoding")),
                    collate=str(definition.get("collate")),
                    ctype=str(definition.get("ctype")),
                    before=before,
                    after=after,
                    sequences=tuple(SequenceState.of(row) for row in rows),
                    narrowed=bool(definition.get("narrowed")),
                    orphaned=OrphanedKey.several(definition.get("orphaned")),
                )
        raise CorruptionDetected("the manifest does not describe a PostgreSQL database")
