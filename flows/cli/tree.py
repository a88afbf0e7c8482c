"""Which commands there are, and from words to one of them."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import cleandoc
from typing import NoReturn

from blocks.host.passwords import without_password
from blocks.version import VERSION
from flows.cli.commands import (
    accept,
    approve,
    backup,
    cat,
    check,
    demo,
    deploy,
    diff,
    export,
    init,
    key,
    list_backups,
    ls,
    metrics,
    monitoring,
    plan,
    proof,
    quality,
    query,
    report,
    restore,
    retention,
    serve,
    show,
    stats,
    status,
    undo,
    unlock,
    verify,
)
from flows.cli.exit import Misused
from flows.cli.options import Command, meant

COMMANDS: Mapping[str, Command] = {
    "init": init.COMMAND,
    "backup": backup.COMMAND,
    "list": list_backups.COMMAND,
    "status": status.COMMAND,
    "stats": stats.COMMAND,
    "show": show.COMMAND,
    "ls": ls.COMMAND,
    "cat": cat.COMMAND,
    "diff": diff.COMMAND,
    "export": export.COMMAND,
    "query": query.COMMAND,
    "restore": restore.COMMAND,
    "undo": undo.COMMAND,
    "approve": approve.COMMAND,
    "verify": verify.COMMAND,
    "proof": proof.COMMAND,
    "report": report.COMMAND,
    "check": check.COMMAND,
    "retention": retention.COMMAND,
    "accept": accept.COMMAND,
    "unlock": unlock.COMMAND,
    "metrics": metrics.COMMAND,
    "serve": serve.COMMAND,
    "deploy": deploy.COMMAND,
    "monitoring": monitoring.COMMAND,
    "demo": demo.COMMAND,
}
GROUPS: Mapping[str, tuple[Mapping[str, Command], str]] = {
    "key": (key.COMMANDS, "Show and change who can open a plan's repository."),
    "quality": (quality.COMMANDS, "Check quality suites, and suggest a first one."),
    "plan": (plan.COMMANDS, "Write a plan, check that all it needs is there, save it for the Prefect UI."),
}

_HELP = "Back up application state, restore it, and prove that it can be restored."
_EPILOGUE = """PLAN is the path of a YAML plan, or the name of a saved Backup Plan block.
Every command that prints a table prints JSON with --json. With --debug (or
LASTGOOD_DEBUG=1) errors show a traceback; --quiet prints warnings and errors
only, --verbose all also where nobody looks on, and the log; with --log-format
json (or LASTGOOD_LOG=json) all of stderr is lines of JSON.
Exit codes: 0 done, 1 unexpected, 2 usage or plan, 3 source, 4 repository,
5 locked, 6 no such backup, 7 key, 8 damage, 9 quality, 10 refused, 11 partial,
12 not restorable, 13 stale or unproved, 130 interrupted."""


def parse(words: Sequence[str]) -> Callable[[], object]:
    """Return what a command line says is to be done.

    Args:
        words: The words after `lastgood`.

    Raises:
        Misused: There is no such command, or it is not written like that.
        SystemExit: Help was asked for, and was printed.
    """
    match words:
        case [str(group), *rest] if group in GROUPS:
            commands, text = GROUPS[group]
            return _parse(commands, f"lastgood {group}", text, rest)
        case _:
            return _parse(COMMANDS, "lastgood", _HELP, words)


def _parse(commands: Mapping[str, Command], called: str, text: str, words: Sequence[str]) -> Callable[[], object]:
    name = words[0] if words else "--help"
    if name not in commands:
        top = called == "lastgood"
        known = {each: command.summary for each, command in commands.items()}
        if top:
            known |= {each: summary for each, (_, summary) in GROUPS.items()}
        if name in (("-h", "--help", "-V", "--version") if top else ("-h", "--help")):
            _overview(known, called, text, top).parse_args([name])
        if name.startswith("-"):
            raise Misused(f"the name of a command comes first, not {name!r}", called)
        raise Misused(f"there is no command {name!r}{meant(name, known)}", called)
    command = commands[name]
    parser = _Parser(f"{called} {name}", cleandoc(command.action.__doc__ or ""))
    command.declare(parser)
    return partial(command.action, **parser.values(words[1:]))


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
            shown = ", ".join(repr(without_password(after.get(word, word))) for word in unknown)
            option = unknown[0].partition("=")[0]
            near = meant(option, self._option_string_actions) if option.startswith("--") else ""
            raise Misused(f"not known here: {shown}{near}", self.prog)
        return {name: _restored(value, after) for name, value in vars(said).items()}

    def error(self, message: str) -> NoReturn:
        """Raise a mistake."""
        raise Misused(message, self.prog)


def _restored(value: object, words: Mapping[str, str]) -> object:
    """Put words back in the places of what stood for them; arguments that may follow `--` are all text."""
    if isinstance(value, list):
        return [words.get(one, one) for one in value]
    return words.get(value, value) if isinstance(value, str) else value
