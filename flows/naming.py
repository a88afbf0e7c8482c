"""How runs are called in the Prefect UI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def named(template: str) -> Callable[[], str]:
    """Make a namer of flow runs from a template of their parameters; a plan's path is shortened to its stem."""

    def name() -> str:
        from prefect.runtime import flow_run  # there is Prefect where a run is named

        parameters = {key: getattr(value, "value", value) for key, value in flow_run.parameters.items()}
        return template.format(**parameters | {"plan": Path(str(parameters["plan"])).stem})

    return name
