"""Packing the rows of a part, of whatever size it is."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa

from blocks.errors import ConfigurationError, TemporaryFolderUnusable
from blocks.host.leftovers import kept_temporarily, scratch_folder
from blocks.rows.parquet import rows_to_parquet, write_parquet

_LARGE_BYTES = 256 * 1024 * 1024
"""Only a row that is very large, or very many rows of one key, make a part so large."""


def packed(rows: list[pa.Table], level: int) -> pa.Buffer:
    """Pack the one table of a list, which is emptied: the file of a large part waits on disk until the rows are gone.

    Where there is no room for that, it is made in memory as those of other parts are.
    """
    if rows[0].nbytes >= _LARGE_BYTES:
        with suppress(ConfigurationError, TemporaryFolderUnusable), scratch_folder("packed") as folder:
            with kept_temporarily("a large part", folder), pa.OSFile(str(folder / "part"), "wb") as file:
                write_parquet(rows[0], level, file)
            rows.clear()
            return pa.py_buffer((folder / "part").read_bytes())
    return rows_to_parquet(rows.pop(), level)
