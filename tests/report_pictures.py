"""Makes the pictures of docs/report.md: `python -m tests.report_pictures`.

They are of pages that are made from records as a plan leaves them in two months, with one of each thing that can be
wrong. Chromium takes the pictures.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blocks.errors import RepositoryUnavailable
from flows.reading.report import facts_of, unread
from flows.reporting.report_facts import PlanFacts
from flows.reporting.report_page import report_page
from tests.e2e.browser import Browser, browser
from tests.flows.reporting.report_records import NOW, plan, recorded, typical, with_plan

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MOST_BYTES = 260_000
FREE = 40 * 2**30
SIZES = {
    "report.png": ("one", 1080, 1500, "light"),
    "report-dark.png": ("one", 1080, 1500, "dark"),
    "report-phone.png": ("one", 360, 2100, "light"),
    "report-phone-dark.png": ("one", 360, 2100, "dark"),
    "report-plans.png": ("several", 1080, 620, "light"),
}


def make_pictures(folder: Path) -> None:
    """Make a page of one plan and one of several, and take pictures of them."""
    usual = _facts(folder)
    late = with_plan(facts_of(plan(folder), "models.yaml", recorded([]), NOW), "models")
    good = facts_of(plan(folder), "risk.yaml", typical(settled=True), NOW)
    lost = unread("reports", RepositoryUnavailable("the repository s3://desk-backups/prod does not answer"))
    pages = {"one": [usual], "several": [usual, late, lost, with_plan(good, "risk")]}
    for name, facts in pages.items():
        (folder / f"{name}.html").write_text(report_page(_published(facts), NOW), encoding="utf-8")
    with browser(folder / "chromium") as screen:
        for name, (page, width, height, scheme) in SIZES.items():
            _take(screen, folder / f"{page}.html", PICTURES / name, (width, height), scheme)


def _facts(folder: Path) -> PlanFacts:
    found = facts_of(plan(folder), "trading.yaml", typical(), NOW)
    assert found.growth is not None
    return replace(found, growth=replace(found.growth, free=FREE))


def _published(facts: Sequence[PlanFacts]) -> list[PlanFacts]:
    return [replace(one, repository=one.repository and "s3://desk-backups/prod") for one in facts]


def _take(screen: Browser, page: Path, picture: Path, size: tuple[int, int], scheme: str) -> None:
    width, height = size
    screen.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    screen.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    screen.open(page.as_uri())
    screen.see("What to do now")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = screen.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    picture.write_bytes(base64.b64decode(taken["data"]))
    print(f"{picture}: {picture.stat().st_size:,} bytes")
    assert picture.stat().st_size < MOST_BYTES


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary))
    sys.exit()
