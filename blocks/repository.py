"""BackupRepository: where backups are kept; opened with a credential it becomes a Repository."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, JsonValue, field_validator

from blocks import names
from blocks.block import Block
from blocks.catalogue import Survey
from blocks.durable import local_path
from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    ObjectMissing,
    RepositoryUnavailable,
)
from blocks.keyring import Keyring, NoEncryption, create_keys, unlock
from blocks.lease import Clock, Lease
from blocks.manifest import (
    FORMAT_VERSION,
)
from blocks.opened import Repository
from blocks.repoconfig import RepositoryConfig, config_bytes, parse_config, probe_exclusive_creation
from blocks.tiers import StorageTier

__all__ = ["BackupRepository", "Lease", "RecoveryKit", "Repository", "RepositoryConfig", "Survey"]


@dataclass(frozen=True)
class RecoveryKit:
    """What a person keeps on paper: shown once, never stored.

    Attributes:
        url: Where the repository is.
        repository_id: Its id.
        recovery_key: A reader's key as text; None with `encryption: none`.
    """

    url: str
    repository_id: str
    recovery_key: str | None = field(repr=False)


class BackupRepository(Block):
    """Where the backups of one or more plans are kept.

    Example:
        ```python
        from blocks.repository import BackupRepository

        repository = BackupRepository.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Backup Repository"
    _block_type_slug = "backup-repository"
    _documentation_url = "https://github.com/lastgood/lastgood/blob/main/docs/format.md"  # type: ignore[assignment]
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    url: str = Field(description="Folder of the repository: a path or a file:// URL.")
    lease_seconds: int = Field(
        default=300, ge=1, description="Seconds after which the lease of a run that died can be taken over."
    )

    @field_validator("url")
    @classmethod
    def _supported(cls, url: str) -> str:
        local_path(url)
        return url

    @property
    def tier(self) -> StorageTier:
        """The place where the objects are."""
        return StorageTier(url=self.url)

    def anchored(self, folder: Path) -> BackupRepository:
        """Return a copy whose relative url is resolved against `folder` (that of the plan file)."""
        return self.model_copy(update={"url": str((folder / local_path(self.url)).absolute())})

    def initialize(self, settings: Keyring | NoEncryption) -> RecoveryKit:
        """Create the repository and its keys.

        Raises:
            ConfigurationError: There is one already, or the credential cannot be read.
            RepositoryUnavailable: The place cannot be written, or does not enforce exclusive creation.
        """
        tier = self.tier
        repository_id = secrets.token_hex(16)
        tier.prepare()
        self._refuse_existing(tier)
        probe_exclusive_creation(tier)
        encryption, _, recovery = create_keys(settings, repository_id)
        config = RepositoryConfig(
            format_version=FORMAT_VERSION,
            repository_id=repository_id,
            created_at=datetime.now(UTC),
            encryption=encryption,
        )
        try:
            tier.put(names.CONFIG, config_bytes(config), exclusive=True)
        except AlreadyExists as exc:
            raise self._exists_already() from exc
        return RecoveryKit(self.url, repository_id, recovery.text if recovery else None)

    def read_config(self) -> RepositoryConfig:
        """Read lastgood.json.

        Raises:
            RepositoryUnavailable: There is none, or it cannot be read.
            ConfigurationError: A newer lastgood made it.
            CorruptionDetected: It is damaged.
        """
        try:
            data = self.tier.get(names.CONFIG)
        except ObjectMissing as exc:
            raise RepositoryUnavailable(
                f"there is no backup repository at {self.url}: it has no {names.CONFIG}",
                hint="Run `lastgood init` with the plan to create it, or check that the right disk is mounted.",
            ) from exc
        return parse_config(data, self.url)

    def unlock(self, settings: Keyring | NoEncryption, clock: Clock | None = None) -> Repository:
        """Open the repository with the plan's credential.

        Raises:
            RepositoryUnavailable: There is no repository, or it cannot be read.
            WrongKey: The credential opens no slot.
            ConfigurationError: The plan says `none` where the repository is encrypted, or the reverse.
        """
        config = self.read_config()
        keys = unlock(config.encryption, settings, config.repository_id)
        return Repository(self.tier, config, keys, self.lease_seconds, clock or Clock())

    def save_encryption(self, encryption: dict[str, JsonValue]) -> None:
        """Replace the `encryption` object of lastgood.json at once, after slots were added or removed."""
        config = self.read_config().model_copy(update={"encryption": encryption})
        self.tier.put(names.CONFIG, config_bytes(config))

    def _refuse_existing(self, tier: StorageTier) -> None:
        if tier.exists(names.CONFIG):
            raise self._exists_already()
        if tier.folders("backups/"):
            raise ConfigurationError(
                f"{self.url} holds backups but no {names.CONFIG}: new keys would not open them",
                hint=f"Put the repository's own {names.CONFIG} back, or choose another url.",
            )

    def _exists_already(self) -> ConfigurationError:
        return ConfigurationError(
            f"there is a backup repository at {self.url} already", hint="Use it as it is, or choose another url."
        )
