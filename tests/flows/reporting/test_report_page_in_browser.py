"""The report in a browser: for every width, light and dark, and with nothing that keeps anybody from reading it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import RepositoryUnavailable
from flows.reading.report import facts_of, unread
from flows.reporting.report_page import report_page
from tests.axe_release import axe_script
from tests.e2e.browser import Browser, browser
from tests.flows.reporting.report_records import NOW, plan, recorded, typical, with_plan

WIDTHS = (320, 360, 800, 1000, 1280)
SCHEMES = ("light", "dark")
PAGES = ("typical", "several", "hostile")
COVERED = """
const cells = [...document.querySelectorAll("tbody td, tbody th, li, p, dd, dt, h1, h2, h3, label")].filter(seen)
return cells.filter(each => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline")
  .map(each => each.outerHTML.slice(0, 200))
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, as files by their names."""
    folder = tmp_path_factory.mktemp("pages")
    opened = plan(folder)
    usual, empty = facts_of(opened, "trading.yaml", typical(), NOW), facts_of(opened, "trading.yaml", recorded([]), NOW)
    lost = unread("reports", RepositoryUnavailable("the repository s3://desk does not answer"))
    word, hebrew = "x" * 300, "שלום עולם"
    marked = [replace(one, why=(word,)) for one in usual.backups]
    hostile = replace(usual, plan=word, to_do=f"`{word}` {word}", repository=word, wrong=[word], odd=[word, hebrew])
    plans = {
        "typical": [usual],
        "several": [usual, with_plan(empty, "models"), lost],
        "hostile": [replace(hostile, backups=marked), replace(usual, plan=hebrew), unread(word, LOST)],
    }
    for name, facts in plans.items():
        (folder / f"{name}.html").write_text(report_page(facts, NOW), encoding="utf-8")
    return folder


LOST = RepositoryUnavailable("y" * 300)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all, since it takes long to start."""
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def show(screen: Browser, path: Path, width: int, scheme: str, *, opened: bool = False) -> None:
    """Open a page in a window of some width; with all of its details where that is asked for."""
    screen.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    screen.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    screen.open(path.as_uri())
    screen.see("What to do now")
    if opened:
        screen.run("document.querySelectorAll('details').forEach(one => one.open = true)")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_screen(screen: Browser, pages: Path, name: str, width: int) -> None:
    show(screen, pages / f"{name}.html", width, "light", opened=True)
    for days in (7, 30, 90):
        screen.run(f"document.querySelectorAll('.r{days}').forEach(one => one.checked = true)")
        wide, has = screen.run("const root = document.documentElement; return [root.scrollWidth, root.clientWidth]")
        assert (has, wide <= has) == (width, True)
        assert screen.run(COVERED) == []
        ends = "[...document.querySelectorAll('svg *')].filter(seen).map(one => one.getBoundingClientRect().right)"
        assert screen.run(f"return Math.max(...{ends})") <= width


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["typical", "several"])
def test_axe_finds_nothing_that_keeps_people_from_reading(
    screen: Browser, pages: Path, name: str, width: int, scheme: str
) -> None:
    show(screen, pages / f"{name}.html", width, scheme, opened=True)
    screen.call("Runtime.evaluate", expression=axe_script())
    found: dict[str, Any] = screen.run("return axe.run(document, {resultTypes: ['violations']})")
    assert found["testEngine"]["name"] == "axe-core"
    assert len(found["passes"]) > 20
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found["violations"]] == []


def test_one_window_of_time_is_shown_and_the_keyboard_chooses_another(screen: Browser, pages: Path) -> None:
    show(screen, pages / "typical.html", 1280, "light")
    shown = "return [...document.querySelectorAll('.window')].filter(seen).map(one => one.className)"
    assert screen.run(shown) == ["window w7"]
    screen.run("document.querySelector('input.r7').focus()")
    for kind in ("rawKeyDown", "keyUp"):
        screen.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    assert screen.run(shown) == ["window w30"]


@pytest.mark.parametrize(("scheme", "colour"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 23, 28)")])
def test_the_page_is_light_or_dark_as_its_reader_wants_it(
    screen: Browser, pages: Path, scheme: str, colour: str
) -> None:
    show(screen, pages / "typical.html", 360, scheme)
    assert screen.run("return getComputedStyle(document.body).backgroundColor") == colour


def test_marks_are_drawn_as_large_on_a_telephone_as_on_a_desktop(screen: Browser, pages: Path) -> None:
    sizes = []
    for width in (360, 1280):
        show(screen, pages / "typical.html", width, "light")
        box = "document.querySelector('.w7 use.verified').getBoundingClientRect()"
        sizes.append(screen.run(f"const box = {box}; return [box.width, box.height]"))
    assert sizes[0] == sizes[1]
    assert sizes[0] == pytest.approx([9, 9])
