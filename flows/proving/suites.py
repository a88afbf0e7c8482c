"""The rows that quality suites ask for, and the suites run on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import pyarrow as pa

from blocks.errors import ConfigurationError
from blocks.plan.expression import Value
from blocks.plan.parameters import Missing
from blocks.plan.quality import Expectation, QualitySuite
from blocks.plan.quality.column_types import key_text, named_type, quoted, text
from blocks.plan.quality.findings import NO_COLLECTION, NOT_EVALUATED, Judgement, fault, own_rule
from blocks.plan.quality.sql import SUITES, tables_in
from blocks.plan.quality.suite import FILE_FORMATS
from blocks.plan.quality.table import CheckedColumn, CheckedTable
from blocks.records import BackupMetadata, Collection
from blocks.rows.selection import glob_regex
from blocks.verification import CollectionProfile, RuleOutcome, RuleResult
from flows.proving.fields import Reader
from flows.proving.file_tables import FileTables
from flows.proving.keyed import KeyedValues
from flows.proving.profile import profile
from flows.reading.tables import RestoredTables
from flows.reading.typed_parts import EXAMPLES, converted

if TYPE_CHECKING:
    import duckdb


class Values(Protocol):
    """Knows the values of parameters, as `flows.proving.parameters.Parameters` does."""

    def of(self, collection: Collection, names: Iterable[str], profile: str) -> dict[str, Value | Missing]:
        """Return the values of some names for a collection; `profile` names its numbers in verifications."""


@dataclass(frozen=True)
class _Run:
    """A suite that is evaluated on one collection; the reader makes its table, where that is none of the backup's."""

    suite: QualitySuite
    collection: Collection
    name: str
    reader: Reader | None

    @property
    def profile(self) -> str:
        """What numbers of its rows are kept by: the collection, unless the suite makes another table of it."""
        plain = self.suite.format is None and self.suite.keys is None and not self.suite.types
        return self.collection.name if plain else f"{self.collection.name} ({self.suite.name})"


class SuiteRows:
    """Keeps the restored rows that suites ask for, and runs the suites.

    Args:
        plan: Name of the plan.
        suites: The suites.
        backup: The backup; a suite is evaluated on each of its collections that the suite names.

    Attributes:
        profiles: After `run`, numbers about the rows of each table that a suite was evaluated on.
    """

    def __init__(self, plan: str, suites: Sequence[QualitySuite], backup: BackupMetadata) -> None:
        collections = {collection.name: collection for collection in backup.collections}
        kinds = {state.name: state.type for state in backup.sources}
        chosen = {suite.name: suite.collections(collections) for suite in suites}
        wanted = _named(suites, collections)
        wanted |= {name for suite in suites if suite.format is None for name in chosen[suite.name]}
        self._suites = list(suites)
        self.profiles: dict[str, CollectionProfile] = {}
        self.tables = RestoredTables(plan, [c for name, c in collections.items() if name in wanted], kinds)
        self._runs: list[_Run] = []
        self._refused: dict[str, ConfigurationError] = {}
        """By name of a run why its rows are no table: a fault of the suite."""
        for suite in suites:
            for collection in chosen[suite.name]:
                name = suite.name if len(chosen[suite.name]) == 1 else f"{suite.name} {collection}"
                self._runs.append(_Run(suite, collections[collection], name, self._reader(suite, name)))
        self._lacking = [suite for suite in suites if not chosen[suite.name]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tables.close()

    def _reader(self, suite: QualitySuite, name: str) -> Reader | None:
        if suite.format is None:
            return None
        folder = self.tables.folder / f"reader-{len(self._runs)}"
        folder.mkdir(mode=0o700)
        kind = FileTables if suite.format in FILE_FORMATS else KeyedValues
        return kind(suite, self.tables.connection, folder, name)

    def add(self, collection: str, rows: pa.Table, part: int = 0) -> None:
        """Keep restored rows of a collection, where a suite asks for them; thread-safe.

        Args:
            collection: Its full name.
            rows: Restored rows, with the columns of the collection.
            part: Number of the part, which says where the rows stand among the others.
        """
        self.tables.add(collection, rows, part)
        for run in self._runs:
            wanted = run.collection.name == collection and rows.num_columns and run.name not in self._refused
            if run.reader is not None and wanted:
                with self._judged(run):
                    run.reader.add(rows, part)

    @contextmanager
    def _judged(self, run: _Run) -> Iterator[None]:
        """Keep what is wrong with a suite for its result: a verification is about more than that."""
        try:
            yield
        except ConfigurationError as exc:
            self._refused[run.name] = exc

    def run(self, parameters: Values) -> list[RuleResult]:
        """Evaluate all suites, after all rows were added.

        Args:
            parameters: Knows the values that suites name.
        """
        # importing what evaluates them takes seconds
        from blocks.plan.quality.evaluation import Evaluation
        from blocks.plan.quality.expectations import parameters_of

        self.tables.tables()  # which queries may name
        tables = [(run, table) for run in self._runs if (table := self._table_or_none(run)) is not None]
        self.profiles = {run.profile: profile(table) for run, table in tables}
        rules = [_no_collection(suite) for suite in self._lacking]
        rules += [_refused(run, self._refused[run.name]) for run in self._runs if run.name in self._refused]
        for run, table in tables:
            suite = run.suite
            names = frozenset[str]().union(*(parameters_of(each) for each in suite.expectations))
            values = parameters.of(run.collection, names, run.profile)
            evaluation = Evaluation(suite, run.collection.name, table, values, self.tables.folder)
            whole = suite.format is None and suite.keys is None
            rules += evaluation.run(run.collection.rows if whole else None)
        return rules

    def tables_of(self, suite: str) -> dict[str, CheckedTable]:
        """Return the table of a suite for each of its collections, by full name, after all rows were added.

        Raises:
            ConfigurationError: What the suite names is no table.
        """
        for error in self._refused.values():
            raise error
        return {run.collection.name: self._table(run) for run in self._runs if run.suite.name == suite}

    def _table_or_none(self, run: _Run) -> CheckedTable | None:
        if run.name not in self._refused:
            with self._judged(run):
                return self._table(run)
        return None

    def _table(self, run: _Run) -> CheckedTable:
        if run.reader is not None:
            return run.reader.table()
        table, suite = self.tables.table(run.collection.name), run.suite
        if suite.keys is None and not suite.types:
            return table
        return _narrowed(table, suite, run.name)


def _narrowed(table: CheckedTable, suite: QualitySuite, name: str) -> CheckedTable:
    """Return a table of some keys, with the types that a suite says."""
    view, condition = f"{quoted(SUITES)}.{quoted(name)}", "true"
    if suite.keys is not None:
        label = ", ".join(f"coalesce(CAST({table.sql(column)} AS VARCHAR), '')" for column in table.key)
        condition = f"regexp_matches(concat_ws(':', {label}), {text(glob_regex(suite.keys))})"
    with table.connection.cursor() as cursor:
        expressions, columns = [], dict(table.columns)
        source = f"(SELECT * FROM {table.name} WHERE {condition})"
        for column, known in table.columns.items():
            sql = table.sql(column)
            if column not in suite.types:
                expressions.append(sql)
                continue
            typed = converted(cursor, source, f"CAST({sql} AS VARCHAR)", named_type(suite.types[column]))
            expressions.append(f"{typed} AS {sql}")
            columns[column] = _retyped(cursor, source, table, known, typed)
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(SUITES)}")
        cursor.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT {', '.join(expressions)} FROM {source}")
        found = cursor.execute(f"SELECT count(*) FROM {view}").fetchone()
        types = {str(row[0]): str(row[1]) for row in cursor.execute(f"DESCRIBE {view}").fetchall()}
    columns = {column: replace(known, type=types[known.sql_name]) for column, known in columns.items()}
    return replace(table, name=view, columns=columns, rows=int(found[0]) if found else 0)


def _retyped(
    cursor: duckdb.DuckDBPyConnection, source: str, table: CheckedTable, known: CheckedColumn, typed: str
) -> CheckedColumn:
    sql = quoted(known.sql_name)
    key = key_text(table.columns[name].sql_name for name in table.key)
    lost = f"{sql} IS NOT NULL AND ({typed}) IS NULL"
    found = cursor.execute(f"SELECT count(*) FROM {source} WHERE {lost}").fetchone()
    wrong, keys = int(found[0]) if found else 0, known.keys
    if wrong and table.key:
        rows = cursor.execute(f"SELECT {key} FROM {source} WHERE {lost} LIMIT {EXAMPLES}").fetchall()
        keys = tuple(str(row[0]) for row in rows)
    return replace(known, wrong=known.wrong + wrong, keys=keys)


def _named(suites: Sequence[QualitySuite], collections: Mapping[str, Collection]) -> set[str]:
    """Return full names of the collections that queries of suites read."""
    spelled = {name.casefold(): name for name in collections}
    named = set[str]()
    for suite in suites:
        for expectation in suite.expectations:
            for query in _queries(expectation):
                found = tables_in(f"suite {suite.name!r}", query)
                named |= {spelled[full] for one in found if (full := "/".join(one).casefold()) in spelled}
            if isinstance(other := expectation.kwargs.get("other_table_name"), str):
                named |= {other} & {*collections}
    return named


def _queries(expectation: Expectation) -> list[str]:
    names = ("unexpected_rows_query", "base_query", "comparison_query")
    return [query for name in names if isinstance(query := expectation.kwargs.get(name), str)]


def _refused(run: _Run, error: ConfigurationError) -> RuleResult:
    return own_rule(run.suite, run.collection.name, (), error.message, fault(NOT_EVALUATED))


def _no_collection(suite: QualitySuite) -> RuleResult:
    sentence = f"the backup holds no collection {suite.collection}, which suite {suite.name} is about"
    return own_rule(suite, suite.collection, (), sentence, Judgement(RuleOutcome.BROKEN, NO_COLLECTION))
