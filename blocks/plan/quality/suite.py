"""QualitySuite: what restored rows of one collection must satisfy, checked with Great Expectations.

Great Expectations drops an expectation whose type or severity it does not know, passes an empty suite, and passes most
expectations on no rows at all. Here each of these is an error: files are checked before any work, the number of rows is
always pinned, and a suite counts only when every expectation that was written down has been evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from blocks.errors import ConfigurationError
from blocks.plan.strict_yaml import load_json, load_yaml
from blocks.prefect_compat import LastgoodBlock
from blocks.rows.pandas_frame import make_frame
from blocks.rows.variant import is_variant

if TYPE_CHECKING:
    import pandas as pd

EXPECTED_ROWS = "expected_rows"
"""The parameter that suites may use: number of rows the collection must have."""

# these ask a database, and there is none: the rows are in memory
_NEEDS_SQL = frozenset(
    {
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table",
        "unexpected_rows_expectation",
    }
)
_NUMBER = "lastgood_number"
# what decides how an expectation is run and reported is not for a suite to say
_RESERVED = frozenset(
    {"batch_id", "catch_exceptions", "description", "id", "meta", "notes", "rendered_content", "result_format"}
    | {"severity", "windows"}
)
_HINT = "The docstring of blocks.plan.quality.QualitySuite shows a suite."


class Expectation(BaseModel):
    """One thing that must hold, in the words of Great Expectations."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: str = Field(description="Name of the expectation, such as expect_column_values_to_be_unique.")
    kwargs: dict[str, JsonValue] = Field(description="Arguments of the expectation; dates and times are text.")
    meta: dict[str, JsonValue] = Field(default_factory=dict, description="Notes for people; not evaluated.")
    severity: Literal["critical", "warning", "info"] = Field(
        default="critical", description="Only a broken critical expectation makes a verification fail."
    )

    @property
    def columns(self) -> list[str]:
        """Names of the columns it is about."""
        single = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        several = self.kwargs.get("column_list")
        return [name for name in [*single, *(several if isinstance(several, list) else [])] if isinstance(name, str)]

    def reads(self, column: str) -> bool:
        """Whether evaluating it may need a column's values; a row condition is only searched for the name."""
        condition = self.kwargs.get("row_condition")
        return column in self.columns or (bool(condition) and column in "\n".join(_texts(condition)))


@dataclass(frozen=True)
class QualityResult:
    """What one suite found: sentences that name expectations, columns and counts, never a value of a row."""

    evaluated: int
    """Expectations that were evaluated, the one about the number of rows included."""
    findings: tuple[str, ...]
    """Broken critical expectations."""
    warnings: tuple[str, ...] = ()
    """Broken expectations of lesser severity; they do not make a verification fail."""


class QualitySuite(LastgoodBlock):
    """What the restored rows of one collection must satisfy; the number of rows is checked without being asked.

    A suite is a JSON or YAML file (or one of several in a list) that a plan names under `quality`. NaN counts as NULL.
    Limits of times carry their zone (`2026-01-01T00:00:00+00:00`); times of day are text (`09:30:00.000000`).

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
    collection: str = Field(pattern=r"^[^/]+/.+$", description="Full name (source/collection) of what is checked.")
    expectations: list[Expectation] = Field(min_length=1, description="What must hold.")

    def check(self) -> None:
        """Refuse what Great Expectations does not know.

        Raises:
            ConfigurationError: A type or an argument is unknown or wrong; the expectation is named.
        """
        for number, expectation in enumerate(self.expectations):
            _build(self, number, expectation, {EXPECTED_ROWS: 1})

    def run(self, rows: pa.Table, parameters: dict[str, JsonValue]) -> QualityResult:
        """Evaluate every expectation on restored rows.

        Args:
            rows: All rows of the collection; only columns that expectations read are converted.
            parameters: Values of `{"$PARAMETER": name}`; `expected_rows` must be among them.

        Raises:
            ConfigurationError: An expectation cannot be built, or a parameter is missing.
        """
        if not isinstance(parameters.get(EXPECTED_ROWS), int):
            raise ConfigurationError(f"quality suite {self.name}: the number of expected rows was not given")
        pinned = Expectation(type="expect_table_row_count_to_equal", kwargs={"value": parameters[EXPECTED_ROWS]})
        expectations = [pinned, *self.expectations]
        built = [_build(self, number - 1, each, parameters) for number, each in enumerate(expectations)]
        try:
            read = {name for name in rows.column_names if any(each.reads(name) for each in expectations)}
            results = _evaluate(make_frame(rows, read), built)
        except Exception as exc:  # noqa: BLE001  whatever it is, the rows were not proved good; its text may hold values
            return QualityResult(0, (f"suite {self.name!r}: nothing was evaluated ({type(exc).__name__})",))
        findings: list[str] = []
        warnings: list[str] = []
        for number, expectation in enumerate(expectations):
            finding = _finding(expectation, results.get(number), rows)
            if finding and expectation.severity == "critical":
                findings.append(finding)
            elif finding:
                warnings.append(f"{expectation.severity}: {finding}")
        return QualityResult(len(results), tuple(findings), tuple(warnings))


def load_suites(paths: Sequence[str]) -> list[QualitySuite]:
    """Read quality suites from JSON or YAML files; each holds one suite or a list of them.

    Raises:
        ConfigurationError: A file is missing or wrong; the file, the suite and the field are named.
    """
    suites = [(path, suite) for path in paths for suite in _read(Path(path))]
    for path, suite in suites:
        try:
            suite.check()
        except ConfigurationError as exc:
            raise ConfigurationError(f"{path}: {exc.message}", hint=exc.hint) from exc
    return [suite for _, suite in suites]


def _read(path: Path) -> list[QualitySuite]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"quality file {path}: {exc.strerror}", hint=_HINT) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"quality file {path} can not be read: {exc}", hint=_HINT) from exc
    load = load_json if path.suffix == ".json" else load_yaml
    raw = load(text, f"quality file {path}")
    suites = raw if isinstance(raw, list) else [raw]
    if not suites:
        raise ConfigurationError(f"quality file {path} holds no suite", hint=_HINT)
    return [_parse(suite, f"quality file {path}") for suite in suites]


def _parse(raw: object, where: str) -> QualitySuite:
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{where}: a suite is a mapping", hint=_HINT)
    if isinstance(raw.get("name"), str):
        where = f"{where}, suite {raw['name']!r}"
    # Prefect's blocks accept unknown fields, and a misspelt `expectations` must never pass
    if unknown := sorted(str(field) for field in raw if field not in QualitySuite.model_fields):
        raise ConfigurationError(f"{where}: unknown {', '.join(unknown)}", hint=_HINT)
    try:
        return QualitySuite.model_validate(raw)
    except ValidationError as exc:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in exc.errors()]
        raise ConfigurationError(f"{where}: " + "; ".join(lines), hint=_HINT) from exc


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _build(suite: QualitySuite, number: int, expectation: Expectation, parameters: dict[str, JsonValue]) -> Any:
    """Make an expectation of Great Expectations, whose number in the suite (from 1, 0 is ours) is kept in its meta."""
    # importing it takes seconds, and most commands never check quality
    from great_expectations.core.suite_parameters import build_suite_parameters
    from great_expectations.exceptions.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    where = f"suite {suite.name!r}, expectations.{number} ({expectation.type})"
    if expectation.type not in list_registered_expectation_implementations():
        raise ConfigurationError(f"{where}: there is no expectation of this type", hint=_HINT)
    if expectation.type in _NEEDS_SQL:
        raise ConfigurationError(f"{where}: it needs a database; suites run on rows in memory")
    if reserved := sorted(_RESERVED & expectation.kwargs.keys()):
        raise ConfigurationError(f"{where}: kwargs may not hold {', '.join(reserved)}", hint=_HINT)
    try:
        kwargs, _ = build_suite_parameters(expectation.kwargs, parameters)
        built = ExpectationConfiguration(
            type=expectation.type, kwargs=kwargs, meta={_NUMBER: number + 1}
        ).to_domain_obj()
    except (GreatExpectationsError, ValueError, TypeError) as exc:
        raise ConfigurationError(f"{where}: {exc}", hint=_HINT) from exc
    # limits are kept as floats, which do not hold every integer
    if rounded := [key for key, value in kwargs.items() if isinstance(value, int) and getattr(built, key) != value]:
        raise ConfigurationError(f"{where}: {', '.join(rounded)} has more digits than can be compared exactly")
    return built


def _evaluate(frame: pd.DataFrame, built: list[Any]) -> dict[int, Any]:
    """Run expectations on a frame; returns results by number, in which a missing one was not evaluated."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    asset = context.data_sources.add_pandas("restored").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    # counts only: not one value of a row may reach a result. The constructor, since adding drops what looks alike.
    validated = batch.validate(
        gx.ExpectationSuite(name="quality", expectations=built),
        result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
    )
    results = [(result.expectation_config, result) for result in validated.results]
    return {config.meta[_NUMBER]: result for config, result in results if config is not None}


def _finding(expectation: Expectation, result: Any, rows: pa.Table) -> str | None:
    """Say in words what is wrong, or None; what was raised is not quoted, because it may hold values."""
    if result is not None and result.success is True:
        return None
    what = expectation.type + (f" on {', '.join(expectation.columns)}" if expectation.columns else "")
    if missing := [name for name in expectation.columns if name not in rows.column_names]:
        return f"{what}: column {', '.join(missing)} is missing"
    if result is None:
        return f"{what}: was not evaluated"
    if _raised(result.exception_info):
        fields = [rows.schema.field(name) for name in expectation.columns]
        types = ", ".join("variant" if is_variant(field) else str(field.type) for field in fields)
        return f"{what}: could not be evaluated" + (f" on values of type {types}" if types else "")
    if expectation.type.startswith("expect_table_row_count"):
        value = expectation.kwargs.get("value")
        wanted = f", {value} were expected" if isinstance(value, int) else " and does not hold"
        return f"{what}: there are {rows.num_rows} rows{wanted}"
    unexpected, total = result.result.get("unexpected_count"), result.result.get("element_count")
    if unexpected is None or total is None:
        return f"{what}: does not hold"
    return f"{what}: {int(unexpected)} of {int(total)} rows are not as expected"


def _raised(info: Any) -> bool:
    if not isinstance(info, dict):
        return False
    return bool(info.get("raised_exception")) or any(_raised(inner) for inner in info.values())
