"""A few records without the others: what is read of a chain where keys, or how they begin, are written out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import time
from decimal import Decimal
from itertools import combinations, islice, pairwise, product

import pyarrow as pa

from blocks.records import Segment
from blocks.rows.canonical import KEY
from blocks.rows.key_range import near
from blocks.rows.keys import encode_keys, encode_parents, trimmed
from blocks.rows.merge import with_keys
from blocks.rows.row_groups import RowGroups
from blocks.rows.same import told_apart
from blocks.rows.selection import Selection
from blocks.rows.wanted import WantedKeys
from blocks.sources.collection import CollectionSpec
from flows.pipeline.chain_segments import ChainSegments, StoredSegment

MOST_KEYS = 1024
"""Keys that are looked for one by one; of more, all rows are read."""
MOST_BEGINNINGS = 512
"""Beginnings of keys that are looked for; each row that is read is compared with all of them. A path has two."""
WHOLE_BYTES = 128 * 1024
"""A blob of so many bytes is read at once."""

_LITERAL = re.compile(r"(?:[^*?\[\\]|\[\[\])*")
"""What a glob begins with that stands for itself; `[[]` is a `[`."""
_LETTERS = frozenset("iftbno")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?(E[+-][0-9]{1,3})?")
_DECIMAL_DIGITS = 76
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z?")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}")
_FAR_AWAY = re.compile(r"(-[0-9]{4,}|[0-9]{5,})-[0-9]{2}-[0-9]{2}|<value")
"""How dates are shown that Arrow does not read back."""

Value = int | float | str | bytes | Decimal | time | None
Row = tuple[tuple[pa.DataType, Value], ...]
"""The key columns of a row, each with its type and its value."""


def wanted_keys(selection: Selection | None, spec: CollectionSpec, segments: Sequence[Segment]) -> WantedKeys | None:
    """Return all `_key`s that a row can have which is selected; None where that cannot be said without its rows.

    A glob has to be written out where the label is the whole key; where it is the first column of it, its beginning is
    enough.

    Args:
        selection: What is wanted of the collection.
        spec: The collection.
        segments: Those of the chain that hold a part: which types the keys have is known from them.
    """
    if selection is None or not selection.keys or any(segment.key_range is None for segment in segments):
        return None
    kinds = [set().union(*has) for has in zip(*(s.key_range.kinds for s in segments if s.key_range), strict=False)]
    if len(kinds) != len(spec.key) or any(letters - _LETTERS for letters in kinds):
        return None
    if any("f" in letters for letters in kinds) and any("nan" in text.lower() for text in selection.keys):
        return None  # NaNs of different bits look the same
    if any("o" in letters for letters in kinds) and any(_FAR_AWAY.search(text) for text in selection.keys):
        return None
    labels, firsts, begun = list[Row](), list[Row](), list[Row]()
    for glob in selection.keys:
        text, is_whole = _literal(glob)
        if is_whole and spec.label == spec.key:
            labels += islice(_rows_shown_as(text, kinds), MOST_KEYS + 1)
        elif spec.label != spec.key[:1]:
            return None
        elif is_whole:
            firsts += product(_values(text, kinds[0]))
        elif text and kinds[0] <= set("tbn"):
            begun += product(_values(text, kinds[0]))
        else:
            return None
        if len(labels) > MOST_KEYS or len(firsts) + len(begun) > MOST_BEGINNINGS:
            return None
    return WantedKeys(
        _encoded(labels, encode_keys),
        _encoded(firsts, lambda rows, _: encode_parents(rows.column(0)))
        | _encoded(begun, encode_keys if len(kinds) == 1 else _beginnings),
    )


def rows_of(
    chain: ChainSegments, collection: str, part: int, wanted: WantedKeys, spec: CollectionSpec
) -> list[pa.Table]:
    """Read the rows and tombstones of some keys out of the segments of a part, oldest first.

    The newest segment that has a key says what became of it, so that those below it are not looked into; what begins in
    some way can be in each of them.

    Args:
        chain: The chain, opened for reading.
        collection: Full name of the collection.
        part: Number of the part.
        wanted: What is looked for.
        spec: The collection.

    Raises:
        CorruptionDetected: A segment is missing or is not what was stored.
    """
    found = list[pa.Table]()
    for stored in reversed(chain.segments(collection, part)):
        if (here := rows_in(chain, stored, part, wanted, spec)) is not None:
            rows, keys = here
            found.insert(0, told_apart(rows, chain.position(stored[0])))
            wanted = wanted.without(keys.to_pylist() if wanted.keys else ())
        if not wanted:
            break
    return found


def rows_in(
    chain: ChainSegments, stored: StoredSegment, part: int, wanted: WantedKeys, spec: CollectionSpec
) -> tuple[pa.Table, pa.LargeBinaryArray] | None:
    """Read the rows and tombstones of some keys out of one segment; return also the `_key` of each.

    Args:
        chain: The chain, opened for reading.
        stored: The segment.
        part: Number of its part.
        wanted: What is looked for.
        spec: The collection.

    Returns:
        None where the segment can have none of them.

    Raises:
        CorruptionDetected: The segment is missing or is not what was stored.
    """
    range_ = stored[2].key_range
    here = wanted if range_ is None else near(range_, wanted, chain.digest)
    if not here:
        return None
    rows = _rows(chain, stored, part, here)
    keys = with_keys(rows, spec.key).column(KEY).combine_chunks()
    mask = here.among(keys)
    return rows.filter(mask), keys.filter(mask)


def _rows(chain: ChainSegments, stored: StoredSegment, part: int, wanted: WantedKeys) -> pa.Table:
    backup, collection, segment = stored
    if segment.data.shared is not None or segment.data.size_bytes <= WHOLE_BYTES or segment.key_range is None:
        return chain.piece(backup, collection, part, segment).open().rows()
    size, read = chain.read_data(backup, collection, part, segment)
    return RowGroups(size, read, f"{backup.backup_id}/{segment.data.name} ({collection.name}#{part})").rows(wanted)


def _literal(glob: str) -> tuple[str, bool]:
    """Return what all that matches a glob begins with, and whether nothing else follows."""
    found = _LITERAL.match(glob)
    literal = found[0] if found else ""
    return literal.replace("[[]", "["), literal == glob


def _rows_shown_as(text: str, kinds: Sequence[set[str]]) -> Iterator[Row]:
    """Yield the keys of which a text can be the label; more than those do no harm."""
    for pieces in _splits(text, len(kinds)):
        yield from product(*map(_values, pieces, kinds))


def _encoded(rows: Sequence[Row], encode: Callable[[pa.Table, list[str]], pa.LargeBinaryArray]) -> frozenset[bytes]:
    """Encode rows that may differ in the types of their columns."""
    by_types: dict[tuple[pa.DataType, ...], list[list[Value]]] = {}
    for row in rows:
        by_types.setdefault(tuple(kind for kind, _ in row), []).append([value for _, value in row])
    found = set[bytes]()
    for kinds, alike in by_types.items():
        names = [f"c{n}" for n in range(len(kinds))]
        columns = [pa.array(column, kind) for column, kind in zip(zip(*alike, strict=True), kinds, strict=True)]
        found.update(encode(pa.table(columns, names), names).to_pylist())
    return frozenset(found)


def _beginnings(rows: pa.Table, _: list[str]) -> pa.LargeBinaryArray:
    """Encode how keys of several columns begin, without what ends the first one."""
    return trimmed(encode_parents(rows.column(0)), tail=2)


def _splits(text: str, count: int) -> Iterator[list[str]]:
    """Yield the ways to take a label apart into the texts of so many columns, which `:` joins."""
    pieces = text.split(":")
    for cuts in combinations(range(1, len(pieces)), count - 1):
        ends = [0, *cuts, len(pieces)]
        yield [":".join(pieces[start:end]) for start, end in pairwise(ends)]


def _values(text: str, letters: set[str]) -> list[tuple[pa.DataType, Value]]:
    """Return the values of some types that are shown as a text; more than those do no harm."""
    found: list[tuple[pa.DataType, Value]] = []
    if "n" in letters and not text:
        found.append((pa.null(), None))
    if "i" in letters and _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        found.append((pa.int64(), int(text)))
    if "f" in letters:
        found += [(pa.float64(), value) for value in _floats(text)]
    if "t" in letters:
        found.append((pa.large_string(), text))
    if "b" in letters:
        found.append((pa.large_binary(), text.encode("utf-8", "surrogateescape")))
    return found + _others(text) if "o" in letters else found


def _floats(text: str) -> list[float]:
    try:
        return [float(text)]
    except ValueError:
        return []


def _others(text: str) -> list[tuple[pa.DataType, Value]]:
    """Return the values of other types that Arrow shows as a text; text that is not UTF-8 is shown as none."""
    if text in ("true", "false"):
        return [(pa.bool_(), text == "true")]
    try:
        if _DATE.fullmatch(text):
            return [(pa.date32(), pa.array([text]).cast(pa.date32()).view(pa.int32())[0].as_py())]
        if _TIMESTAMP.fullmatch(text):
            moment = pa.array([text.removesuffix("Z")]).cast(pa.timestamp("us"))
            return [(moment.type, moment.view(pa.int64())[0].as_py())]
        if _TIME.fullmatch(text):
            return [(pa.time64("us"), time.fromisoformat(text))]
    except ValueError:  # a thirteenth month
        return []
    if not _DECIMAL.fullmatch(text):
        return []
    value = Decimal(text)
    scale = -int(value.as_tuple().exponent)
    fits = len(value.as_tuple().digits) <= _DECIMAL_DIGITS and abs(scale) <= _DECIMAL_DIGITS
    return [(pa.decimal256(_DECIMAL_DIGITS, scale), value)] if fits else []
