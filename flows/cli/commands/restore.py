"""The restore command: look first, ask, take an emergency backup, restore, and say how to undo it."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.host.log_lines import told_of
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.lookup import LATEST, LATEST_VERIFIED
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.cli import options
from flows.cli.manner import manner
from flows.cli.output import asks, interactive, remark, say, say_json, say_note
from flows.cli.progress import open_progress
from flows.cli.running import open_plan, run_reference, run_verb
from flows.cli.tables import fields, grid
from flows.cli.times import parse_time
from flows.pipeline.results import RestoreResult
from flows.reading.newest_of_type import newest_of_type
from flows.reporting.moments import local_time
from flows.reporting.units import human_seconds, human_time
from flows.restore import make_restore
from flows.restore import restore as restore_flow
from flows.restoring.not_rebuilt import RestoredInPart
from flows.restoring.other_place import check_parameters, restoring_to
from flows.restoring.point_in_time import checked_moment
from flows.restoring.request import RestoreRequest


def restore_arguments(command: ArgumentParser) -> None:
    """Declare what `restore` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.flag(command, "--verified", "The newest that was really restored by a verification and found good.")
    options.kind(command, "--type", BackupType, "The newest of this type, of `latest`.", dest="backup_type")
    options.value(command, "--at", "TIME", "The newest backup as of a time: 2026-01-02T03:04Z, 2h ago.")
    options.selection(command)
    options.value(command, "--to", "PLACE", "Another place than the live one, which stays as it is.")
    options.value(
        command, "--to-password-env", "NAME", "Environment variable with the password of that place, or `none`."
    )
    options.kind(
        command,
        "--mode",
        RestoreMode,
        "Write nothing; put the backup's rows over what is there; or also remove all other rows, which is the default.",
        default=RestoreMode.EXACT,
    )
    options.flag(command, "--no-owner", "PostgreSQL: what is made belongs to the role that restores.")
    options.flag(command, "--no-privileges", "PostgreSQL: bring back no privileges, and no policies for named roles.")
    options.flag(command, "--overwrite", "With --to: replace what is there; it is kept aside where it can be.")
    writing(command)


def writing(command: ArgumentParser) -> None:
    """Take the options of a command that writes over live state."""
    options.flag(
        command,
        "--without-emergency-backup",
        "Overwrite live state without a backup of it; it cannot be had back then.",
    )
    options.flag(command, "--adopt", "Write to the live place also where it is another one than the backup's.")
    options.flag(command, "--keep-going", "Leave out what cannot be rebuilt, name it, and end with exit code 11.")
    options.flag(command, "--yes", "Do not ask before writing.")
    options.no_server(command)
    options.json(command)


def restore(
    plan: str,
    backup: str,
    *,
    verified: bool,
    backup_type: BackupType | None,
    at: str | None,
    collection: Sequence[str],
    key: Sequence[str],
    to: str | None,
    to_password_env: str | None,
    mode: RestoreMode,
    overwrite: bool,
    without_emergency_backup: bool,
    adopt: bool,
    keep_going: bool,
    no_owner: bool,
    no_privileges: bool,
    yes: bool,
    no_server: bool,
    json: bool,
) -> None:
    """Restore a backup: all of it, some collections, or single keys; to the live place or to another one."""
    check_parameters({"plan": plan, "backup": backup, "to": to, "to_password_env": to_password_env})
    if verified:
        backup = _verified(backup)
    opened, moment = open_plan(plan), _moment(at)
    if backup_type is not None:
        if backup not in (LATEST, LATEST_VERIFIED):
            raise ConfigurationError(f"--type chooses a backup, and {backup} is named", hint="Leave out one of them.")
        backup, moment = newest_of_type(opened, backup_type, verified=backup == LATEST_VERIFIED, at=moment), None
    restoring_to(opened, to, to_password_env)
    wanted = RestoreRequest(
        backup,
        at=moment,
        selection=Selection(tuple(collection), tuple(key)),
        to=to,
        to_password_env=to_password_env,
        mode=mode,
        overwrite=overwrite,
        without_emergency_backup=without_emergency_backup,
        keep_going=keep_going,
        no_owner=no_owner,
        no_privileges=no_privileges,
        adopt=adopt,
    )
    carry_out(_Restore(opened, plan, wanted), plan, wanted.preview, yes, no_server, json)


def carry_out(wanted: WriteRequest, reference: str, preview: bool, yes: bool, no_server: bool, json: bool) -> None:
    """Show what would be written, or ask, write and show what was.

    Args:
        wanted: What is to be written.
        reference: The plan's path or block name, as it was typed.
        preview: Write nothing.
        yes: Do not ask.
        no_server: Do not look for a Prefect server.
        json: Print JSON.
    """
    if preview:
        _show(wanted.preview(), json)
        return
    if not yes:
        _confirm(wanted, json)
    try:
        _show(_with_undo(wanted.run(no_server), reference), json)
    except RestoredInPart as exc:
        _show(_with_undo(exc.result, reference), json)
        exc.hint = _for_plan(exc.hint, reference)
        raise


class WriteRequest(Protocol):
    """What a person wants written."""

    def preview(self) -> RestoreResult:
        """Find out what would be done."""
        ...

    def settle(self, backup_id: str) -> None:
        """Do what was previewed, also where a newer backup is made meanwhile."""
        ...

    def run(self, no_server: bool) -> RestoreResult:
        """Do it."""
        ...


class _Restore:
    """A backup to be restored.

    Args:
        plan: The plan, read and resolved.
        reference: The plan's path or block name, as it was typed.
        wanted: What is to be restored, where to, and how.
    """

    def __init__(self, plan: BackupPlan, reference: str, wanted: RestoreRequest) -> None:
        self._plan, self._reference, self._wanted = plan, reference, wanted

    def preview(self) -> RestoreResult:
        """Find out what would be done."""
        with open_progress("preview"):
            return make_restore(self._plan, replace(self._wanted, preview=True))

    def settle(self, backup_id: str) -> None:
        """Restore the backup that was previewed."""
        self._wanted = replace(self._wanted, backup=backup_id, at=None)

    def run(self, no_server: bool) -> RestoreResult:
        """Restore."""
        wanted = self._wanted
        return run_verb(
            restore_flow,
            lambda progress: make_restore(self._plan, wanted, progress),
            no_server,
            {
                "plan": run_reference(self._reference),
                "backup": wanted.backup,
                "at": wanted.at,
                "collections": list(wanted.selection.collections),
                "keys": list(wanted.selection.keys),
                "to": wanted.to,
                "mode": wanted.mode,
                "overwrite": wanted.overwrite,
                "to_password_env": wanted.to_password_env,
                "without_emergency_backup": wanted.without_emergency_backup,
                "keep_going": wanted.keep_going,
                "no_owner": wanted.no_owner,
                "no_privileges": wanted.no_privileges,
                "adopt": wanted.adopt,
            },
        )


def _verified(backup: str) -> str:
    if backup not in (LATEST, LATEST_VERIFIED):
        raise ConfigurationError(f"--verified chooses a backup, and {backup} is named", hint="Leave out one of them.")
    return LATEST_VERIFIED


def _moment(at: str | None) -> datetime | None:
    if at is None:
        return None
    now = datetime.now(UTC)
    moment = parse_time(at, now)
    here, utc = local_time(moment), human_time(moment)
    remark(f"as of {here}" if here == utc else f"as of {here} (local time), which is {utc}")
    return checked_moment(moment, now)


def _confirm(wanted: WriteRequest, json: bool) -> None:
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
    if not asks("Restore this?"):
        raise RestoreRefused("not confirmed; nothing was written")


def _with_undo(result: RestoreResult, reference: str) -> RestoreResult:
    return result.model_copy(update={"undo": _for_plan(result.undo or "", reference) or None})


def _for_plan(text: str, reference: str) -> str:
    """Fill in the plan in a command that the flow, which does not know what was typed, gives back."""
    return text.replace("lastgood undo PLAN", f"lastgood undo {shlex.quote(reference)}")


def _show(result: RestoreResult, json: bool) -> None:
    if json:
        say_json(result.model_dump(mode="json"))
        return
    preview = result.mode is RestoreMode.PREVIEW
    if preview or not manner().quiet:
        _say_result(result, preview)
    with told_of("restore", result.backup_id):
        for text in result.notes:
            say_note(text)
    if result.undo and not manner().quiet:
        say(f"\nTo undo this restore: {result.undo}")


def _say_result(result: RestoreResult, preview: bool) -> None:
    say(
        fields(
            [
                ("would restore" if preview else "restored", f"{result.backup_id}, {_mode(result)}"),
                ("state as of", local_time(result.timestamp)),
                ("to", ", ".join(f"{source}: {place}" for source, place in result.places.items())),
                ("rows", f"{result.rows:,}"),
                *([("state before", result.rescue_id)] if result.rescue_id else []),
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


def _mode(result: RestoreResult) -> str:
    if result.mode is RestoreMode.PREVIEW:
        how = "a merge" if result.previewed is RestoreMode.MERGE else "an exact restore"
        return f"nothing written (counts are those of {how})"
    return {
        RestoreMode.MERGE: "its rows put over what was there",
        RestoreMode.EXACT: "exactly, other rows removed",
    }[result.mode]


COMMAND = options.Command("Restore a backup, some collections, or single keys.", restore_arguments, restore)
