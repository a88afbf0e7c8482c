"""Which keys the commands of a replication stream touch; the server itself says where commands have their keys.

A few keys too many do no harm, because what is read of them is what they are; one too few would. What a command is
called in the stream says nothing: `rename-command` gives any name to any command. The server says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import hiredis

from blocks.errors import SourceUnavailable
from blocks.sources.redis.net.wire import Reply, packed

Words = list[bytes]
Sink = Callable[[int | None, set[bytes]], None]
"""Takes keys of a database; None where it may be any."""

_SCRIPTS = frozenset({b"eval", b"evalsha", b"fcall"})
"""They may write to keys that they do not name; since Redis 7 a stream has what they did instead."""
_SERIES = b"ts."
"""Rules of time series write to others, which no command names."""
_ABOUT_NO_KEYS = frozenset({b"function", b"script"})
_TWO_DATABASES = frozenset({b"move", b"copy"})
_SELECT = b"select"
_OPTIONAL_KEYS = b"no_mandatory_keys"
"""A flag of commands that may write without naming keys."""
_FLUSH_KEYS = 100_000
_LAST_WORD = b"lastgood: the end"
_LAST = packed(_LAST_WORD)


@dataclass(frozen=True)
class _Places:
    """Where a command has its keys: from the first to the last, each so many words further; 0 for none."""

    first: int
    last: int
    step: int
    two_databases: bool = False

    def of(self, words: Words) -> Words:
        last = self.last if self.last >= 0 else len(words) + self.last
        return words[self.first : last + 1 : self.step] if self.first else []


_NONE, _ALL_WORDS, _FIRST = _Places(0, 0, 0), _Places(1, -1, 1), _Places(1, 1, 1)


class TouchedKeys:
    """Collects the keys that a stream touches.

    Args:
        describe: Asks the server for COMMAND INFO of a command.
        sink: Takes the keys, some of them more than once.
    """

    def __init__(self, describe: Callable[[bytes], Reply], sink: Sink) -> None:
        self._describe, self._sink = describe, sink
        self._places: dict[bytes, _Places | None] = {}
        self._containers: set[bytes] = set()
        self._found: dict[int | None, set[bytes]] = {None: set()}
        self._select_is_ours = False
        # a stream that begins in the middle names its database only when that changes
        self._database: int | None = None

    def take(self, chunks: Iterable[bytes]) -> None:
        """Take a whole stream, cut anywhere.

        Raises:
            SourceUnavailable: It has something in it that may touch any key, or is not understood.
        """
        reader = hiredis.Reader()
        try:
            for chunk in chunks:
                reader.feed(chunk)
                self._take(reader)
                if sum(map(len, self._found.values())) >= _FLUSH_KEYS:
                    self._flush()
            # a reader does not tell whether it waits for the rest of a command; then this would be taken for it
            reader.feed(_LAST)
            whole = reader.gets() == [_LAST_WORD]
            self._flush()
        except (hiredis.ProtocolError, TypeError, IndexError, ValueError, AttributeError) as exc:
            raise SourceUnavailable(f"a replication stream is not understood: {exc}") from exc
        if not whole:
            raise SourceUnavailable("a replication stream ends in the middle of a command")

    def _take(self, reader: hiredis.Reader) -> None:
        gets, places = reader.gets, self._places
        add = self._found[self._database].add
        while (reply := gets()) is not False:
            if type(reply) is not list:
                raise ValueError("it has something else than commands")
            words = cast("Words", reply)
            where = places.get(words[0])
            if where is _FIRST:  # most commands: in a stream there may be millions
                add(words[1])
            elif words[0].lower() == _SELECT:
                self._check_select()
                self._database = int(words[1])
                add = self._found.setdefault(self._database, set()).add
            else:
                self._take_other(words)

    def _take_other(self, words: Words) -> None:
        where = self._where(words)
        into = None if where.two_databases else self._database
        self._found[into].update(where.of(words))

    def _where(self, words: Words) -> _Places:
        name = words[0]
        if name in self._containers:
            name = b"%b|%b" % (name, words[1])
        if name not in self._places:
            self._learn(name, words)
            return self._where(words)
        where = self._places[name]
        if where is None:
            raise SourceUnavailable(f"{name.decode('utf-8', 'replace')} may have touched any key")
        return where

    def _learn(self, name: bytes, words: Words) -> None:
        facts = self._facts(words[0])
        if facts and _known_as(facts) in _ABOUT_NO_KEYS:
            self._places[name] = _NONE
            return
        subcommands = cast("list[list[Reply]]", facts[9]) if facts and len(facts) > 9 else []
        if facts and subcommands and name == words[0]:
            self._containers.add(name)
            return
        if facts and name != words[0]:
            whole = b"%b|%b" % (_known_as(facts), words[1].lower())
            facts = next((each for each in subcommands if _known_as(each) == whole), None)
        self._places[name] = _places(facts)

    def _facts(self, name: bytes) -> list[Reply] | None:
        """Ask the server what it does under a name; None where it does not say."""
        reply = self._describe(name.lower())
        return cast("list[list[Reply] | None]", reply)[0] if isinstance(reply, list) and reply else None

    def _check_select(self) -> None:
        """Make sure that SELECT is what the server writes by itself, also where clients call that by another name."""
        facts = None if self._select_is_ours else self._facts(_SELECT)
        if facts and _known_as(facts) != _SELECT:
            raise SourceUnavailable("another command is called SELECT, so keys may be in any database")
        self._select_is_ours = True

    def _flush(self) -> None:
        for database, keys in self._found.items():
            if not {*map(type, keys)} <= {bytes}:
                raise ValueError("a key is no string")
            if keys:
                self._sink(database, set(keys))
            keys.clear()


def _known_as(facts: list[Reply]) -> bytes:
    """Return what a command is, whatever it is called."""
    return cast("bytes", facts[0]).lower()


def _places(facts: list[Reply] | None) -> _Places | None:
    """Read where a command has its keys; None where it may write to any key, or the server does not say."""
    if not facts:
        return None
    command, flags = _known_as(facts), cast("list[bytes]", facts[2])
    writes = b"write" in flags
    if command in _SCRIPTS or _OPTIONAL_KEYS in flags or (writes and command.startswith(_SERIES)):
        return None
    first, last, step = (cast("int", number) for number in facts[3:6])
    if b"movablekeys" in flags:
        return _ALL_WORDS
    if not first:
        return None if writes else _NONE
    if command in _TWO_DATABASES:
        return _Places(first, last, step, two_databases=True)
    return _FIRST if (first, last) == (1, 1) else _Places(first, last, step)
