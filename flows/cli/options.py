"""Arguments that several commands share, and how words become values."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

Kind = TypeVar("Kind", bound=StrEnum)


def plan(command: ArgumentParser) -> None:
    """Take the plan as the next word."""
    command.add_argument("plan", metavar="PLAN", help="Path of a YAML plan, or name of a saved Backup Plan block.")


def backup(command: ArgumentParser, name: str = "backup", *, optional: bool = False) -> None:
    """Take a backup as the next word; one that is optional is the latest."""
    text = "Id of a backup, the beginning or end of one that no other backup shares, or `latest`."
    nargs = "?" if optional else None
    command.add_argument(name, metavar=name.upper(), nargs=nargs, default="latest", help=text)


def flag(command: ArgumentParser, name: str, text: str) -> None:
    """Take a switch that is only ever put on."""
    command.add_argument(name, action="store_true", help=text)


def no_server(command: ArgumentParser) -> None:
    """Take `--no-server`."""
    flag(command, "--no-server", "Run here even where a Prefect server answers; the run is not recorded.")


def json(command: ArgumentParser) -> None:
    """Take `--json`."""
    flag(command, "--json", "Print JSON instead of a table.")


def selection(command: ArgumentParser) -> None:
    """Take `--collection` and `--key`, each as often as wanted."""
    command.add_argument(
        "--collection",
        metavar="GLOB",
        action="append",
        default=[],
        help="Glob over names such as ledger/orders; may be repeated.",
    )
    command.add_argument(
        "--key", metavar="GLOB", action="append", default=[], help="Glob over keys such as position:*; may be repeated."
    )


def one_of(kind: type[Kind]) -> Callable[[str], Kind]:
    """Return what turns a word into a value of an enumeration, in any case."""

    def value(word: str) -> Kind:
        try:
            return kind(word.lower())
        except ValueError:
            raise ArgumentTypeError(f"{word!r} is none of {', '.join(kind)}") from None

    return value


def names_of(kind: type[StrEnum]) -> str:
    """Write the values of an enumeration, for help."""
    return "{" + ",".join(kind) + "}"
