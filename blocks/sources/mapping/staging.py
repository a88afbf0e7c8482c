"""Rows on their way to a store: kept in an unnamed temporary file until all of them have come."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from typing import IO

import pyarrow as pa

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.host.leftovers import temporary_folder

_CHUNK_ROWS = 500


class StagedRows:
    """Keys and canonical texts; the file has no name, so a process that is killed leaves nothing behind."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._file: IO[bytes] | None = None
        self._lock = Lock()

    def add(self, rows: pa.Table) -> None:
        """Keep rows with the columns `key` and `value`.

        Args:
            rows: Rows with `key` and `value`, both large_string: keys, and values as canonical text.

        Raises:
            RestoreRefused: The temporary folder is full, or not there.
        """
        try:
            with self._lock:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115  it lives until `close`
                with pa.ipc.new_stream(self._file, rows.schema) as writer:
                    writer.write_table(rows, max_chunksize=_CHUNK_ROWS)
                self._file.flush()
                self.keys.update(rows.column("key").to_pylist())
        except (OSError, ConfigurationError) as exc:
            raise RestoreRefused(
                f"what is to be restored cannot be kept in the temporary folder: {exc}",
                hint="Set TMPDIR to a folder with room, on a disk that may hold decrypted state for a while.",
            ) from exc

    def batches(self) -> Iterator[list[tuple[str, str]]]:
        """Give keys with texts, some hundred at a time."""
        if self._file is None:
            return
        end = self._file.tell()
        self._file.seek(0)
        while self._file.tell() < end:
            with pa.ipc.open_stream(self._file) as reader:
                for batch in reader:
                    yield list(zip(batch.column("key").to_pylist(), batch.column("value").to_pylist(), strict=True))

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            file, self._file = self._file, None
            self.keys = set()
        if file is not None:
            with suppress(OSError):  # what it could not write on a full disk is not wanted any more
                file.close()
