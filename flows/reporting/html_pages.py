"""What the pages of HTML share: templates that escape whatever is shown, and what a page is known by.

A page opens from a disk or a mail, without a network and without a script. What stands in records (names of
collections, keys, sentences) may be anything: all of it is escaped, cut where it is long, and what turns text around
is written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.version import VERSION
from flows.reporting.wording import clipped

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = f'<meta name="generator" content="lastgood {VERSION}">'
IS_OURS = b'<meta name="generator" content="lastgood '
"""What every page begins with, by which it is known again."""


def environment() -> Environment:
    """Return what finds templates beside this module; it escapes, and cuts what is long."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # most commands make no page
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return "" if value is None else clipped(str(value), 1_000)

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["generator"] = GENERATOR
    return made


@dataclass(frozen=True)
class Bounded:
    """The first of a list, and how many more there are."""

    shown: Sequence[Any]
    total: int

    @property
    def more(self) -> int:
        """How many are not shown."""
        return self.total - len(self.shown)


def bounded(values: Sequence[Any], most: int) -> Bounded:
    """Cut a list."""
    return Bounded(values[:most], len(values))
