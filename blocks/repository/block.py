"""BackupRepository: where backups are kept; opened with a credential it becomes a Repository."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ConfigDict, Field, JsonValue, field_validator

from blocks.crypto.keyring import Keyring, NoEncryption
from blocks.crypto.repository_keys import create_keys, unlock
from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    PlaceMissing,
    RepositoryUnavailable,
)
from blocks.prefect_compat import LastgoodBlock, document
from blocks.records import (
    FORMAT_VERSION,
)
from blocks.repository import names
from blocks.repository.capabilities import Capabilities, prove
from blocks.repository.catalogue import Survey
from blocks.repository.config import (
    MAX_CONFIG_BYTES,
    RepositoryConfig,
    config_bytes,
    parse_config,
    with_encryption,
)
from blocks.repository.leases import Clock
from blocks.repository.repository import Repository
from blocks.repository.rollback_guard import PlaceMemory
from blocks.storage.base import StorageTier
from blocks.storage.counted import CountedTier
from blocks.storage.fsync import local_path
from blocks.storage.kinds import open_tier, scheme_of, secret_variables
from blocks.storage.settings import StorageSettings

__all__ = ["BackupRepository", "RecoveryKit", "Repository", "RepositoryConfig", "Survey"]


@dataclass(frozen=True)
class RecoveryKit:
    """What a person keeps on paper: shown once, never stored.

    Attributes:
        url: URL of the repository.
        repository_id: Id of the repository: 32 hex digits.
        recovery_key: A reader's key as text; None with `encryption: none`.
    """

    url: str
    repository_id: str
    recovery_key: str | None = field(repr=False)


class BackupRepository(LastgoodBlock):
    """Where the backups of one or more plans are kept.

    Example:
        ```python
        from blocks.repository.block import BackupRepository

        repository = BackupRepository.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Backup Repository"
    _block_type_slug = "backup-repository"
    _documentation_url = document("docs/format.md")

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str = Field(description="Where the repository is: a path, or a URL of file, s3, gs, az or sftp.")
    storage: StorageSettings = Field(
        default_factory=StorageSettings, description="How a storage in a network is reached; folders need none of it."
    )
    single_writer: bool = Field(
        default=False,
        description="Nobody else ever writes there, so it may be a storage that lets an object be created twice.",
    )
    lease_seconds: int = Field(
        default=300, ge=1, description="Seconds after which the lease of a run that died can be taken over."
    )

    @field_validator("url")
    @classmethod
    def _supported(cls, url: str) -> str:
        scheme_of(url)
        return url

    @property
    def tier(self) -> StorageTier:
        """The place where the objects are.

        Raises:
            ConfigurationError: A setting of it is wrong, or named credentials cannot be read.
        """
        return CountedTier(open_tier(self.url, self.storage, self.single_writer))

    def prove(self) -> Capabilities:
        """Find out by trying what the storage itself can do, whoever writes there.

        Raises:
            ConfigurationError: A setting is wrong, or named credentials cannot be read.
            RepositoryUnavailable: The storage failed, or may not be written.
        """
        # a tier for a single writer looks before it creates, which would pass for a storage that refuses
        return prove(open_tier(self.url, self.storage))

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that let lastgood into the storage."""
        return secret_variables(self.url, self.storage)

    @property
    def folder(self) -> Path | None:
        """The folder of the repository; None where it is not in one of this machine."""
        return local_path(self.url) if scheme_of(self.url) == "file" else None

    def anchored(self, folder: Path) -> BackupRepository:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        url = self.url if self.folder is None else str((folder / self.folder).absolute())
        return self.model_copy(update={"url": url, "storage": self.storage.anchored(folder)})

    def initialize(
        self, settings: Keyring | NoEncryption, hand_over: Callable[[RecoveryKit], None] | None = None
    ) -> RecoveryKit:
        """Create the repository and its keys.

        Args:
            settings: The plan's credential, or none.
            hand_over: Gives the recovery kit to a person. It is called before lastgood.json, with which the repository
                begins to exist, is created: where it raises there is no repository, and all can be done again.

        Raises:
            ConfigurationError: There is one already, or the credential cannot be read.
            RepositoryUnavailable: The place cannot be written, or does not enforce exclusive creation.
        """
        tier = self.tier
        repository_id = secrets.token_hex(16)
        tier.prepare()
        self._refuse_existing(tier)
        capabilities = self.prove()
        if not capabilities.exclusive_creation and not self.single_writer:
            raise self._created_twice(tier)
        encryption, _, recovery = create_keys(settings, repository_id)
        config = RepositoryConfig(
            format_version=FORMAT_VERSION,
            repository_id=repository_id,
            created_at=datetime.now(UTC),
            encryption=encryption,
            capabilities=capabilities,
        )
        kit = RecoveryKit(self.url, repository_id, recovery.text if recovery else None)
        if hand_over is not None:
            hand_over(kit)
        self._create(tier, config, handed_over=hand_over is not None)
        if hand_over is not None:
            PlaceMemory(tier.place).remember(repository_id)
        return kit

    def _create(self, tier: StorageTier, config: RepositoryConfig, handed_over: bool) -> None:
        """Create lastgood.json; where that fails nothing is left, and a kit that was shown is said to be void."""
        data = config_bytes(config)
        void = " Throw away the recovery kit that was just shown: it opens nothing." if handed_over else ""
        try:
            tier.put(names.CONFIG, data, exclusive=True)
        except AlreadyExists as exc:
            error = self._exists_already()
            raise ConfigurationError(error.message, hint=error.hint + void) from exc
        except RepositoryUnavailable as exc:
            with suppress(LastgoodError):  # it may be there although its creation failed
                if tier.get(names.CONFIG, limit=len(data)) == data:
                    tier.remove([names.CONFIG])
            raise type(exc)(exc.message, hint=f"{exc.hint} Then run `lastgood init` again.{void}") from exc

    def seen_before(self) -> str | None:
        """Return the id of the repository that this machine has seen at this place; None where it has seen none."""
        return PlaceMemory(self.tier.place).recall()

    def read_config(self) -> RepositoryConfig:
        """Read lastgood.json.

        Raises:
            RepositoryUnavailable: There is none, or it cannot be read.
            ConfigurationError: A newer lastgood made it.
            CorruptionDetected: It is damaged.
        """
        tier = self.tier
        try:
            data = tier.get(names.CONFIG, limit=MAX_CONFIG_BYTES)
        except ObjectMissing as exc:
            if tier.exists(names.CONFIG):
                raise CorruptionDetected(
                    f"{names.CONFIG} at {self.url} is a folder", hint=f"Put a copy of {names.CONFIG} back."
                ) from exc
            raise self._absent(
                f"there is no backup repository at {self.url}: it has no {names.CONFIG}", _holds_backups(tier)
            ) from exc
        except PlaceMissing as exc:
            raise self._absent(exc.message, False) from exc
        return parse_config(data, self.url)

    def _absent(self, message: str, holds_backups: bool) -> RepositoryUnavailable:
        """Say what to do where there is no repository: `init` only where there never was one."""
        on_disk = self.folder is not None
        if seen := self.seen_before():
            again = "mount its disk again" if on_disk else "see that `url` and `storage` still name its place"
            hint = f"This machine has seen repository {seen} there: {again}, or find out who moved it."
        elif holds_backups:
            hint = (
                f"There are backups, so do not make a new repository: put the {names.CONFIG} that belongs there back."
            )
        else:
            check = "check that the right disk is mounted" if on_disk else "check where `url` and `storage` lead"
            hint = f"Run `lastgood init` with the plan to create it, or {check}."
        return RepositoryUnavailable(message, hint=hint)

    def unlock(self, settings: Keyring | NoEncryption, clock: Clock | None = None) -> Repository:
        """Open the repository with the plan's credential.

        Raises:
            RepositoryUnavailable: There is no repository, or it cannot be read.
            WrongKey: The credential opens no slot.
            ConfigurationError: The plan says `none` where the repository is encrypted, or the reverse.
        """
        config = self.read_config()
        if config.capabilities and not config.capabilities.exclusive_creation and not self.single_writer:
            raise self._created_twice(self.tier)
        keys = unlock(config.encryption, settings, config.repository_id)
        return Repository(self.tier, config, keys, self.lease_seconds, clock or Clock())

    def save_encryption(self, encryption: dict[str, JsonValue]) -> None:
        """Replace the `encryption` object of lastgood.json at once, after slots were added or removed.

        Raises:
            RepositoryUnavailable: It cannot be written, or not with the owner, group and mode that it has.
        """
        self.read_config()
        stored = self.tier.get(names.CONFIG, limit=MAX_CONFIG_BYTES)
        self.tier.put(names.CONFIG, with_encryption(stored, encryption), like_before=True)

    def _refuse_existing(self, tier: StorageTier) -> None:
        if tier.exists(names.CONFIG):
            raise self._exists_already()
        if _holds_backups(tier):
            raise ConfigurationError(
                f"{self.url} holds backups but no {names.CONFIG}: new keys would not open them",
                hint=f"Put the repository's own {names.CONFIG} back, or choose another url.",
            )

    def _created_twice(self, tier: StorageTier) -> ConfigurationError:
        return ConfigurationError(
            f"the storage at {tier.place} lets an existing object be created again",
            hint="Two runs could overwrite each other there. Choose another place; if only one machine and one process "
            "at a time ever writes there, say `single_writer: true` under `repository`.",
        )

    def _exists_already(self) -> ConfigurationError:
        return ConfigurationError(
            f"there is a backup repository at {self.url} already", hint="Use it as it is, or choose another url."
        )


def _holds_backups(tier: StorageTier) -> bool:
    return bool(tier.folders("backups/"))
