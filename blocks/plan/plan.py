"""BackupPlan: which sources, which repository, which keys, which policy; read from YAML or saved as a Prefect block."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, WrapValidator, field_validator

from blocks.crypto.keyring import Encryption, Keyring
from blocks.errors import ConfigurationError
from blocks.host.log_lines import keep_out
from blocks.host.passwords import HINT
from blocks.plan.durations import Window
from blocks.plan.hooks import Hooks
from blocks.plan.metrics import Metrics
from blocks.plan.notifications import Notifications
from blocks.plan.objectives import Objectives
from blocks.plan.proof import Budget, ProofPolicy
from blocks.plan.retention import RetentionPolicy
from blocks.plan.schedules import Schedules
from blocks.plan.strict_yaml import Lines, load_yaml_lines
from blocks.plan.wrong_fields import described, mistakes, told, wrong_at
from blocks.prefect_compat import LastgoodBlock, is_path, without_prefect
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.kinds import OWN_TYPES, added_source, added_sources, source_of
from blocks.sources.source import StateSource

if TYPE_CHECKING or not without_prefect():
    from blocks.sources.kinds import Source

_PLAN_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_OF_BLOCKS = ("block_type_slug", "block_schema_references", "secret_fields")
"""What Prefect says of blocks in the schema of what they are part of."""
_ONE_AT_A_TIME = threading.Lock()
"""Without Prefect the model knows the sources of the plan that is read, and no others."""
_BETWEEN_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")
_SOURCE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


def _source(value: Any, read: Callable[[Any], Any]) -> Any:
    """Validate a source; where its type is added by a package that cannot be used, say that.

    What a program gives is a source already, maybe of a class of its own.
    """
    if isinstance(value, StateSource):
        return value

    def known(given: Any) -> Any:
        if isinstance(given, Mapping):
            added_source(given.get("type"))
        return read(given)

    return told(value, known)


class Compression(BaseModel):
    """How Parquet pages are compressed."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    codec: Literal["zstd"] = Field(default="zstd", description="Compression codec of the Parquet pages.")
    level: int = Field(default=1, ge=1, le=19, description="zstd level: higher is mostly smaller, and slower.")


class BackupPlan(LastgoodBlock):
    """What is backed up, where to, under which keys, and for how long.

    Example:
        ```python
        from blocks.plan.plan import BackupPlan

        BackupPlan.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Backup Plan"
    _block_type_slug = "backup-plan"

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str = Field(pattern=_PLAN_NAME, description="Name of the plan; its backups are kept under it.")
    sources: dict[str, Annotated[Source, WrapValidator(_source)]] = Field(
        min_length=1, description="The places where state lives, by name."
    )
    repository: Annotated[BackupRepository, WrapValidator(told)] = Field(description="Where the backups are kept.")
    encryption: Encryption = Field(description="The credential that opens the keys, or `none` in words.")
    compression: Compression = Field(default_factory=Compression, description="How segments are compressed.")
    critical: list[str] = Field(
        default_factory=list,
        description="Collections (source/collection) and keys (source/collection:key) of an emergency backup; globs.",
    )
    retention: RetentionPolicy = Field(default_factory=RetentionPolicy, description="How long backups are kept.")
    schedules: Schedules = Field(default_factory=Schedules, description="When the jobs of the plan run.")
    objectives: Objectives = Field(
        default_factory=Objectives,
        description="How old the newest good backup may be, and how long a restore may take.",
    )
    metrics: Metrics = Field(default_factory=Metrics, description="What the numbers of each run are sent to.")
    hooks: Hooks = Field(default_factory=Hooks, description="What runs before and after state is read, and each verb.")
    notifications: Notifications = Field(
        default=(), description="Who is told of failures, of bad backups, or that all is well; and dead man's switches."
    )
    quality: list[str] = Field(default_factory=list, description="Files with the quality suites of restored state.")
    verify_after_backup: Literal["off", "quick", "deep"] = Field(
        default="off",
        description="Whether the run that makes a backup also verifies it: `quick` compares every row, `deep` also "
        "restores it to a scratch place.",
    )
    prove_within: Window | None = Field(
        default=None, description="Within what time `verify --due` proves every kept backup, such as 30d or 12h."
    )
    prove_budget: Budget | None = Field(
        default=None, description="How much one run of `verify --due` may read (50GiB), or how long it may take (2h)."
    )

    approve_restores: bool = Field(
        default=False, description="Every restore that runs in Prefect waits until a person has approved its preview."
    )
    preview_values: list[str] = Field(
        default_factory=list,
        description="Collections (globs) whose values such a preview shows; of others only keys and names of fields.",
    )

    # the file that it was read from; a plan that is a saved block has none
    _file: Path | None = PrivateAttr(default=None)

    @field_validator("verify_after_backup", mode="before")
    @classmethod
    def _off(cls, given: Any) -> Any:
        return "off" if given is False else given  # YAML reads a bare `off` as false

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """Return the schema of a plan, which is a form of one page in the Prefect UI.

        For a field that it takes for a block of its own the UI offers only blocks that were saved before, shows none of
        what the plan holds there, and refuses or loses it. So the blocks within a plan are shown as what they hold; a
        plan may refer to saved ones all the same.
        """
        schema: dict[str, Any] = super().model_json_schema(*args, **options)
        schema.pop("block_schema_references", None)
        for definition in schema.get("definitions", {}).values():
            for name in _OF_BLOCKS:
                definition.pop(name, None)
            # the UI heads their fields with it
            definition["title"] = _BETWEEN_WORDS.sub(" ", definition["title"])
        return schema

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name, source in sources.items():
            if not _SOURCE_NAME.match(name):
                raise wrong_at((name,), f"source name {name!r}: use letters, digits, dots, dashes and underscores")
            if field := source.named_password:
                raise wrong_at((name, field), f"there is a password in it, where a plan would show it. {HINT}")
        return sources

    @field_validator("critical")
    @classmethod
    def _patterns(cls, patterns: list[str]) -> list[str]:
        for number, pattern in enumerate(patterns):
            if "/" not in pattern.partition(":")[0]:
                raise wrong_at((number,), f"pattern {pattern!r}: write source/collection or source/collection:key")
        return patterns

    def anchored(self, folder: Path) -> BackupPlan:
        """Return a copy whose relative paths are resolved against a folder."""
        update: dict[str, Any] = {
            "sources": {name: source.anchored(folder) for name, source in self.sources.items()},
            "repository": self.repository.anchored(folder),
            "encryption": self.encryption.anchored(folder),
            "hooks": self.hooks.anchored(folder.absolute()),
            "notifications": tuple(target.anchored(folder) for target in self.notifications),
            "quality": [str((folder / path).absolute()) for path in self.quality],
        }
        return self.model_copy(update=update)

    def emergency_selection(self, collection: str) -> Selection | None:
        """Return what an emergency backup takes of a collection: None for nothing, else the keys.

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

    def save(self, *args: Any, **options: Any) -> Any:
        """Save the plan as a block, as Prefect does.

        Raises:
            ConfigurationError: A source holds a password itself: within a plan it would be kept in clear.
        """
        # the form of a saved plan offers all types of sources
        _know_sources(source_of(()))
        for name, source in self.sources.items():
            if getattr(source, "password", None) is not None and source._block_document_id is None:
                raise ConfigurationError(
                    f"plan {self.name}: source {name} holds a password, which a saved plan would show", hint=HINT
                )
        return super().save(*args, **options)

    @property
    def reference(self) -> str | None:
        """What other processes load the plan by: the path of its file or the name of its block; None without either."""
        if self._file is not None:
            return str(self._file)
        return getattr(self, "_block_document_name", None)

    @property
    def own_files(self) -> list[Path]:
        """The files that a restore must never take back to what they were: the plan itself, and its credential."""
        credential = self.encryption.credential if isinstance(self.encryption, Keyring) else None
        files = [self._file]
        if credential is not None:
            files += [credential.key_file, credential.passphrase_file]
        return [path for path in files if path is not None]

    @property
    def credential_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold the credential, or open the place where it is kept."""
        return self.encryption.credential.variables if isinstance(self.encryption, Keyring) else frozenset()

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold a secret of the plan, for hooks to be kept from."""
        own = self.credential_variables | self.repository.secret_variables
        own = own.union(*(target.variables for target in self.notifications))
        return own.union(*(source.secret_variables for source in self.sources.values()))

    @property
    def proof(self) -> ProofPolicy:
        """Within what time backups are proved, and at what cost a run."""
        return ProofPolicy.of(self.prove_within, self.prove_budget)

    def retention_days(self, kind: BackupType) -> float:
        """Return how many days a backup of a type is kept."""
        return self.retention.age_limit(kind).total_seconds() / 86400


def load_plan(reference: str) -> BackupPlan:
    """Load a plan from a YAML file, or by the name of a saved `Backup Plan` block; no line of a log holds its secrets.

    Raises:
        ConfigurationError: There is no such plan, or it is wrong; the field is named.
    """
    plan = read_plan(Path(reference).expanduser()) if is_path(reference) else _saved(reference)
    keep_out(plan.secret_variables)
    return plan


def _saved(reference: str) -> BackupPlan:
    if without_prefect():
        raise ConfigurationError(
            f"{reference!r} is not the path of a plan, and this process does without Prefect, which keeps saved plans",
            hint="Import prefect before lastgood is first used in this process, or give the path of a YAML plan.",
        )
    try:
        loaded = _load(reference)
    except ValueError as exc:
        raise ConfigurationError(
            f"no saved plan named {reference!r}",
            hint="Give the path of a YAML plan, or save one with `lastgood plan save PLAN.yaml`.",
        ) from exc
    except RuntimeError as exc:  # Prefect's word for a block that was saved otherwise than this version would
        if not isinstance(exc.__cause__, ValidationError):
            raise
        raise ConfigurationError(
            described(f"the saved plan {reference!r}", mistakes(BackupPlan, None, exc.__cause__)),
            hint="Save it again with `lastgood plan save PLAN.yaml`.",
        ) from None
    return loaded


def _load(reference: str) -> BackupPlan:
    """Load a saved plan; where it does not fit what is known, it may be of sources that other packages add."""
    try:
        return BackupPlan.load(reference, _sync=True)  # type: ignore[call-arg, return-value]
    except RuntimeError:
        if not added_sources():
            raise
        with _ONE_AT_A_TIME:
            _know_sources(source_of(()))
        return BackupPlan.load(reference, _sync=True)  # type: ignore[call-arg, return-value]


def read_plan(path: Path) -> BackupPlan:
    """Read a plan from a YAML file; its relative paths count from the file's folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        other = path.with_suffix(".yml" if path.suffix == ".yaml" else ".yaml")
        hint = f"There is {other}." if other != path and other.is_file() else "Give the path of a YAML plan."
        raise ConfigurationError(f"plan {path}: {exc.strerror}", hint=hint) from exc
    except UnicodeDecodeError as exc:
        # the error holds all of the file
        raise ConfigurationError(
            f"plan {path} is not YAML: it is no UTF-8, from byte {exc.start}", hint="Save it as UTF-8."
        ) from None
    raw, lines = load_yaml_lines(text, f"plan {path}")
    if not isinstance(raw, dict):
        found = "it is empty" if raw is None else "it is a list" if isinstance(raw, list) else "it is one text"
        raise ConfigurationError(
            f"plan {path} is not a mapping: {found}, and a plan is `name: value` lines", hint=_SHOWN
        )
    plan = parse_plan(raw, str(path), lines).anchored(path.absolute().parent)
    plan._file = path.absolute()
    return plan


_SHOWN = "README.md shows a plan, and `lastgood plan new` writes one."


def parse_plan(raw: dict[str, Any], where: str, lines: Lines | None = None) -> BackupPlan:
    """Validate a plan.

    Args:
        raw: The plan as it was read.
        where: What errors call it.
        lines: Where its fields stand.

    Raises:
        ConfigurationError: A field is unknown, missing or wrong; all of them are named.
    """
    with _ONE_AT_A_TIME:
        kinds = _kinds(raw)
        if without_prefect():
            _know_sources(source_of(kinds))
        elif not OWN_TYPES.issuperset(kind for kind in kinds if isinstance(kind, str)):
            _know_sources(source_of(()))
        plan, error = None, None
        try:
            plan = BackupPlan.model_validate(raw)
        except ValidationError as exc:
            error = exc
        # Prefect's blocks accept unknown fields, and a misspelt `encryption` must never pass
        wrong = mistakes(BackupPlan, raw, error, lines.of if lines is not None else lambda _: None)
    if wrong or plan is None:
        raise ConfigurationError(described(f"plan {where}", wrong), hint=_SHOWN)
    return plan


def _know_sources(source: Any) -> None:
    """Make the model know the sources of one plan; those of another plan, which it knew before, are forgotten."""
    if BackupPlan.__pydantic_complete__:
        BackupPlan.model_fields["sources"].annotation = dict[str, Annotated[source, WrapValidator(_source)]]
    BackupPlan.model_rebuild(force=True, _types_namespace={"Source": source})


def _kinds(raw: dict[str, Any]) -> list[object]:
    sources = raw.get("sources")
    said = sources.values() if isinstance(sources, dict) else ()
    return [source.get("type") if isinstance(source, dict) else None for source in said]
