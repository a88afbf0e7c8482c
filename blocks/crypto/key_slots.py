"""The cryptography of lastgood.json: key pairs that data keys are encapsulated to, and slots that wrap the keys.

    slot        passphrase ── Argon2id ─┐
                key file ──── HKDF ─────┴─ AES-256-GCM ── catalogue key (writer), and reader key (reader)
    epoch       reader key ── HKDF ─────── AES-256-GCM ── private key, beside the public key
    data key    one for each backup, encapsulated by HPKE to the public key of the newest epoch

Slots are symmetric on purpose: a slot that is wrapped to a public key could be written by anyone who can write
lastgood.json, and later backups would be sealed to keys of theirs.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from enum import StrEnum
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AfterValidator, Field, model_validator

from blocks.crypto.context import length_prefixed
from blocks.crypto.credential import ResolvedSecret, SecretKind
from blocks.crypto.encoding import KEY_BYTES, SALT_BYTES, Base64, Salt, from_base64, to_base64
from blocks.crypto.kdf import LEAST_MEMORY_KIB, MOST_ITERATIONS, MOST_LANES, MOST_MEMORY_KIB, Cost, derive_key
from blocks.records import Record

_NONCE_BYTES = 12
_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64

PrivateKey = hpke.MLKEM768X25519PrivateKey | x25519.X25519PrivateKey
PublicKey = hpke.MLKEM768X25519PublicKey | x25519.X25519PublicKey


class Role(StrEnum):
    """What a credential may do: a reader opens everything; a writer makes backups and reads manifests and indexes."""

    WRITER = "writer"
    READER = "reader"


class Kem(StrEnum):
    """How data keys are encapsulated: the hybrid withstands quantum computers, and is as strong as X25519 without."""

    HYBRID = "mlkem768-x25519"
    X25519 = "x25519"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a label is one line of printable text")
    return text


Label = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


class Argon2(Record):
    """Argon2id and its cost, within the bounds of `stretching`."""

    name: Literal["argon2id"] = "argon2id"
    salt: Salt
    iterations: int = Field(default=3, ge=1, le=MOST_ITERATIONS)
    memory_kib: int = Field(default=64 * 1024, ge=LEAST_MEMORY_KIB, le=MOST_MEMORY_KIB)
    lanes: int = Field(default=4, ge=1, le=MOST_LANES)

    @property
    def cost(self) -> Cost:
        """What a derivation costs."""
        return Cost(from_base64(self.salt), self.iterations, self.memory_kib, self.lanes)


class Hkdf(Record):
    """HKDF-SHA256: a key needs no stretching."""

    name: Literal["hkdf-sha256"] = "hkdf-sha256"
    salt: Salt


class Slot(Record):
    """One credential's copy of the keys. Nothing in it is secret by itself."""

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    label: Label
    role: Role
    kind: SecretKind
    kdf: Annotated[Argon2 | Hkdf, Field(discriminator="name")]
    wrapped: Base64

    @model_validator(mode="after")
    def _stretched(self) -> Slot:
        if (self.kind is SecretKind.PASSPHRASE) is not isinstance(self.kdf, Argon2):
            raise ValueError("a passphrase needs argon2id, a key hkdf-sha256")
        return self


KNOWN_KDFS = frozenset({"argon2id", "hkdf-sha256"})


class Epoch(Record):
    """One key pair of the repository; new backups use the newest. The private key is wrapped under the reader key."""

    epoch: int = Field(ge=1, le=2**31)
    public_key: Base64
    private_key: Base64


def derive(key: bytes, purpose: str, *names: str, salt: bytes | None = None) -> bytes:
    """Derive 32 bytes by HKDF-SHA256; info is `lastgood/1/<purpose>` and the length-prefixed names."""
    info = bind(purpose, *names)
    return HKDF(SHA256(), KEY_BYTES, salt, info).derive(key)


def bind(purpose: str, *names: str) -> bytes:
    """Return the bytes that tie something to its purpose and place."""
    return b"lastgood/1/" + purpose.encode("ascii") + b"".join(length_prefixed(name) for name in names)


def wrap(key: bytes, payload: bytes, bound: bytes) -> str:
    """Encrypt with AES-256-GCM: base64 of a random nonce of 12 bytes, the ciphertext and its tag."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return to_base64(nonce + AESGCM(key).encrypt(nonce, payload, bound))


def unwrap(key: bytes, wrapped: str, bound: bytes) -> bytes | None:
    """Undo `wrap`; None where the key or the bound bytes are not those of the wrapping."""
    data = from_base64(wrapped)
    if len(data) < _NONCE_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
    except InvalidTag:
        return None


def make_slot(secret: ResolvedSecret, role: Role, label: str, payload: bytes, repository_id: str) -> Slot:
    """Wrap the keys of a role for one credential, under a fresh id and salt."""
    salt = to_base64(secrets.token_bytes(SALT_BYTES))
    kdf = Argon2(salt=salt) if secret.kind is SecretKind.PASSPHRASE else Hkdf(salt=salt)
    slot = Slot(id=secrets.token_hex(4), label=label, role=role, kind=secret.kind, kdf=kdf, wrapped="")
    wrapped = wrap(_slot_key(slot, secret, repository_id), payload, _slot_bound(slot, repository_id))
    return slot.model_copy(update={"wrapped": wrapped})


def open_slot(slot: Slot, secret: ResolvedSecret, repository_id: str) -> bytes | None:
    """Return the keys in a slot, or None where the secret is not the slot's."""
    if secret.kind is not slot.kind:
        return None
    return unwrap(_slot_key(slot, secret, repository_id), slot.wrapped, _slot_bound(slot, repository_id))


def _slot_key(slot: Slot, secret: ResolvedSecret, repository_id: str) -> bytes:
    if isinstance(slot.kdf, Hkdf):
        return derive(secret.value, "slot", repository_id, slot.id, salt=from_base64(slot.kdf.salt))
    return derive_key(secret.value, slot.kdf.cost)


def _slot_bound(slot: Slot, repository_id: str) -> bytes:
    return bind("slot", repository_id, slot.id, slot.role.value, slot.kind.value)


def private_key(kem: Kem, seed: bytes) -> PrivateKey:
    """Make the key pair of a seed of 32 bytes.

    The hybrid expands the seed as X-Wing does (draft-connolly-cfrg-xwing-kem): SHAKE256 to 64 bytes for ML-KEM-768 and
    32 for X25519.
    """
    if kem is Kem.X25519:
        return x25519.X25519PrivateKey.from_private_bytes(seed)
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + KEY_BYTES)
    return hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES]),
        x25519.X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:]),
    )


def public_bytes(kem: Kem, seed: bytes) -> bytes:
    """Return the public key of a seed: 32 bytes, or for the hybrid 1,184 of ML-KEM-768 and then 32 of X25519."""
    if kem is Kem.X25519:
        return x25519.X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + KEY_BYTES)
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
    curve = x25519.X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def public_key(kem: Kem, data: bytes) -> PublicKey:
    """Read a public key.

    Raises:
        ValueError: The bytes are not a public key of this kind.
    """
    if kem is Kem.X25519:
        return x25519.X25519PublicKey.from_public_bytes(data)
    return hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_BYTES]),
        x25519.X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_BYTES:]),
    )


def encapsulate(kem: Kem, public: bytes, payload: bytes, info: bytes) -> str:
    """Encrypt to a public key by HPKE (RFC 9180, base mode): base64 of the encapsulated key and the ciphertext.

    Raises:
        ValueError: The bytes are not a usable public key.
    """
    return to_base64(_suite(kem).encrypt(payload, public_key(kem, public), info=info))


def decapsulate(kem: Kem, seed: bytes, encapsulated: str, info: bytes) -> bytes | None:
    """Undo `encapsulate`; None where the private key or the info is not that of the encapsulation.

    Raises:
        ValueError: It is not base64.
    """
    data = from_base64(encapsulated)
    try:
        return _suite(kem).decrypt(data, private_key(kem, seed), info=info)
    except InvalidTag:
        return None


def make_epoch(number: int, public: bytes, seed: bytes, reader_key: bytes, repository_id: str) -> Epoch:
    """Wrap a key pair's seed under the reader key."""
    bound = _epoch_bound(number, public, repository_id)
    wrapped = wrap(derive(reader_key, "epoch", repository_id), seed, bound)
    return Epoch(epoch=number, public_key=to_base64(public), private_key=wrapped)


def open_epoch(epoch: Epoch, reader_key: bytes, repository_id: str) -> bytes | None:
    """Return a key pair's seed; None where it was not wrapped with this key for this public key."""
    bound = _epoch_bound(epoch.epoch, from_base64(epoch.public_key), repository_id)
    return unwrap(derive(reader_key, "epoch", repository_id), epoch.private_key, bound)


def _epoch_bound(number: int, public: bytes, repository_id: str) -> bytes:
    return bind("epoch", repository_id) + struct.pack(">I", number) + public


def _suite(kem: Kem) -> hpke.Suite:
    kind = hpke.KEM.X25519 if kem is Kem.X25519 else hpke.KEM.MLKEM768_X25519
    return hpke.Suite(kind, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
