"""The plan that a command is about, and its verb: a recorded Prefect run where a server answers, or work done here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from blocks.errors import ConfigurationError
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.host.log_lines import without_secrets
from blocks.plan.plan import BackupPlan, load_plan
from blocks.prefect_compat import is_path, without_prefect
from flows.cli.output import remark
from flows.cli.progress import open_progress, working
from flows.pipeline.prefect_compat import Flow
from flows.pipeline.progress import Progress
from flows.pipeline.server_patience import hasten

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

logger = logging.getLogger(__name__)

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
    work = _Work(announced.fn)
    announced.fn = work.run
    with working(f"{name} is running in Prefect"):
        try:
            result: R = announced(**parameters)
        except Exception as exc:  # noqa: BLE001  whatever Prefect says then: the work is done
            return work.outcome(exc)
        return result


class _Work(Generic[R]):
    """The work of a flow; what it came to holds whatever becomes of the server that records the run.

    Args:
        fn: The function of the flow.
    """

    def __init__(self, fn: Callable[..., R]) -> None:
        self._results: list[R] = []
        self._error: BaseException | None = None

        @wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                result: Any = fn(*args, **kwargs)
            except BaseException as exc:
                self._error = exc
                raise
            else:
                failed = getattr(result, "data", None)  # of a state, in which a flow ends an expected failure
                if isinstance(failed, BaseException):
                    self._error = failed
                else:
                    self._results = [result]
                return result
            finally:
                hasten()

        self.run = run

    def outcome(self, error: Exception) -> R:
        """Return or raise what the work came to, where running the flow raised an error."""
        for result in self._results:
            logger.warning("the Prefect server was not told that the run is done: %s", without_secrets(str(error)))
            return result
        raise self._error or error


def _announce(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # names that Prefect asks for
    from prefect.utilities.urls import url_for  # there is Prefect where a run is recorded

    remark(f"run {flow_run.name}: {url_for('flow-run', obj_id=flow_run.id)}")
