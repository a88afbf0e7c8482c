"""BackupPlan: which sources, which repository, which keys, which policy; read from YAML or saved as a Prefect block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from blocks.block import Block
from blocks.engine import without_prefect
from blocks.errors import ConfigurationError
from blocks.hooks import Hooks
from blocks.keyring import Keyring, NoEncryption, parse_encryption
from blocks.manifest import BackupType
from blocks.reference import is_path
from blocks.repository import BackupRepository
from blocks.retention import RetentionPolicy
from blocks.selection import Selection
from blocks.sources.kinds import source_of

if TYPE_CHECKING or not without_prefect():
    from blocks.sources.kinds import Source

Encryption = Annotated[Keyring | NoEncryption, Field(discriminator="type"), BeforeValidator(parse_encryption)]

_PLAN_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_SOURCE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


class Compression(BaseModel):
    """How Parquet pages are compressed."""

    model_config = ConfigDict(extra="forbid")

    codec: Literal["zstd"] = Field(default="zstd", description="Compression codec of the Parquet pages.")
    level: int = Field(default=1, ge=1, le=19, description="zstd level: higher is mostly smaller, and slower.")


class BackupPlan(Block):
    """What is backed up, where to, under which keys, and for how long.

    Example:
        ```python
        from blocks.plan import BackupPlan

        BackupPlan.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Backup Plan"
    _block_type_slug = "backup-plan"
    _documentation_url = "https://github.com/lastgood/lastgood/blob/main/README.md"  # type: ignore[assignment]
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    name: str = Field(pattern=_PLAN_NAME, description="Name of the plan; its backups are kept under it.")
    sources: dict[str, Source] = Field(min_length=1, description="The places where state lives, by name.")
    repository: BackupRepository = Field(description="Where the backups are kept.")
    encryption: Encryption = Field(description="The credential that opens the keys, or `none` in words.")
    compression: Compression = Field(default_factory=Compression, description="How segments are compressed.")
    critical: list[str] = Field(
        default_factory=list,
        description="Collections (source/collection) and keys (source/collection:key) of an emergency backup; globs.",
    )
    retention: RetentionPolicy = Field(default_factory=RetentionPolicy, description="How long backups are kept.")
    hooks: Hooks = Field(default_factory=Hooks, description="Commands that run before and after state is read.")
    quality: list[str] = Field(default_factory=list, description="Files with the quality suites of restored state.")

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            if not _SOURCE_NAME.match(name):
                raise ValueError(f"source name {name!r}: use letters, digits, dots, dashes and underscores")
        return sources

    @field_validator("critical")
    @classmethod
    def _patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            if "/" not in pattern.partition(":")[0]:
                raise ValueError(f"critical pattern {pattern!r}: write source/collection or source/collection:key")
        return patterns

    def anchored(self, folder: Path) -> BackupPlan:
        """Return a copy whose relative paths are resolved against a folder."""
        update: dict[str, Any] = {
            "sources": {name: source.anchored(folder) for name, source in self.sources.items()},
            "repository": self.repository.anchored(folder),
            "encryption": self.encryption.anchored(folder),
            "hooks": self.hooks.anchored(folder.absolute()),
            "quality": [str((folder / path).absolute()) for path in self.quality],
        }
        return self.model_copy(update=update)

    def emergency_selection(self, collection: str) -> Selection | None:
        """Tell what an emergency backup takes of a collection: None for nothing, else the keys.

        A plan that names nothing critical means everything.
        """
        if not self.critical:
            return Selection()
        keys: list[str] = []
        for pattern in self.critical:
            name, colon, key = pattern.partition(":")
            if Selection(collections=(name,)).has_collection(collection):
                if not colon:
                    return Selection()
                keys.append(key)
        return Selection(keys=tuple(keys)) if keys else None

    @property
    def secret_variables(self) -> list[str]:
        """Names of the environment variables that hold the credential, for hooks to be kept from."""
        if not isinstance(self.encryption, Keyring):
            return []
        credential = self.encryption.credential
        return [name for name in (credential.passphrase_env, credential.recovery_key_env) if name]

    def retention_days(self, kind: BackupType) -> float:
        """Return how many days a backup of a type is kept."""
        return self.retention.age_limit(kind).total_seconds() / 86400


def load_plan(reference: str) -> BackupPlan:
    """Load a plan from a YAML file, or by the name of a saved `Backup Plan` block.

    Raises:
        ConfigurationError: There is no such plan, or it is wrong; the field is named.
    """
    if is_path(reference):
        return read_plan(Path(reference).expanduser())
    try:
        loaded = BackupPlan.load(reference, _sync=True)  # type: ignore[call-arg]
    except ValueError as exc:
        raise ConfigurationError(
            f"no saved plan named {reference!r}",
            hint="Give the path of a YAML plan, or save one with `lastgood plan save PLAN.yaml`.",
        ) from exc
    return loaded  # type: ignore[return-value]


def read_plan(path: Path) -> BackupPlan:
    """Read a plan from a YAML file; its relative paths count from the file's folder."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"plan {path}: {exc.strerror}", hint="Give the path of a YAML plan.") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"plan {path} is not YAML: {exc}") from exc
    if not isinstance(raw, dict):
        raise ConfigurationError(f"plan {path} is not a mapping", hint="README.md shows a plan.")
    return parse_plan(raw, str(path)).anchored(path.absolute().parent)


def parse_plan(raw: dict[str, Any], where: str) -> BackupPlan:
    """Validate a plan; `where` is what errors call it.

    Raises:
        ConfigurationError: A field is unknown, missing or wrong; all of them are named.
    """
    if without_prefect():
        BackupPlan.model_rebuild(force=True, _types_namespace={"Source": source_of(_kinds(raw))})
    try:
        plan = BackupPlan.model_validate(raw)
    except ValidationError as exc:
        lines = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in exc.errors()]
        raise ConfigurationError(f"plan {where}: " + "; ".join(lines), hint="README.md shows a plan.") from exc
    # Prefect's blocks accept unknown fields, and a misspelt `encryption` must never pass
    if unknown := sorted(_unknown_fields(plan, raw)):
        raise ConfigurationError(f"plan {where}: unknown {', '.join(unknown)}", hint="README.md shows a plan.")
    return plan


def _kinds(raw: dict[str, Any]) -> list[object]:
    sources = raw.get("sources")
    said = sources.values() if isinstance(sources, dict) else ()
    return [source.get("type") if isinstance(source, dict) else None for source in said]


def _unknown_fields(model: BaseModel, raw: Any, prefix: str = "") -> list[str]:
    if not isinstance(raw, dict):
        return []
    found = [f"{prefix}{name}" for name in raw if name not in type(model).model_fields]
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found += _unknown_fields(value, raw.get(name), f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    found += _unknown_fields(inner, raw[name][key], f"{prefix}{name}.{key}.")
    return found
