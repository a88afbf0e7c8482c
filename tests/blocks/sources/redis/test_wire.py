"""Answers that arrive in pieces, and those that end a transaction otherwise than well."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import cast

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import ConfigurationError, SourceUnavailable
from blocks.sources.redis.net.wire import Connection, packed
from blocks.sources.redis.read.scan import key_names


class Wire:
    """A socket whose other end answers each time with the next of some texts, cut into pieces."""

    def __init__(self, answers: list[bytes], cuts: list[int]) -> None:
        self._answers, self._cuts, self._pieces = iter(answers), cuts, [b""]
        self.sent: list[list[bytes]] = []

    def sendall(self, data: bytes) -> None:
        reader = hiredis.Reader()
        reader.feed(data)
        while (words := reader.gets()) is not False:
            self.sent.append(words)
        pings = [words[1] for words in self.sent if words[0] == b"PING" and len(words) > 1]
        answer = next(self._answers).replace(b"OURS", packed(*pings[-1:]).partition(b"\r\n")[2])
        edges = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in self._cuts)})
        self._pieces = [answer[first:last] for first, last in pairwise(edges)]

    def recv(self, size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def connection(answers: list[bytes], cuts: list[int]) -> Connection:
    return Connection(cast("socket.socket", Wire(answers, cuts)), "test")


cuts = st.lists(st.integers(0, 10_000), max_size=40)
values = st.lists(
    st.one_of(st.binary(max_size=30), st.sampled_from([b"\r\n", b"OUR", b"*2\r\n", b"$32\r\n"])), max_size=20
)


@given(values, cuts)
def test_a_transaction_is_taken_whole_however_it_is_cut(items: list[bytes], where: list[int]) -> None:
    queued = b"+OK\r\n" + b"+QUEUED\r\n" * (len(items) + 1)
    strings = b"".join(b"$%d\r\n%b\r\n" % (len(item), item) for item in items)
    answer = queued + b"*%d\r\n" % (len(items) + 1) + strings + b"OURS"
    asked = connection([answer] * 2, where)
    for _ in range(2):
        assert asked.transaction([packed("GET", "key")] * len(items)) == items
    assert asked.received_bytes > 0


@given(cuts)
def test_a_watched_key_that_changed_ends_a_transaction(where: list[int]) -> None:
    assert connection([b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n"], where).transaction([packed("PING")]) is None


@given(cuts)
def test_a_transaction_that_is_refused_says_why(where: list[int]) -> None:
    refused = b"+OK\r\n-NOPERM this user has no permissions to run the 'zscan' command\r\n+QUEUED\r\n-EXECABORT\r\n"
    with pytest.raises(ConfigurationError, match="zscan"):
        connection([refused], where).transaction([packed("ZSCAN", "a", 0)])
    with pytest.raises(SourceUnavailable, match="OOM"):
        connection([b"+OK\r\n+QUEUED\r\n+QUEUED\r\n-OOM no memory\r\n"], where).transaction([packed("PING")])
    with pytest.raises(SourceUnavailable, match="unknown way"):
        connection([b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n:1\r\n"], where).transaction([packed("PING")])
    with pytest.raises(SourceUnavailable, match="closed the connection"):
        connection([b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n"], where).transaction([packed("PING")])


@given(st.lists(st.lists(st.binary(max_size=9), max_size=9), min_size=1, max_size=6), cuts)
def test_names_are_listed_however_answers_are_cut(pages: list[list[bytes]], where: list[int]) -> None:
    cursors = [b"%d" % (10**n) for n in range(len(pages) - 1)] + [b"0"]
    answers = [
        b"*2\r\n$%d\r\n%b\r\n" % (len(cursor), cursor) + (packed(*page) if page else b"*0\r\n")
        for cursor, page in zip(cursors, pages, strict=True)
    ]
    wires = Wire(answers[::2], where), Wire(answers[1::2], where)
    one, other = (Connection(cast("socket.socket", wire), "test") for wire in wires)
    assert list(key_names((one, other), ["*"])) == pages
    asked = [words[1] for words in [*wires[0].sent, *wires[1].sent]]
    assert sorted(asked) == sorted([b"0", *cursors[:-1]])


def test_a_listing_that_is_refused_says_why() -> None:
    pair = connection([b"-NOPERM no permission to run 'scan'\r\n"], [7]), connection([], [])
    with pytest.raises(ConfigurationError, match="listing keys"):
        list(key_names(pair, ["a*"]))
