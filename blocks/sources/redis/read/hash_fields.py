"""Reading hashes whose fields may expire by themselves.

When a field goes can only be asked by its name, and the names are known only when the hash was read. So it is read
again, together with the expiries of those names, in one transaction; that counts if it has the same names still.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import hiredis

from blocks.errors import SourceChanged
from blocks.sources.redis.net.wire import Connection, Reply, failure, packed

_ATTEMPTS = 10
_BATCH_FIELDS = 2_000
_GONE, _FOREVER = -2, -1

Named = tuple[bytes, list[bytes]]
"""The key of a hash and the names of its fields."""


@dataclass(frozen=True)
class FieldedHash:
    """A hash as of one moment.

    Attributes:
        key: Its key.
        at: When the key expires, as PEXPIRETIME says it.
        items: Fields and values in turn.
        expiries: When single fields expire (milliseconds since 1970), of those that do.
    """

    key: bytes
    at: int
    items: list[bytes]
    expiries: dict[bytes, int]


def read_fields(connection: Connection, hashes: Sequence[Named]) -> Iterator[FieldedHash]:
    """Yield hashes with the expiries of their fields; those that are gone meanwhile are left out.

    Raises:
        SourceChanged: One changed its fields whenever it was read.
    """
    reader, waiting = _FieldReader(connection), list(hashes)
    for _ in range(_ATTEMPTS):
        again: list[Named] = []
        for batch in _batches(waiting):
            yield from reader.together(batch, again)
        if not again:
            return
        waiting = again
    raise SourceChanged(f"{connection.place}: the fields of hash {waiting[0][0]!r} kept changing")


class _FieldReader:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def together(self, batch: Sequence[Named], again: list[Named]) -> Iterator[FieldedHash]:
        """Read hashes in one transaction; put those aside whose names are others by now."""
        commands = []
        for key, names in batch:
            commands += [packed(b"PEXPIRETIME", key), packed(b"HGETALL", key), _asked(key, names)]
        replies = self._connection.transaction(commands)
        assert replies is not None  # nothing is watched
        for (key, names), at, items, expiries in zip(batch, replies[::3], replies[1::3], replies[2::3], strict=True):
            if at == _GONE or self._is_no_hash(key, items):
                continue
            flat = cast("list[bytes]", items)
            if set(flat[::2]) == set(names) and isinstance(expiries, list) and _GONE not in expiries:
                yield FieldedHash(key, cast("int", at), flat, _expiring(names, expiries))
            elif flat:
                again.append((key, flat[::2]))

    def _is_no_hash(self, key: bytes, reply: Reply) -> bool:
        """Whether a key became one of another type: it was deleted and recreated, after it was listed."""
        if not isinstance(reply, hiredis.ReplyError):
            return False
        if not str(reply).startswith("WRONGTYPE"):
            raise failure(reply, self._connection.place, f"reading key {key!r}")
        return True


def _batches(hashes: Sequence[Named]) -> Iterator[list[Named]]:
    batch: list[Named] = []
    size = 0
    for each in hashes:
        batch.append(each)
        size += len(each[1])
        if size >= _BATCH_FIELDS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _asked(key: bytes, names: Sequence[bytes]) -> bytes:
    return packed(*_words(key, names))


def _words(key: bytes, names: Sequence[bytes]) -> tuple[bytes | int, ...]:
    return b"HPEXPIRETIME", key, b"FIELDS", len(names), *names


def _expiring(names: Sequence[bytes], expiries: Sequence[Reply]) -> dict[bytes, int]:
    times = cast("list[int]", expiries)
    return {name: at for name, at in zip(names, times, strict=True) if at != _FOREVER}
