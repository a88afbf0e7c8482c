"""What the output plugin `test_decoding` writes of each change, and the keys in it.

A row of its output is one of

    BEGIN 725
    table public.orders: INSERT: id[integer]:1 v[text]:'it''s'
    table public.orders: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 v[text]:unchanged-toast-datum
    table public.orders: DELETE: id[integer]:2
    table public.orders, public.quotes: TRUNCATE: (no-flags)
    COMMIT 725

Values may hold line feeds and text that looks like a change, but never a zero byte. So rows are joined by zero bytes,
and one compiled pattern per table finds all its keys in a block of them. It spells out every column up to the last one
of the key, with its type: what does not fit (another column of that name, a key that was not written) is seen, because
the rows that fit are fewer than those that begin with the table's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

Key = tuple[str, ...]

_ROW = b"\0table "
_QUOTED = rb"'[^'\0]*+(?:''[^'\0]*+)*+'"
_VALUE = rb"(?:" + _QUOTED + rb"|B'[01]*'|[^ '\0]+)"
_NAME = rb'(?:"[^"\0]*+(?:""[^"\0]*+)*+"|[a-z_][a-z0-9_]*+)'
_TABLE = _NAME + rb"\." + _NAME
_TRUNCATED = re.compile(_ROW + rb"(" + _TABLE + rb"(?:, " + _TABLE + rb")*+): TRUNCATE: ")
_NAMED = re.compile(_ROW + rb"(" + _TABLE + rb"): (?!TRUNCATE)")
_SEVERAL = 8
_NO_KEYS = frozenset((b"null", b"unchanged-toast-datum"))


@dataclass(frozen=True)
class Keys:
    """Keys of one table that were written.

    Attributes:
        replaced: Of rows that were updated and kept their key.
        moved: Of rows that were inserted or deleted, and the keys that a row had before and after it changed its key.
            One that is not among them was there before the first of all these changes, and still is.
    """

    replaced: set[Key] = field(default_factory=set)
    moved: set[Key] = field(default_factory=set)

    def __len__(self) -> int:
        """How many there are; one that is in both is counted twice."""
        return len(self.replaced) + len(self.moved)

    def add(self, more: Keys) -> int:
        """Add keys, and return how many more there are now."""
        before = len(self)
        self.replaced.update(more.replaced)
        self.moved.update(more.moved)
        return len(self) - before


@dataclass(frozen=True)
class ChangeFormat:
    """How changes of one table are written.

    Attributes:
        table: Qualified name of the table, as test_decoding writes it.
        columns: Name and type of each column, up to the last one of the key.
        key: Which of these are the key, in the order of the columns.
        order: For each column of the key in the order of the key: which one of `key` it is.
    """

    table: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def name(self) -> bytes:
        """The table's name as bytes of the output."""
        return self.table.encode()

    @cached_property
    def _replaced(self) -> re.Pattern[bytes]:
        """Finds rows that keep their key."""
        return self._pattern(rb"UPDATE: %b" % self._row)

    @cached_property
    def _moved(self) -> re.Pattern[bytes]:
        """Finds keys that come or go."""
        key = b" ".join(_column(*self.columns[n], taken=True) for n in self.key)
        return self._pattern(rb"(?:INSERT: |UPDATE: old-key: %b new-tuple: )%b|DELETE: %b" % (key, self._row, key))

    @property
    def _row(self) -> bytes:
        return b" ".join(_column(*column, taken=n in self.key) for n, column in enumerate(self.columns))

    def _pattern(self, change: bytes) -> re.Pattern[bytes]:
        return re.compile(_ROW + re.escape(self.name) + rb": (?:" + change + rb")(?=[ \0])")

    def keys(self, block: bytes) -> Keys | None:
        """Return the keys of this table that a block of rows names; None where not every row names one.

        Args:
            block: Rows, each of them after a zero byte, and one more at the end.
        """
        count = block.count(_ROW + self.name + b": ")
        replaced = self._replaced.findall(block)
        moved = self._moved.findall(block) if len(replaced) < count else []
        if len(replaced) + len(moved) != count:
            return None
        kept, others = self._taken(replaced), self._taken(moved)
        return None if kept is None or others is None else Keys(kept, others)

    def _taken(self, found: Sequence[bytes] | Sequence[tuple[bytes, ...]]) -> set[Key] | None:
        """Take the keys out of what a pattern found; None where one was not written, or is no text."""
        width = len(self.key)
        taken = set[tuple[bytes, ...]]()
        if found and isinstance(found[0], tuple):
            columns = list(zip(*found, strict=True))
            for start in range(0, len(columns), width):
                taken.update(zip(*columns[start : start + width], strict=True))
            taken.discard((b"",) * width)
            by_column = list(zip(*taken, strict=True))
        else:
            by_column = [tuple(set(found))] if found else []
        if any(not _NO_KEYS.isdisjoint(values) for values in by_column):
            return None
        try:
            texts = [_texts(values) for values in by_column]
        except UnicodeDecodeError:
            return None
        return set(zip(*(texts[n] for n in self.order), strict=True)) if texts else set()


def _column(name: str, kind: str, *, taken: bool) -> bytes:
    value = rb"(" + _VALUE + rb")" if taken else _VALUE
    return re.escape(f"{name}[{kind}]:".encode()) + value


def _texts(values: Sequence[bytes]) -> list[str]:
    together = b"\0".join(values)
    # numbers are not quoted, and there may be many
    return [_text(value) for value in values] if b"'" in together else together.decode().split("\0")


def _text(value: bytes) -> str:
    if value.startswith(b"'"):
        return value[1:-1].replace(b"''", b"'").decode()
    if value.startswith(b"B'"):
        return value[2:-1].decode()
    return value.decode()


class ChangedKeys:
    """The keys that blocks of output name, by table.

    Args:
        tables: Which tables are looked for, and how their changes are written.
        most: How many keys are kept; the table with which they become more is left out.
    """

    def __init__(self, tables: dict[str, ChangeFormat], most: int) -> None:
        self._tables = {written.name: name for name, written in tables.items()}
        self._written, self._left = tables, most
        self.keys = {name: Keys() for name in tables}
        """Without the tables of which not all keys are known, or too many."""

    def add(self, block: bytes) -> None:
        """Take a block of rows, each of them after a zero byte, and one more at the end."""
        for names in _TRUNCATED.findall(block) if b": TRUNCATE: " in block else ():
            for name in re.findall(_TABLE, names):
                self._drop(self._tables.get(name, ""))
        named = set(_NAMED.findall(block))
        blocks = _by_table(block) if len(named) > _SEVERAL else dict.fromkeys(named, block)
        for name in named:
            self._add(self._tables.get(name, ""), blocks[name])

    def _drop(self, table: str) -> None:
        self._left += len(self.keys.pop(table, ()))

    def _add(self, table: str, block: bytes) -> None:
        if table not in self.keys:
            return
        found = self._written[table].keys(block)
        if found is None:
            self._drop(table)
            return
        self._left -= self.keys[table].add(found)
        if self._left < 0:
            self._drop(table)


def _by_table(block: bytes) -> dict[bytes, bytes]:
    """Take a block apart, so that not each of many tables looks through all of it."""
    rows: dict[bytes, list[bytes]] = {}
    found = [*_NAMED.finditer(block)]
    ends = [*(match.start() for match in found[1:]), len(block) - 1]
    for match, end in zip(found, ends, strict=True):
        rows.setdefault(match[1], []).append(block[match.start() : end])
    return {name: b"".join(some) + b"\0" for name, some in rows.items()}
