"""The `encryption` object of lastgood.json: read, checked and authenticated as a whole.

Its `mac` (HMAC-SHA256 under a key derived from the catalogue key) shows a change by anyone without the keys; its
`checksum` (SHA-256, no key) distinguishes damage from a wrong passphrase.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from blocks.crypto.key_slots import KNOWN_KDFS, Epoch, Kem, Slot, derive
from blocks.crypto.keys import Keys
from blocks.errors import ConfigurationError, CorruptionDetected
from blocks.records import Record, first_wrong

CIPHER: Literal["aes-256-gcm"] = "aes-256-gcm"
VERSION = 1
MOST_SLOTS = 32
MOST_EPOCHS = 1000
EncryptionObject = dict[str, JsonValue]
PLAIN: Mapping[str, JsonValue] = MappingProxyType({"version": VERSION, "cipher": "none"})


class EncryptionConfig(Record):
    """The `encryption` object of lastgood.json."""

    version: Literal[1]
    kem: Kem
    cipher: Literal["aes-256-gcm"]
    epochs: tuple[Epoch, ...] = Field(min_length=1, max_length=MOST_EPOCHS)
    slots: tuple[Slot, ...] = Field(min_length=1, max_length=MOST_SLOTS)
    mac: str = Field(pattern=r"^[0-9a-f]{64}$")
    checksum: str

    @model_validator(mode="after")
    def _distinct(self) -> EncryptionConfig:
        numbers = [epoch.epoch for epoch in self.epochs]
        if numbers != sorted(set(numbers)) or len({slot.id for slot in self.slots}) != len(self.slots):
            raise ValueError("epochs must ascend and slots must differ")
        return self


def is_plain(encryption: EncryptionObject) -> bool:
    """Return whether the object says, in full, that nothing is encrypted.

    Raises:
        ConfigurationError: The version is not known.
        CorruptionDetected: It says something else besides.
    """
    if encryption.get("cipher") != "none":
        return False
    _known("version", encryption.get("version"), {VERSION})
    if encryption != PLAIN:
        raise damaged("its `encryption` says none, and something else besides")
    return True


def parse(encryption: EncryptionObject) -> EncryptionConfig:
    """Read the object; nothing is authenticated yet.

    Raises:
        ConfigurationError: It asks for something this version does not know.
        CorruptionDetected: It was damaged, or lastgood would not have written it.
    """
    _known("version", encryption.get("version"), {VERSION})
    if encryption.get("checksum") != _checksum(encryption):
        raise damaged("its `encryption` does not match its checksum")
    _known("kem", encryption.get("kem"), {kem.value for kem in Kem})
    _known("cipher", encryption.get("cipher"), {CIPHER})
    slots = encryption.get("slots")
    for slot in slots if isinstance(slots, list) else []:
        kdf = slot.get("kdf") if isinstance(slot, dict) else None
        _known("kdf", kdf.get("name") if isinstance(kdf, dict) else None, KNOWN_KDFS)
    try:
        return EncryptionConfig.model_validate(encryption)
    except ValidationError as exc:
        raise damaged(first_wrong(exc)) from exc


def _known(name: str, value: JsonValue, known: Collection[JsonValue]) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int) or value not in known:
        raise ConfigurationError(
            f"lastgood.json: this version of lastgood does not know the {name} {value!r}",
            hint="Use the version of lastgood that wrote it, or a newer one.",
        )


def authenticate(encryption: EncryptionObject, keys: Keys) -> EncryptionConfig:
    """Read the object and check that it was written by a holder of these keys.

    Raises:
        ConfigurationError: There is no encryption, or something in it is not known.
        CorruptionDetected: The object was damaged or changed.
    """
    if not keys.encrypted:
        raise ConfigurationError("The repository is not encrypted and has no credentials")
    stored = parse(encryption)
    if not hmac.compare_digest(stored.mac.encode(), _mac(encryption, keys).encode()):
        raise damaged("it was changed by somebody without its keys")
    return stored


def authenticated(body: EncryptionObject, keys: Keys) -> EncryptionObject:
    """Return a copy with a fresh mac and checksum."""
    with_mac = {**body, "mac": _mac(body, keys)}
    return {**with_mac, "checksum": _checksum(with_mac)}


def _mac(encryption: EncryptionObject, keys: Keys) -> str:
    assert keys.catalogue_key is not None
    key = derive(keys.catalogue_key, "mac", keys.repository_id)
    return hmac.new(key, _canonical(encryption, without={"mac", "checksum"}), hashlib.sha256).hexdigest()


def _checksum(encryption: EncryptionObject) -> str:
    """Distinguish damage from a wrong passphrase: unlike the mac it needs no key."""
    return hashlib.sha256(_canonical(encryption, without={"checksum"})).hexdigest()


def _canonical(encryption: EncryptionObject, *, without: set[str]) -> bytes:
    kept = {name: value for name, value in encryption.items() if name not in without}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def damaged(what: str) -> CorruptionDetected:
    """Make the error that names lastgood.json and says what is wrong with it."""
    return CorruptionDetected(f"lastgood.json: {what}", hint="Restore lastgood.json from a copy of the repository.")
