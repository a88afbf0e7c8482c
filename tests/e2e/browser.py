"""A headless Chromium that a test drives as a person does: opens pages, clicks on what it reads, types, looks."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect

DEADLINE_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_NOTE = "DevToolsActivePort"
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--remote-debugging-port=0", "--disable-background-networking", "--disable-extensions"),
)

_SEEN = """
const seen = element => element.checkVisibility({visibilityProperty: true})
const said = element => element.innerText?.trim() ?? ""
const innermost = found => found.filter(one => !found.some(other => other !== one && one.contains(other)))
const saying = (text, within) => innermost(
  [...document.querySelectorAll(within)].filter(one => seen(one) && said(one) === text))
"""
"""What scripts use: elements that can be seen, by what they say."""


class Browser:
    """One page of a Chromium.

    Args:
        connection: To the page, by the DevTools protocol.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return what it gives back."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=DEADLINE_SECONDS))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def run(self, script: str) -> Any:
        """Run a script in the page, a function's body; return what it returns."""
        body = f"(() => {{ {_SEEN} {script} }})()"
        done = self.call("Runtime.evaluate", expression=body, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, what: str, script: str) -> Any:
        """Run a script again until it returns something true; return that."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"{what} did not come; the page says: {self.text()}"
            time.sleep(_PAUSE_SECONDS)
        return found

    def open(self, address: str) -> None:
        """Open a page."""
        self.call("Page.navigate", url=address)

    def text(self) -> str:
        """What the page says."""
        found: str = self.run("return document.body?.innerText ?? ''")
        return found

    def see(self, text: str) -> None:
        """Wait until the page says something."""
        self.wait(repr(text), f"return document.body?.innerText.includes({json.dumps(text)})")

    def click(self, text: str, within: str = "button, a, label, [role], li, span, div, p", number: int = 0) -> None:
        """Click on what says exactly that; of several that do, on the one of that number."""
        found = f"saying({json.dumps(text)}, {json.dumps(within)}).at({number})"
        self._click_at(f"{text!r}", found)

    def click_on(self, selector: str) -> None:
        """Click on an element."""
        self._click_at(selector, f"[...document.querySelectorAll({json.dumps(selector)})].find(seen)")

    def _click_at(self, what: str, element: str) -> None:
        place = f"""const one = {element}; if (!one) return null
            one.scrollIntoView({{block: "center", behavior: "instant"}})
            const box = one.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2
            const top = document.elementFromPoint(x, y)  // while a menu closes, something else would take the click
            return one.contains(top) || top?.contains(one) && top !== document.documentElement ? [x, y] : null"""
        x, y = self.wait(what, place)
        while (again := self._later(what, place)) != [x, y]:  # a menu that opens still moves
            x, y = again
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _later(self, what: str, script: str) -> Any:
        time.sleep(2 * _PAUSE_SECONDS)
        return self.wait(what, script)

    def fill(self, selector: str, text: str) -> None:
        """Replace what a field holds, again where a page that still loads puts back what was there."""
        value = f"return [document.querySelector({json.dumps(selector)})?.value ?? null]"
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            self.click_on(selector)
            before = self.run(value)[0]
            self.run("document.activeElement.select?.()")
            self.call("Input.insertText", text=text)
            if before in (None, text) or self._later(selector, value)[0] != before:
                return
            assert time.monotonic() < deadline, f"{selector} still holds {before!r}"

    def fill_labelled(self, label: str, text: str, number: int = 0) -> None:
        """Replace what the field of a label holds; of several such labels, that of the one of that number."""
        self._want(label, number)
        self.fill("[data-wanted]", text)

    def switch(self, label: str) -> None:
        """Turn the switch of a label over."""
        self._want(label)
        self.click_on("[data-wanted]")

    def field(self, label: str) -> str:
        """Return what the field of a label holds."""
        self._want(label)
        found: str = self.run("return document.querySelector('[data-wanted]').value")
        return found

    def _want(self, label: str, number: int = 0) -> None:
        """Mark the field of a label."""
        labels = f"""[...document.querySelectorAll("label")].filter(seen)
            .filter(one => said(one).replace(" (Optional)", "") === {json.dumps(label)})"""
        kinds = "input, textarea, [role=switch]"
        # the field of a list is not its label's own; the old UI has no groups
        around = f"(one.closest('.group') ?? one.closest('form *:has({kinds})'))"
        field = f"(one.control ?? {around}.querySelector('{kinds}'))"
        self.run("document.querySelectorAll('[data-wanted]').forEach(one => delete one.dataset.wanted)")
        mark = "if (field) field.dataset.wanted = 1; return !!field"
        self.wait(label, f"const one = {labels}.at({number}); const field = one && {field}; {mark}")

    def press(self, key: str) -> None:
        """Press a key by its name, such as Enter."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        for kind in ("rawKeyDown", "char", "keyUp") if key == "Enter" else ("rawKeyDown", "keyUp"):
            text = {"text": "\r"} if kind == "char" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def scroll_to(self, text: str) -> None:
        """Bring what says exactly that to the top of the window."""
        found = f'saying({json.dumps(text)}, "h1, h2, h3, label").at(0)'
        self.wait(text, f"const one = {found}; one?.scrollIntoView({{behavior: 'instant'}}); return !!one")

    def picture(self, path: Path) -> None:
        """Take a picture of what the window shows."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(profile: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Run a Chromium until the context ends.

    Args:
        profile: A folder of its own.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
    """
    profile.mkdir(parents=True, exist_ok=True)
    (profile / _NOTE).unlink(missing_ok=True)  # of an earlier one
    words = ["chromium", *_OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        with connect(_page_of(profile, process), max_size=None, proxy=None) as connection:
            yield Browser(connection)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _page_of(profile: Path, process: subprocess.Popen[bytes]) -> str:
    note = profile / _NOTE
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not note.exists() or not note.read_text().strip():
        assert process.poll() is None, "Chromium has ended"
        assert time.monotonic() < deadline, "Chromium does not say where it listens"
        time.sleep(_PAUSE_SECONDS)
    port = note.read_text().split()[0]
    with httpx.Client(trust_env=False) as client:
        pages = client.get(f"http://127.0.0.1:{port}/json/list").json()
    address: str = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
    assert urlsplit(address).hostname == "127.0.0.1"
    return address
