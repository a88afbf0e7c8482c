"""The page in a browser: it fits a telephone and a desktop, and is light or dark as its reader wants it."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from flows.reporting.evidence import Evidence
from flows.reporting.proof_page import proof_page
from tests.flows.reporting.records import BAD, BROKEN, PROVED, UNJUDGED, backup, evidence, profile, rule, verification

WIDTHS = (320, 360, 1280)
FRAME = '<iframe src="{name}.html" style="width:{width}px;height:900px;border:0;color-scheme:{scheme}"></iframe>'
MEASURE = """
<script>
onload = () => {
  const measured = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement
    const cells = [...page.querySelectorAll("tbody td, tbody th, li, p")]
    const covered = cells.filter(each => each.scrollWidth > each.clientWidth + 1)
    const background = frame.contentWindow.getComputedStyle(page.body).backgroundColor
    return [root.scrollWidth, root.clientWidth, covered.length, background, page.querySelectorAll("svg path").length]
  })
  document.body.textContent = JSON.stringify(measured)
}
</script>
"""


def bad() -> Evidence:
    """A page with everything on it, and with names that have no place to break."""
    rules = [
        rule(BROKEN, observed=1e300, examples=("order:" + "9" * 80,) * 9),
        rule(UNJUDGED, columns=("price_in_the_currency_of_the_account",) * 3),
        rule(collection="ledger/" + "x" * 150, suite="y" * 150, severity="warning"),
    ]
    days = [
        verification(day, rules=rules, profile={"ledger/orders": profile(day, price=(day, 2.0**day))})
        for day in range(30)
    ]
    last = verification(30, {**PROVED, "quality": BAD}, rules, {"quality": ["z" * 200]}, place="/" + "p" * 300)
    return evidence(last, days, backup(30, {"ledger/orders": 10**15, "ledger/" + "x" * 150: 1}))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, str], list[object]]:
    """What Chromium lays out, by page, width and scheme of colours: all in one window, since it takes long to start."""
    folder: Path = tmp_path_factory.mktemp("pages")
    pages = {"bad": bad(), "good": evidence(verification(rules=[rule()])), "never": evidence(None)}
    for name, found in pages.items():
        (folder / f"{name}.html").write_text(proof_page(found), encoding="utf-8")
    shown = [(name, width, scheme) for name in pages for width in WIDTHS for scheme in ("light", "dark")]
    frames = [FRAME.format(name=name, width=width, scheme=scheme) for name, width, scheme in shown]
    (folder / "frames.html").write_text(f"<!DOCTYPE html><body>{''.join(frames)}{MEASURE}", encoding="utf-8")
    # they may look into each other only where files are of one origin
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    words = ["chromium", *options, f"--user-data-dir={folder / 'profile'}", (folder / "frames.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<body>(\[\[.*\]\])</body>", done.stdout)
    assert found, done.stdout[:2000]
    return dict(zip(shown, json.loads(unescape(found[1])), strict=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["bad", "good", "never"])
def test_nothing_is_wider_than_the_screen(
    measured: dict[tuple[str, int, str], list[object]], name: str, width: int
) -> None:
    needs, has, covered, _, _ = measured[name, width, "light"]
    assert (needs, covered) == (has, 0)
    assert isinstance(has, int)
    assert width - 20 <= has <= width


@pytest.mark.parametrize(("scheme", "colour"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 23, 28)")])
def test_the_page_is_light_or_dark_as_its_reader_wants_it(
    measured: dict[tuple[str, int, str], list[object]], scheme: str, colour: str
) -> None:
    assert measured["good", 360, scheme][3] == colour


def test_drawings_are_drawn(measured: dict[tuple[str, int, str], list[object]]) -> None:
    assert measured["bad", 1280, "light"][4] == 4 + 3 * 2 + 1  # the key, histories, rows of a collection
