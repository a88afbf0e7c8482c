"""How a storage in a network is reached: endpoint, region, credentials, timeouts. Secrets are never here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator

from blocks.errors import ConfigurationError
from blocks.prefect_compat import LastgoodBlock, document

OPENS_PREFECT = frozenset({"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"})
"""Variables that open the Prefect server where blocks are kept."""


class StorageSettings(LastgoodBlock):
    """How a storage in a network is reached; what is left out is found as the storage's own tools find it.

    Credentials come from the environment, from an instance's or pod's role, or from what is named here.

    Example:
        ```python
        from blocks.storage.settings import StorageSettings

        settings = StorageSettings.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Storage Settings"
    _block_type_slug = "storage-settings"
    _documentation_url = document("docs/storage.md")

    model_config = ConfigDict(hide_input_in_errors=True)

    endpoint: str | None = Field(
        default=None, description="URL of a server that speaks the storage's protocol; the provider's own by default."
    )
    region: str | None = Field(default=None, description="Region of an S3 bucket.")
    path_style: bool | None = Field(
        default=None,
        description="Name the bucket in the path, not in the host; so it is where an endpoint is given.",
    )
    account: str | None = Field(default=None, description="Azure storage account.")
    storage_class: str | None = Field(
        default=None, description="Storage class of new objects, for example STANDARD_IA; the bucket's own by default."
    )
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="How S3 encrypts what is encrypted already."
    )
    kms_key: str | None = Field(default=None, description="Key of aws:kms.")
    profile: str | None = Field(default=None, description="Profile in AWS' own configuration files.")
    credentials_file: Path | None = Field(
        default=None, description="Google's service account file, or AWS' shared credentials file."
    )
    credentials_block: str | None = Field(
        default=None, description="Prefect block with credentials, as type/name: aws-credentials/production."
    )
    key_id_env: str | None = Field(
        default=None, description="Environment variable with the S3 access key id, if not AWS_ACCESS_KEY_ID."
    )
    secret_env: str | None = Field(
        default=None,
        description="Environment variable with the S3 secret key, the Azure account key, the SFTP password or the "
        "passphrase of `key_file`.",
    )
    token_env: str | None = Field(
        default=None, description="Environment variable with the session token of temporary S3 keys."
    )
    key_file: Path | None = Field(default=None, description="Private SSH key of an SFTP user.")
    known_hosts: Path | None = Field(default=None, description="Known SSH hosts, if not ~/.ssh/known_hosts.")
    timeout_seconds: float = Field(default=60, gt=0, description="Seconds that one call may take.")
    attempts: int = Field(default=5, ge=1, le=20, description="How often a call is tried.")
    retry_seconds: float = Field(default=120, ge=0, description="Seconds after which no new attempt is begun.")

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, endpoint: str | None) -> str | None:
        parts = urlsplit(endpoint or "http://none")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write the endpoint as http://host:port or https://host")
        if "@" in parts.netloc:
            raise ValueError("there are credentials in the endpoint, where they would be kept and shown")
        return endpoint.rstrip("/") if endpoint else None

    def anchored(self, folder: Path) -> StorageSettings:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        files = ("credentials_file", "key_file", "known_hosts")
        given = {name: path for name in files if (path := getattr(self, name)) is not None}
        return self.model_copy(update={name: folder / path.expanduser() for name, path in given.items()})

    @property
    def names_keys(self) -> bool:
        """Whether variables are named that hold S3 keys or their token."""
        return bool(self.key_id_env or self.secret_env or self.token_env)

    @property
    def in_path(self) -> bool:
        """Whether the bucket is named in the path of a request, and not in its host."""
        return self.path_style if self.path_style is not None else self.endpoint is not None

    @property
    def variables(self) -> frozenset[str]:
        """Names of the environment variables that hold what is named here, or open the Prefect server that has it."""
        named = frozenset(name for name in (self.secret_env, self.key_id_env, self.token_env) if name)
        return named | (OPENS_PREFECT if self.credentials_block else frozenset())


def secret_in(variable: str, field: str = "secret_env") -> str:
    """Return a secret from the environment.

    Args:
        variable: Its name.
        field: The setting that names it.

    Raises:
        ConfigurationError: The variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise ConfigurationError(
            f"repository.storage.{field}: the environment variable {variable} is not set",
            hint="Set it, or name another one.",
        )
    return value
