"""A look at a server for the backup before a restore: what cannot be read is listed, and the rest is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from blocks.errors import LastgoodError
from blocks.sources.redis.read.keys import KeySpool
from blocks.sources.redis.rows import SCHEMA, byte_strings
from blocks.sources.redis.views.view import RedisView
from blocks.sources.view import Unread

_ATTEMPTS = 3


class SalvageView(RedisView):
    """What a server holds now, as far as it can be read. Takes what `RedisView` does."""

    @property
    def unread(self) -> Sequence[Unread]:
        """What could not be read so far."""
        with self._lock:
            return list(self._unread.values())

    def _read(self, name: str, keys: pa.LargeBinaryArray) -> tuple[pa.Table, dict[str, int]]:
        """Read keys; where that fails, half of them at a time, down to those that cannot be read."""
        try:
            return super()._read(name, keys)
        except LastgoodError as exc:
            self._check_reached()
            if len(keys) > 1:
                return _joined([self._read(name, half) for half in _halves(keys)])
            return self._read_alone(name, keys, exc)

    def _read_alone(
        self, name: str, keys: pa.LargeBinaryArray, error: LastgoodError
    ) -> tuple[pa.Table, dict[str, int]]:
        for _ in range(_ATTEMPTS):
            try:
                return super()._read(name, keys)
            except LastgoodError as exc:
                self._check_reached()
                error = exc
        [key] = byte_strings(keys)
        self._leave_out(name, key, error)
        return SCHEMA.empty_table(), {}

    def _spool(self, name: str) -> KeySpool:
        """List the keys of a database; where that fails, none, and it cannot be read as a whole."""
        try:
            return super()._spool(name)
        except LastgoodError as exc:
            self._check_reached()
            self._leave_out(name, None, exc)
            with self._lock:
                return self._spools.setdefault(name, KeySpool(self._folder))

    def _some_keys(self, name: str) -> pa.LargeBinaryArray:
        return self._spool(name).sample(1)

    def _check_reached(self) -> None:
        """Let the error stand where a server is gone: then nothing can be read.

        Raises:
            SourceUnavailable: One is.
        """
        for node in self._server.nodes():
            node.info("server")

    def _leave_out(self, name: str, key: bytes | None, error: LastgoodError) -> None:
        label = None if key is None else key.decode("utf-8", "surrogateescape")
        with self._lock:
            self._unread[name, key] = Unread(error.message, name, label)


def _halves(keys: pa.LargeBinaryArray) -> tuple[pa.LargeBinaryArray, pa.LargeBinaryArray]:
    middle = len(keys) // 2
    return keys.slice(0, middle), keys.slice(middle)


def _joined(readings: Sequence[tuple[pa.Table, Mapping[str, int]]]) -> tuple[pa.Table, dict[str, int]]:
    dumped: dict[str, int] = {}
    for _, kinds in readings:
        for kind, count in kinds.items():
            dumped[kind] = dumped.get(kind, 0) + count
    return pa.concat_tables([rows for rows, _ in readings]), dumped
