"""Which keys a plan covers, and which of them a restore removes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.selection import Selection
from blocks.sources.redis.globs import Globs
from blocks.sources.redis.rows import byte_strings
from blocks.sources.redis.temporary_names import OURS


@dataclass(frozen=True)
class Coverage:
    """What a plan covers of a server now.

    Attributes:
        patterns: Globs that keys have to match.
        databases: Their numbers, as the server counts them; None for all.
    """

    patterns: Sequence[str] = ("*",)
    databases: Collection[int] | None = None

    def has_database(self, number: int) -> bool:
        """Whether a database is covered."""
        return self.databases is None or number in self.databases

    def mask(self, keys: pa.ChunkedArray) -> pa.BooleanArray | None:
        """Return which keys are covered; None where all are."""
        globs = Globs(self.patterns)
        ours = pc.or_(*[pc.starts_with(keys, name) for name in OURS])
        if globs.everything:
            return pc.invert(ours) if pc.any(ours).as_py() else None
        return pc.and_(pc.invert(ours), pa.array(globs.matches(_bytes(keys)), pa.bool_()))


@dataclass(frozen=True)
class Removal:
    """Which keys of one database an exact restore removes, unless they are among those of the backup.

    Attributes:
        plan: Globs of the plan.
        backup: Globs that the backup was made with.
        selection: What is restored.
    """

    plan: Sequence[str]
    backup: Sequence[str]
    selection: Selection

    @property
    def listed(self) -> Sequence[str]:
        """The globs to list keys by; `of` leaves those out that others do not match."""
        return self.backup if "*" in self.plan else self.plan

    def of(self, keys: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
        """Leave only those that plan, backup and selection have."""
        for patterns in (self.plan, self.backup):
            globs = Globs(patterns)
            if not globs.everything:
                keys = keys.filter(pa.array(globs.matches(byte_strings(keys)), pa.bool_()))
        mask = self.selection.mask(pa.table({"key": keys}), ("key",)) if len(keys) else None
        if mask is None:
            return keys
        return keys.filter(mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask)


def patterns_of(definition: Mapping[str, object]) -> list[str]:
    """Return the globs that a backup was made with."""
    found = definition.get("patterns")
    return [str(pattern) for pattern in found] if isinstance(found, list) else ["*"]


def _bytes(keys: pa.ChunkedArray) -> list[bytes]:
    return byte_strings(keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys)
