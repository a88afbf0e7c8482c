"""Argon2id makes a passphrase slow to guess: it takes about a tenth of a second."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from blocks.crypto.encoding import KEY_BYTES, SALT_BYTES

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


def derive_key(passphrase: bytes, cost: Cost) -> bytes:
    """Derive a key of KEY_BYTES from a passphrase."""
    derivation = Argon2id(
        salt=cost.salt,
        length=KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    with _one_at_a_time:
        return derivation.derive(passphrase)
