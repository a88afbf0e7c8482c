"""Which collections and which keys a person means: globs such as `ledger/orders` and `position:*`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import reduce
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.variant import is_variant, variant_text

_BYTE = re.compile(r"\\x([0-9a-f]{2})")


def glob_regex(glob: str, *, binary: bool = False) -> str:
    r"""Translate a glob to an RE2 pattern: `*` any run, `?` one character, `[...]` a class.

    Where labels are bytes (paths), `?` and `[...]` stand for one byte, and `\xff` for that byte as well as for itself:
    so bytes that are no text are printed.

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
        elif binary and (byte := _BYTE.match(glob, i)):
            control = rf"|\xc2\x{{{byte[1]}}}" if "80" <= byte[1] < "a0" else ""  # so terminals are shown these
            out.append(rf"(?:{re.escape(byte[0])}|\x{{{byte[1]}}}{control})")
            i = byte.end() - 1
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

    def __post_init__(self) -> None:
        """Write bytes that are no text, as they come from a command line, as they are printed."""
        for name in ("collections", "keys", "within"):
            object.__setattr__(self, name, tuple(map(printed, getattr(self, name))))

    def meant_for(self, key: Sequence[str], label: Sequence[str]) -> Self:
        """Return the selection as it is meant for a collection: in a tree, a path takes all beneath it along.

        There a `[` may also be one, and not begin a class. What `within` says was meant for the collection before.

        Args:
            key: Names of the key columns of the collection.
            label: Names of its label columns.
        """
        return replace(self, keys=tree_keys(self.keys)) if is_tree(key, label) else self

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

    def has_all_of(self, source: str) -> bool:
        """Whether all collections of a source are selected, whatever there are, and all of their rows."""
        # what a glob that ends in a star says of the beginning of a name, it says of all names that begin so
        whole = (glob.endswith("*") and fnmatchcase(f"{source}/", glob) for glob in self.collections)
        return not self.narrows_keys and (not self.collections or any(whole))

    def mask(self, rows: pa.Table, label: tuple[str, ...]) -> pa.BooleanArray | None:
        """Return for each row whether its key label matches one of the key globs; None means all do.

        Args:
            rows: Rows with at least the label columns, of any canonical type.
            label: Names of the columns that make the label.
        """
        wanted = [globs for globs in (self.keys, self.within) if globs]
        if not wanted:
            return None
        labels = label_text(rows, label)
        binary = pa.types.is_large_binary(labels.type) or pa.types.is_binary(labels.type)
        patterns = ["|".join(f"(?:{glob_regex(glob, binary=binary)})" for glob in globs) for globs in wanted]
        return reduce(pc.and_, [pc.match_substring_regex(labels, pattern) for pattern in patterns])

    def rows(self, rows: pa.Table, label: tuple[str, ...]) -> pa.Table:
        """Keep the selected rows.

        Args:
            rows: Rows with at least the label columns, of any canonical type.
            label: Names of the columns that make the label.
        """
        mask = self.mask(rows, label)
        return rows if mask is None else rows.filter(mask)


def printed(text: str) -> str:
    """Write text in which bytes that are no UTF-8 are lone surrogates, as on command lines, as it is shown."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode("utf-8", "backslashreplace").decode()


def is_tree(key: Sequence[str], label: Sequence[str]) -> bool:
    """Whether the records of a collection are files in folders."""
    return (*key,) == ("path", "offset") and (*label,) == ("path",)


def tree_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Write out what globs over paths stand for: also for what is beneath, and for names with a `[` in them."""
    found: list[str] = []
    for key in keys:
        path = key.removeprefix("./").rstrip("/") or key
        for glob in dict.fromkeys((path, path.replace("[", "[[]"))):
            found += [glob] if glob.endswith("*") or not glob else [glob, f"{glob}/*"]
    return tuple(dict.fromkeys(found))


def has_label(rows: pa.Table, label: tuple[str, ...], labels: pa.LargeBinaryArray) -> pa.BooleanArray:
    """Tell which rows have one of some labels.

    Args:
        rows: Rows with at least the label columns, of any canonical type.
        label: Names of the columns that make the label.
        labels: Labels as `label_text` has them, as bytes.
    """
    return pc.is_in(pc.cast(label_text(rows, label), pa.large_binary()), labels)


def label_text(rows: pa.Table, label: tuple[str, ...]) -> pa.ChunkedArray:
    """Render key columns as a person types them: text as it is, numbers in decimal, several joined by `:`.

    Returns binary text where a column is binary (paths), UTF-8 elsewhere; NULL renders as an empty text.

    Args:
        rows: Rows with at least the label columns, of any canonical type.
        label: Names of the columns that make the label.
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
