"""Tables as they are printed: aligned text for files and pipes, and rich's, which fold and have colours, for terminals.

A command that prints to no terminal does not wait for rich to be imported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

_GAP = "  "
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True)
class Styled:
    """Text with a style of rich's, which only terminals show."""

    text: str
    style: str = ""

    def plain(self) -> str:
        """Return the text."""
        return visible(self.text)

    def on_terminal(self) -> Text:
        """Return it as rich has it."""
        from rich.text import Text

        return Text(self.plain(), style=self.style)


@dataclass
class Column:
    """How the cells of a column stand.

    Attributes:
        header: What stands over them.
        number: Whether they are aligned to the right.
        whole: Whether a narrow terminal may not fold them.
        style: Of those that have none of their own.
    """

    header: str = ""
    number: bool = False
    whole: bool = False
    style: str = ""


@dataclass
class Table:
    """Rows of cells.

    Attributes:
        columns: Of all rows.
        headed: Whether headers are printed.
        rows: The cells; a cell may be of several lines.
    """

    columns: Sequence[Column]
    headed: bool = True
    rows: list[tuple[str | Styled, ...]] = field(default_factory=list)

    def add_row(self, *cells: str | Styled) -> None:
        """Add a row; cells that are left out are empty."""
        assert len(cells) <= len(self.columns), "more cells than columns"
        self.rows.append(cells)

    def plain(self) -> str:
        """Write it as lines, each as long as it has to be."""
        lines = [tuple(column.header for column in self.columns)] if self.headed else []
        for row in self.rows:
            lines += zip_longest(*(_text(cell).expandtabs().split("\n") for cell in row), fillvalue="")
        widths = [max(map(_width, cells)) for cells in zip_longest(*lines, fillvalue="")]
        return "\n".join(self._line(line, widths) for line in lines)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for cell, column, width in zip(cells, self.columns, widths, strict=False):
            room = " " * (width - _width(cell))
            padded.append(room + cell if column.number else cell + room)
        return _GAP.join(padded).rstrip()

    def on_terminal(self) -> RichTable:
        """Return it as rich has it."""
        from rich.table import Table as RichTable

        table = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_header=self.headed)
        for column in self.columns:
            table.add_column(
                column.header,
                justify="right" if column.number else "left",
                overflow="fold",
                no_wrap=column.whole,
                style=column.style,
            )
        for row in self.rows:
            table.add_row(*(cell.on_terminal() if isinstance(cell, Styled) else visible(cell) for cell in row))
        return table


def visible(text: str) -> str:
    """Write out what would move the cursor, ring, or command a terminal; lines and tabs stay."""
    return text.translate(_CONTROLS)


def _text(cell: str | Styled) -> str:
    return cell.plain() if isinstance(cell, Styled) else visible(cell)


def _width(text: str) -> int:
    """Tell how many places of a line text takes."""
    if text.isascii():
        return len(text)
    seen = [character for character in text if unicodedata.category(character) not in ("Mn", "Me", "Cf")]
    return len(seen) + sum(unicodedata.east_asian_width(character) in "WF" for character in seen)
