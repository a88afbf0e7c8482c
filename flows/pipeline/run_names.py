"""How runs are called in the Prefect UI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blocks.plan.plan import load_plan
from blocks.prefect_compat import is_path


def named(template: str) -> Callable[[], str]:
    """Make a namer of flow runs from a template of their parameters, with `{plan}` for the name of the plan."""

    def name() -> str:
        from prefect.runtime import flow_run  # there is Prefect where a run is named

        parameters = {key: getattr(value, "value", value) for key, value in flow_run.parameters.items()}
        return template.format(**parameters | {"plan": plan_name(str(parameters["plan"]))})

    return name


def plan_name(reference: str) -> str:
    """Return the name of a plan; where it cannot be read, what its file or its block is called.

    Args:
        reference: Path of a YAML plan, or name of a saved Backup Plan block.
    """
    path = Path(reference).expanduser()
    try:
        # a pipe can be read only once
        return path.stem if is_path(reference) and not path.is_file() else load_plan(reference).name
    except Exception:  # noqa: BLE001  the run itself meets it, and says what is wrong
        return path.stem
