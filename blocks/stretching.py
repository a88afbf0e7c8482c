"""Argon2id makes a passphrase slow to guess. The tenth of a second it takes may pass while something else is done."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from typing import Literal

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import Field

from blocks.base64text import Salt, from_base64
from blocks.credential import KEY_BYTES
from blocks.manifest import Record

# OpenSSL's pool of threads is one for the process: two derivations with several lanes wait for each other for ever
_one_at_a_time = threading.Lock()


class Argon2(Record):
    """Argon2id and its cost. The bounds keep a hostile file from exhausting memory or time."""

    name: Literal["argon2id"] = "argon2id"
    salt: Salt
    iterations: int = Field(default=3, ge=1, le=16)
    memory_kib: int = Field(default=64 * 1024, ge=1024, le=512 * 1024)
    lanes: int = Field(default=4, ge=1, le=16)


def stretch(passphrase: bytes, cost: Argon2) -> bytes:
    """Derive a key of KEY_BYTES from a passphrase, or take the one that `begin` is deriving."""
    begun = _begun.pop(_called(passphrase, cost), None)
    if begun is not None:
        begun.join()
        if begun.key is not None:
            return begun.key
    return _derived(passphrase, cost)


def begin(passphrase: bytes, cost: Argon2) -> None:
    """Begin to derive a key in a thread of its own, for `stretch` to find it done."""
    _begun[_called(passphrase, cost)] = derivation = _Derivation(passphrase, cost)
    derivation.start()


class _Derivation(threading.Thread):
    """One that runs; its key is None until then, and where it failed: whoever needs the key meets the error again."""

    def __init__(self, passphrase: bytes, cost: Argon2) -> None:
        super().__init__(name="argon2id", daemon=True)
        self._passphrase, self._cost = passphrase, cost
        self.key: bytes | None = None

    def run(self) -> None:
        """Derive the key."""
        with suppress(Exception):
            self.key = _derived(self._passphrase, self._cost)
        self._passphrase = b""


_begun: dict[tuple[bytes, Argon2], _Derivation] = {}


def _called(passphrase: bytes, cost: Argon2) -> tuple[bytes, Argon2]:
    """Tell derivations apart without keeping passphrases for that."""
    return hashlib.sha256(passphrase).digest(), cost


def _derived(passphrase: bytes, cost: Argon2) -> bytes:
    derivation = Argon2id(
        salt=from_base64(cost.salt),
        length=KEY_BYTES,
        iterations=cost.iterations,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    )
    with _one_at_a_time:
        return derivation.derive(passphrase)
