"""Answers that are long, parsed while they come: a long string in them is received where it stays, and never copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import cast

import hiredis

LONG_BYTES = 8 * 1024 * 1024
"""From so many bytes on an answer is parsed while it comes."""

_IN_PLACE_BYTES = 256 * 1024
"""From so many bytes on a string is received where it stays."""
_LINE = b"\r\n"

Fill = Callable[[memoryview], None]
"""Receives as many bytes as there is room for."""


class LongAnswer:
    """Parses one answer.

    Args:
        pieces: What was received of it so far.
        receive: Receives some bytes.
        fill: Receives as many as there is room for.
    """

    def __init__(self, pieces: Sequence[bytes], receive: Callable[[], bytes], fill: Fill) -> None:
        self._pieces, self._receive, self._fill = list(reversed(pieces)), receive, fill
        self._data, self._at = memoryview(b""), 0

    def take(self) -> object:
        """Return the answer: bytes, an integer, an error, None, or a list of these."""
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self._string(int(rest))
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return None if rest == b"-1" else [self.take() for _ in range(int(rest))]
        if kind == b"-":
            return hiredis.ReplyError(rest.decode("utf-8", "replace"))
        if kind == b"+":
            return rest
        raise hiredis.ProtocolError(f"an answer begins with {line[:20]!r}")

    def _string(self, size: int) -> bytes:
        if size < _IN_PLACE_BYTES:
            found = self._exactly(size)
        else:
            # a BytesIO hands out its buffer as bytes without a copy
            holder = BytesIO(bytes(size))
            with holder.getbuffer() as room:
                at = self._from_received(room)
                if at < size:
                    self._fill(room[at:])
            found = holder.getvalue()
        if self._exactly(len(_LINE)) != _LINE:
            raise hiredis.ProtocolError("a string is of another length than was said")
        return found

    def _from_received(self, room: memoryview) -> int:
        """Fill room with what was received already; return how much that was."""
        at = 0
        while at < len(room) and (self._at < len(self._data) or self._pieces):
            if self._at == len(self._data):
                self._data, self._at = memoryview(self._pieces.pop()), 0
            some = self._data[self._at : self._at + len(room) - at]
            room[at : at + len(some)] = some
            at, self._at = at + len(some), self._at + len(some)
        return at

    def _line(self) -> bytes:
        found = b""
        while True:
            rest = bytes(self._data[self._at : self._at + 64])
            end = (found[-1:] + rest).find(_LINE)
            if end >= 0:
                taken = end + len(_LINE) - len(found[-1:])
                self._at += taken
                return (found + rest[:taken])[: -len(_LINE)]
            found += rest
            self._at += len(rest)
            if self._at == len(self._data):
                self._next()

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            some = bytes(self._data[self._at : self._at + size - len(found)])
            found, self._at = found + some, self._at + len(some)
            if len(found) < size:
                self._next()
        return found

    def _next(self) -> None:
        self._data, self._at = memoryview(self._pieces.pop() if self._pieces else self._receive()), 0


def items_of(answer: object) -> list[object]:
    """Return the items of an answer that is an array.

    Raises:
        ProtocolError: It is none.
    """
    if not isinstance(answer, list):
        raise hiredis.ProtocolError("an array was announced, and something else came")
    return cast("list[object]", answer)
