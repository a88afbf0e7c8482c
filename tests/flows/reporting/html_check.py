"""What a page must be to be read anywhere: well-formed, whole in itself, and made for everybody's eyes and ears."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"br", "meta", "input"}
EMPTY_IN_SVG = {"path", "circle", "rect", "line", "use"}
ATTRIBUTES_THAT_LOAD = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background", "style"}


class Page(HTMLParser):
    """A page as it was parsed.

    Attributes:
        faults: What is wrong with it.
        text: All that is read in it.
        headings: Levels and texts.
        rows: The cells of each row of each table, in words.
        labels: What drawings are said to show.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.words: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.rows: list[list[str]] = []
        self.labels: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self._ids: set[str] = set()
        self._named: set[str] = set()
        self._widths: list[int] = []
        self.feed(page)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self._open]
        self.faults += [f"nothing has the id {name}" for name in self._named - self._ids]
        levels = [level for level, _ in self.headings]
        if levels[:1] != [1] or levels.count(1) != 1 or any(b - a > 1 for a, b in pairwise(levels)):
            self.faults.append(f"headings of levels {levels}")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, words: str) -> list[str]:
        """The one row of a table that begins with these words."""
        [found] = [cells for cells in self.rows if cells and cells[0].startswith(words)]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self._look(tag, given)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, dict(attrs))
        if tag not in EMPTY_IN_SVG:
            self.faults.append(f"{tag} is closed at once")

    def _look(self, tag: str, given: dict[str, str | None]) -> None:
        for name, value in given.items():
            within = name == "href" and (value or "").startswith("#")
            if (name in ATTRIBUTES_THAT_LOAD and not within) or name.startswith("on"):
                self.faults.append(f"{tag} has {name}")
            if within or (name == "for" and value):
                self._named.add((value or "").removeprefix("#"))
        if (found := given.get("id")) is not None:
            if found in self._ids:
                self.faults.append(f"two elements have the id {found}")
            self._ids.add(found)
        if named := given.get("aria-labelledby"):
            self._named.add(named)
        if tag == "svg" and given.get("aria-hidden") != "true":
            if given.get("role") != "img" or not given.get("aria-label"):
                self.faults.append("a drawing without words")
            self.labels.append(given.get("aria-label") or "")
        if tag == "th" and "scope" not in given:
            self.faults.append("a header of nothing")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"{tag} is closed where it is not open, line {self.getpos()[0]}")
        if tag == "table":
            widths = {len(row) for row in self.rows[sum(self._widths) :]}
            if len(widths) != 1:
                self.faults.append(f"a table with rows of {widths} cells")
            self._widths.append(len(self.rows) - sum(self._widths))

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            if re.search(r"url\(|@import|expression", data):
                self.faults.append("a style that loads something")
            return
        self.words.append(data)
        if any(tag in ("td", "th") for tag in self._open):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())
        if any(re.fullmatch("h[1-6]", tag) for tag in self._open):
            level, text = self.headings[-1]
            self.headings[-1] = (level, " ".join(f"{text} {data}".split()))
