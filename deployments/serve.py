"""`lastgood serve`: all schedules of plans in one process, with a Prefect server of its own where none answers.

The deployments of a plan are named for the job and the plan, so that several plans can be served side by side:

    backup/full-trading   backup/differential-trading   backup/incremental-trading
    retention/daily-trading   verify/weekly-trading   restore/by-hand-trading

Any of them can also be run by hand: `prefect deployment run 'backup/incremental-trading'`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from prefect import serve as serve_deployments
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import get_current_settings, temporary_settings

from blocks.errors import ConfigurationError
from blocks.host.interrupts import hangup_terminates
from blocks.plan.plan import load_plan
from deployments.jobs import Timetable, deployments_of
from deployments.server import local_server

POLL_SECONDS = 5
"""How often scheduled runs are asked for, where the setting `runner.poll_frequency` does not say otherwise."""


def serve(
    plans: Sequence[str],
    *,
    home: Path | None = None,
    port: int | None = None,
    timetable: Timetable | None = None,
    metrics: tuple[str, int] | None = None,
) -> None:
    """Serve plans until interrupted.

    Args:
        plans: YAML files, or names of saved Backup Plan blocks.
        home: Folder of the Prefect server that is started where none answers; the user's state folder by default.
        port: Where that server listens; Prefect's usual port, or any free one, by default.
        timetable: When the jobs of all plans run; as each plan says it by default.
        metrics: Address and port that the plans' metrics are served on; None for nowhere.

    Raises:
        ConfigurationError: A plan is wrong, two have the same name, or metrics cannot be served there; nothing is
            served then.
        ServerUnavailable: No server answers and none can be started.
    """
    with hangup_terminates(), reachable_server(home or default_home(), port):
        made = plan_deployments(plans, timetable)
        with _metrics_of(plans, metrics):
            serve_deployments(*made)


def _metrics_of(plans: Sequence[str], place: tuple[str, int] | None) -> AbstractContextManager[object]:
    if place is None:
        return nullcontext()
    from flows.reading.metrics_serving import serving_metrics  # only where they are wanted

    host, port = place
    return serving_metrics([load_plan(reference) for reference in plans], port, host)


def plan_deployments(plans: Sequence[str], timetable: Timetable | None = None) -> list[RunnerDeployment]:
    """Make the deployments of all plans.

    Args:
        plans: YAML files, or names of saved Backup Plan blocks.
        timetable: When their jobs run; as each plan says it by default.

    Raises:
        ConfigurationError: A plan is wrong, or two have the same name.
    """
    served: dict[str, str] = {}
    made: list[RunnerDeployment] = []
    for reference in plans:
        plan = load_plan(reference)
        name = plan.name
        if name in served:
            raise ConfigurationError(
                f"{served[name]} and {reference} are both named {name!r}", hint="Give each plan a name of its own."
            )
        served[name] = reference
        # runs start in another folder: a file is named from the root
        place = str(Path(reference).expanduser().absolute()) if _is_file(reference) else reference
        made += deployments_of(name, place, timetable or Timetable.of(plan.schedules))
    if not made:
        raise ConfigurationError("there is no plan to serve", hint="Name at least one plan.")
    return made


@contextmanager
def reachable_server(home: Path, port: int | None = None) -> Iterator[str]:
    """Use the configured Prefect API where it answers, else one of our own for as long as the context lasts.

    Gives the address of the API.
    """
    configured = get_current_settings().api.url
    if configured is not None and _configured_api_answers():
        with temporary_settings(set_defaults={"runner.poll_frequency": POLL_SECONDS}):
            yield configured
        return
    with (
        local_server(home, port) as server,
        temporary_settings(server.settings(), set_defaults={"runner.poll_frequency": POLL_SECONDS}),
    ):
        yield server.api_url


def default_home() -> Path:
    """Return the folder of the embedded server: `$XDG_STATE_HOME/lastgood/prefect`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lastgood" / "prefect"


def _configured_api_answers() -> bool:
    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def _is_file(reference: str) -> bool:
    return Path(reference).suffix in (".yaml", ".yml") or os.sep in reference
