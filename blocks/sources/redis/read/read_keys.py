"""Reading keys of any type, many at a time.

The value of a key and its expiry are read in one transaction, so that they are of the same moment. A key that is gone
is no record; one whose type changed in between is read again. Containers larger than one answer are read in pieces
while the server watches the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import cast

import hiredis
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import SourceChanged
from blocks.sources.redis.net.wire import Answers, Connection, Reply, failure, packed
from blocks.sources.redis.read.hash_fields import Named, read_fields
from blocks.sources.redis.read.pieces import read_pieces
from blocks.sources.redis.read.read_commands import SCANNED, read_commands, type_commands
from blocks.sources.redis.read.replies import lines_of_statistics, narrow
from blocks.sources.redis.read.streams import read_stream
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import ELEMENTS, LARGE_BYTES, MODULE, WIDE_ELEMENTS, Content, RowBuilder, byte_strings
from blocks.sources.redis.wide import WideKey, long_string

_ATTEMPTS = 5
_SMALL, _LARGE, _LARGEST = 32, 1024, 2048
"""How many keys are read at once: at first, and at most where their types are known, and of strings."""
_WANTED_BYTES = 512 * 1024
_GONE, _FOREVER = -2, -1

Batch = tuple[str | None, pa.LargeBinaryArray]
"""Keys with the type they are thought to have; None for those that may be strings."""


class KeyReader:
    """Reads keys into rows. Two connections are asked in turn, so that the server works while answers are read.

    Args:
        connections: Two, on which the database is selected.
        field_expiry: Whether the server lets fields of a hash expire.
        put_off_ms: By how much expiries were put off when this place was restored for a verification.
        guesses: What is known of the types of keys.
    """

    def __init__(
        self,
        connections: tuple[Connection, Connection],
        field_expiry: bool = False,
        put_off_ms: int = 0,
        guesses: Guesses | None = None,
    ) -> None:
        self._connections, self._field_expiry, self._put_off = connections, field_expiry, put_off_ms
        self._connection = connections[0]
        self._guesses = guesses or Guesses()
        self._rows = RowBuilder()
        self._sizes: dict[str | None, int] = {}
        self._named: list[Named] = []
        self.dumped: dict[str, int] = {}
        """How many keys of each type of a module were kept as DUMP gives them."""

    def read(self, keys: pa.LargeBinaryArray) -> pa.Table:
        """Return the rows of those keys that are there; of sorted keys they are mostly sorted, too.

        Args:
            keys: Names of keys, without NULLs; large_binary.
        """
        others = self._read(self._guesses.sorted_out(keys))
        for _ in range(_ATTEMPTS):
            if not others:
                break
            others = self._read(self._typed(pa.array(others, pa.large_binary())))
        if others:
            raise SourceChanged(
                f"{self._connection.place}: {len(others)} keys kept changing their type, one is {others[0]!r}"
            )
        self._add_hashes()
        return self._rows.table()

    def _typed(self, keys: pa.LargeBinaryArray) -> Iterator[Batch]:
        """Ask for types; yield keys that have one, and learn it."""
        by_type: dict[str, list[bytes]] = {}
        for start in range(0, len(keys), _LARGE):
            some = keys.slice(start, _LARGE)
            replies = self._connection.ask(type_commands(some), len(some))
            self._connection.checked(replies, "TYPE")
            for key, reply in zip(byte_strings(some), cast("list[bytes]", replies), strict=True):
                kind = reply.decode("utf-8", "replace")
                self._guesses.learn(key, kind)
                by_type.setdefault(kind, []).append(key)
        by_type.pop("none", None)
        for kind, same in by_type.items():
            yield kind, pa.array(same, pa.large_binary())

    def _read(self, batches: Iterable[Batch]) -> list[bytes]:
        """Read keys under the types they are thought to have; return those that have another one."""
        again: list[bytes] = []
        wide: list[tuple[bytes, str]] = []
        for (kind, keys), answers in self._prefetched(batches):
            if kind is None:
                again += self._take_strings(keys, self._connection.parsed(answers))
            else:
                again += self._take_typed(kind, keys, answers, wide)
        return again + [key for key, kind in wide if not self._read_wide(key, kind)]

    def _prefetched(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answers]]:
        """Send each batch of commands in a transaction before the answers of the one before it are handed on."""
        waiting: tuple[Batch, Connection, int] | None = None
        for batch, connection in zip(self._cut(batches), cycle(self._connections), strict=False):
            commands, count = read_commands(*batch, statistics=self._field_expiry and batch[0] == "hash")
            connection.begin(commands)
            if waiting is not None:
                yield self._ended(*waiting)
            waiting = batch, connection, count
        if waiting is not None:
            yield self._ended(*waiting)

    def _cut(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for kind, keys in batches:
            start = 0
            while start < len(keys):
                some = keys.slice(start, self._sizes.setdefault(kind, _SMALL))
                start += len(some)
                yield kind, some

    def _ended(self, batch: Batch, connection: Connection, count: int) -> tuple[Batch, Answers]:
        before = connection.received_bytes
        answers = connection.end_raw(count)
        assert answers is not None  # nothing is watched
        received, size = connection.received_bytes - before, self._sizes[batch[0]]
        # as many at a time as give answers of a reasonable size and do not keep the server from others for long
        most = _LARGEST if batch[0] is None else _LARGE
        self._sizes[batch[0]] = max(1, min(most, size * 2 if received < _WANTED_BYTES else size // 2))
        self._connection = connection
        return batch, answers

    def _take_strings(self, keys: pa.LargeBinaryArray, replies: list[Reply]) -> list[bytes]:
        """Take those that are strings, and return the others that are there."""
        held = cast("list[bytes | None]", replies.pop())
        expiries = np.array(replies, np.int64)
        if long := [n for n, value in enumerate(held) if value is not None and len(value) >= LARGE_BYTES]:
            return self._take_long(keys, held, expiries, long)
        values = pa.array(held, pa.large_binary())
        if not values.null_count:
            self._rows.columns(keys, "string", values, self._absolute(expiries))
            return []
        found = values.is_valid()
        there = found.to_numpy(zero_copy_only=False)
        self._rows.columns(keys.filter(found), "string", values.drop_null(), self._absolute(expiries[there]))
        return byte_strings(keys.filter(pa.array(~there & (expiries != _GONE))))

    def _take_long(
        self, keys: pa.LargeBinaryArray, held: list[bytes | None], expiries: npt.NDArray[np.int64], long: list[int]
    ) -> list[bytes]:
        """Take some strings as they are, which are long, and the others as any."""
        for n in long:
            value, held[n] = cast("bytes", held[n]), None
            self._rows.add_rows(long_string(keys[n].as_py(), "string", value, self._expiry(int(expiries[n]))))
        others = np.ones(len(keys), np.bool_)
        others[long] = False
        replies: list[Reply] = [*expiries[others].tolist(), [held[n] for n in np.flatnonzero(others).tolist()]]
        return self._take_strings(keys.filter(pa.array(others)), replies)

    def _absolute(self, expiries: npt.NDArray[np.int64]) -> pa.Int64Array:
        return pa.array(expiries - self._put_off, mask=expiries < 0)

    def _take_typed(
        self, kind: str, keys: pa.LargeBinaryArray, answers: Answers, wide: list[tuple[bytes, str]]
    ) -> list[bytes]:
        """Take what is ordinary at once and the rest one by one; return keys to be read again."""
        left = np.ones(len(keys), np.bool_)
        if kind in ELEMENTS and isinstance(answers, bytes):
            left = self._take_narrow(kind, keys, answers)
        if not left.any():
            return []
        replies = self._connection.parsed(answers)
        again: list[bytes] = []
        for n, key in zip(np.flatnonzero(left).tolist(), byte_strings(keys.filter(pa.array(left))), strict=True):
            at, reply = cast("int", replies[2 * n]), replies[2 * n + 1]
            if at == _GONE:
                continue
            if isinstance(reply, hiredis.ReplyError):
                again.append(self._changed(key, reply))
            elif _incomplete(kind, reply):
                wide.append((key, kind))
            elif not self._take(key, kind, at, reply):
                again.append(key)
        return again

    def _take_narrow(self, kind: str, keys: pa.LargeBinaryArray, raw: bytes) -> npt.NDArray[np.bool_]:
        """Take the containers that are ordinary, and say which are left."""
        behind: int | None = 2
        if kind == "hash" and self._field_expiry:
            behind = lines_of_statistics(raw, self._connection.database or 0)
        taken = None if behind is None else narrow(kind, raw, len(keys), behind)
        if taken is None:
            return np.ones(len(keys), np.bool_)
        some = keys.filter(pa.array(taken.found))
        self._rows.columns(some, kind, taken.values, self._absolute(taken.expiries))
        return ~taken.found

    def _changed(self, key: bytes, error: hiredis.ReplyError) -> bytes:
        if not str(error).startswith(("WRONGTYPE", "ERR no such key")):
            raise failure(error, self._connection.place, f"reading key {key!r}")
        return key

    def _take(self, key: bytes, kind: str, at: int, reply: Reply) -> bool:
        expires = None if at == _FOREVER else at - self._put_off
        if kind in ELEMENTS:
            return self._take_elements(key, kind, expires, cast("list[bytes]", _items(kind, reply)))
        if reply is None:  # it went by itself a moment after its expiry was asked for
            return False
        if kind == "string":
            self._rows.add(key, Content(kind, expires, value=cast("bytes", reply)))
        elif kind == "stream":
            head, entries = read_stream(reply)
            self._rows.add(key, Content(kind, expires, entries, head))
        else:
            self.dumped[kind] = self.dumped.get(kind, 0) + 1
            self._rows.add(key, Content(MODULE + kind, expires, value=cast("bytes", reply)))
        return True

    def _take_elements(self, key: bytes, kind: str, expires: int | None, items: list[bytes]) -> bool:
        if not items:  # a hash of which all fields expired stays until the server removes it
            return kind == "hash"
        if kind == "hash" and self._field_expiry:
            self._named.append((key, items[::2]))
        else:
            self._add(key, kind, expires, items, {})
        return True

    def _add(self, key: bytes, kind: str, expires: int | None, items: list[bytes], fields_ms: dict[bytes, int]) -> None:
        if not fields_ms and self._rows.narrow(key, kind, items, expires):
            return
        self._rows.add(key, Content(kind, expires, ELEMENTS[kind](items), fields_ms=fields_ms or None))

    def _add_hashes(self) -> None:
        """Read the hashes whose fields may expire, now that the names of those are known."""
        for found in read_fields(self._connection, self._named):
            fields_ms = {name: at - self._put_off for name, at in found.expiries.items()}
            expires = None if found.at == _FOREVER else found.at - self._put_off
            self._add(found.key, "hash", expires, found.items, fields_ms)

    def _read_wide(self, key: bytes, kind: str) -> bool:
        """Read a large container in pieces; if it changes all the time, in one answer that keeps the server busy."""
        connection = self._connection
        expiring = kind == "hash" and self._field_expiry
        for _ in range(2):
            connection.call("WATCH", key)
            at = cast("int", connection.call("PEXPIRETIME", key))
            found = read_pieces(connection, key, kind, self._put_off, expiring=expiring)
            if connection.transaction([packed("PING")]) is not None:
                return found is not None and at != _GONE and self._took(key, kind, at, found)
        whole = {"hash": ("HGETALL", key), "set": ("SMEMBERS", key)}.get(kind)
        words = whole or (("LRANGE" if kind == "list" else "ZRANGE"), key, 0, -1)
        command = packed(*words, "WITHSCORES") if kind == "zset" else packed(*words)
        replies = connection.transaction([packed("PEXPIRETIME", key), command]) or []
        if isinstance(replies[1], hiredis.ReplyError) or replies[0] == _GONE:
            return False
        items = cast("list[bytes]", replies[1])
        if expiring:
            return self._take_elements(key, kind, self._expiry(cast("int", replies[0])), items)
        found = WideKey(kind)
        found.add(items)
        return self._took(key, kind, cast("int", replies[0]), found)

    def _took(self, key: bytes, kind: str, at: int, found: WideKey) -> bool:
        found.settle()
        if not len(found):  # a hash of which all fields expired stays until the server removes it
            return kind == "hash"
        if found.is_narrow:
            self._add(key, kind, self._expiry(at), found.items(), {})
        else:
            self._rows.add_rows(found.rows(key, self._expiry(at)))
        return True

    def _expiry(self, at: int) -> int | None:
        return None if at == _FOREVER else at - self._put_off


def _items(kind: str, reply: Reply) -> Reply:
    return cast("list[Reply]", reply)[1] if kind in SCANNED else reply


def _incomplete(kind: str, reply: Reply) -> bool:
    if kind in SCANNED:
        return cast("list[Reply]", reply)[0] != b"0"
    return kind == "list" and len(cast("list[Reply]", reply)) > WIDE_ELEMENTS
