"""A key is Argon2id of a passphrase, at a cost that is bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from blocks.crypto.kdf import Cost, derive_key

SALT = bytes(range(32))
COST = Cost(SALT, iterations=1, memory_kib=1024, lanes=2)


def expected(passphrase: bytes) -> bytes:
    return Argon2id(salt=SALT, length=32, iterations=1, lanes=2, memory_cost=1024).derive(passphrase)


def test_keys_that_threads_derive_at_once_are_those_of_their_passphrases() -> None:
    passphrases = [b"one", b"two", b"three", b"four"]
    with ThreadPoolExecutor(4) as pool:
        derived = list(pool.map(lambda passphrase: derive_key(passphrase, COST), passphrases))
    assert derived == [expected(passphrase) for passphrase in passphrases]


def test_another_cost_gives_another_key() -> None:
    assert derive_key(b"one", replace(COST, iterations=2)) != derive_key(b"one", COST)


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
