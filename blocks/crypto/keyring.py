"""Who may open a repository, as a plan says it: the blocks behind its `encryption:` value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from blocks.crypto.credential import Credential, RecoveryKey, generate_key_file, write_key_file
from blocks.crypto.encryption_config import CIPHER
from blocks.crypto.key_slots import Kem, Role
from blocks.prefect_compat import LastgoodBlock, document

__all__ = [
    "Credential",
    "Encryption",
    "Kem",
    "Keyring",
    "NoEncryption",
    "RecoveryKey",
    "Role",
    "generate_key_file",
    "parse_encryption",
    "write_key_file",
]


class Keyring(LastgoodBlock):
    """How a plan's backups are encrypted, and with which credential they are opened.

    Example:
        ```python
        from blocks.crypto.keyring import Keyring

        keyring = Keyring.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Backup Keyring"
    _block_type_slug = "backup-keyring"
    _documentation_url = document("docs/format.md")

    model_config = ConfigDict(hide_input_in_errors=True)

    type: Literal["keyring"] = Field(
        default="keyring", description="Distinguishes an encrypted repository from a plain one."
    )
    credential: Credential = Field(description="Where the passphrase or key that opens the repository is read from.")
    kem: Kem = Field(default=Kem.HYBRID, description="How each backup's data key is encapsulated.")
    cipher: Literal["aes-256-gcm"] = Field(default=CIPHER, description="What the data is encrypted with.")

    def anchored(self, folder: Path) -> Keyring:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        return self.model_copy(update={"credential": self.credential.anchored(folder)})


class NoEncryption(LastgoodBlock):
    """A plan's backups are readable by anyone who can read the repository; a plan says so as `encryption: none`.

    Example:
        ```python
        from blocks.crypto.keyring import NoEncryption

        plain = NoEncryption.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "No Encryption"
    _block_type_slug = "no-encryption"
    _documentation_url = document("docs/format.md")

    model_config = ConfigDict(hide_input_in_errors=True)

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
