"""What a command is, the arguments that several share, and how words become values."""

from __future__ import annotations

from argparse import Action, ArgumentError, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=StrEnum)

_BACKUP = "Id of a backup, the beginning or end of one that no other backup shares, or `latest`."


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: What the list of commands says of it.
        declare: Adds its arguments to a parser.
        action: Does it and returns the exit code, or None for 0. Its parameters are the arguments by name, its
            docstring is the text of `--help`.
    """

    summary: str
    declare: Callable[[ArgumentParser], None]
    action: Callable[..., int | None]


class _Once(Action):
    """An option with a value, which is not silently another one when it is given again."""

    _given = False

    def __call__(self, _parser: object, namespace: Namespace, values: object, _option: str | None = None) -> None:
        """Take the value."""
        if self._given:
            raise ArgumentError(self, "given more than once")
        self._given = True
        setattr(namespace, self.dest, values)


def plan(command: ArgumentParser) -> None:
    """Take the plan as the next word."""
    command.add_argument("plan", metavar="PLAN", help="Path of a YAML plan, or name of a saved Backup Plan block.")


def backup(command: ArgumentParser, name: str = "backup") -> None:
    """Take a backup as the next word."""
    command.add_argument(name, metavar=name.upper(), help=_BACKUP)


def backup_or_latest(command: ArgumentParser) -> None:
    """Take a backup as the next word, or the latest where there is none."""
    command.add_argument("backup", metavar="BACKUP", nargs="?", default="latest", help=f"{_BACKUP[:-1]}, the default.")


def value(command: ArgumentParser, name: str, metavar: str, text: str, **more: Any) -> None:
    """Take an option with a value, once; `more` is argparse's."""
    command.add_argument(name, metavar=metavar, help=text, action=_Once, **more)


def kind(command: ArgumentParser, name: str, kinds: type[StrEnum], text: str, **more: Any) -> None:
    """Take an option whose value is one of an enumeration's, once; `more` is argparse's."""
    value(command, name, "{" + ",".join(kinds) + "}", text, type=_one_of(kinds), **more)


def values(command: ArgumentParser, name: str, metavar: str, text: str, **more: Any) -> None:
    """Take an option with a value as often as wanted; `more` is argparse's."""
    command.add_argument(name, metavar=metavar, help=text, action="append", default=[], **more)


def count(word: str) -> int:
    """Read how many of something, at least one."""
    if not (word.isdecimal() and int(word)):
        raise ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def seconds(word: str) -> float:
    """Read a length of time in seconds, none at least."""
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not (number >= 0 and isfinite(number)):
        raise ArgumentTypeError(f"{word!r} is no number of seconds")
    return number


def word(text: str) -> str:
    """Read a word that is not empty."""
    if not text.strip():
        raise ArgumentTypeError("it is empty")
    return text


def port(word: str) -> int:
    """Read the number of a port; 0 is any that is free."""
    if not (word.isdecimal() and int(word) < 2**16):
        raise ArgumentTypeError(f"{word!r} is no port")
    return int(word)


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
    values(command, "--collection", "GLOB", "Glob over names such as ledger/orders; may be repeated.")
    values(command, "--key", "GLOB", "Glob over keys such as position:*; may be repeated.")


def _one_of(kinds: type[Kind]) -> Callable[[str], Kind]:
    """Return what turns a word into a value of an enumeration, in any case."""

    def found(word: str) -> Kind:
        try:
            return kinds(word.lower())
        except ValueError:
            raise ArgumentTypeError(f"{word!r} is none of {', '.join(kinds)}{meant(word, kinds)}") from None

    return found


def meant(word: str, known: Iterable[str]) -> str:
    """Ask whether somebody meant a word that is known, for the end of an error; nothing where none is near."""
    from difflib import get_close_matches  # only where something is wrong

    near = get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
