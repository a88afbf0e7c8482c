"""Makes the pictures of the Prefect UI in the documents from a real run: `python -m tests.ui_pictures`.

A ledger is backed up, some of it is lost, and a restore is asked for in the form of its deployment and waits for a
person. Chromium takes the pictures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from prefect.settings import temporary_settings

from blocks.records import BackupType
from deployments.server import local_server
from flows.backup import make_backup
from tests.e2e.browser import Browser, browser
from tests.e2e.prefect_support import Prefect, SmallPlan, wait_for
from tests.e2e.restore_form import ask_for_orders, damage, deployed, say

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MOST_BYTES = 200_000


def make_pictures(folder: Path) -> None:
    """Ask for a restore in the UI, and take pictures of the form, and of what a person approves."""
    plan = SmallPlan(folder / "trading", name="trading")
    off = dict.fromkeys(("full", "differential", "incremental", "verify", "retention"), "off")
    say(plan, schedules=off, preview_values=["ledger/*"])
    make_backup(plan.plan, BackupType.FULL)
    damage(plan)
    with local_server(folder / "home", port=0) as server, temporary_settings(server.settings()):
        prefect = Prefect(server)
        with (
            prefect.background(folder / "serve.log", "-m", "lastgood", "serve", str(plan.path)),
            browser(folder / "chromium", width=1100, height=1180) as page,
        ):
            deployment = wait_for("the deployment", lambda: deployed(prefect, "by-hand-trading"))
            run = ask_for_orders(prefect, plan, page, deployment, lambda: _take(page, "restore-form.png"))
            shown = prefect.artifacts(run)["approval-trading"]
            page.open(f"{server.ui_url}/v2/artifacts/artifact/{shown['id']}")
            page.see("Some of the records")
            page.scroll_to("What would change")
            _take(page, "approval.png")


def _take(page: Browser, name: str) -> None:
    path = PICTURES / name
    page.picture(path)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes")
    assert size < MOST_BYTES


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary))
    sys.exit()
