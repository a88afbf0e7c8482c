"""Text in Markdown, as the Prefect UI shows it: names and values may be anything, and are shown as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flows.reporting.wording import clipped

_MEANT = str.maketrans(
    {sign: f"\\{sign}" for sign in "\\`*[]|#~$"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    | {"\n": " ", "\r": " ", "\t": " "}
)
"""What Markdown or HTML would make something else of."""
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
"""An underscore that is not between two letters or digits."""


def plain(text: str) -> str:
    """Write text so that Markdown shows it as it is, all of it, in one line."""
    return _EMPHASIS.sub(r"\\_", text.translate(_MEANT))


def markdown_text(text: str, most: int = 160) -> str:
    """Do what `plain` does with text that may be long: it is cut, and what would not be seen is written out."""
    return plain(clipped(text, most))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
