"""The unlocked keys of a repository."""

from __future__ import annotations

import secrets

from blocks.crypto.credential import Guarded
from blocks.crypto.encoding import KEY_BYTES
from blocks.crypto.key_slots import Kem, Role, bind, decapsulate, derive, encapsulate
from blocks.errors import CorruptionDetected, WrongKey


class Keys(Guarded):
    """The unlocked keys of a repository. They stay in this process: pickling raises TypeError.

    Attributes:
        repository_id: Id of the repository from lastgood.json.
        role: What the credential may do; READER where nothing is encrypted.
        epoch: Number of the newest key pair; 0 where nothing is encrypted.
        key_id: Name of that key pair, such as `epoch-1`; `none` where nothing is encrypted.
        encrypted: Whether the repository is encrypted.
        catalogue_key: 32 bytes that seal manifests, indexes, verifications and expiries; None without encryption.
        digest_key: 32 bytes for the keyed digests of rows.
    """

    def __init__(
        self,
        repository_id: str,
        *,
        catalogue_key: bytes | None = None,
        reader_key: bytes | None = None,
        kem: Kem = Kem.HYBRID,
        public_keys: dict[int, bytes] | None = None,
        seeds: dict[int, bytes] | None = None,
    ) -> None:
        self.repository_id = repository_id
        self.encrypted = catalogue_key is not None
        self.role = Role.READER if reader_key is not None or not self.encrypted else Role.WRITER
        self.epoch = max(public_keys) if public_keys else 0
        self.key_id = key_id_of(self.epoch) if self.encrypted else "none"
        self.catalogue_key = catalogue_key
        self.digest_key = derive(catalogue_key or repository_id.encode("utf-8"), "digest", repository_id)
        self._reader_key = reader_key
        self._kem = kem
        self._public_keys = public_keys or {}
        self._seeds = seeds or {}

    def __repr__(self) -> str:
        return f"Keys(repository_id={self.repository_id!r}, role={self.role.value!r}, key_id={self.key_id!r})"

    def slot_payload(self, role: Role) -> bytes:
        """Return what a slot of a role wraps: the catalogue key, and for a reader the reader key behind it."""
        assert self.catalogue_key is not None
        if role is Role.WRITER:
            return self.catalogue_key
        assert self._reader_key is not None
        return self.catalogue_key + self._reader_key

    def new_data_key(self, plan: str, backup_id: str) -> tuple[bytes | None, str | None]:
        """Draw the key of a new backup's data; return it and its encapsulation (base64) for the manifest.

        Both are None where nothing is encrypted.

        Raises:
            CorruptionDetected: The repository's public key is unusable.
        """
        if not self.encrypted:
            return None, None
        key = secrets.token_bytes(KEY_BYTES)
        info = bind("data-key", self.repository_id, plan, backup_id)
        try:
            return key, encapsulate(self._kem, self._public_keys[self.epoch], key, info)
        except ValueError as exc:
            raise CorruptionDetected(
                f"lastgood.json: the public key of {self.key_id} is unusable", hint="Restore lastgood.json from a copy."
            ) from exc

    def open_data_key(self, encapsulated: str | None, epoch_key_id: str, plan: str, backup_id: str) -> bytes | None:
        """Open the key of a backup's data; None where nothing is encrypted.

        Args:
            encapsulated: From the backup's manifest.
            epoch_key_id: The manifest's `encryption_key_id`.
            plan: Name of the plan.
            backup_id: Id of the backup.

        Raises:
            WrongKey: The credential is a writer's, or does not hold the key pair.
            CorruptionDetected: The encapsulation was not made for this backup.
        """
        if not self.encrypted and encapsulated is None:
            return None
        if not self.encrypted or encapsulated is None:
            raise _key_damaged(plan, backup_id, "it is encrypted where the repository is not, or the reverse")
        if self.role is Role.WRITER:
            raise WrongKey(
                f"This credential may write backups but not read their data (backup {backup_id} of plan {plan})",
                hint="Use the credential of a reader, or the recovery key.",
            )
        seed = next((seed for epoch, seed in self._seeds.items() if key_id_of(epoch) == epoch_key_id), None)
        if seed is None:
            raise WrongKey(
                f"The key {epoch_key_id} of backup {backup_id} of plan {plan} is not in lastgood.json",
                hint="Open the repository with a newer copy of its lastgood.json.",
            )
        try:
            key = decapsulate(self._kem, seed, encapsulated, bind("data-key", self.repository_id, plan, backup_id))
        except ValueError as exc:
            raise _key_damaged(plan, backup_id, "it is not base64") from exc
        if key is None or len(key) != KEY_BYTES:
            raise _key_damaged(plan, backup_id, "it does not open")
        return key


def key_id_of(epoch: int) -> str:
    """Name the key pair of an epoch, as manifests do."""
    return f"epoch-{epoch}"


def _key_damaged(plan: str, backup_id: str, what: str) -> CorruptionDetected:
    return CorruptionDetected(
        f"The data key in the manifest of backup {backup_id} of plan {plan} was not made for it: {what}",
        hint="Use a copy of the repository, or a backup that does not depend on this one.",
    )
