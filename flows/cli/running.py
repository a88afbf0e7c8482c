"""The plan that a command is about, and its verb: a recorded Prefect run where a server answers, or work done here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from blocks.errors import ConfigurationError
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.plan.plan import BackupPlan, load_plan
from blocks.prefect_compat import is_path, without_prefect
from flows.cli.output import remark
from flows.cli.progress import open_progress, working
from flows.pipeline.prefect_compat import Flow
from flows.pipeline.progress import Progress

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

R = TypeVar("R")

HEALTH_SECONDS = 1.0
"""How long a server may take to say that it is there."""

_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds between looks at a server that says it is not ready: one that has just started does so once or twice."""


def open_plan(reference: str) -> BackupPlan:
    """Load a plan from its file or, where a server can be asked, by its name.

    Raises:
        ConfigurationError: There is no such plan, it is wrong, or no server answers that would know its name.
    """
    if not is_path(reference) and not without_prefect() and answering_server() is None:
        raise ConfigurationError(
            f"{reference!r} is not the path of a plan, and no Prefect server answers that may know a plan of that name",
            hint="Give the path of a YAML plan such as ./plan.yaml, or set PREFECT_API_URL to a running server.",
        )
    remove_abandoned_scratch()
    return load_plan(reference)


def run_reference(reference: str) -> str:
    """Return what a recorded run should know the plan by: a path that holds wherever it is read."""
    return str(Path(reference).expanduser().absolute()) if is_path(reference) else reference


def answering_server() -> str | None:
    """Return the API address of the configured Prefect server if it answers; a server is never started."""
    if without_prefect():
        return None
    # comes with Prefect, which a command that asks no server does not wait for
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    return url if url and _is_healthy(url) else None


def _is_healthy(url: str) -> bool:
    import httpx  # as above

    for pause in (*_PAUSES, 0):
        try:
            answer = httpx.get(f"{url.rstrip('/')}/health", timeout=HEALTH_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer.is_success
        time.sleep(pause)
    return False


def run_verb(verb: Flow[..., R], plain: Callable[[Progress], R], no_server: bool, parameters: dict[str, Any]) -> R:
    """Run a flow, or the same work without Prefect; what it raises is the same either way.

    Args:
        verb: The flow, for where a server answers.
        plain: The same work for where none does.
        no_server: Do not look for a server.
        parameters: The parameters of the flow, by name.
    """
    name = verb.name
    if no_server or answering_server() is None:
        if not no_server:
            remark("no Prefect server answers: running here, and the run is not recorded in the UI")
        with open_progress(name) as progress:
            return plain(progress)
    announced = verb.with_options(on_running=[_announce])
    with working(f"{name} is running in Prefect"):
        result: R = announced(**parameters)
        return result


def _announce(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # names that Prefect asks for
    from prefect.utilities.urls import url_for  # there is Prefect where a run is recorded

    remark(f"run {flow_run.name}: {url_for('flow-run', obj_id=flow_run.id)}")
