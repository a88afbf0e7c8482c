"""Numbers that Great Expectations judges by (its metrics), computed over all rows by DuckDB.

What is judged, and how, stays with Great Expectations: it is handed these in place of those it computes with pandas.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from blocks.plan.quality.table import CheckedTable

MAX_VALUES = 100_000
"""Most distinct values of a column that are looked at one by one."""


class NotComputed(Exception):
    """A metric that is not computed here."""


class Metrics:
    """Metrics of one table; each is computed once.

    Args:
        table: The table.
    """

    def __init__(self, table: CheckedTable) -> None:
        self.table = table
        self._known: dict[tuple[str, str], Any] = {}

    @staticmethod
    def computes(name: str) -> bool:
        """Whether a metric is one that is computed here."""
        return name in _METRICS or name.endswith(".unexpected_values")

    def value(self, name: str, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        """Return a metric.

        Args:
            name: Its name.
            domain: Which columns it is of.
            arguments: Its other arguments.

        Raises:
            NotComputed: Another one computes it.
            duckdb.Error: The values of the column do not have it (the mean of a text).
        """
        if name.endswith(".unexpected_values"):
            return []  # no value of a row is looked at by anybody
        if name not in _METRICS:
            raise NotComputed(name)
        key = (name, repr((sorted(domain.items(), key=repr), sorted(arguments.items(), key=repr))))
        if key not in self._known:
            self._known[key] = _METRICS[name](self, domain, arguments)
        return self._known[key]

    def nonnull(self, column: str) -> int:
        """Count the values of a column."""
        return int(self.one(f"count({self.table.sql(column)})"))

    def one(self, expression: str, *parameters: object) -> Any:
        """Return what an SQL expression comes to over all rows."""
        return _plain(self.table.value(expression, *parameters))

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query, in which `{t}` is the table."""
        with self.table.connection.cursor() as cursor:
            return cursor.execute(sql.replace("{t}", self.table.name), list(parameters)).fetchall()


def _plain(value: Any) -> Any:
    """Return a value as pandas would have it."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)
    return value


def _column(metrics: Metrics, domain: Mapping[str, Any]) -> str:
    return metrics.table.sql(str(domain["column"]))


def _aggregate(expression: str) -> Callable[[Metrics, Mapping[str, Any], Mapping[str, Any]], Any]:
    return lambda metrics, domain, _: metrics.one(expression.format(c=_column(metrics, domain)))


def _extreme(function: str) -> Callable[[Metrics, Mapping[str, Any], Mapping[str, Any]], Any]:
    """The least or the greatest value; times beyond what Python holds (infinity) are the last that it does."""

    def extreme(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> Any:
        kind = metrics.table.columns[str(domain["column"])].type
        found = f"{function}({_column(metrics, domain)})"
        if kind == "DATE" or kind.startswith("TIMESTAMP"):
            last = "9999-12-31" if kind == "DATE" else "9999-12-31 23:59:59"
            found = f"greatest(least({found}, CAST('{last}' AS {kind})), CAST('0001-01-01' AS {kind}))"
        return metrics.one(found)

    return extreme


def _nulls(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> int:
    return metrics.table.rows - metrics.nonnull(str(domain["column"]))


def _nonnull(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> int:
    return metrics.nonnull(str(domain["column"]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _unique_share(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> float:
    distinct = metrics.one(f"count(DISTINCT {_column(metrics, domain)})")
    return _share(distinct, metrics.nonnull(str(domain["column"])))


def _repeated(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> int:
    c = _column(metrics, domain)
    found = metrics.query(
        "SELECT coalesce(sum(n), 0)::BIGINT "
        f"FROM (SELECT count(*) AS n FROM {{t}} WHERE {c} IS NOT NULL GROUP BY {c} HAVING count(*) > 1)"
    )
    return int(found[0][0])


def _unordered(sign: str) -> Callable[[Metrics, Mapping[str, Any], Mapping[str, Any]], int]:
    def unordered(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> int:
        c, kept = _column(metrics, domain), f"{sign}{'' if arguments.get('strictly') else '='}"
        # in the order of the rows, which a window without an order keeps
        found = metrics.query(
            f"SELECT count(*) FROM (SELECT {c} AS value, lag({c}) OVER () AS before FROM {{t}} WHERE {c} IS NOT NULL) "
            f"WHERE NOT value {kept} before"
        )
        return int(found[0][0])

    return unordered


def _z_scores(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> int:
    c, threshold = f"CAST({_column(metrics, domain)} AS DOUBLE)", float(arguments["threshold"])
    mean, deviation = metrics.one(f"avg({c})"), metrics.one(f"stddev_samp({c})")
    if not deviation or not math.isfinite(deviation):
        return 0
    score = f"(({c} - ?) / ?)"
    if arguments.get("double_sided"):
        score, threshold = f"abs({score})", abs(threshold)
    return int(metrics.one(f"count(*) FILTER (WHERE NOT {score} < ?)", mean, deviation, threshold))


def _compound(metrics: Metrics, domain: Mapping[str, Any]) -> tuple[str, str]:
    columns = [metrics.table.sql(str(name)) for name in domain["column_list"]]
    joined = {"all_values_are_missing": " OR ", "any_value_is_missing": " AND "}.get(
        str(domain.get("ignore_row_if", "all_values_are_missing"))
    )
    return ", ".join(columns), joined.join(f"{c} IS NOT NULL" for c in columns) if joined else "true"


def _compound_rows(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> int:
    return int(metrics.query(f"SELECT count(*) FROM {{t}} WHERE {_compound(metrics, domain)[1]}")[0][0])


def _compound_repeated(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> int:
    columns, there = _compound(metrics, domain)
    found = metrics.query(
        "SELECT coalesce(sum(n), 0)::BIGINT "
        f"FROM (SELECT count(*) AS n FROM {{t}} WHERE {there} GROUP BY {columns} HAVING count(*) > 1)"
    )
    return int(found[0][0])


def _quantiles(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[Any]:
    """Quantiles as pandas interpolates them; a value of the column itself unless that is asked for."""
    count = metrics.nonnull(str(domain["column"]))
    how = arguments.get("allow_relative_error") or "nearest"
    if how not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise ValueError(f"allow_relative_error: {how!r} is not known")
    found = []
    for quantile in arguments["quantiles"]:
        place = float(quantile) * (count - 1)
        below, above = math.floor(place), math.ceil(place)
        if how == "nearest":
            below = above = round(place)
        low, high = (_nth(metrics, _column(metrics, domain), n, count) for n in (below, above))
        share = {"lower": 0.0, "higher": 1.0, "midpoint": 0.5}.get(how, place - below)
        found.append(low if below == above or share == 0 else high if share == 1 else low + (high - low) * share)
    return found


def _nth(metrics: Metrics, column: str, number: int, count: int) -> Any:
    """Return the value that stands at a place among all, in order."""
    return metrics.one(f"quantile_disc({column}, ?)", (number + 0.5) / count) if count else None


def _value_counts(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> Any:
    import pandas as pd

    c = _column(metrics, domain)
    rows = metrics.query(
        f"SELECT {c}, count(*) FROM {{t}} WHERE {c} IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT {MAX_VALUES + 1}"
    )
    if len(rows) > MAX_VALUES:
        raise NotComputed(f"there are more than {MAX_VALUES:,} distinct values")
    index = pd.Index([_plain(row[0]) for row in rows], name="value")
    return pd.Series([row[1] for row in rows], index=index, name="count")


def _most_common(metrics: Metrics, domain: Mapping[str, Any], _: Mapping[str, Any]) -> list[Any]:
    c = _column(metrics, domain)
    counts = f"SELECT {c} AS value, count(*) AS n FROM {{t}} WHERE {c} IS NOT NULL GROUP BY 1"
    rows = metrics.query(
        f"WITH counts AS MATERIALIZED ({counts}) SELECT value FROM counts "
        f"WHERE n = (SELECT max(n) FROM counts) ORDER BY 1 LIMIT {MAX_VALUES}"
    )
    return [_plain(row[0]) for row in rows]


def _values(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[str, str, list[Any]]:
    """Return the column, the values of a set as an SQL list of its type, and what stands for them."""
    column = metrics.table.columns[str(domain["column"])]
    given = [str(value) if isinstance(value, bool | float | int | str) else None for value in arguments["value_set"]]
    sql = f"list_filter(list_transform(?::VARCHAR[], lambda v: TRY_CAST(v AS {column.type})), lambda v: v IS NOT NULL)"
    return metrics.table.sql(str(domain["column"])), sql, [given]


def _not_in_set(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> int:
    c, values, given = _values(metrics, domain, arguments)
    sql = f"SELECT count(*) FROM (SELECT DISTINCT {c} AS v FROM {{t}} WHERE {c} IS NOT NULL) WHERE NOT "
    return int(metrics.query(f"{sql} list_contains({values}, v)", *given)[0][0])


def _missing(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> int:
    c, values, given = _values(metrics, domain, arguments)
    sql = f"SELECT count(*) FROM (SELECT DISTINCT {c} AS v FROM {{t}} WHERE {c} IS NOT NULL) WHERE "
    found = int(metrics.query(f"{sql} list_contains({values}, v)", *given)[0][0])
    return len({*given[0]} - {None}) - found


def _histogram(metrics: Metrics, domain: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[int]:
    bins, c = [float(each) for each in arguments["bins"]], _column(metrics, domain)
    counts = []
    for number, (low, high) in enumerate(itertools.pairwise(bins)):
        below = "<=" if number == len(bins) - 2 else "<"
        counts.append(int(metrics.one(f"count(*) FILTER (WHERE {c} >= ? AND {c} {below} ?)", low, high)))
    return counts


def _names(metrics: Metrics, _: Mapping[str, Any], __: Mapping[str, Any]) -> list[str]:
    return list(metrics.table.columns)


_METRICS: dict[str, Callable[[Metrics, Mapping[str, Any], Mapping[str, Any]], Any]] = {
    "table.row_count": lambda metrics, _, __: metrics.table.rows,
    "table.columns": _names,
    "table.column_count": lambda metrics, _, __: len(metrics.table.columns),
    "column.mean": _aggregate("avg({c})"),
    "column.sum": _aggregate("sum({c})"),
    "column.min": _extreme("min"),
    "column.max": _extreme("max"),
    "column.median": _aggregate("median({c})"),
    "column.standard_deviation": _aggregate("stddev_samp({c})"),
    "column.quantile_values": _quantiles,
    "column.distinct_values.count": _aggregate("count(DISTINCT {c})"),
    "column.distinct_values.not_in_set": lambda _, __, ___: [],
    "column.distinct_values.not_in_set.count": _not_in_set,
    "column.distinct_values.missing_from_column": lambda _, __, ___: [],
    "column.distinct_values.missing_from_column.count": _missing,
    "column.unique_proportion": _unique_share,
    "column.non_null_proportion": lambda metrics, domain, _: _share(
        metrics.nonnull(str(domain["column"])), metrics.table.rows
    ),
    "column.value_counts": _value_counts,
    "column.most_common_value": _most_common,
    "column.histogram": _histogram,
    "column_values.nonnull.count": _nonnull,
    "column_values.nonnull.unexpected_count": _nulls,
    "column_values.null.unexpected_count": _nonnull,
    "column_values.unique.unexpected_count": _repeated,
    "column_values.increasing.unexpected_count": _unordered(">"),
    "column_values.decreasing.unexpected_count": _unordered("<"),
    "column_values.z_score.under_threshold.unexpected_count": _z_scores,
    "compound_columns.unique.unexpected_count": _compound_repeated,
    "compound_columns.unique.filtered_row_count": _compound_rows,
}
