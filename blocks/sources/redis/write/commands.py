"""Rows turned into the commands that bring their keys back, ready to be sent.

A key is replaced as a whole: a narrow one in a transaction, a wide one under another name that is then changed to its
own. What cannot be written is found out here, before anything is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, LastgoodError, PlaceUnfit, RestoreRefused
from blocks.sources.redis.net.wire import Word, packed, unpacked
from blocks.sources.redis.rdb.stream_payload import can_be_built, stream_payload
from blocks.sources.redis.read.streams import KEY, StreamHead, stream_commands
from blocks.sources.redis.rows import MODULE, byte_strings, width_of
from blocks.sources.redis.temporary_names import temporary_name
from blocks.sources.redis.write.filling import FILL, FRAME_BYTES, Command, Frame, Pieces, filled, filling, setting
from blocks.sources.redis.write.key_rows import BATCH_ROWS, Row, are_strings, in_order, pairs, plain, rows_of, spans
from blocks.sources.redis.write.only_restore import has_nan, unnumbered_payload
from blocks.sources.redis.write.probe import Probe
from blocks.sources.redis.write.room import overhead_of, overhead_of_many
from blocks.sources.redis.write.send import still_built
from blocks.sources.redis.write.temporary_keys import Names

_TEMPORARY_MS = 3_600_000
_SOON_MS = 24 * 3_600_000
_MANY_ELEMENTS = 10_000
"""The elements of a key that has more are never all objects of Python at once."""
_MULTI, _EXEC = packed("MULTI"), packed("EXEC")

_FIELDS_AT_ONCE = 1_000

KEEP_GOING = "--keep-going restores all else, and leaves such keys as they are."

_Head = tuple[bytes, str, bytes | None, int | None]
_Element = tuple[bytes, bytes, int | None]


class _LeftOut(Exception):
    """A key would be refused by the server, and was left out."""


class CommandWriter:
    """Turns the rows of one part into frames.

    Args:
        put_off_ms: Added to every expiry; not 0 only in the scratch restore of a verification.
        field_expiry: Whether the server lets fields of a hash expire.
        names: Names what is built, and what makes room for it.
        longest: How many bytes a word of a command may have at most; None where that is not known.
        keep_going: Whether keys that the server would refuse are left out.
        probe: Asks the server what it takes of what only RESTORE can make; where there is none, all is thought to be.
    """

    def __init__(
        self,
        put_off_ms: int,
        field_expiry: bool,
        names: Names | None = None,
        longest: int | None = None,
        keep_going: bool = False,
        probe: Probe | None = None,
    ) -> None:
        self._longest, self._keep_going, self._probe = longest, keep_going, probe
        self._put_off, self._field_expiry, self._names = put_off_ms, field_expiry, names or Names("")
        self._now_ms = time.time_ns() // 1_000_000
        self._built_pieces = Pieces()
        self._pieces = Pieces()
        self.keys: list[bytes] = []
        """The keys that are written."""
        self.goes: list[tuple[bytes, int]] = []
        """Those of them that go by themselves soon, with the time in milliseconds since 1970."""
        self.left_out: dict[bytes, str] = {}
        """Keys that are not written, since the server would refuse them, with the reasons."""
        self.overhead: list[tuple[bytes, int]] = []
        """What containers take in the server besides the bytes of their elements."""
        self.expired = self.expired_fields = 0
        """How many keys, and fields of keys that stay, went by themselves between backup and restore."""

    def frames(self, rows: pa.Table) -> Iterator[Frame]:
        """Yield commands in frames of a reasonable size, what takes a key's place after all that was built for it.

        Args:
            rows: Rows with the columns and types of `SCHEMA` (rows.py): key, element, type, value, expires_ms.

        Raises:
            CorruptionDetected: The rows are none that this source makes; the key is named.
            RestoreRefused: The server lacks something that a key needs.
        """
        table = in_order(self._without_long(plain(rows)))
        strings = are_strings(table) if not self._names.moving else pa.chunked_array([pa.repeat(False, len(table))])
        # the server may lack what the others need, and then nothing of this part is written
        start = 0
        for span, is_large in spans(table, _MANY_ELEMENTS):
            left_out, start = strings.slice(start, len(span)), start + len(span)
            yield from self._large(span) if is_large else self._others(rows_of(span, left_out))
        yield from self._frames(self._built_pieces, self._pieces)
        start = 0
        for batch in table.to_batches(BATCH_ROWS):
            chosen, start = strings.slice(start, len(batch)).combine_chunks(), start + len(batch)
            if chosen.true_count:
                yield from self._strings(batch.filter(chosen))

    def _others(self, rows: Iterator[Row]) -> Iterator[Frame]:
        head: _Head | None = None
        elements: list[_Element] = []
        for key, element, kind, value, expires in rows:
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

    def _large(self, rows: pa.Table) -> Iterator[Frame]:
        """Write a key by its head and many elements."""
        [(key, _, kind, value, expires)] = rows_of(rows.slice(0, 1))
        elements = rows.slice(1)
        if not pc.all(pc.equal(elements.column("key"), key)).as_py() or elements.column("value").null_count:
            raise _not_ours(key, "an element without its head")
        if kind not in FILL or value is not None:
            yield from self._key((key, kind, value, expires), _listed(elements))
            return
        at = elements.column("expires_ms")
        lives = pc.fill_null(pc.greater(at, self._now_ms - self._put_off), True)
        living = elements if pc.all(lives).as_py() else elements.filter(lives)
        if (expires is not None and not self._lives(expires)) or not len(living):
            self.expired += 1
            return
        goes = _listed(living.filter(living.column("expires_ms").is_valid()))
        head, expired_fields = (key, kind, value, expires), len(elements) - len(living)
        frames = self._many(key, kind, expires, living, goes)
        # the key goes with the last of its fields only where all of them go
        yield from self._written(head, frames, expired_fields, goes if len(goes) == len(living) else [])

    def _many(
        self, key: bytes, kind: str, expires: int | None, elements: pa.Table, goes: list[_Element]
    ) -> Iterator[Frame]:
        if kind == "zset" and has_nan(score for _, score in pairs(elements)):
            yield from self._restored(key, expires, unnumbered_payload(list(pairs(elements)), self._probe))
            return
        if size := overhead_of_many(kind, len(elements)):
            self.overhead.append((key, size))
        soon, later = self._field_expiries(key, goes)
        yield from self._built(key, expires, chain(filling(kind, pairs(elements)), later), soon)

    def _without_long(self, table: pa.Table) -> pa.Table:
        """Find what is longer than the server takes: it would end the connection.

        Raises:
            RestoreRefused: There is such a value, and nothing may be left out.
        """
        if self._longest is None or table.nbytes <= self._longest:
            return table
        sizes = [pc.fill_null(pc.binary_length(table.column(name)), 0) for name in ("key", "element", "value")]
        long = table.column("key").filter(pc.greater(pc.max_element_wise(*sizes), self._longest))
        for key in pc.unique(long).to_pylist():
            self._refuse(key, f"it has a value of more than {self._longest:,} bytes, which the server takes at most")
        return table.filter(pc.invert(pc.is_in(table.column("key"), pc.unique(long)))) if len(long) else table

    def _refuse(self, key: bytes, reason: str) -> None:
        """Note that a key is left out.

        Raises:
            RestoreRefused: Nothing may be left out.
        """
        if not self._keep_going:
            raise RestoreRefused(f"key {key!r} would be refused: {reason}", hint=KEEP_GOING)
        self.left_out[key] = reason

    def _strings(self, rows: pa.RecordBatch) -> Iterator[Frame]:
        at = pc.add(rows.column("expires_ms"), self._put_off)
        lives = pc.fill_null(pc.greater(at, self._now_ms), True)
        self.expired += lives.false_count
        keys, values = rows.column("key"), rows.column("value")
        if lives.false_count:
            keys, values, at = (column.filter(lives) for column in (keys, values, at))
        self.keys += byte_strings(keys)
        soon = pc.fill_null(pc.less(at, self._now_ms + _SOON_MS), False)
        self.goes += zip(byte_strings(keys.filter(soon)), at.filter(soon).to_pylist(), strict=True)
        yield from setting(keys, values, at)

    def _key(self, head: _Head, elements: list[_Element]) -> Iterator[Frame]:
        expires, living = head[3], self._living(elements)
        if (expires is not None and not self._lives(expires)) or (elements and not living):
            self.expired += 1
            return
        yield from self._written(head, self._replaced(head, living), len(elements) - len(living), living)

    def _written(
        self, head: _Head, frames: Iterator[Frame], expired_fields: int, elements: list[_Element]
    ) -> Iterator[Frame]:
        """Write a key, of which so many fields expired; where all of its elements expire, these are given."""
        key, _, _, expires = head
        self.expired_fields += expired_fields
        try:
            yield from frames
        except _LeftOut:
            return
        except LastgoodError:
            raise
        except ValueError as exc:
            raise _not_ours(key, str(exc)) from exc
        self.keys.append(key)
        self._note_expiry(key, expires, elements)
        if self._pieces.size >= FRAME_BYTES:
            yield from self._frames(self._built_pieces, self._pieces)

    def _replaced(self, head: _Head, elements: list[_Element]) -> Iterator[Frame]:
        key, kind, value, expires = head
        if kind == "string" and value is not None and not elements:
            self._narrow(key, packed(b"SET", key, value), expires)
        elif kind.startswith(MODULE) and value is not None and not elements:
            yield from self._restored(key, expires, value)
        elif kind == "stream" and value is not None:
            decoded, entries = StreamHead.decode(value), [each[:2] for each in elements]
            if can_be_built(decoded, entries):
                yield from self._built(key, expires, stream_commands(decoded, entries))
            else:
                yield from self._restored(key, expires, stream_payload(decoded, entries))
        elif kind not in FILL or (value is None) != bool(elements):
            raise ValueError(f"a {kind} with {len(elements)} elements")
        elif value is not None:
            items = unpacked(value)
            if kind == "zset" and has_nan(items[1::2]):
                payload = unnumbered_payload(list(zip(items[::2], items[1::2], strict=True)), self._probe)
                yield from self._restored(key, expires, payload)
            else:
                self._count(key, kind, items)
                self._narrow(key, filled(kind, key, items), expires)
        elif kind == "zset" and has_nan(score for _, score, _ in elements):
            payload = unnumbered_payload([(member, score) for member, score, _ in elements], self._probe)
            yield from self._restored(key, expires, payload)
        else:
            self._count(
                key, kind, [word for element, found, _ in elements for word in (element, found)[: width_of(kind)]]
            )
            fill = filling(kind, [(element, value) for element, value, _ in elements])
            soon, later = self._field_expiries(key, elements)
            yield from self._built(key, expires, chain(fill, later), soon)

    def _restored(self, key: bytes, expires: int | None, payload: bytes) -> Iterator[Frame]:
        """Let a server make what no other command can; it may refuse that."""
        if self._probe is not None and (said := self._probe.refusal(key, payload)):
            self._refuse(key, said)
            raise _LeftOut
        yield from self._built(key, expires, iter([(b"RESTORE", KEY, 0, payload)]))

    def _count(self, key: bytes, kind: str, words: Sequence[bytes]) -> None:
        if size := overhead_of(kind, words, self._field_expiry):
            self.overhead.append((key, size))

    def _narrow(self, key: bytes, fill: bytes, expires: int | None) -> None:
        commands = [*self._makes_room(key, packed(b"DEL", key)), fill]
        if expires is not None:
            commands.append(packed(b"PEXPIREAT", key, expires + self._put_off))
        self._pieces.add(b"".join([_MULTI, *commands, _EXEC]), len(commands) + 2)

    def _makes_room(self, key: bytes, *otherwise: bytes) -> Sequence[bytes]:
        """Return what takes a key's content out of the way, where it is not just replaced."""
        moved = self._names.moved(key)
        return otherwise if moved is None else [packed(b"RENAME", key, moved)]

    def _built(
        self,
        key: bytes,
        expires: int | None,
        commands: Iterator[Command],
        last: Sequence[tuple[Word, ...]] = (),
    ) -> Iterator[Frame]:
        """Build a container under a name of its own, then let it take the key's place, and do what comes last.

        The name has an expiry all the while. It is lost where the server evicts what was built so far, which the next
        command would begin anew: so it is asked for again at the end.
        """
        name, pieces = temporary_name(key, self._names.owner), self._built_pieces
        for n, words in enumerate(commands):
            pieces.add(packed(*_with_key(words, name)))
            if n == 0:  # nobody would look for it if the restore were interrupted
                pieces.add(packed(b"PEXPIRE", name, _TEMPORARY_MS))
            if pieces.size >= FRAME_BYTES:
                yield from self._frames(pieces)
        pieces.add(packed(*still_built(name, _TEMPORARY_MS)))
        expiry = packed(b"PERSIST", name) if expires is None else packed(b"PEXPIREAT", key, expires + self._put_off)
        swap = [*self._makes_room(key), packed(b"RENAME", name, key)]
        # where there is nothing to take the key's place any more, what it holds shall not live longer for that
        ending = [expiry, *swap] if expires is None else [*swap, expiry]
        ending += [packed(*_with_key(words, key)) for words in last]
        self._pieces.add(b"".join([_MULTI, *ending, _EXEC]), len(ending) + 2)

    def _note_expiry(self, key: bytes, expires: int | None, elements: list[_Element]) -> None:
        until = expires
        if elements and all(each[2] is not None for each in elements):
            last = max(cast("int", each[2]) for each in elements)
            until = last if expires is None else min(expires, last)
        if until is not None and until + self._put_off < self._now_ms + _SOON_MS:
            self.goes.append((key, until + self._put_off))

    def _field_expiries(self, key: bytes, elements: list[_Element]) -> tuple[list[Command], list[Command]]:
        """Return the commands for fields that expire soon, and for others.

        If all fields went while the hash is being built, there would be nothing to take the key's place.
        """
        fields: dict[int, list[bytes]] = {}
        for field, _, expires in elements:
            if expires is not None:
                fields.setdefault(expires + self._put_off, []).append(field)
        if fields and not self._field_expiry:
            if self._keep_going and not self._put_off:  # a proof says which program it needs
                self._refuse(key, "a field of it expires by itself, and the server does not know that of fields")
                raise _LeftOut
            raise PlaceUnfit(
                f"a field of hash {key!r} expires by itself, and the server does not know that of fields",
                hint="Restore into Redis 7.4 or newer; `server_program` in the plan names that of a file. "
                + KEEP_GOING,
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

    def _frames(self, *pieces: Pieces) -> Iterator[Frame]:
        for each in pieces:
            if each.count:
                payload, count = each.taken()
                yield payload, count, each is self._pieces


def _with_key(words: Sequence[Word], key: bytes) -> tuple[Word, ...]:
    """Put a name in: in the second word, or in the third of a command with a subcommand."""
    return (*words[:2], key, *words[3:]) if words[0] == b"XGROUP" else (words[0], key, *words[2:])


def _listed(elements: pa.Table) -> list[_Element]:
    """Return elements as objects, each with its value and when it goes by itself."""
    return [(cast("bytes", element), cast("bytes", value), at) for _, element, _, value, at in rows_of(elements)]


def _not_ours(key: bytes, what: str) -> CorruptionDetected:
    return CorruptionDetected(
        f"key {key!r} of the backup is not as this source writes keys: {what}", hint="Do not trust this backup."
    )
