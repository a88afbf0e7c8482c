"""The init command: create the repository and its keys, and print the recovery kit once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING

from pydantic import JsonValue

from blocks.repository.block import RecoveryKit
from flows.cli import options
from flows.cli.output import deliver, note, say, say_json, stdout, warn
from flows.cli.running import open_plan
from flows.cli.tables import fields

if TYPE_CHECKING:
    from rich.panel import Panel

_KIT_WIDTH = 110
"""Columns that the recovery kit needs for a key on one line."""

_KEEP = (
    "Print this or write it down, and keep it away from this machine: it is shown only this once. With the repository "
    "and this key anybody can restore; without any key nobody can. To use it, put the recovery key into a file that "
    "only you can read and name that file in the plan: encryption: {credential: {key_file: PATH}}."
)
_PLAIN = "The backups are not encrypted: anyone who can read the repository can read them, and no key is needed."


def init_arguments(command: ArgumentParser) -> None:
    """Declare what `init` takes."""
    options.plan(command)
    options.json(command)


def init(plan: str, *, json: bool) -> None:
    """Create the repository and its keys, and print the recovery kit once."""
    opened = open_plan(plan)
    seen = opened.repository.seen_before()
    # printed before there is a repository: none may exist whose recovery key nobody has seen
    opened.repository.initialize(opened.encryption, lambda kit: _hand_over(kit, json))
    if seen is not None:
        warn(f"this machine has seen repository {seen} at this place before; is its disk not mounted?")
    if not json:
        note(f"next: lastgood backup {plan}", whole=True)


def _hand_over(kit: RecoveryKit, json: bool) -> None:
    if json:
        deliver(lambda: say_json(_kit_json(kit)))
    else:
        deliver(lambda: say(_kit_panel(kit)))


def _kit_panel(kit: RecoveryKit) -> Panel:
    # shown once in the life of a repository
    from rich.box import HORIZONTALS
    from rich.panel import Panel

    width = min(stdout().width, _KIT_WIDTH)
    rows = [("repository", kit.url), ("id", kit.repository_id), ("recovery key", _key_text(kit, width))]
    table = fields(rows)
    table.add_row("", "")
    table.add_row("what to do", _KEEP if kit.recovery_key else _PLAIN)
    # no lines at the sides, so that what is copied from the terminal is the key and nothing else
    return Panel(table.on_terminal(), title="lastgood recovery kit", box=HORIZONTALS, width=width)


def _key_text(kit: RecoveryKit, width: int) -> str:
    """Write the key on one line, or on two that break between groups; both are accepted when it is typed back."""
    groups = (kit.recovery_key or "").split("-")
    if width >= _KIT_WIDTH:
        return "-".join(groups)
    half = len(groups) // 2 + 1
    return "-".join(groups[:half]) + "\n" + "-".join(groups[half:])


def _kit_json(kit: RecoveryKit) -> JsonValue:
    return {
        "url": kit.url,
        "repository_id": kit.repository_id,
        "recovery_key": kit.recovery_key,
        "what_to_do": _KEEP if kit.recovery_key else _PLAIN,
    }


COMMAND = options.Command("Create the repository and its keys, and print the recovery kit once.", init_arguments, init)
