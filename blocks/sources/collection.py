"""A collection as its source sees it, and how it is taken apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from pydantic import JsonValue

Bounds = dict[str, JsonValue]


PART_SIZE_BYTES = 64 * 1024 * 1024
"""Size that parts are partitioned for, in bytes of Arrow data."""


REPARTITION_FACTOR = 4
"""How many times that size a part may reach within a chain."""


@dataclass(frozen=True)
class CollectionSpec:
    """A collection as its source sees it.

    Attributes:
        name: Name within the source, e.g. a table's name.
        key: The columns that identify a row; no two rows share a value of all of them.
        label: The key columns whose text a person's key pattern is matched against.
        columns: Name and declared type of each column, in order; the key columns are among them.
        definition: What a restore needs besides rows (statements that create the table, say).
        tracking: Columns that only show whether a row changed (an inode, say) and are not restored.
        later: Columns that backups of earlier versions lack, which say nothing of them.
    """

    name: str
    key: tuple[str, ...]
    label: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    definition: dict[str, JsonValue] = field(default_factory=dict)
    tracking: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes when rows kept before can no longer stand beside rows read now: then the next backup is a full."""
        shape = [self.name, self.key, self.columns]
        return hashlib.sha256(json.dumps(shape, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()

    def fits(self, other: CollectionSpec) -> bool:
        """Whether rows of another one can be rows of this: the same key and columns, which may stand in another order.

        Definitions do not say in what order a table has the columns that it inherits. A backup of an earlier version
        may lack columns that came later.
        """
        lacking = self.lacking(other)
        columns = sorted(column for column in self.columns if column[0] not in lacking)
        return (self.name, self.key) == (other.name, other.key) and columns == sorted(other.columns)

    def lacking(self, other: CollectionSpec) -> list[str]:
        """Return the columns that came later than another one, of an earlier version, was backed up."""
        held = {name for name, _ in other.columns}
        return [name for name in self.later if name not in held]
