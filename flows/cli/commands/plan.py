"""The plan group of commands: write a first plan, see that all it needs is there, keep it for the Prefect UI."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.plan.draft import draft
from blocks.plan.plan import parse_plan, read_plan
from blocks.plan.strict_yaml import load_yaml
from flows.cli import options
from flows.cli.output import folded, note, say, say_json, say_sentence
from flows.cli.running import answering_server, open_plan
from flows.cli.tables import Styled
from flows.proving.readiness import Readiness, readiness


def save_plan_arguments(command: ArgumentParser) -> None:
    """Declare what `plan save` takes."""
    command.add_argument("plan", metavar="PLAN", help="Path of a YAML plan.")
    options.value(command, "--name", "NAME", "Name of the block; that of the plan if not given.")
    options.json(command)


def save_plan(plan: str, *, name: str | None, json: bool) -> None:
    """Save a plan as a Backup Plan block, so that the Prefect UI can pick it; a block of that name is replaced."""
    opened = read_plan(Path(plan))
    server = answering_server()
    if server is None:
        raise ConfigurationError(
            "no Prefect server answers, so the plan cannot be saved there",
            hint="Start one with `prefect server start` and set PREFECT_API_URL, or go on using the file.",
        )
    block = name or opened.name
    try:
        opened.save(block, overwrite=True, _sync=True)
    except ValueError as exc:
        raise ConfigurationError(
            f"the plan cannot be saved as {block!r}: {exc}",
            hint="Names of blocks have letters, digits and dashes: give one with --name.",
        ) from exc
    if json:
        say_json({"block": f"backup-plan/{block}", "plan": opened.name, "server": server})
    else:
        say_sentence(f"plan {opened.name} is saved as the block backup-plan/{block} at {server}")


def check_plan_arguments(command: ArgumentParser) -> None:
    """Declare what `plan check` takes."""
    options.plan(command)
    options.flag(command, "--notify", "Also send a test message to all that the plan's notifications name.")
    options.json(command)


def check_plan(plan: str, *, notify: bool, json: bool) -> int:
    """See whether all that a plan needs is there: sources, credential, repository, suites, hooks, notifications.

    Everything is tried, nothing is written, and nobody is told anything unless `--notify` says so. The exit code is 0
    where all is ready, else that of the first thing that is not.
    """
    opened = open_plan(plan)
    found = []
    for one in readiness(opened, notify):
        found.append(one)
        if not json:
            _show_readiness(one)
    missing = [one for one in found if not one.ready]
    if json:
        say_json({"plan": opened.name, "ready": not missing, "findings": [_readiness_json(one) for one in found]})
    else:
        say(f"not ready: {len(missing)} of {len(found)}" if missing else f"plan {opened.name} is ready")
    return missing[0].exit_code if missing else 0


def _show_readiness(one: Readiness) -> None:
    mark = Styled("ready      ", "green") if one.ready else Styled("not ready  ", "bold red")
    room = len(mark.text)
    say(Styled(folded(f"{mark.text}{one.what}: {one.sentence}", sys.stdout, room), mark.style))
    if one.hint and not one.ready:
        say(folded(f"{' ' * room}{one.hint}", sys.stdout, 0))


def _readiness_json(one: Readiness) -> JsonValue:
    return {
        "what": one.what,
        "ready": one.ready,
        "sentence": one.sentence,
        "hint": one.hint,
        "exit_code": one.exit_code,
    }


def new_plan_arguments(command: ArgumentParser) -> None:
    """Declare what `plan new` takes."""
    command.add_argument(
        "what",
        metavar="WHAT",
        nargs="+",
        help="A folder, an SQLite file, an RDB file, a URL: postgresql://, redis://, s3://.",
    )
    options.value(command, "--out", "FILE", "Write a new file (.yaml or .yml) instead of stdout.", type=Path)
    options.value(command, "--name", "NAME", "Name of the plan; that of the file or of the first source if not given.")
    options.value(
        command, "--repository", "PLACE", "Path or URL of the repository; ./backups by the plan if not given."
    )
    options.value(
        command,
        "--passphrase-file",
        "PATH",
        "File with the passphrase; the variable LASTGOOD_PASSPHRASE if not given.",
    )


def new_plan(
    what: Sequence[str], *, out: Path | None, name: str | None, repository: str | None, passphrase_file: str | None
) -> None:
    """Write a plan with comments from what it is to back up.

    A password in a URL does not go into the plan: it is named by an environment variable, which is said. Nothing is
    connected to; `plan check` does that.
    """
    if out is not None:
        _check_new(out)
    made = draft(what, out, name=name, repository=repository, passphrase_file=passphrase_file)
    # what is written is a plan
    parse_plan(load_yaml(made.text, "the new plan"), str(out or "new"))
    if out is None:
        say(made.text.rstrip("\n"))
    else:
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(made.text)
        except OSError as exc:
            raise ConfigurationError(f"{out} cannot be written: {exc.strerror}") from exc
    for variable, source in made.passwords.items():
        note(f"the password of {source} is not in the plan: put it into the environment variable {variable}")
    if passphrase_file is None:
        note("put a passphrase into the environment variable LASTGOOD_PASSPHRASE, and keep a copy of it elsewhere")
    if out is not None:
        note(f"next: lastgood init {out}, then lastgood plan check {out}", whole=True)


def _check_new(path: Path) -> None:
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"{path} is no name of a plan", hint="Let it end in .yaml or .yml.")
    if path.exists() or path.is_symlink():
        raise ConfigurationError(f"{path} exists; it is not written over", hint="Give another name, or move it away.")


COMMANDS = {
    "new": options.Command("Write a first plan from what it is to back up.", new_plan_arguments, new_plan),
    "check": options.Command("See whether all that a plan needs is there.", check_plan_arguments, check_plan),
    "save": options.Command("Save a plan as a Backup Plan block.", save_plan_arguments, save_plan),
}
