"""Tables, and text with a style: aligned text for files and pipes, rich's for terminals, which fold and have colours.

Without a terminal rich is not imported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

_GAP = "  "
_LEAST = 12
"""Places that the last column of a table has before another one is left out for it."""
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
        header: The header of the column.
        number: Whether they are aligned to the right.
        whole: Whether a narrow terminal may not fold them.
        style: Of those that have none of their own.
        spare: When `fitted` leaves the column out: the one with the highest number first, those without one never.
    """

    header: str = ""
    number: bool = False
    whole: bool = False
    style: str = ""
    spare: int = 0


@dataclass
class Table:
    """Rows of cells.

    Attributes:
        columns: The columns, in order.
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

    def fitted(self, width: int) -> Table:
        """Return it with one line a row for a terminal: columns that can be spared are left out until a line fits.

        What is still too long is cut in the last column, with an ellipsis; nothing is folded.

        Args:
            width: Columns of the terminal.
        """
        natural = _widths(self._lines())
        widths = [*natural[:-1], min(natural[-1], _LEAST)]
        kept = list(range(len(self.columns)))
        while _line_width([widths[n] for n in kept]) > width:
            spare = max(kept, key=lambda n: self.columns[n].spare)
            if not self.columns[spare].spare:
                break
            kept.remove(spare)
        room = width - sum(widths[n] + len(_GAP) for n in kept[:-1])
        rows = [[row[n] if n < len(row) else "" for n in kept] for row in self.rows]
        for row in rows:
            row[-1] = _cut(row[-1], room)
        columns = [replace(self.columns[n], whole=True) for n in kept]
        return Table(columns, self.headed, [tuple(row) for row in rows])

    @property
    def width(self) -> int:
        """How many places the longest line takes that `plain` writes."""
        return _line_width(_widths(self._lines()))

    def _lines(self) -> list[tuple[str, ...]]:
        lines = [tuple(column.header for column in self.columns)] if self.headed else []
        for row in self.rows:
            lines += zip_longest(*(_text(cell).expandtabs().split("\n") for cell in row), fillvalue="")
        return lines

    def plain(self) -> str:
        """Write it as lines, each as long as it has to be."""
        lines = self._lines()
        widths = _widths(lines)
        return "\n".join(self._line(line, widths) for line in lines)

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for cell, column, width in zip(cells, self.columns, widths, strict=False):
            room = " " * (width - width_of(cell))
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


def grid(*headers: str) -> Table:
    """Make a table; a header that begins with `>` is that of a column of numbers."""
    return Table([Column(header.removeprefix(">"), number=header.startswith(">")) for header in headers])


def fields(rows: Iterable[tuple[str, str | Styled]]) -> Table:
    """Make a table of names and values; a row without a value is left out."""
    table = Table([Column(style="bold", whole=True), Column()], headed=False)
    for name, value in rows:
        if value:
            table.add_row(name, value)
    return table


def visible(text: str) -> str:
    """Write out what would move the cursor, ring, or command a terminal; lines and tabs stay."""
    return text.translate(_CONTROLS)


def _text(cell: str | Styled) -> str:
    return cell.plain() if isinstance(cell, Styled) else visible(cell)


def _widths(lines: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(width_of, cells)) for cells in zip_longest(*lines, fillvalue="")]


def _line_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * max(0, len(widths) - 1)


def _cut(cell: str | Styled, room: int) -> str | Styled:
    """Shorten a cell to so many places of a line."""
    text = _text(cell)
    if width_of(text) <= room:
        return cell
    while text and width_of(text) >= room:
        text = text[:-1]
    return replace(cell, text=f"{text}…") if isinstance(cell, Styled) else f"{text}…"


def width_of(text: str) -> int:
    """Return how many places of a line text takes."""
    if text.isascii():
        return len(text)
    seen = [character for character in text if unicodedata.category(character) not in ("Mn", "Me", "Cf")]
    return len(seen) + sum(unicodedata.east_asian_width(character) in "WF" for character in seen)
