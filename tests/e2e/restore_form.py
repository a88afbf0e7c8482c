"""The form of a restore in the Prefect UI, as a person fills it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from tests.e2e.browser import Browser
from tests.e2e.prefect_support import Prefect, SmallPlan, wait_for


def say(small: SmallPlan, **fields: object) -> None:
    """Have a plan say something else."""
    small.path.write_text(yaml.safe_dump(yaml.safe_load(small.path.read_text()) | fields))


def damage(small: SmallPlan) -> None:
    """Lose three orders, change one, and add one that is not in the backup."""
    small.execute("DELETE FROM orders WHERE id <= 3")
    small.execute("UPDATE orders SET quantity = 7 WHERE id = 50")
    small.execute("INSERT INTO orders VALUES (500, 1)")


def deployed(prefect: Prefect, name: str) -> dict[str, Any] | None:
    """Return the deployment of restores of that name, once it is there."""
    found = prefect.post("/deployments/filter", deployments={"name": {"any_": [name]}})
    return next((one for one in found if one["entrypoint"] == "flows.restore.restore"), None)


def paused_runs(prefect: Prefect, flow: str, small: SmallPlan) -> list[str]:
    """The runs that can be answered: they are paused, and the form is there, which follows a moment later."""
    ready = []
    for run in prefect.runs(flow, small):
        keys = run["state"]["state_details"].get("run_input_keyset") if run["state_type"] == "PAUSED" else None
        if keys and prefect.post(f"/flow_runs/{run['id']}/input/filter", prefix=keys["schema"]):
            ready.append(run["id"])
    return ready


def ask_for_orders(
    prefect: Prefect,
    small: SmallPlan,
    page: Browser,
    deployment: dict[str, Any],
    look: Callable[[], None] = lambda: None,
) -> str:
    """Ask for an exact restore of one table that waits for a person; return the id of its run, once it waits.

    Args:
        prefect: The server.
        small: The plan.
        page: The browser.
        deployment: Of the plan's restores.
        look: Called when the form is filled.
    """
    page.open(f"{prefect.server.ui_url}/v2/deployments/deployment/{deployment['id']}/run")
    page.see("Wait for an approval")
    assert page.field("Plan") == str(small.path)
    assert page.field("Backup") == "latest"
    page.click("preview", "button")
    page.click("exact", "[role=option], [role=option] *")
    page.wait("the mode", "return saying('exact', 'button').length === 1")
    page.click("Add item", "button")
    page.fill_labelled("Collections", "ledger/orders")
    page.switch("Wait for an approval")
    page.scroll_to("Parameters")
    look()
    page.click("Submit", "button")
    return wait_for("the pause", lambda: next(iter(paused_runs(prefect, "restore", small)), None))
