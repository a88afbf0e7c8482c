"""Which keys a replication stream touches; and streams that are odd, cut or hostile."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocks.errors import SourceUnavailable
from blocks.sources.redis.net.wire import Reply, Word, packed
from blocks.sources.redis.views.stream_commands import TouchedKeys

Found = dict[int | None, set[bytes]]


def _info(name: str, flags: str, first: int, last: int, step: int, *subcommands: Reply) -> Reply:
    words = [word.encode() for word in flags.split()]
    return [name.encode(), -1, words, first, last, step, [], [], [], list(subcommands)]  # type: ignore[list-item]


COMMANDS: dict[bytes, Reply] = {
    b"set": _info("set", "write", 1, 1, 1),
    b"del": _info("del", "write", 1, -1, 1),
    b"mset": _info("mset", "write", 1, -1, 2),
    b"bitop": _info("bitop", "write", 2, -1, 1),
    b"sort": _info("sort", "write movablekeys", 1, 1, 1),
    b"copy": _info("copy", "write", 1, 2, 1),
    b"multi": _info("multi", "fast", 0, 0, 0),
    b"flushall": _info("flushall", "write", 0, 0, 0),
    b"ts.add": _info("ts.add", "write module", 1, 1, 1),
    b"ts.get": _info("ts.get", "readonly module", 1, 1, 1),
    b"eval": _info("eval", "noscript movablekeys", 0, 0, 0),
    b"xgroup": _info("xgroup", "", 0, 0, 0, _info("xgroup|create", "write", 2, 2, 1)),
    b"function": _info("function", "", 0, 0, 0, _info("function|load", "write", 0, 0, 0)),
}
OTHERWISE: dict[bytes, Reply] = {
    b"xmove": _info("MOVE", "write", 1, 1, 1),
    b"move": _info("copy", "write", 1, 2, 1),
    b"run": _info("eval", "noscript movablekeys", 0, 0, 0),
    b"new": _info("new.eval", "noscript no_mandatory_keys movablekeys", 0, 0, 0),
    b"add": _info("ts.add", "write module", 1, 1, 1),
    b"script": _info("set", "write", 1, 1, 1),
    b"f": COMMANDS[b"function"],
    b"xgrp": COMMANDS[b"xgroup"],
}
"""Commands under other names than their own."""


def touched(*chunks: bytes, known: dict[bytes, Reply] = COMMANDS) -> Found:
    found: Found = {}

    def sink(database: int | None, keys: set[bytes]) -> None:
        found.setdefault(database, set()).update(keys)

    TouchedKeys(lambda name: [known.get(name)], sink).take(chunks)
    return found


def commands(*words: tuple[Word, ...]) -> bytes:
    return b"".join(packed(*each) for each in words)


def test_keys_are_found_where_the_server_says_they_are() -> None:
    found = touched(
        commands(
            ("SELECT", 0), ("SET", "a", "v"), ("set", "b", "v"), ("SeT", "c", "v", "PX", 5), ("DEL", "d", "e"),
            ("MULTI",), ("MSET", "f", "1", "g", "2"), ("BITOP", "AND", "h", "i", "j"),
            ("XGROUP", "CREATE", "k", "g", 0),
            ("FUNCTION", "LOAD", "code"), ("xgroup", "create", "l", "g", 0),
        )
    )  # fmt: skip
    assert found == {0: set(b"a b c d e f g h i j k l".split())}


def test_of_a_command_whose_keys_move_about_all_words_are_taken() -> None:
    assert touched(commands(("SELECT", 2), ("SORT", "a", "BY", "x", "STORE", "b"))) == {
        2: {b"a", b"BY", b"x", b"STORE", b"b"}
    }


def test_before_a_database_is_named_it_may_be_any() -> None:
    stream = commands(("SET", "a", 1), ("SELECT", 3), ("SET", "b", 1), ("COPY", "c", "d", "DB", 7), ("SELECT", 0))
    assert touched(stream) == {None: {b"a", b"c", b"d"}, 3: {b"b"}}


@pytest.mark.parametrize(
    "words",
    [
        ("FLUSHALL",),
        ("EVAL", "x", 0),
        ("UNKNOWN", "a"),
        ("TS.ADD", "a", 1, 2),
        ("XGROUP", "OTHER", "a"),
        ("function|load", "x"),
    ],
)
def test_what_may_touch_any_key_ends_it(words: tuple[Word, ...]) -> None:
    with pytest.raises(SourceUnavailable, match="may have touched any key"):
        touched(commands(("SET", "a", 1), words, ("SET", "b", 1)))


def test_a_command_is_what_the_server_says_it_is() -> None:
    stream = commands(
        ("SELECT", 1), ("XMOVE", "a", 2), ("MOVE", "b", "c"), ("SCRIPT", "d", "v"), ("F", "LOAD", "code"),
        ("XGRP", "create", "e", "g", 0),
    )  # fmt: skip
    assert touched(stream, known=OTHERWISE) == {None: {b"a", b"b", b"c"}, 1: {b"d", b"e"}}


@pytest.mark.parametrize("words", [("RUN", "x", 0), ("NEW", "x", 0), ("ADD", "a", 1, 2), ("SET", "a", 1)])
def test_what_may_touch_any_key_does_so_under_any_name(words: tuple[Word, ...]) -> None:
    with pytest.raises(SourceUnavailable, match="may have touched any key"):
        touched(commands(words), known=OTHERWISE)


def test_another_command_that_is_called_select_ends_it() -> None:
    with pytest.raises(SourceUnavailable, match="called SELECT"):
        touched(commands(("SELECT", 5, "v"), ("SCRIPT", "a", 1)), known={**OTHERWISE, b"select": COMMANDS[b"set"]})


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_stream_may_be_cut_anywhere(seed: int, size: int) -> None:
    rng = random.Random(seed)
    words = [("SELECT", rng.randrange(3)), ("SET", f"k{rng.random()}", "x" * rng.randrange(30)), ("DEL", "\r\n", "$1")]
    stream = commands(*rng.choices(words, k=20))
    assert touched(*(stream[n : n + size] for n in range(0, len(stream), size))) == touched(stream)


@given(st.binary(max_size=60))
@example(b"+OK\r\n")
@example(b":1\r\n")
@example(b"*0\r\n")
@example(b"*-1\r\n")
@example(b"$-1\r\n")
@example(b"*2\r\n*1\r\n$3\r\nSET\r\n$1\r\na\r\n")
@example(b"*2\r\n$3\r\nSET\r\n:5\r\n")
@example(b"*2\r\n$3\r\nSET\r\n$-1\r\n")
@example(b"*2\r\n$3\r\nSET\r\n*1\r\n$1\r\na\r\n")
@example(b"*1\r\n$3\r\nSET\r\n")
@example(b"*1\r\n$6\r\nXGROUP\r\n")
@example(b"*2\r\n$6\r\nSELECT\r\n$1\r\nx\r\n")
@example(b"*1\r\n$6\r\nSELECT\r\n")
@example(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n")
@example(b"-ERR no\r\n")
@example(b"\r\n")
@example(b"PING\r\n")
@example(b"*1\r\n:1\r\n")
def test_an_odd_stream_is_an_error_and_never_a_crash(stream: bytes) -> None:
    good = commands(("SET", "a", "v"))
    try:
        found = touched(good, stream)
    except SourceUnavailable:
        return
    assert found[None] >= {b"a"}


@pytest.mark.parametrize("cut", range(1, len(commands(("SET", "key", "value")))))
def test_a_stream_that_ends_within_a_command_is_an_error(cut: int) -> None:
    with pytest.raises(SourceUnavailable):
        touched(commands(("SELECT", 0), ("SET", "a", 1)), commands(("SET", "key", "value"))[:cut])


def test_a_server_that_describes_commands_oddly_is_an_error() -> None:
    for answer in (
        None,
        [],
        [None],
        5,
        b"x",
        [[b"set"]],
        [[b"set", 1, [], b"x", 1, 1]],
        [[b"set", 1, [b"write"], 0, 0, 0]],
    ):
        with pytest.raises(SourceUnavailable):
            TouchedKeys(lambda name, said=answer: said, lambda database, keys: None).take([commands(("SET", "a", 1))])  # type: ignore[misc]
