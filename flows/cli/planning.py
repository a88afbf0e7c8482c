"""The plan that a command is about, and whether a Prefect server is there."""

from __future__ import annotations

from pathlib import Path

from blocks.engine import without_prefect
from blocks.errors import ConfigurationError
from blocks.plan import BackupPlan, load_plan
from blocks.reference import is_path

HEALTH_SECONDS = 1.0
"""How long a server may take to say that it is there."""


def open_plan(reference: str) -> BackupPlan:
    """Load a plan from its file or, where a server can be asked, by its name.

    Raises:
        ConfigurationError: There is no such plan, it is wrong, or no server answers that would know its name.
    """
    if not is_path(reference) and answering_server() is None:
        raise ConfigurationError(
            f"{reference!r} is not the path of a plan, and no Prefect server answers that may know a plan of that name",
            hint="Give the path of a YAML plan such as ./plan.yaml, or set PREFECT_API_URL to a running server.",
        )
    return load_plan(reference)


def run_reference(reference: str) -> str:
    """Return what a recorded run should know the plan by: a path that holds wherever it is read."""
    return str(Path(reference).expanduser().absolute()) if is_path(reference) else reference


def answering_server() -> str | None:
    """Return the API address of the configured Prefect server if it answers; a server is never started."""
    if without_prefect():
        return None
    # both come with Prefect, which a command that asks no server does not wait for
    import httpx
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        return None
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=HEALTH_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return url if answer.is_success else None
