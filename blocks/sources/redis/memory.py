"""Whether a server has room for what is going to be restored."""

from __future__ import annotations

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.redis.keys import KeySpool
from blocks.sources.redis.server import Server
from blocks.sources.redis.wire import packed

KEY_BYTES = 80
"""What a server needs for a key besides its name and value, at least."""

_AT_ONCE = 1_000
_STEP_KEYS = 200_000


class Room:
    """What a server's memory is now, in bytes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        facts = {name: int(value) for name, value in server.info("memory").items() if value.isdigit()}
        self.used, self._data = facts["used_memory"], facts.get("used_memory_dataset", 0)
        self._configured = facts.get("maxmemory", 0)
        self._limit = self._configured or facts.get("total_system_memory", 0)
        self.policy = server.info("memory").get("maxmemory_policy", "noeviction")

    def check_roughly(self, needed: int) -> None:
        """Refuse what could not fit even if it took the place of all that is there.

        Raises:
            RestoreRefused: It cannot fit.
        """
        if self._limit and needed > self._limit - self.used + self._data:
            raise self._refusal(needed, self._limit - self.used + self._data)

    def check(self, needed: int, keys: dict[int, KeySpool]) -> None:
        """Refuse what does not fit beside what stays; keys by the number of their database.

        Raises:
            RestoreRefused: It does not fit.
        """
        free = self._limit - self.used
        if not self._limit or needed <= free:
            return
        total = max(1, sum(self._server.keyspace().values()))
        replaced = sum(self._existing(number, spool) for number, spool in keys.items())
        free += self._data * replaced // total
        if needed > free:
            raise self._refusal(needed, free)

    def _existing(self, database: int, spool: KeySpool) -> int:
        return sum(self._count(database, spool.between(*step)) for step in spool.steps(_STEP_KEYS))

    def _count(self, database: int, keys: pa.LargeBinaryArray) -> int:
        found = 0
        with self._server.connection(database) as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys.slice(start, _AT_ONCE).to_pylist()
                reply = connection.checked(connection.ask(packed("EXISTS", *some), 1), "EXISTS")[0]
                assert isinstance(reply, int)
                found += reply
        return found

    def _refusal(self, needed: int, free: int) -> RestoreRefused:
        limit = "maxmemory" if self._configured else "the memory of its machine"
        evicts = "" if self.policy == "noeviction" else f" (it would evict other keys: {self.policy})"
        return RestoreRefused(
            f"{self._server} has {max(0, free):,} bytes free of {limit}, the restore needs about {needed:,}{evicts}",
            hint="Raise maxmemory, restore fewer keys with --key, or restore to another server with --to.",
        )
