"""The query command: SQL over what a backup holds. Nothing is restored."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser

from blocks.errors import ConfigurationError
from flows.cli import options
from flows.cli.output import note, say, say_note
from flows.cli.running import open_plan
from flows.cli.tables import Column, Table
from flows.reading.contents import Contents
from flows.reading.query import Answer, answer
from flows.reading.values import csv_line, csv_lines, csv_texts, json_rows

SHOWN_ROWS = 100
TIMEOUT_SECONDS = 300.0
LONGEST_SECONDS = 30 * 24 * 3600.0
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "U")


def query_arguments(command: ArgumentParser) -> None:
    """Declare what `query` takes."""
    options.plan(command)
    options.backup(command)
    command.add_argument("sql", metavar="SQL", help='One SELECT statement, such as SELECT * FROM "ledger"."orders".')
    limit = f"Rows of the table that is shown, else {SHOWN_ROWS}; 0 for all. JSON and CSV have all."
    options.value(command, "--limit", "N", limit, type=int, default=SHOWN_ROWS)
    seconds = f"Seconds that the query may take, else {TIMEOUT_SECONDS:g}."
    options.value(command, "--timeout", "SECONDS", seconds, type=float, default=TIMEOUT_SECONDS)
    options.flag(command, "--csv", "Print CSV instead of a table.")
    options.json(command)


def query(plan: str, backup: str, sql: str, *, limit: int, timeout: float, csv: bool, json: bool) -> None:
    """Ask a backup in SQL (DuckDB): each collection is a view, "source"."collection". It reads and changes nothing."""
    if csv and json:
        raise ConfigurationError("give either --csv or --json, not both")
    if limit < 0 or not 0 < timeout < LONGEST_SECONDS:
        raise ConfigurationError("--limit is not negative, and --timeout is more than 0 seconds and less than a month")
    opened = open_plan(plan)
    contents = Contents(opened, backup)
    with answer(contents, sql, timeout) as found:
        for text in found.notes:
            say_note(text)
        if json:
            _say_json(found, opened.name, contents.backup.backup_id)
        elif csv:
            _say_csv(found)
        else:
            _say_table(found, limit)


def _say_json(found: Answer, plan: str, backup_id: str) -> None:
    """Print one JSON object, its rows one a line, so that memory holds a few of them."""
    head = {"plan": plan, "backup_id": backup_id, "columns": [list(one) for one in found.columns]}
    print(json.dumps(head | {"notes": list(found.notes)})[:-1] + ', "rows": [', end="")
    comma = "\n"
    for row in (row for table in found.rows for row in json_rows(table)):
        print(f"{comma}{json.dumps(row)}", end="")
        comma = ",\n"
    print("\n]}")


def _say_csv(found: Answer) -> None:
    print(csv_line(name for name, _ in found.columns), end="")
    for table in found.rows:
        sys.stdout.writelines(csv_lines(table))


def _say_table(found: Answer, limit: int) -> None:
    table = Table([Column(name, number=kind.startswith(_NUMBERS)) for name, kind in found.columns])
    for cells in (cells for rows in found.rows for cells in csv_texts(rows)):
        if limit and len(table.rows) == limit:
            note("there are more rows (--limit 0 shows all)")
            break
        table.add_row(*("NULL" if cell is None else cell for cell in cells))
    say(table)


COMMAND = options.Command("Ask a backup in SQL.", query_arguments, query)
