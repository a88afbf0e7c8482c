"""Rows turned into the commands that bring their keys back, ready to be sent.

A key is replaced as a whole: a narrow one in a transaction, a wide one under another name that is then changed to its
own. What cannot be written is found out here, before anything is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, LastgoodError, RestoreRefused
from blocks.sources.redis.packing import bulk, joined
from blocks.sources.redis.rows import MODULE, SCHEMA, Elements, byte_strings
from blocks.sources.redis.streams import KEY, StreamHead, stream_commands
from blocks.sources.redis.temporary import temporary_name
from blocks.sources.redis.wire import Word, packed, unpacked
from blocks.variant import decode_variant, is_variant

_TEMPORARY_MS = 3_600_000
_SOON_MS = 24 * 3_600_000
_BATCH_ROWS = 16_384
_FRAME_BYTES = 256 * 1024
_FILL = {"hash": b"HSET", "list": b"RPUSH", "set": b"SADD", "zset": b"ZADD"}
_MULTI, _EXEC = packed("MULTI"), packed("EXEC")
_SET, _SET_UNTIL = (pa.scalar(b"*%d\r\n$3\r\nSET\r\n" % words, pa.large_binary()) for words in (3, 5))

_FIELDS_AT_ONCE = 1_000

Command = tuple[Word, ...]

Frame = tuple[bytes, int]
"""Packed commands, and how many they are."""

_Head = tuple[bytes, str, bytes | None, int | None]
_Element = tuple[bytes, bytes, int | None]


class CommandWriter:
    """Turns the rows of one part into frames.

    Args:
        put_off_ms: Added to every expiry; not 0 only in the scratch restore of a verification.
        field_expiry: Whether the server lets fields of a hash expire.
    """

    def __init__(self, put_off_ms: int, field_expiry: bool) -> None:
        self._put_off, self._field_expiry = put_off_ms, field_expiry
        self._now_ms = time.time_ns() // 1_000_000
        self._pieces: list[bytes] = []
        self._count = self._size = 0
        self.keys: list[bytes] = []
        """The keys that are written."""
        self.expired = self.expired_fields = 0
        """How many keys, and fields of keys that stay, went by themselves between backup and restore."""

    def frames(self, rows: pa.Table) -> Iterator[Frame]:
        """Yield commands in frames of a reasonable size.

        Raises:
            CorruptionDetected: The rows are none that this source makes; the key is named.
            RestoreRefused: The server lacks something that a key needs.
        """
        table = _plain(rows)
        strings = _are_strings(table)
        for batch in table.filter(strings).to_batches(_BATCH_ROWS):
            yield from self._strings(batch)
        yield from self._others(table.filter(pc.invert(strings)))

    def _others(self, table: pa.Table) -> Iterator[Frame]:
        head: _Head | None = None
        elements: list[_Element] = []
        for key, element, kind, value, expires in _in_order(table):
            if element is not None:
                if head is None or head[0] != key or value is None:
                    raise _not_ours(key, "an element without its head")
                elements.append((element, value, expires))
                continue
            if head is not None:
                yield from self._key(head, elements)
            head, elements = (key, kind, value, expires), []
        if head is not None:
            yield from self._key(head, elements)
        if self._count:
            yield self._frame()

    def _strings(self, rows: pa.RecordBatch) -> Iterator[Frame]:
        at = pc.add(rows.column("expires_ms"), self._put_off)
        lives = pc.fill_null(pc.greater(at, self._now_ms), True)
        self.expired += lives.false_count
        keys, values, at = (column.filter(lives) for column in (rows.column("key"), rows.column("value"), at))
        begins = pc.if_else(at.is_null(), _SET, _SET_UNTIL)
        ends = joined(b"$4\r\nPXAT\r\n", bulk(at.cast(pa.large_string()).cast(pa.large_binary())))
        commands = joined(begins, bulk(keys), bulk(values), pc.fill_null(ends, b""))
        self.keys += byte_strings(keys)
        yield from _framed(commands)

    def _key(self, head: _Head, elements: list[_Element]) -> Iterator[Frame]:
        key, _, _, expires = head
        living = self._living(elements)
        if (expires is not None and not self._lives(expires)) or (elements and not living):
            self.expired += 1
            return
        self.expired_fields += len(elements) - len(living)
        try:
            yield from self._replaced(head, living)
        except LastgoodError:
            raise
        except ValueError as exc:
            raise _not_ours(key, str(exc)) from exc
        self.keys.append(key)
        if self._size >= _FRAME_BYTES:
            yield self._frame()

    def _replaced(self, head: _Head, elements: list[_Element]) -> Iterator[Frame]:
        key, kind, value, expires = head
        if kind.startswith(MODULE) and value is not None and not elements:
            at = 0 if expires is None else expires + self._put_off
            self._add(packed(b"RESTORE", key, at, value, b"REPLACE", b"ABSTTL"))
        elif kind == "stream" and value is not None:
            yield from self._built(
                key, expires, stream_commands(StreamHead.decode(value), [each[:2] for each in elements])
            )
        elif kind not in _FILL or (value is None) != bool(elements):
            raise ValueError(f"a {kind} with {len(elements)} elements")
        elif value is not None:
            self._narrow(key, _filled(kind, key, unpacked(value)), expires)
        else:
            fill = _filling(kind, [(element, value) for element, value, _ in elements])
            soon, later = self._field_expiries(key, elements)
            yield from self._built(key, expires, chain(fill, later), soon)

    def _narrow(self, key: bytes, fill: bytes, expires: int | None) -> None:
        commands = [_MULTI, packed(b"DEL", key), fill]
        if expires is not None:
            commands.append(packed(b"PEXPIREAT", key, expires + self._put_off))
        self._add(b"".join([*commands, _EXEC]), len(commands) + 1)

    def _built(
        self,
        key: bytes,
        expires: int | None,
        commands: Iterator[Command],
        last: Sequence[tuple[Word, ...]] = (),
    ) -> Iterator[Frame]:
        """Build a container under a name of its own, then let it take the key's place, and do what comes last."""
        name = temporary_name(key)
        for n, words in enumerate(commands):
            self._add(packed(*_with_key(words, name)))
            if n == 0:  # nobody would look for it if the restore were interrupted
                self._add(packed(b"PEXPIRE", name, _TEMPORARY_MS))
            if self._size >= _FRAME_BYTES:
                yield self._frame()
        expiry = packed(b"PERSIST", key) if expires is None else packed(b"PEXPIREAT", key, expires + self._put_off)
        ending = [packed(b"RENAME", name, key), expiry, *(packed(*_with_key(words, key)) for words in last)]
        self._add(b"".join([_MULTI, *ending, _EXEC]), len(ending) + 2)

    def _field_expiries(self, key: bytes, elements: list[_Element]) -> tuple[list[Command], list[Command]]:
        """Return the commands for fields that expire soon, and for others.

        If all fields went while the hash is being built, there would be nothing to take the key's place.
        """
        fields: dict[int, list[bytes]] = {}
        for field, _, expires in elements:
            if expires is not None:
                fields.setdefault(expires + self._put_off, []).append(field)
        if fields and not self._field_expiry:
            raise RestoreRefused(
                f"a field of hash {key!r} expires by itself, and the server does not know that of fields",
                hint="Restore into Redis 7.4 or newer; `server_program` in the plan names that of a file.",
            )
        soon: list[Command] = []
        later: list[Command] = []
        for at, names in fields.items():
            chosen = soon if at < self._now_ms + _SOON_MS else later
            for start in range(0, len(names), _FIELDS_AT_ONCE):
                some = names[start : start + _FIELDS_AT_ONCE]
                chosen.append((b"HPEXPIREAT", KEY, at, b"FIELDS", len(some), *some))
        return soon, later

    def _living(self, elements: list[_Element]) -> list[_Element]:
        """Leave out fields that went by themselves."""
        if all(expires is None for _, _, expires in elements):
            return elements
        return [each for each in elements if each[2] is None or self._lives(each[2])]

    def _lives(self, expires: int) -> bool:
        return expires + self._put_off > self._now_ms

    def _add(self, commands: bytes, count: int = 1) -> None:
        self._pieces.append(commands)
        self._count += count
        self._size += len(commands)

    def _frame(self) -> Frame:
        frame = b"".join(self._pieces), self._count
        self._pieces, self._count, self._size = [], 0, 0
        return frame


def _with_key(words: Sequence[Word], key: bytes) -> tuple[Word, ...]:
    """Put a name in: in the second word, or in the third of a command with a subcommand."""
    return (*words[:2], key, *words[3:]) if words[0] == b"XGROUP" else (words[0], key, *words[2:])


def _filled(kind: str, key: bytes, items: list[bytes]) -> bytes:
    """Return the command that puts all elements of a narrow container.

    Raises:
        ValueError: They are not those of such a container.
    """
    if not items or (kind in ("hash", "zset") and len(items) % 2):
        raise ValueError(f"no narrow {kind}")
    if kind == "zset":
        members, scores = items[::2], items[1::2]
        list(map(float, scores))  # a score that is none is told before anything is written
        items[::2], items[1::2] = scores, members
    return packed(_FILL[kind], key, *items)


def _filling(kind: str, elements: Elements) -> Iterator[Command]:
    """Yield commands that put the elements, each with about as many as fit into a frame."""
    words: list[Word] = []
    size = 0
    for element, value in elements:
        if kind == "zset":
            float(value)  # a score that is none is told before anything is written
            words += (value, element)
        elif kind == "hash":
            words += (element, value)
        else:
            words.append(value if kind == "list" else element)
        size += len(element) + len(value)
        if size >= _FRAME_BYTES or len(words) >= 2_000:
            yield _FILL[kind], KEY, *words
            words, size = [], 0
    if words:
        yield _FILL[kind], KEY, *words


def _framed(commands: pa.LargeBinaryArray) -> Iterator[Frame]:
    """Cut commands into frames of a reasonable size."""
    sizes = np.cumsum(pc.binary_length(commands).to_numpy())
    cuts = np.searchsorted(sizes, np.arange(_FRAME_BYTES, sizes[-1] if len(sizes) else 0, _FRAME_BYTES))
    for first, last in pairwise(np.unique([0, *cuts, len(sizes)]).tolist()):
        yield b"".join(byte_strings(commands.slice(first, last - first))), last - first


def _are_strings(table: pa.Table) -> pa.ChunkedArray:
    """Tell which rows are strings as they should be."""
    found = pc.and_(pc.equal(table.column("type"), "string"), table.column("value").is_valid())
    return pc.fill_null(pc.and_(found, table.column("element").is_null()), False)


def _in_order(table: pa.Table) -> Iterator[tuple[bytes, bytes | None, str, bytes | None, int | None]]:
    """Yield rows sorted by key, each head before its elements."""
    ranked = table.append_column("inner", table.column("element").is_valid())
    order = pc.sort_indices(ranked, sort_keys=[(name, "ascending") for name in ("key", "inner", "element")])
    for batch in table.take(order).to_batches(_BATCH_ROWS):
        yield from zip(*map(_values, batch.columns), strict=True)


def _values(column: pa.Array) -> list[object]:
    """Turn a column into a list, faster than Arrow's own way where that matters."""
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_integer(column.type):
        return cast("list[object]", column.to_pylist())
    return cast("list[object]", column.to_numpy(zero_copy_only=False).tolist())


def _plain(rows: pa.Table) -> pa.Table:
    """Return all columns in their own types, also where a merge of several backups gave them others."""
    return pa.Table.from_arrays([_plain_column(rows, field) for field in SCHEMA], schema=SCHEMA)


def _plain_column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    column = rows.column(field.name)
    if is_variant(rows.schema.field(field.name)):
        return pa.chunked_array([pa.array(decode_variant(column), field.type)])
    return column.cast(field.type)


def _not_ours(key: bytes, what: str) -> CorruptionDetected:
    return CorruptionDetected(
        f"key {key!r} of the backup is not as this source writes keys: {what}", hint="Do not trust this backup."
    )
