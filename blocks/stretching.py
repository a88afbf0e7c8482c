"""Argon2id makes a passphrase slow to guess. The tenth of a second it takes may pass while something else is done."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from blocks.sizes import KEY_BYTES, SALT_BYTES

# bounds that keep a hostile file from exhausting memory or time
MOST_ITERATIONS = 16
LEAST_MEMORY_KIB, MOST_MEMORY_KIB = 1024, 512 * 1024
MOST_LANES = 16

# OpenSSL's pool of threads is one for the process: two derivations with several lanes wait for each other for ever
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Cost:
    """What a derivation of Argon2id costs, and its salt.

    Raises:
        ValueError: The salt is of another size, or the cost is out of bounds.
    """

    salt: bytes
    iterations: int
    memory_kib: int
    lanes: int

    def __post_init__(self) -> None:
        if not (
            len(self.salt) == SALT_BYTES
            and 1 <= self.iterations <= MOST_ITERATIONS
            and LEAST_MEMORY_KIB <= self.memory_kib <= MOST_MEMORY_KIB
            and 1 <= self.lanes <= MOST_LANES
        ):
            raise ValueError("the salt is of another size, or the cost is out of bounds")


def stretch(passphrase: bytes, cost: Cost) -> bytes:
    """Derive a key of KEY_BYTES from a passphrase, or take the one that `begin` is deriving."""
    begun = _begun.pop(_called(passphrase, cost), None)
    if begun is not None:
        begun.join()
        if begun.key is not None:
            return begun.key
    return _derived(passphrase, cost)


def begin(passphrase: bytes, cost: Cost) -> None:
    """Begin to derive a key in a thread of its own, for `stretch` to find it done."""
    derivation = _Derivation(passphrase, cost)
    derivation.start()
    _begun[_called(passphrase, cost)] = derivation


class _Derivation(threading.Thread):
    """One that runs; its key is None until then, and where it failed: whoever needs the key meets the error again."""

    def __init__(self, passphrase: bytes, cost: Cost) -> None:
        super().__init__(name="argon2id", daemon=True)
        self._passphrase, self._cost = passphrase, cost
        self.key: bytes | None = None

    def run(self) -> None:
        """Derive the key."""
        with suppress(Exception):
            self.key = _derived(self._passphrase, self._cost)
        self._passphrase = b""


_begun: dict[tuple[bytes, Cost], _Derivation] = {}


def _called(passphrase: bytes, cost: Cost) -> tuple[bytes, Cost]:
    """Tell derivations apart without keeping passphrases for that."""
    return hashlib.sha256(passphrase).digest(), cost


def _derived(passphrase: bytes, cost: Cost) -> bytes:
    derivation = Argon2id(
        salt=cost.salt,
        length=KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    with _one_at_a_time:
        return derivation.derive(passphrase)
