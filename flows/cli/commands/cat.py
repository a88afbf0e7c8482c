"""The cat command: records of a backup as JSON, files as they are. Nothing is restored."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence

from blocks.errors import ConfigurationError
from flows.cli import options
from flows.cli.output import say, say_json
from flows.cli.running import open_plan
from flows.reading.contents import Contents
from flows.reading.records import Row, file_content, file_contents, record, records


def cat_arguments(command: ArgumentParser) -> None:
    """Declare what `cat` takes."""
    options.plan(command)
    options.backup(command)
    command.add_argument("collection", metavar="COLLECTION", help="Full name of a collection, such as ledger/orders.")
    command.add_argument("record", metavar="KEY", nargs="?", help="Key of one record, as `ls` shows it.")
    options.values(command, "--key", "GLOB", "Glob over keys such as position:*; may be repeated.")


def cat(plan: str, backup: str, collection: str, record: str | None, *, key: Sequence[str]) -> None:
    """Print one record as JSON, or all of a collection as JSON lines; of files the content, as it is."""
    if record is not None and key:
        raise ConfigurationError("give either a KEY or --key, not both")
    contents = Contents(open_plan(plan), backup)
    chosen = contents.collection(collection)
    contents.chain.open_data({})
    is_tree = contents.kind(chosen) == "files"
    if record is not None:
        if is_tree:
            _print_bytes(file_content(contents, chosen, record))
        else:
            _print_record(contents, collection, record)
    elif key and is_tree:
        _print_bytes(file_contents(contents, chosen, key))
    else:
        _print_lines(records(contents, chosen, key))


def _print_record(contents: Contents, collection: str, key: str) -> None:
    """Print the record of a key; where several keys are shown alike, each on a line."""
    found = record(contents, contents.collection(collection), key)
    if len(found) == 1:
        say_json(found[0])
    else:
        _print_lines(found)


def _print_lines(rows: Iterable[Row]) -> None:
    """Print JSON lines, in ASCII so that any terminal and any reader takes them."""
    sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)


def _print_bytes(pieces: Iterator[bytes]) -> None:
    """Print content as it is; a terminal is not commanded by it."""
    for piece in pieces:
        if sys.stdout.isatty():
            say(piece.decode("utf-8", "backslashreplace"))
        else:
            sys.stdout.buffer.write(piece)
    sys.stdout.flush()


COMMAND = options.Command("Print a record of a backup as JSON, or a file as it is.", cat_arguments, cat)
