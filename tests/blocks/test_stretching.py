"""A key that is derived ahead of its use is the same key, and is used once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from blocks import stretching
from blocks.stretching import Cost, begin, stretch

SALT = bytes(range(32))
COST = Cost(SALT, iterations=1, memory_kib=1024, lanes=2)


def expected(passphrase: bytes) -> bytes:
    return Argon2id(salt=SALT, length=32, iterations=1, lanes=2, memory_cost=1024).derive(passphrase)


def test_what_was_begun_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[bytes] = []
    real = stretching._derived

    def counted(passphrase: bytes, cost: Cost) -> bytes:
        derived.append(passphrase)
        return real(passphrase, cost)

    monkeypatch.setattr(stretching, "_derived", counted)
    begin(b"one", COST)
    assert stretch(b"one", COST) == expected(b"one")
    assert derived == [b"one"]
    assert not stretching._begun
    assert stretch(b"one", COST) == expected(b"one")
    assert derived == [b"one", b"one"]


def test_another_passphrase_or_cost_is_not_served_what_was_begun() -> None:
    begin(b"one", COST)
    assert stretch(b"two", COST) == expected(b"two")
    other = replace(COST, iterations=2)
    assert stretch(b"one", other) != expected(b"one")
    assert stretch(b"one", COST) == expected(b"one")


def test_what_failed_ahead_fails_again_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(passphrase: bytes, cost: Cost) -> bytes:
        raise MemoryError("no room")

    monkeypatch.setattr(stretching, "_derived", exhausted)
    begin(b"one", COST)
    with pytest.raises(MemoryError, match="no room"):
        stretch(b"one", COST)


def test_a_thread_that_cannot_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="new thread"):
            begin(b"one", COST)
    assert stretch(b"one", COST) == expected(b"one")


@pytest.mark.parametrize(
    "wrong",
    [
        {"salt": b"short"},
        {"iterations": 0},
        {"iterations": 2**31},
        {"memory_kib": 2**40},
        {"memory_kib": 1},
        {"lanes": 99},
    ],
)
def test_a_cost_is_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        replace(COST, **wrong)
