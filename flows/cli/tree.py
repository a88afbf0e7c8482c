"""The tree of commands. Each command's module is imported when the command is typed, so that all start fast."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import cleandoc
from typing import NoReturn

from blocks.version import VERSION
from flows.cli.exit import Misused
from flows.cli.options import meant

_HELP = "Back up application state, restore it, and prove that it can be restored."
_EPILOGUE = """PLAN is the path of a YAML plan, or the name of a saved Backup Plan block.
Every command that prints a table prints JSON with --json. With --debug (or LASTGOOD_DEBUG=1) errors show a traceback.
Exit codes: 0 done, 1 unexpected, 2 usage or plan, 3 source, 4 repository, 5 locked, 6 no such backup, 7 key, 8 damage,
9 quality, 10 refused, 11 partial, 130 interrupted."""

Commands = Mapping[str, tuple[str, str]]
"""For each command the module with the function that does it and the one that declares its arguments, and a summary."""

_COMMANDS: Commands = {
    "init": ("commands_make:init", "Create the repository and its keys, and print the recovery kit once."),
    "backup": ("commands_make:backup", "Back up all sources of a plan, or none."),
    "list": ("commands_read:list_backups", "List a plan's backups."),
    "show": ("commands_read:show", "Show one backup, its collections, its chain and its verifications."),
    "diff": ("commands_diff:diff", "Show what changed between two backups, down to the field."),
    "restore": ("commands_restore:restore", "Restore a backup, some collections, or single keys."),
    "verify": ("commands_prove:verify", "Prove that a backup can be restored and is good data."),
    "check": ("commands_prove:check", "Check that the repository is whole, and repair what can be."),
    "retention": ("commands_retention:retention", "Remove what the plan's policy no longer keeps."),
    "serve": ("commands_run:serve", "Run the schedules of plans in this process."),
    "demo": ("commands_run:demo", "Tell the whole story on an embedded example."),
}
_KEY = "Show and change who can open a plan's repository."
_KEY_COMMANDS: Commands = {
    "list": ("commands_key:list_keys", "List the credentials that open the repository."),
    "add": ("commands_key:add", "Let one more credential open the repository."),
    "remove": ("commands_key:remove", "Take a credential away."),
}
_PLAN = "Keep plans where the Prefect UI can pick them."
_PLAN_COMMANDS: Commands = {"save": ("commands_run:save_plan", "Save a plan as a Backup Plan block.")}

_GROUPS: Mapping[str, tuple[Commands, str]] = {"key": (_KEY_COMMANDS, _KEY), "plan": (_PLAN_COMMANDS, _PLAN)}


def parse(words: Sequence[str]) -> Callable[[], object]:
    """Return what a command line says is to be done.

    Args:
        words: The words after `lastgood`.

    Raises:
        Misused: There is no such command, or it is not written like that.
        SystemExit: Help was asked for, and was printed.
    """
    match words:
        case [str(group), *rest] if group in _GROUPS:
            commands, text = _GROUPS[group]
            return _parse(commands, f"lastgood {group}", text, rest)
        case _:
            return _parse(_COMMANDS, "lastgood", _HELP, words)


def _parse(commands: Commands, called: str, text: str, words: Sequence[str]) -> Callable[[], object]:
    name = words[0] if words else "--help"
    if name not in commands:
        top = called == "lastgood"
        known = {each: summary for each, (_, summary) in commands.items()}
        if top:
            known |= {each: summary for each, (_, summary) in _GROUPS.items()}
        if name in (("-h", "--help", "-V", "--version") if top else ("-h", "--help")):
            _overview(known, called, text, top).parse_args([name])
        if name.startswith("-"):
            raise Misused(f"the name of a command comes first, not {name!r}", called)
        raise Misused(f"there is no command {name!r}{meant(name, known)}", called)
    function, declare = _found(commands[name][0])
    command = _Parser(f"{called} {name}", cleandoc(function.__doc__ or ""))
    declare(command)
    return partial(function, **command.values(words[1:]))


def _found(target: str) -> tuple[Callable[..., object], Callable[[ArgumentParser], None]]:
    module, _, name = target.partition(":")
    found = import_module(f"flows.cli.{module}")
    return getattr(found, name), getattr(found, f"{name}_arguments")


def _overview(known: Mapping[str, str], called: str, text: str, top: bool) -> ArgumentParser:
    """Make the parser that prints what commands there are, with their summaries."""
    overview = _Parser(called, text, _EPILOGUE if top else "")
    if top:
        version = f"lastgood {VERSION}"
        overview.add_argument("-V", "--version", action="version", version=version, help="Show the version.")
    commands = overview.add_subparsers(title="commands", metavar="COMMAND", parser_class=ArgumentParser)
    for name, summary in known.items():
        commands.add_parser(name, help=summary)
    return overview


class _Parser(ArgumentParser):
    """Raises what is wrong, for the place where all errors are printed."""

    def __init__(self, called: str, text: str, more: str = "") -> None:
        formatter = RawDescriptionHelpFormatter
        super().__init__(
            prog=called, description=text, epilog=more, formatter_class=formatter, allow_abbrev=False, add_help=False
        )
        self.add_argument("-h", "--help", action="help", help="Show this help.")

    def values(self, words: Sequence[str]) -> dict[str, object]:
        """Return the value of each argument by its name.

        Raises:
            Misused: That is not how the command is written.
        """
        # what follows `--` is no option; argparse forgets about that where options may stand between other words
        place = list(words).index("--") if "--" in words else len(words)
        after = {f"\0{n}": word for n, word in enumerate(words[place + 1 :])}
        said, unknown = self.parse_known_intermixed_args([*words[:place], *after])
        if unknown:
            shown = ", ".join(repr(after.get(word, word)) for word in unknown)
            raise Misused(f"not known here: {shown}", self.prog)
        return {name: _restored(value, after) for name, value in vars(said).items()}

    def error(self, message: str) -> NoReturn:
        """Raise a mistake."""
        raise Misused(message, self.prog)


def _restored(value: object, words: Mapping[str, str]) -> object:
    """Put words back in the places of what stood for them; arguments that may follow `--` are all text."""
    if isinstance(value, list):
        return [words.get(one, one) for one in value]
    return words.get(value, value) if isinstance(value, str) else value
