"""What the server watches for: runs whose process is gone, which nobody else can notice."""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture

HEARTBEAT_SECONDS = 30
"""How often a run says that it lives; Prefect takes no less."""
SILENT_FOR = timedelta(seconds=3 * HEARTBEAT_SECONDS)
"""After how long without that its process counts as gone."""
LOST_RUNS = "lastgood: runs whose process is gone"

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = (
    *("Completed", "Failed", "Crashed", "Cancelled", "Cancelling"),
    *("Paused", "Suspended", "AwaitingRetry", "Scheduled"),
)
"""States after which no sign of life is waited for."""


def lost_runs(silent_for: timedelta = SILENT_FOR) -> Automation:
    """Return the automation that ends runs whose process, and whose worker, were killed.

    Args:
        silent_for: After how long without a heartbeat.
    """
    return Automation(
        name=LOST_RUNS,
        description="Sets runs of lastgood to Crashed when their process has given no sign of life: it was killed "
        "together with the worker that would have noticed. Made by `lastgood deploy`.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.lastgood"},
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _ENDS)},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=silent_for,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"No sign of life for {silent_for.total_seconds():.0f} seconds: its process is gone.",
            )
        ],
    )
