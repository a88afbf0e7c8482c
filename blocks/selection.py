"""Which collections and which keys a person means: globs such as `ledger/orders` and `position:*`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from blocks.variant import is_variant, variant_text


def glob_regex(glob: str) -> str:
    r"""Translate a glob to an RE2 pattern: `*` any run, `?` one character, `[...]` a class.

    Where labels are bytes (paths), `?` and `[...]` stand for one byte.

    Written out because `fnmatch.translate` emits atomic groups and `\Z`, which RE2 does not know.
    """
    out, i = ["(?s)^"], 0
    while i < len(glob):
        c = glob[i]
        negated = glob.startswith("!", i + 1)
        close = glob.find("]", i + 2 + negated) if c == "[" else -1
        if c == "*":
            out.append(".*")
        elif c == "?":
            out.append(".")
        elif close > 0:
            out.append(_class(glob[i + 1 + negated : close], negated))
            i = close
        else:
            out.append(re.escape(c))
        i += 1
    return "".join([*out, "$"])


def _class(inner: str, negated: bool) -> str:
    """Write a class by numbers, so that no character in it has a meaning; a range that runs backwards is empty."""
    members, i = [], 0
    while i < len(inner):
        wide = i + 2 < len(inner) and inner[i + 1] == "-"
        first, last = inner[i], inner[i + 2 if wide else i]
        if first <= last:
            members.append(f"{_member(first)}-{_member(last)}")
        i += 3 if wide else 1
    if not members:
        return "." if negated else r"\z."  # matches nothing
    return f"[{'^' if negated else ''}{''.join(members)}]"


def _member(c: str) -> str:
    return rf"\x{{{ord(c):x}}}" if c.isascii() else c


@dataclass(frozen=True)
class Selection:
    """Globs over full collection names (`source/collection`) and over key labels; empty means everything.

    `within` is a second set of key globs: those that an emergency backup was narrowed to. A row has to match both.
    """

    collections: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is narrowed down."""
        return not self.collections and not self.narrows_keys

    @property
    def narrows_keys(self) -> bool:
        """Whether some rows of a selected collection may be left out."""
        return bool(self.keys or self.within)

    def has_collection(self, name: str) -> bool:
        """Whether a collection, by its full name, is selected."""
        return not self.collections or any(fnmatchcase(name, glob) for glob in self.collections)

    def mask(self, rows: pa.Table, label: tuple[str, ...]) -> pa.BooleanArray | None:
        """Tell for each row whether its key label matches one of the key globs; None means all do."""
        wanted = [globs for globs in (self.keys, self.within) if globs]
        patterns = ["|".join(f"(?:{glob_regex(glob)})" for glob in globs) for globs in wanted]
        if not patterns:
            return None
        labels = label_text(rows, label)
        return reduce(pc.and_, [pc.match_substring_regex(labels, pattern) for pattern in patterns])

    def rows(self, rows: pa.Table, label: tuple[str, ...]) -> pa.Table:
        """Keep the selected rows."""
        mask = self.mask(rows, label)
        return rows if mask is None else rows.filter(mask)


def label_text(rows: pa.Table, label: tuple[str, ...]) -> pa.ChunkedArray:
    """Render key columns as a person types them: text as it is, numbers in decimal, several joined by `:`.

    Returns binary text where a column is binary (paths), UTF-8 elsewhere; NULL renders as an empty text.
    """
    texts = []
    for name in label:
        column = rows.column(name)
        if is_variant(rows.schema.field(name)):
            column = variant_text(column)
        elif not (pa.types.is_large_binary(column.type) or pa.types.is_binary(column.type)):
            column = pc.cast(column, pa.large_string())
        texts.append(pc.fill_null(column, b"" if pa.types.is_large_binary(column.type) else ""))
    if len(texts) == 1:
        return texts[0]
    if any(pa.types.is_large_binary(t.type) or pa.types.is_binary(t.type) for t in texts):
        texts = [pc.cast(t, pa.large_binary()) for t in texts]
        return pc.binary_join_element_wise(*texts, pa.scalar(b":", pa.large_binary()))
    return pc.binary_join_element_wise(*texts, pa.scalar(":", pa.large_string()))
