"""Makes the pictures of the Prefect UI in the documents from a real run: `python -m tests.ui_pictures`.

A ledger is backed up, some of it is lost, and a restore is asked for in the form of its deployment and waits for a
person. Then a backup is damaged, and the runs tell of it. Chromium takes the pictures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from prefect.settings import temporary_settings

from blocks.errors import CorruptionDetected
from blocks.records import BackupType
from deployments.server import LocalServer, deliver, local_server
from flows import backup, retention, verify
from flows.backup import make_backup
from tests.e2e.browser import Browser, browser
from tests.e2e.prefect_support import Prefect, SmallPlan, wait_for
from tests.e2e.restore_form import ask_for_orders, damage, deployed, say
from tests.faults.damage import flip

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MOST_BYTES = 200_000
_RESOURCE = quote('["lastgood.plan.trading"]')


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
            _take_events(plan, page, server)


def _take_events(plan: SmallPlan, page: Browser, server: LocalServer) -> None:
    """Take a picture of what runs told of backups, good and bad ones."""
    backup(str(plan.path), BackupType.FULL)
    verify(str(plan.path), deep=False)
    for path in (plan.folder / "backups" / "backups").rglob("*.pack"):
        flip(-1)(path)
    with suppress(CorruptionDetected):
        verify(str(plan.path), deep=False)
    retention(str(plan.path))
    deliver()
    time.sleep(60)  # the page shows whole minutes that have passed
    page.open(f"{server.ui_url}/v2/events?resource={_RESOURCE}")
    page.see("lastgood.backup.corrupted")
    page.run("document.querySelectorAll('main *').forEach(one => one.scrollTop = 560); window.scrollTo(0, 560)")
    _take(page, "events.png")


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
