"""The export command: collections of a backup as Parquet, CSV or JSON lines. Nothing is restored."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from blocks.errors import ConfigurationError
from flows.cli import options
from flows.cli.output import say, say_json, say_note
from flows.cli.running import open_plan
from flows.cli.tables import grid
from flows.reading.contents import Contents
from flows.reading.export import ExportRequest, Format, export
from flows.reporting.units import human_bytes
from flows.restoring.places import check_output


def export_arguments(command: ArgumentParser) -> None:
    """Declare what `export` takes."""
    options.plan(command)
    options.backup(command)
    command.add_argument(
        "collection", metavar="COLLECTION", nargs="+", help="Names of collections, or globs such as 'ledger/*'."
    )
    options.value(command, "--to", "DIR", "Folder that the files go to; it is made where it is missing.", required=True)
    options.kind(command, "--format", Format, "What the files are.", required=True)
    options.values(command, "--key", "GLOB", "Glob over keys such as position:*; may be repeated.")
    options.flag(command, "--overwrite", "Replace files that are there.")
    options.json(command)


def export_collections(
    plan: str,
    backup: str,
    collection: Sequence[str],
    *,
    to: str,
    format: Format,
    key: Sequence[str],
    overwrite: bool,
    json: bool,
) -> None:
    """Write collections of a backup to files that others read, one for each collection, with exact values."""
    if not to:
        raise ConfigurationError("--to names no folder")
    opened = open_plan(plan)
    folder = Path(to).expanduser()
    check_output(opened, folder)
    contents = Contents(opened, backup)
    request = ExportRequest(folder, format, tuple(collection), tuple(key), overwrite)
    files = []
    for one in export(contents, request):
        files.append(one)
        for text in one.notes:
            say_note(text)
    if json:
        say_json(
            {
                "plan": opened.name,
                "backup_id": contents.backup.backup_id,
                "files": [
                    {
                        "collection": one.collection,
                        "path": str(one.path),
                        "rows": one.rows,
                        "size_bytes": one.size_bytes,
                        "columns": [[name, kind] for name, kind in one.columns.items()],
                        "notes": list(one.notes),
                    }
                    for one in files
                ],
            }
        )
        return
    table = grid("collection", ">rows", ">bytes", "file")
    for one in files:
        table.add_row(one.collection, f"{one.rows:,}", human_bytes(one.size_bytes), str(one.path))
    say(table)


COMMAND = options.Command(
    "Write collections of a backup as Parquet, CSV or JSON lines.", export_arguments, export_collections
)
