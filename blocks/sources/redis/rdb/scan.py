"""Where the records of an RDB begin: the only thing that has to be found out key by key."""

from __future__ import annotations

from dataclasses import dataclass
from struct import error as too_short

from blocks.sources.redis.rdb.layout import ONE_STRING, PACKED, Kind, Opcode
from blocks.sources.redis.rdb.skip import SKIPPED, past_attributes, past_opcode, past_string, past_value

_ONE_STRING = bytes(kind in ONE_STRING for kind in range(256))
_BREAKS = frozenset({Opcode.SELECT_DB, Opcode.RESIZE_DB, Opcode.END})
_EXPIRES_MS, _LIST = int(Opcode.EXPIRES_MS), int(Kind.LIST)
_FIRST_OPCODE = min(Opcode)


@dataclass(frozen=True)
class Found:
    """Records that follow each other.

    Attributes:
        starts: Where each begins, with what is said of its key before its type.
        ends: Where those end whose value is not a single string, by where they begin.
        end: Where the next thing begins.
        opcode: Which one, where it is not to be passed over; None where the data ends first.
    """

    starts: list[int]
    ends: dict[int, int]
    end: int
    opcode: Opcode | None


def find_records(data: bytes, at: int) -> Found:
    """Find all whole records from a position up to the next opcode that means a change.

    Raises:
        UnknownForm: One holds what cannot be read here.
        SourceUnavailable: The data is damaged.
    """
    # a function call for each key, or a constant looked up elsewhere, would take as long as all that is done here
    starts: list[int] = []
    ends: dict[int, int] = {}
    append, one_string, size = starts.append, _ONE_STRING, len(data)
    first_opcode, expires_ms, list_kind = _FIRST_OPCODE, _EXPIRES_MS, _LIST
    start = p = at
    try:
        while p < size:
            start = p
            kind = data[p]
            if kind == expires_ms:
                p += 9
                kind = data[p]
            if kind >= first_opcode:
                if p == start and kind in _BREAKS:
                    return Found(starts, ends, start, Opcode(kind))
                if p == start and kind in SKIPPED:
                    p = past_opcode(data, p)
                    continue
                p = past_attributes(data, p)
                kind = data[p]
            length = data[p + 1]
            p = p + 2 + length if length < 64 else past_string(data, p + 1)
            if one_string[kind]:
                length = data[p]
                if length < 64:
                    p += 1 + length
                elif length < 128:
                    p += 2 + ((length & 63) << 8 | data[p + 1])
                else:
                    p = past_string(data, p)
            elif kind == list_kind and data[p] == 1 and data[p + 1] == PACKED:
                p = past_string(data, p + 2)
            else:
                ends[start] = p = past_value(data, p, kind)
            if p > size:
                return Found(starts, ends, start, None)
            append(start)
    except (IndexError, too_short):
        return Found(starts, ends, start, None)
    return Found(starts, ends, p if p <= size else start, None)
