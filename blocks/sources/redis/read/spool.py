"""All rows of a database, in the order of the positions of their keys, however many they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.read.grouping import Mask
from blocks.sources.redis.read.keys import position_of, positions_of
from blocks.sources.redis.rows import LARGE_BYTES, SCHEMA, TYPES, interleaved, is_of_one_key
from blocks.sources.redis.wide import shared
from blocks.sources.runs import Allowance, Spool

_TYPES = pa.array(TYPES, pa.large_string())
_TYPE = SCHEMA.get_field_index("type")


class RowSpool(Spool):
    """Rows sorted by the positions of their keys."""

    def __init__(self, folder: Path, room: Allowance) -> None:
        super().__init__(folder, room)
        self.size_bytes = 0
        """The Arrow bytes of all rows."""

    def add(self, rows: pa.Table, owned: Mask | None = None) -> None:
        """Take rows in the form of SCHEMA; they are found after `end`.

        Args:
            rows: Rows with the columns and types of rows.SCHEMA; all rows of a key at once.
            owned: Of which hash slots; of all where it is None.
        """
        if is_of_one_key(rows):
            positions = np.full(rows.num_rows, position_of(rows.column("key")[0].as_py()), np.uint32)
        else:
            positions = positions_of(rows.column("key").combine_chunks())
        if owned is not None:
            kept = owned[positions >> 16]
            rows, positions = rows.filter(pa.array(kept)), positions[kept]
        self.size_bytes += rows.nbytes
        types = pc.index_in(rows.column(_TYPE).combine_chunks(), _TYPES).cast(pa.int8())
        if not types.null_count:  # types of modules have any names; of all others each takes a byte
            rows = rows.set_column(_TYPE, "type", pa.DictionaryArray.from_arrays(types, _TYPES))
        self.put(rows, positions)

    def _joined(self, tables: Sequence[pa.Table]) -> pa.Table:
        same = all(table.schema == tables[0].schema for table in tables)
        return pa.concat_tables(tables if same else [table.cast(SCHEMA) for table in tables])

    def take(self, other: RowSpool) -> None:
        """Take all that another spool holds."""
        self._runs += other._runs
        self._positions += other._positions
        self.size_bytes += other.size_bytes

    def between(self, start: int, end: int) -> pa.Table:
        """Return the rows whose keys are from one position up to before another; a large key is not copied."""
        large, rest = list[pa.Table](), list[pa.Table]()
        for run in self.slices(start, end):
            if run.nbytes >= LARGE_BYTES and is_of_one_key(run):
                large.append(shared(run))
            else:
                rest.append(run.cast(SCHEMA))
        rows = pa.concat_tables(rest).combine_chunks() if rest else SCHEMA.empty_table()
        return interleaved(rows, large) if large else rows
