"""The keys of a repository, which lastgood.json holds in its slots, sealed for each credential that opens it.

    create_keys   make the `encryption` object of lastgood.json       unlock   open it with a credential
    add_slot / remove_slot / list_slots                               change and show who can

Three keys: the *catalogue key* opens manifests and indexes; the *reader key* opens the private keys of the epochs; each
backup's *data key* is encapsulated to the newest epoch's public key. A writer's slot holds the first only.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

from blocks.crypto.credential import Credential, RecoveryKey, ResolvedSecret, SecretKind
from blocks.crypto.encoding import KEY_BYTES, from_base64
from blocks.crypto.encryption_config import (
    CIPHER,
    MOST_SLOTS,
    PLAIN,
    VERSION,
    EncryptionConfig,
    EncryptionObject,
    authenticate,
    authenticated,
    damaged,
    is_plain,
    parse,
)
from blocks.crypto.key_slots import (
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
from blocks.crypto.keyring import Keyring, NoEncryption
from blocks.crypto.keys import Keys
from blocks.errors import ConfigurationError, WrongKey
from blocks.records import Record

RECOVERY_LABEL = "recovery key"
"""Label of the slot of the key that `init` prints."""


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
    slots = [
        make_slot(secret, Role.READER, "credential of the plan", payload, repository_id),
        make_slot(recovery.secret, Role.READER, RECOVERY_LABEL, payload, repository_id),
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
    encryption: EncryptionObject, keys: Keys, credential: Credential | RecoveryKey, role: Role, label: str
) -> EncryptionObject:
    """Return the `encryption` object with one more credential, of at most the role of the keys at hand.

    The credential is one that a plan can name, or a key that is not written down yet.

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
    secret = credential.secret if isinstance(credential, RecoveryKey) else credential.resolve()
    slot = make_slot(secret, role, label, keys.slot_payload(role), keys.repository_id)
    return _with_slots(encryption, [*stored.slots, slot], keys)


def remove_slot(encryption: EncryptionObject, keys: Keys, slot_id: str) -> EncryptionObject:
    """Return the `encryption` object without one credential.

    An old copy of lastgood.json can still be used with that credential.

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


def slots_opened(encryption: EncryptionObject, credential: Credential, repository_id: str) -> tuple[SlotInfo, ...]:
    """Return the slots that a credential opens.

    Raises:
        ConfigurationError: The credential cannot be read.
        CorruptionDetected: lastgood.json was damaged.
    """
    secret = credential.resolve()
    opened = {slot.id for slot in parse(encryption).slots if open_slot(slot, secret, repository_id) is not None}
    return tuple(slot for slot in list_slots(encryption) if slot.id in opened)


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


def _opened(stored: EncryptionConfig, secret: ResolvedSecret, repository_id: str) -> Keys:
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
    # a writer can authenticate lastgood.json too; only a reader can verify that a public key has its private key here
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
