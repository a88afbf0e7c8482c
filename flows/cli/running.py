"""Running a verb: as a recorded Prefect run where a server answers, in this process alone elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flows.cli.console import note, stderr
from flows.cli.garbage import resume
from flows.cli.planning import answering_server
from flows.cli.progress import open_progress
from flows.engine import Flow
from flows.progress import Progress

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

R = TypeVar("R")


def run_verb(verb: Flow[..., R], plain: Callable[[Progress], R], no_server: bool, parameters: dict[str, Any]) -> R:
    """Run a flow, or the same work without Prefect; what it raises is the same either way.

    Args:
        verb: The flow, for where a server answers.
        plain: The same work for where none does.
        no_server: Do not look for a server.
        parameters: Of the flow.
    """
    resume()
    name = verb.name
    if no_server or answering_server() is None:
        if not no_server:
            note("no Prefect server answers: running here, and the run is not recorded in the UI")
        with open_progress(name) as progress:
            return plain(progress)
    announced = verb.with_options(on_running=[_announce])
    with stderr().status(f"{name} is running in Prefect"):
        result: R = announced(**parameters)
        return result


def _announce(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # names that Prefect asks for
    from prefect.utilities.urls import url_for  # there is Prefect where a run is recorded

    note(f"run {flow_run.name}: {url_for('flow-run', obj_id=flow_run.id)}")
