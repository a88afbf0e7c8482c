"""lastgood.json, the only object of a repository that is read without keys."""

from __future__ import annotations

import json

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator

from blocks.errors import ConfigurationError, CorruptionDetected
from blocks.records import FORMAT_VERSION, FormatVersion, Record, UtcTime
from blocks.repository import names
from blocks.repository.capabilities import Capabilities

MAX_CONFIG_BYTES = 16 * 1024 * 1024
"""A lastgood.json of more is refused before it is read; one with a hundred slots has a thousandth of that."""


class _Versioned(BaseModel):
    format_version: int


class RepositoryConfig(Record):
    """The content of lastgood.json, readable without keys."""

    format_version: FormatVersion
    repository_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    created_at: UtcTime
    encryption: dict[str, JsonValue]
    capabilities: Capabilities | None = None

    @model_validator(mode="after")
    def _proved(self) -> RepositoryConfig:
        # without it a flipped bit in its name would pass for a field of a later version
        if self.format_version > 1 and self.capabilities is None:
            raise ValueError("capabilities are missing")
        return self


def config_bytes(config: RepositoryConfig) -> bytes:
    """Write lastgood.json, indented for people."""
    return (config.model_dump_json(indent=2) + "\n").encode()


def with_encryption(stored: bytes, encryption: dict[str, JsonValue]) -> bytes:
    """Write lastgood.json with another `encryption` object; what a later lastgood has added stays."""
    return (json.dumps(json.loads(stored) | {"encryption": encryption}, indent=2) + "\n").encode()


def parse_config(data: bytes, url: str) -> RepositoryConfig:
    """Read lastgood.json.

    Raises:
        ConfigurationError: A newer lastgood made it.
        CorruptionDetected: It is damaged.
    """
    try:
        version = _Versioned.model_validate_json(data).format_version
        if version > FORMAT_VERSION:
            raise ConfigurationError(
                f"the repository at {url} was made by a newer lastgood (format {version})",
                hint="Install the newest lastgood.",
            )
        # what a later one adds without a new version does not matter; version 1 knows no such fields
        return RepositoryConfig.model_validate_json(data, extra="forbid" if version == 1 else "ignore")
    except ValidationError as exc:
        raise CorruptionDetected(
            f"{names.CONFIG} at {url} is damaged: {exc.error_count()} problems, the first in {exc.errors()[0]['loc']}",
            hint=f"Put a copy of {names.CONFIG} back; without it no backup can be opened.",
        ) from exc
