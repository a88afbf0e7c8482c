"""The approve command: answer a restore that waits in Prefect for a person."""

from __future__ import annotations

import getpass
import socket
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blocks.errors import BackupNotFound, ConfigurationError, RestoreRefused
from flows.cli import options
from flows.cli.output import fits, say, say_json, say_sentence
from flows.cli.running import answering_server
from flows.cli.tables import Table, grid
from flows.reporting.moments import local_time

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

_WAITING = ("restore", "undo")
"""The flows that wait for an approval."""
_PAGE = 200

_WHOLE_ID, _BEGINNING = 36, 8
"""Characters of the id of a run: all, and as many as a narrow terminal shows; `approve` takes the beginning, too."""


def approve_arguments(command: ArgumentParser) -> None:
    """Declare what `approve` takes."""
    command.add_argument(
        "run", metavar="RUN", nargs="?", help="Id of the run, the beginning of it, or its name; none lists who waits."
    )
    options.flag(command, "--reject", "Let nothing be written, and end the run.")
    options.value(command, "--note", "TEXT", "Why; it is kept with the restore.", default="")
    options.value(command, "--as", "NAME", "Who approves; the user of this machine if not given.", dest="by")
    options.json(command)


def approve(run: str | None, *, reject: bool, note: str, by: str | None, json: bool) -> None:
    """Approve a restore that waits for it in Prefect, or reject it. Without RUN, list the restores that wait."""
    if answering_server() is None:
        raise ConfigurationError(
            "no Prefect server answers, where a restore could wait", hint="Set PREFECT_API_URL to a running server."
        )
    from prefect.client.orchestration import get_client  # there is Prefect: a server answers

    with get_client(sync_client=True) as client:
        waiting = _waiting(client)
        if run is None:
            _list(waiting, json)
            return
        found = _named(run, waiting)
        who = by or f"{getpass.getuser()}@{socket.gethostname()}"
        _answer(client, found, {"approve": not reject, "note": note, "by": who})
    if json:
        say_json({"run": str(found.id), "name": found.name, "approved": not reject, "by": who, "note": note})
    else:
        say_sentence(f"{'rejected' if reject else 'approved'}: run {found.name} ({found.id}) goes on in Prefect")


def _waiting(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the runs that wait for an approval, the oldest first."""
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    ours = FlowFilter(name=FlowFilterName(any_=list(_WAITING)))
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(flow_filter=ours, flow_run_filter=paused, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return sorted(found, key=_since)


def _list(waiting: Sequence[FlowRun], json: bool) -> None:
    if json:
        say_json({"waiting": [{"run": str(r.id), "name": r.name, "plan": r.parameters.get("plan")} for r in waiting]})
        return
    if not waiting:
        say("no restore waits for an approval")
        return
    table = _table(waiting, _WHOLE_ID)
    say(table if fits(table) else _table(waiting, _BEGINNING))


def _table(waiting: Sequence[FlowRun], characters: int) -> Table:
    """Show runs with so many characters of their ids."""
    table = grid("run", "name", "waits since")
    table.columns[0].whole = table.columns[2].whole = True
    for run in waiting:
        table.add_row(str(run.id)[:characters], run.name, local_time(_since(run)))
    return table


def _since(run: FlowRun) -> datetime:
    assert run.state is not None  # it is paused
    return run.state.timestamp


def _named(word: str, waiting: Sequence[FlowRun]) -> FlowRun:
    """Find a run by its id, the beginning of that, or its name.

    Raises:
        BackupNotFound: None of those that wait is meant.
        ConfigurationError: Several are.
    """
    found = [r for r in waiting if str(r.id).startswith(word.lower())] or [r for r in waiting if r.name == word]
    if not found:
        known = "; ".join(f"{r.name} ({str(r.id)[:8]})" for r in waiting)
        raise BackupNotFound(
            f"no restore that waits for an approval is meant by {word!r}",
            hint=f"There waits: {known}." if known else "None waits: it was answered, has ended, or was not started.",
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"{word!r} may be any of {len(found)} restores that wait: {', '.join(str(r.id) for r in found)}",
            hint="Give more of the id.",
        )
    return found[0]


def _answer(client: SyncPrefectClient, run: FlowRun, answer: dict[str, Any]) -> None:
    """Answer a run.

    Raises:
        RestoreRefused: The server does not take the answer; the run is as it was, or has ended.
    """
    from prefect.client.schemas.responses import SetStateStatus

    # what it does not take it answers with success all the same: only the body says so
    taken = client.resume_flow_run(run.id, run_input=answer)
    if taken.status is not SetStateStatus.ACCEPT:
        reason = getattr(taken.details, "reason", None) or taken.status.value
        raise RestoreRefused(
            f"run {run.name} does not take the answer: {reason}; nothing was written",
            hint="See in the Prefect UI whether it still waits, or start it again.",
        )


COMMAND = options.Command("Approve or reject a restore that waits in Prefect.", approve_arguments, approve)
