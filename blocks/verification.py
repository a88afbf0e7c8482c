"""The records of verifications: what is known of a backup on four axes, frozen, as docs/format.md specifies them.

Verification              one verification of one backup
├── AxisResult            what it found on one axis: bytes, restorable, definitions, quality
├── Standing              what is known on one axis after it and all before it
├── RuleResult            one expectation of a quality suite
└── CollectionProfile     numbers about one collection, which later verifications compare theirs with
    └── ColumnProfile
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, JsonValue

from blocks.records import FORMAT_VERSION, BackupStatus, Count, FormatVersion, Record, UtcTime


class Axis(StrEnum):
    """What can be known of a backup, each apart from the others."""

    BYTES = "bytes"
    """The stored bytes are read, and are what was stored."""
    RESTORABLE = "restorable"
    """It was really restored into the same kind of store, and came back the same."""
    DEFINITIONS = "definitions"
    """What was rebuilt (indexes, keys, views, functions) is defined as it was."""
    QUALITY = "quality"
    """The restored rows are good data, by the checks of their store and by the suites of the plan."""


class CheckOutcome(StrEnum):
    """What a verification came to on one axis."""

    GOOD = "good"
    BAD = "bad"
    UNPROVEN = "unproven"
    """It could not be tried, or not all of it: no fault of the backup."""
    UNTRIED = "untried"


class Depth(StrEnum):
    """How far a verification went on one axis, from the shallowest."""

    OBJECTS = "objects"
    """Every object was read, its SHA-256 compared, and opened."""
    ROWS = "rows"
    """Every row was merged through the chain, and compared with the index or given to the suites."""
    RESTORED = "restored"
    """The backup was restored to a scratch store, and that was read."""


class AxisResult(Record):
    """What a verification found on one axis."""

    outcome: CheckOutcome
    depth: str = ""
    """One of `Depth`; empty where nothing was looked at."""
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Standing(Record):
    """What is known of a backup on one axis: the worst that no equal or stronger proof has outdone."""

    outcome: CheckOutcome
    depth: str = ""
    sequence: Count
    """Number of the verification that it comes from."""
    verified_at: UtcTime
    findings: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    """Names of the quality suites that a later proof must evaluate to outdo it, sorted."""


class RuleOutcome(StrEnum):
    """What one expectation came to."""

    HOLDS = "holds"
    BROKEN = "broken"
    """The data are not as expected."""
    UNJUDGED = "unjudged"
    """It says nothing of the data, as it is written: a fault of the suite."""


class RuleResult(Record):
    """One expectation of a suite, as one verification evaluated it."""

    suite: str
    collection: str
    rule: str
    """The type of the expectation, in the words of Great Expectations."""
    columns: tuple[str, ...] = ()
    severity: str = "critical"
    outcome: RuleOutcome
    kind: str = ""
    """What kind of fault was found: a few words that stay the same ("no rows", "only NULL", "wrong type"), or none."""
    observed: JsonValue = None
    """The value that was compared (a count, a mean, a share); None where there is none, or the plan shows no values."""
    bound: str = ""
    """What it had to be, in words ("between 1 and 100")."""
    unexpected: Count | None = None
    total: Count | None = None
    examples: tuple[str, ...] = ()
    """Keys of rows that are not as expected, where the plan allows them."""
    sentence: str = ""
    """The finding in one line; empty where it holds."""


class ColumnProfile(Record):
    """Numbers about the values of one column."""

    nulls: Count
    distinct: Count | None = None
    """How many values differ, about; None for types without equality."""
    minimum: JsonValue = None
    maximum: JsonValue = None
    """Numbers, and times as text; None for text and bytes, which may not be shown."""
    mean: float | None = None


class CollectionProfile(Record):
    """Numbers about one collection."""

    rows: Count
    columns: dict[str, ColumnProfile] = Field(default_factory=dict)


class Verification(Record):
    """The result of one verification of one backup."""

    format_version: FormatVersion = FORMAT_VERSION
    plan: str
    backup_id: str
    manifest_sha256: str
    verified_at: UtcTime
    deep: bool
    status: BackupStatus
    rows: int
    expectations: int
    seconds: float
    findings: tuple[str, ...] = ()
    """What was wrong, in words; empty where the backup was proved good."""
    warnings: tuple[str, ...] = ()
    """What is odd, and broken expectations that are not critical."""
    sequence: Count | None = None
    """Counts the verifications of the backup from 1."""
    previous: str | None = None
    """SHA-256 of the sealed bytes of the verification before, hex."""
    results: dict[str, AxisResult] = Field(default_factory=dict)
    """What it found on each axis, by its name."""
    standing: dict[str, Standing] = Field(default_factory=dict)
    """What is known on each axis after it, by its name."""
    suites: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each suite that was evaluated, hex, by its name."""
    rules: tuple[RuleResult, ...] = ()
    """What each expectation came to, in the order of the suites."""
    profile: dict[str, CollectionProfile] = Field(default_factory=dict)
    """Numbers about the collections that suites ask for, by full name."""
    restore_seconds: float | None = None
    """How long the scratch restore took; None where there was none."""
    stands_on: dict[str, Count] = Field(default_factory=dict)
    """Of a proof for which only the backup's own objects were read: by id the number of the verification of each
    backup that it depends on, by which the others were read and found good."""
    run_at: UtcTime | None = None
    """When the run of `verify --due` began that it is part of; None of one that was asked for by itself."""
    tool_versions: dict[str, str] = Field(default_factory=dict)
    place: str | None = None
    """Host and folder of the scratch restore; None where there was none."""
