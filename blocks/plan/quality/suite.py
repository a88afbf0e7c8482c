"""QualitySuite: what restored rows of one collection must satisfy, in the words of Great Expectations.

Great Expectations drops an expectation whose type or severity it does not know, passes an empty suite, and passes most
expectations on no rows at all. Here each of these is an error or a finding: files are checked before any work, the
number of rows is always pinned, and a suite counts only when every expectation that was written down was evaluated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from blocks.errors import ConfigurationError
from blocks.plan.quality.column_types import NamedType
from blocks.plan.strict_yaml import load_json, load_yaml
from blocks.prefect_compat import LastgoodBlock

HINT = "docs/quality.md shows how a suite is written."

Format = Literal["json", "hash", "csv", "json_lines", "parquet"]
"""What the values under keys are: JSON texts or hashes of Redis, or files with tables."""
FILE_FORMATS = ("csv", "json_lines", "parquet")


class Expectation(BaseModel):
    """One thing that must hold, in the words of Great Expectations."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: str = Field(description="Name of the expectation, such as expect_column_values_to_be_unique.")
    kwargs: dict[str, JsonValue] = Field(description="Arguments of the expectation; dates and times are text.")
    meta: dict[str, JsonValue] = Field(default_factory=dict, description="Notes for people; not evaluated.")
    severity: Literal["critical", "warning", "info"] = Field(
        default="critical", description="Only a broken critical expectation makes a verification fail."
    )
    may_be_empty: bool = Field(
        default=False, description="Whether it holds where there is nothing to look at: no row, or only NULL."
    )

    @property
    def columns(self) -> list[str]:
        """Names of the columns it is about."""
        single = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        several = self.kwargs.get("column_list")
        return [name for name in [*single, *(several if isinstance(several, list) else [])] if isinstance(name, str)]

    @property
    def condition(self) -> JsonValue:
        """What the rows that it looks at have in common; None where it looks at all of them."""
        return self.kwargs.get("row_condition") or None

    def reads(self, column: str) -> bool:
        """Whether evaluating it may need a column's values; a row condition is only searched for the name."""
        return column in self.columns or (bool(self.condition) and column in "\n".join(_texts(self.condition)))


class QualitySuite(LastgoodBlock):
    """What the restored rows of one collection must satisfy; the number of rows is checked without being asked.

    A suite is a JSON or YAML file (or one of several in a list) that a plan names under `quality`. NaN counts as NULL,
    and so does a value of another type than its column's, which is a finding of its own. docs/quality.md says more.

    Example:
        ```python
        from blocks.plan.quality import QualitySuite

        QualitySuite.load("BLOCK_NAME")
        ```

        ```json
        {
          "name": "orders",
          "collection": "ledger/orders",
          "expectations": [
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "quantity", "min_value": 1}},
            {"type": "expect_column_unique_value_count_to_be_between",
             "kwargs": {"column": "id", "min_value": {"$PARAMETER": "expected_rows"}}},
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "note", "mostly": 0.5},
             "severity": "warning"}
          ]
        }
        ```
    """

    _block_type_name = "Quality Suite"
    _block_type_slug = "quality-suite"

    name: str = Field(min_length=1, description="Name of the suite.")
    collection: str = Field(
        pattern=r"^[^/]+/.+$",
        description="Full name (source/collection) of what is checked, or a glob: then each collection is.",
    )
    keys: str | None = Field(default=None, description="Glob of the keys or paths that are checked; all by default.")
    format: Format | None = Field(
        default=None, description="What stands under the keys; its fields are then the columns of a table."
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="What is between two values of CSV.")
    types: dict[str, NamedType] = Field(
        default_factory=dict, description="Types of columns, where the source does not say them."
    )
    may_be_empty: bool = Field(default=False, description="Whether there may be no rows, or only NULL in a column.")
    examples: bool = Field(default=False, description="Whether findings may name keys of rows.")
    query_seconds: float = Field(default=300, gt=0, le=86_400, description="How long one SQL query may run.")
    expectations: list[Expectation] = Field(min_length=1, description="What must hold.")

    @model_validator(mode="after")
    def _coherent(self) -> QualitySuite:
        if self.format != "csv" and self.delimiter != ",":
            raise ValueError("a delimiter needs `format: csv`")
        return self

    @property
    def sha256(self) -> str:
        """SHA-256 of what it says, hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def collections(self, names: Iterable[str]) -> list[str]:
        """Return those of some full names of collections that it is about."""
        known = list(names)
        return [self.collection] if self.collection in known else [n for n in known if fnmatchcase(n, self.collection)]

    def check(self, columns: Iterable[str] | None = None) -> None:
        """Refuse what cannot be evaluated, as far as that is seen without rows.

        Args:
            columns: Names of the columns of its collection, where they are known; nothing is known of fields of values.

        Raises:
            ConfigurationError: A type, an argument, a condition, a column, a parameter or a query is wrong; the
                expectation is named.
        """
        # importing what evaluates them takes seconds, and most commands never check quality
        from blocks.plan.quality.expectations import check_expectation

        for number, expectation in enumerate(self.expectations):
            where = f"suite {self.name!r}, expectations.{number} ({expectation.type})"
            check_expectation(where, expectation, None if self.format else columns)


def load_suites(paths: Sequence[str]) -> list[QualitySuite]:
    """Read quality suites from JSON or YAML files; each holds one suite or a list of them.

    Raises:
        ConfigurationError: A file is missing or wrong; the file, the suite and the field are named.
    """
    suites = [(path, suite) for path in paths for suite in read_suites(path)]
    names = set[str]()
    for path, suite in suites:
        if suite.name.casefold() in names:
            raise ConfigurationError(f"{path}: there is another suite {suite.name!r}", hint=HINT)
        names.add(suite.name.casefold())
        try:
            suite.check()
        except ConfigurationError as exc:
            raise ConfigurationError(f"{path}: {exc.message}", hint=exc.hint or HINT) from exc
    return [suite for _, suite in suites]


def read_suites(file: str) -> list[QualitySuite]:
    """Read the suites of one file, without a look at what they expect.

    Raises:
        ConfigurationError: It is missing, or holds no suites; the suite and the field are named.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"quality file {path}: {exc.strerror}", hint=HINT) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"quality file {path} can not be read: {exc}", hint=HINT) from exc
    load = load_json if path.suffix == ".json" else load_yaml
    raw = load(text, f"quality file {path}")
    suites = raw if isinstance(raw, list) else [raw]
    if not suites:
        raise ConfigurationError(f"quality file {path} holds no suite", hint=HINT)
    return [_parse(suite, f"quality file {path}") for suite in suites]


def _parse(raw: object, where: str) -> QualitySuite:
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{where}: a suite is a mapping", hint=HINT)
    if isinstance(raw.get("name"), str):
        where = f"{where}, suite {raw['name']!r}"
    # Prefect's blocks accept unknown fields, and a misspelt `expectations` must never pass
    if unknown := sorted(str(field) for field in raw if field not in QualitySuite.model_fields):
        raise ConfigurationError(f"{where}: unknown {', '.join(unknown)}", hint=HINT)
    try:
        return QualitySuite.model_validate(raw)
    except ValidationError as exc:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in exc.errors()]
        raise ConfigurationError(f"{where}: " + "; ".join(lines), hint=HINT) from exc


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
