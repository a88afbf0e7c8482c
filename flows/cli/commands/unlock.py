"""The unlock command: who holds a plan, and taking it away from a run that is dead."""

from __future__ import annotations

from argparse import ArgumentParser

from pydantic import JsonValue

from blocks.errors import NotConfirmed
from blocks.host.leftovers import runs
from blocks.repository.leases import LeaseRecord
from flows.cli import options
from flows.cli.output import asks, interactive, note, say, say_json
from flows.cli.render import lease_json
from flows.cli.running import open_plan
from flows.cli.tables import fields
from flows.reporting.moments import local_time

_PROCESS = {True: "running", False: "ended", None: "unknown"}
_SAID = {
    True: "running on this machine",
    False: "it has ended",
    None: "not known here: another machine, container or user",
}


def unlock_arguments(command: ArgumentParser) -> None:
    """Declare what `unlock` takes."""
    options.plan(command)
    options.flag(command, "--yes", "Break the lease without asking.")
    options.json(command)


def unlock(plan: str, *, yes: bool, json: bool) -> None:
    """Show who holds a plan, and break the lease with --yes, or when the question is answered with yes.

    A run whose lease is broken commits nothing any more, also where it is not dead after all. This is seldom needed: a
    lease expires by itself, and that of a process of the same machine that has ended is taken over at once.
    """
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    found, live = repository.last_lease(opened.name), repository.current_lease(opened.name)
    if found is None or found.record.released:
        _show(opened.name, None, broken=False, json=json)
        return
    held, expired = live or found.record, live is None
    wanted = yes or (not expired and not json and interactive())
    if not json:
        _show_holder(held, expired)
    if wanted and not yes:
        _ask(opened.name)
    if wanted:
        repository.break_lease(opened.name, found)
    _show(opened.name, _holder_json(held, expired), broken=wanted, json=json)
    if not wanted and not expired:
        raise NotConfirmed(
            f"the lease of plan {opened.name} is held by {held.holder}, and there is nobody who can be asked; "
            "it was not broken",
            hint="Make sure that this run is dead, then add --yes.",
        )


def _ask(plan: str) -> None:
    """Ask whether the lease is to be broken.

    Raises:
        NotConfirmed: The answer is not yes.
    """
    if not asks("Break this lease? What that run has not committed is lost."):
        raise NotConfirmed(f"not confirmed; the lease of plan {plan} was not broken")


def _holder_json(held: LeaseRecord, expired: bool) -> dict[str, JsonValue]:
    return lease_json(held) | {"process": _PROCESS[runs(held.holder)], "expired": expired}


def _show_holder(held: LeaseRecord, expired: bool) -> None:
    say(
        fields(
            [
                ("holder", held.holder),
                ("process", _SAID[runs(held.holder)]),
                ("purpose", held.purpose),
                ("backup", held.backup_id or ""),
                ("since", local_time(held.acquired_at)),
                ("expires", "the next run takes it over" if expired else local_time(held.expires_at)),
            ]
        )
    )


def _show(plan: str, held: dict[str, JsonValue] | None, broken: bool, json: bool) -> None:
    if json:
        say_json({"plan": plan, "held": held, "broken": broken})
    elif broken:
        note(f"the lease is broken: the next run can take plan {plan}")
    elif held is None:
        note(f"nobody holds plan {plan}")


COMMAND = options.Command("Show who holds a plan, and take it from a run that is dead.", unlock_arguments, unlock)
