"""Vector sets as DUMP gives them, in one form for all orders in which a server may write elements and links."""

from __future__ import annotations

from collections.abc import Iterator
from struct import error as too_short

from blocks.errors import LastgoodError
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rdb.cursor import Cursor

_MODULE, _END, _UNSIGNED, _STRING = 7, 0, 2, 5
_PROJECTION, _ATTRIBUTES = 1, 2
_FOOTER_BYTES = 10
_DISTANCE = 0xFFFFFFFF00000000
"""What says how far the farthest link is; below it stands which of them that is."""


def settled(payload: bytes) -> bytes | None:
    """Write all that a vector set holds: its settings, and each element with its vector, attributes and links.

    Args:
        payload: What DUMP gave.

    Returns:
        The same bytes for all payloads of equal content; None where it is not of the form that is known here.
    """
    try:
        return packed(*_words(list(_values(payload[:-_FOOTER_BYTES]))))
    except (IndexError, StopIteration, RuntimeError, ValueError, TypeError, too_short, LastgoodError):
        return None


def _values(body: bytes) -> Iterator[int | bytes]:
    cursor = Cursor(body, 1)
    if body[0] != _MODULE:
        raise ValueError("no value of a module")
    cursor.length()
    while (form := cursor.length()) != _END:
        if form == _UNSIGNED:
            yield cursor.length()
        elif form == _STRING:
            yield cursor.string()
        else:
            raise ValueError(f"a value of form {form}")
    if cursor.at != len(body):
        raise ValueError("more than one value")


def _words(values: list[int | bytes]) -> list[bytes]:
    dimension, count, settings, flags = (_number(each) for each in values[:4])
    # before the matrix of a projection stand its dimensions, one or both
    at = 1 + next(n for n, each in enumerate(values) if isinstance(each, bytes)) if flags & _PROJECTION else 4
    found = [b"%d" % number for number in (dimension, count, settings, flags)]
    found += [each if isinstance(each, bytes) else b"%d" % each for each in values[4:at]]
    nodes = []
    for _ in range(count):
        many = 3 if flags & _ATTRIBUTES else 2
        size = _number(values[at + many])
        begin = at + many + 1
        nodes.append(([_text(each) for each in values[at : at + many]], [*map(_number, values[begin : begin + size])]))
        at = begin + size
    if at != len(values) or flags & ~(_PROJECTION | _ATTRIBUTES):
        raise ValueError("something else is there")
    names = {params[0]: texts[0] for texts, params in nodes}
    for words, numbers in sorted(nodes):
        found += [*words, *_linked(numbers, names)]
    return found


def _linked(params: list[int], names: dict[int, bytes]) -> Iterator[bytes]:
    """Yield what a node says of itself, the links of each level by the names of the elements they lead to."""
    level, at = params[1] & 0xFF, 2
    yield b"%d" % params[1]
    for _ in range(level + 1):
        links, most = params[at], params[at + 1]
        ids = params[at + 2 : at + 2 + links]
        yield b"%d/%d" % (links, most)
        yield from sorted(names[each] for each in ids)
        yield b"%d" % (params[at + 2 + links] & _DISTANCE)
        at += 3 + links
    yield from (b"%d" % each for each in params[at:])


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TypeError("no number")
    return value


def _text(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("no text")
    return value
