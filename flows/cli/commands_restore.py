"""The restore command: look first, ask, take an emergency backup, restore, and say how to undo it."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.errors import LastgoodError, RestoreRefused
from blocks.plan import BackupPlan
from blocks.selection import Selection
from blocks.sources.base import RestoreMode
from flows.cli import options
from flows.cli.console import interactive, note, say, say_json, stderr
from flows.cli.planning import open_plan, run_reference
from flows.cli.progress import open_progress
from flows.cli.render import fields, grid
from flows.cli.running import run_verb
from flows.cli.times import parse_time
from flows.restore import make_restore
from flows.restore import restore as restore_flow
from flows.results import RestoreResult
from flows.units import human_seconds, human_time


def restore_arguments(command: ArgumentParser) -> None:
    """Declare what `restore` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.value(command, "--at", "TIME", "The newest backup as of a time: 2026-01-02T03:04Z, 2h ago.")
    options.selection(command)
    options.value(command, "--to", "PLACE", "Another place than the live one, which stays as it is.")
    options.kind(
        command,
        "--mode",
        RestoreMode,
        "Write nothing; put the backup's rows over what is there; or also remove all other rows, which is the default.",
        default=RestoreMode.EXACT,
    )
    options.flag(command, "--yes", "Do not ask before writing.")
    options.no_server(command)
    options.json(command)


def restore(
    plan: str,
    backup: str,
    *,
    at: str | None,
    collection: Sequence[str],
    key: Sequence[str],
    to: str | None,
    mode: RestoreMode,
    yes: bool,
    no_server: bool,
    json: bool,
) -> None:
    """Restore a backup: all of it, some collections, or single keys; to the live place or to another one."""
    opened = open_plan(plan)
    wanted = _Wanted(opened, plan, backup, _moment(at), Selection(tuple(collection), tuple(key)), to)
    if mode is RestoreMode.PREVIEW:
        _show(wanted.preview(), json)
        return
    if not yes:
        _confirm(wanted, json)
    try:
        result = wanted.run(mode, no_server)
    except LastgoodError as exc:
        exc.hint = _for_plan(exc.hint, plan)
        raise
    _show(result.model_copy(update={"undo": _for_plan(result.undo or "", plan) or None}), json)


class _Wanted:
    """What is to be restored, and where."""

    def __init__(
        self,
        plan: BackupPlan,
        reference: str,
        backup: str,
        at: datetime | None,
        selection: Selection,
        to: str | None,
    ) -> None:
        self.plan, self.reference, self.backup, self.at = plan, reference, backup, at
        self.selection, self.to = selection, to

    def preview(self) -> RestoreResult:
        """Find out what would be done."""
        with open_progress("preview"):
            return make_restore(self.plan, self.backup, self.at, self.selection, self.to, RestoreMode.PREVIEW)

    def settle(self, backup_id: str) -> None:
        """Restore the backup that was previewed, also where a newer one is made meanwhile."""
        self.backup, self.at = backup_id, None

    def run(self, mode: RestoreMode, no_server: bool) -> RestoreResult:
        """Restore."""
        return run_verb(
            restore_flow,
            lambda progress: make_restore(self.plan, self.backup, self.at, self.selection, self.to, mode, progress),
            no_server,
            {
                "plan": run_reference(self.reference),
                "backup": self.backup,
                "at": self.at,
                "collections": list(self.selection.collections),
                "keys": list(self.selection.keys),
                "to": self.to,
                "mode": mode,
            },
        )


def _moment(at: str | None) -> datetime | None:
    if at is None:
        return None
    moment = parse_time(at, datetime.now(UTC))
    local = moment.astimezone()
    note(f"as of {local:%Y-%m-%d %H:%M:%S %Z} (local time), which is {human_time(moment)}")
    return moment


def _confirm(wanted: _Wanted, json: bool) -> None:
    """Show what would be done and ask.

    Raises:
        RestoreRefused: Nobody can be asked, or the answer is not yes.
    """
    if json or not interactive():
        raise RestoreRefused(
            "a restore writes over state, and there is nobody who can be asked; nothing was written",
            hint="Add --yes to go ahead, or --mode preview to see what would be done.",
        )
    previewed = wanted.preview()
    _show(previewed, json=False)
    wanted.settle(previewed.backup_id)
    answer = stderr().input("Restore this? Type yes: ")
    if answer.strip().lower() not in ("y", "yes"):
        raise RestoreRefused("not confirmed; nothing was written")


def _for_plan(text: str, reference: str) -> str:
    """Fill in the plan in a command that the flow, which does not know what was typed, gives back."""
    return text.replace("lastgood restore PLAN ", f"lastgood restore {shlex.quote(reference)} ")


def _show(result: RestoreResult, json: bool) -> None:
    if json:
        say_json(result.model_dump(mode="json"))
        return
    preview = result.mode is RestoreMode.PREVIEW
    say(
        fields(
            [
                ("would restore" if preview else "restored", f"{result.backup_id}, {_mode(result.mode)}"),
                ("state as of", human_time(result.timestamp)),
                ("to", ", ".join(f"{source}: {place}" for source, place in result.places.items())),
                ("rows", f"{result.rows:,}"),
                ("took", human_seconds(result.seconds)),
            ]
        )
    )
    counts = ("add", "change", "remove") if preview else ()
    table = grid("collection", ">rows", *(f">would {word}" for word in counts))
    for one in result.collections:
        numbers = (one.added, one.changed, one.removed) if preview else ()
        table.add_row(one.collection, f"{one.rows:,}", *("" if n is None else f"{n:,}" for n in numbers))
    say("")
    say(table)
    for text in result.notes:
        note(f"note: {text}")
    if result.undo:
        say(f"\nTo undo this restore: {result.undo}")


def _mode(mode: RestoreMode) -> str:
    return {
        RestoreMode.PREVIEW: "nothing written (counts are those of an exact restore)",
        RestoreMode.MERGE: "its rows put over what was there",
        RestoreMode.EXACT: "exactly, other rows removed",
    }[mode]
