"""Who may open a repository: the plan's `encryption:` value, and the keys that lastgood.json holds in its slots.

    create_keys   make the `encryption` object of lastgood.json       unlock   open it with a credential
    add_slot / remove_slot / list_slots                               change and show who can

Three keys: the *catalogue key* opens manifests and indexes; the *reader key* opens the private keys of the epochs; each
backup's *data key* is encapsulated to the newest epoch's public key. A writer's slot holds the first only.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from blocks.base64text import from_base64
from blocks.block import Block
from blocks.credential import (
    Credential,
    RecoveryKey,
    ResolvedSecret,
    SecretKind,
    generate_key_file,
    write_key_file,
)
from blocks.errors import ConfigurationError, WrongKey
from blocks.keys import Keys
from blocks.keyslots import (
    Epoch,
    Kem,
    Role,
    Slot,
    make_epoch,
    make_slot,
    open_epoch,
    open_slot,
    public_bytes,
)
from blocks.keystore import (
    CIPHER,
    MOST_SLOTS,
    PLAIN,
    VERSION,
    EncryptionObject,
    StoredKeys,
    authenticate,
    authenticated,
    damaged,
    is_plain,
    parse,
)
from blocks.manifest import Record
from blocks.sizes import KEY_BYTES

__all__ = [
    "Credential",
    "Encryption",
    "Kem",
    "Keyring",
    "Keys",
    "NoEncryption",
    "RecoveryKey",
    "Role",
    "SlotInfo",
    "add_slot",
    "create_keys",
    "generate_key_file",
    "list_slots",
    "parse_encryption",
    "remove_slot",
    "unlock",
    "write_key_file",
]


class Keyring(Block):
    """How a plan's backups are encrypted, and with which credential they are opened.

    Example:
        ```python
        from blocks.keyring import Keyring

        keyring = Keyring.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Backup Keyring"
    _block_type_slug = "backup-keyring"
    _documentation_url = "https://github.com/lastgood/lastgood/blob/main/docs/format.md"  # type: ignore[assignment]
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    type: Literal["keyring"] = Field(default="keyring", description="Tells an encrypted repository from a plain one.")
    credential: Credential = Field(description="Where the passphrase or key that opens the repository is read from.")
    kem: Kem = Field(default=Kem.HYBRID, description="How each backup's data key is encapsulated.")
    cipher: Literal["aes-256-gcm"] = Field(default=CIPHER, description="What the data is encrypted with.")

    def anchored(self, folder: Path) -> Keyring:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        return self.model_copy(update={"credential": self.credential.anchored(folder)})


class NoEncryption(Block):
    """A plan's backups are kept readable by whoever can read the repository; a plan says so as `encryption: none`.

    Example:
        ```python
        from blocks.keyring import NoEncryption

        plain = NoEncryption.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "No Encryption"
    _block_type_slug = "no-encryption"
    _documentation_url = "https://github.com/lastgood/lastgood/blob/main/docs/format.md"  # type: ignore[assignment]
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    type: Literal["none"] = Field(default="none", description="The word none, so that plaintext is never a default.")

    def anchored(self, folder: Path) -> NoEncryption:
        """Return itself: it has no paths."""
        return self


def parse_encryption(value: object) -> object:
    """Turn what a plan says about encryption into what the union of blocks validates; fails closed.

    Raises:
        ValueError: It is neither `none`, in words, nor settings with a credential.
    """
    if isinstance(value, Keyring | NoEncryption):
        return value
    if value == "none":
        return {"type": "none"}
    if isinstance(value, dict) and "type" in value:
        return value
    if isinstance(value, dict) and "credential" in value:
        return {"type": "keyring", **value}
    raise ValueError("write `encryption: {credential: {...}}`, or `encryption: none` to keep backups unencrypted")


Encryption = Annotated[Keyring | NoEncryption, Field(discriminator="type"), BeforeValidator(parse_encryption)]


class SlotInfo(Record):
    """What may be shown of a slot."""

    id: str
    label: str
    role: Role
    kind: SecretKind


def create_keys(
    settings: Keyring | NoEncryption, repository_id: str
) -> tuple[EncryptionObject, Keys, RecoveryKey | None]:
    """Draw the keys of a new repository.

    Returns:
        The `encryption` object of lastgood.json with a reader slot for the plan's credential and one for a fresh
        recovery key; the keys, unlocked; and that recovery key, to be shown once (None with `encryption: none`).

    Raises:
        ConfigurationError: The credential cannot be read.
    """
    if isinstance(settings, NoEncryption):
        return dict(PLAIN), Keys(repository_id), None
    secret = settings.credential.resolve()
    recovery = RecoveryKey(secrets.token_bytes(KEY_BYTES))
    catalogue_key, reader_key, seed = (secrets.token_bytes(KEY_BYTES) for _ in range(3))
    public = public_bytes(settings.kem, seed)
    payload = catalogue_key + reader_key
    typed = ResolvedSecret(SecretKind.KEY_FILE, recovery.value)
    slots = [
        make_slot(secret, Role.READER, "credential of the plan", payload, repository_id),
        make_slot(typed, Role.READER, "recovery key", payload, repository_id),
    ]
    epoch = make_epoch(1, public, seed, reader_key, repository_id)
    body: EncryptionObject = {
        "version": VERSION,
        "kem": settings.kem.value,
        "cipher": CIPHER,
        "epochs": [epoch.model_dump(mode="json")],
        "slots": [slot.model_dump(mode="json") for slot in slots],
    }
    keys = Keys(
        repository_id,
        catalogue_key=catalogue_key,
        reader_key=reader_key,
        kem=settings.kem,
        public_keys={1: public},
        seeds={1: seed},
    )
    return authenticated(body, keys), keys, recovery


def unlock(encryption: EncryptionObject, settings: Keyring | NoEncryption, repository_id: str) -> Keys:
    """Open the keys of a repository with the plan's credential.

    Args:
        encryption: The `encryption` object of lastgood.json.
        settings: What the plan says; it must agree with the object, so that nobody can switch encryption off.
        repository_id: Id of the repository from lastgood.json.

    Raises:
        ConfigurationError: The plan and the repository disagree, the credential cannot be read, or the object asks for
            something this version does not know.
        WrongKey: No slot opens with the credential.
        CorruptionDetected: lastgood.json was damaged or changed by somebody without its keys.
    """
    plain = is_plain(encryption)
    if isinstance(settings, NoEncryption) and plain:
        return Keys(repository_id)
    if isinstance(settings, NoEncryption) or plain:
        raise _disagreement(plain)
    stored = parse(encryption)
    if stored.kem is not settings.kem:
        raise ConfigurationError(
            f"The plan asks for kem {settings.kem.value} but the repository uses {stored.kem.value}",
            hint=f"Write `kem: {stored.kem.value}` in the plan's `encryption`, if that is what you chose at init.",
        )
    keys = _opened(stored, settings.credential.resolve(), repository_id)
    authenticate(encryption, keys)
    return keys


def add_slot(
    encryption: EncryptionObject, keys: Keys, credential: Credential, role: Role, label: str
) -> EncryptionObject:
    """Return the `encryption` object with one more credential, of at most the role of the keys at hand.

    Raises:
        WrongKey: A writer cannot make a reader: it lacks the reader key.
        ConfigurationError: The credential cannot be read, or there is no room or no encryption.
        CorruptionDetected: The object is not the one the keys authenticate.
    """
    stored = authenticate(encryption, keys)
    if role is Role.READER and keys.role is Role.WRITER:
        raise WrongKey("A writer cannot add a reader: it lacks the reader key", hint="Use the credential of a reader.")
    if len(stored.slots) >= MOST_SLOTS:
        raise ConfigurationError(f"A repository has at most {MOST_SLOTS} credentials", hint="Remove one first.")
    if len(label) > 200 or not label.isprintable():
        raise ConfigurationError("The label of a credential is one line of at most 200 printable characters")
    slot = make_slot(credential.resolve(), role, label, keys.slot_payload(role), keys.repository_id)
    return _with_slots(encryption, [*stored.slots, slot], keys)


def remove_slot(encryption: EncryptionObject, keys: Keys, slot_id: str) -> EncryptionObject:
    """Return the `encryption` object without one credential.

    Whoever kept an old copy of lastgood.json can still use it with that credential.

    Raises:
        WrongKey: Only a reader may remove credentials.
        ConfigurationError: There is no such slot, or it is the last reader's.
        CorruptionDetected: The object is not the one the keys authenticate.
    """
    stored = authenticate(encryption, keys)
    if keys.role is not Role.READER:
        raise WrongKey("A writer cannot remove credentials", hint="Use the credential of a reader.")
    kept = [slot for slot in stored.slots if slot.id != slot_id]
    if len(kept) == len(stored.slots):
        known = ", ".join(slot.id for slot in stored.slots)
        raise ConfigurationError(f"lastgood.json has no slot {slot_id}", hint=f"Its slots are {known}.")
    if all(slot.role is not Role.READER for slot in kept):
        raise ConfigurationError(
            f"Slot {slot_id} is the last one of a reader; without it nobody could restore",
            hint="Add another reader first.",
        )
    return _with_slots(encryption, kept, keys)


def list_slots(encryption: EncryptionObject) -> tuple[SlotInfo, ...]:
    """Show who can open a repository; empty with `encryption: none`. Nothing is unlocked or authenticated.

    Raises:
        ConfigurationError: The object asks for something this version does not know.
        CorruptionDetected: lastgood.json was damaged.
    """
    if is_plain(encryption):
        return ()
    return tuple(
        SlotInfo(id=slot.id, label=slot.label, role=slot.role, kind=slot.kind) for slot in parse(encryption).slots
    )


def _opened(stored: StoredKeys, secret: ResolvedSecret, repository_id: str) -> Keys:
    # a credential that was a writer's and became a reader's has a slot of each
    slots = sorted(stored.slots, key=lambda slot: slot.role is not Role.READER)
    payloads = (open_slot(slot, secret, repository_id) for slot in slots)
    payload = next((found for found in payloads if found is not None), None)
    if payload is None:
        raise WrongKey(
            f"The {secret.kind.value} opens none of the {len(stored.slots)} slots of lastgood.json",
            hint="Check the passphrase or key, or use the recovery key that was printed at init.",
        )
    public_keys = {epoch.epoch: from_base64(epoch.public_key) for epoch in stored.epochs}
    catalogue_key, reader_key = payload[:KEY_BYTES], payload[KEY_BYTES:] or None
    seeds: dict[int, bytes] = {}
    if reader_key is not None:
        seeds = {epoch.epoch: _seed(epoch, stored.kem, reader_key, repository_id) for epoch in stored.epochs}
    return Keys(
        repository_id,
        catalogue_key=catalogue_key,
        reader_key=reader_key,
        kem=stored.kem,
        public_keys=public_keys,
        seeds=seeds,
    )


def _seed(epoch: Epoch, kem: Kem, reader_key: bytes, repository_id: str) -> bytes:
    seed = open_epoch(epoch, reader_key, repository_id)
    # a writer can authenticate lastgood.json too; only a reader can tell that a public key has its private key here
    if seed is None or not hmac.compare_digest(public_bytes(kem, seed), from_base64(epoch.public_key)):
        raise damaged(f"the public key of epoch {epoch.epoch} does not belong to this repository")
    return seed


def _with_slots(encryption: EncryptionObject, slots: Iterable[Slot], keys: Keys) -> EncryptionObject:
    return authenticated({**encryption, "slots": [slot.model_dump(mode="json") for slot in slots]}, keys)


def _disagreement(plain: bool) -> ConfigurationError:
    if plain:
        return ConfigurationError(
            "The plan asks for encryption but the repository is not encrypted",
            hint="Write `encryption: none` in the plan if it never was; otherwise somebody replaced lastgood.json.",
        )
    return ConfigurationError(
        "The plan says `encryption: none` but the repository is encrypted",
        hint="Name the repository's credential in the plan's `encryption`.",
    )
