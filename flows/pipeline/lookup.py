"""One record, or a few, without the others: what is read of a chain where keys are written out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise, product

import pyarrow as pa
import pyarrow.compute as pc

from blocks.records import Segment
from blocks.rows.canonical import KEY
from blocks.rows.key_range import may_hold
from blocks.rows.keys import encode_keys
from blocks.rows.merge import with_keys
from blocks.rows.row_groups import RowGroups
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from flows.pipeline.chain_segments import ChainSegments, StoredSegment

MOST_KEYS = 64
"""Keys that are looked for one by one; of more, all rows are read."""
WHOLE_BYTES = 128 * 1024
"""A blob of so many bytes is read at once."""

_GLOB = re.compile(r"[*?\[\\]")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_TYPES = {"i": pa.int64(), "f": pa.float64(), "t": pa.large_string(), "b": pa.large_binary(), "n": pa.null()}

Value = int | float | str | bytes | None


def wanted_keys(selection: Selection | None, spec: CollectionSpec, segments: Sequence[Segment]) -> list[bytes] | None:
    """Return all `_key`s that a row can have which is selected; None where that cannot be said without its rows.

    Args:
        selection: What is wanted of the collection.
        spec: The collection.
        segments: Those of the chain that hold a part: which types the keys have is known from them.
    """
    if selection is None or not selection.keys or spec.label != spec.key or len(selection.keys) > MOST_KEYS:
        return None
    if any(_GLOB.search(glob) for glob in selection.keys) or any(segment.key_range is None for segment in segments):
        return None
    kinds = ["".join(letters) for letters in zip(*(s.key_range.kinds for s in segments if s.key_range), strict=False)]
    if len(kinds) != len(spec.key) or any(set(letters) - _TYPES.keys() for letters in kinds):
        return None
    if any("f" in letters for letters in kinds) and any("nan" in text.lower() for text in selection.keys):
        return None  # NaNs of different bits look the same
    found: set[bytes] = set()
    for text in selection.keys:
        for pieces in _splits(text, len(kinds)):
            choices = [_values(piece, set(letters)) for piece, letters in zip(pieces, kinds, strict=True)]
            for chosen in product(*choices):
                found.add(_encoded(chosen))
                if len(found) > MOST_KEYS:
                    return None
    return sorted(found)


def rows_of(
    chain: ChainSegments, collection: str, part: int, keys: Sequence[bytes], spec: CollectionSpec
) -> list[pa.Table]:
    """Read the rows and tombstones of some keys out of the segments of a part, oldest first.

    The newest segment that has a key says what became of it, so that those below it are not looked into.

    Args:
        chain: The chain, opened for reading.
        collection: Full name of the collection.
        part: Number of the part.
        keys: `_key`s, each once.
        spec: The collection.

    Raises:
        CorruptionDetected: A segment is missing or is not what was stored.
    """
    left, found = set(keys), list[pa.Table]()
    for stored in reversed(chain.segments(collection, part)):
        if (here := rows_in(chain, stored, part, sorted(left), spec)) is not None:
            rows, encoded = here
            found.insert(0, rows)
            left.difference_update(encoded.to_pylist())
        if not left:
            break
    return found


def rows_in(
    chain: ChainSegments, stored: StoredSegment, part: int, keys: Sequence[bytes], spec: CollectionSpec
) -> tuple[pa.Table, pa.LargeBinaryArray] | None:
    """Read the rows and tombstones of some keys out of one segment; return also the `_key` of each.

    Args:
        chain: The chain, opened for reading.
        stored: The segment.
        part: Number of its part.
        keys: `_key`s, each once, in order.
        spec: The collection.

    Returns:
        None where the segment can have none of them.

    Raises:
        CorruptionDetected: The segment is missing or is not what was stored.
    """
    range_ = stored[2].key_range
    near = [key for key in keys if range_ is None or may_hold(range_, key, chain.digest)]
    if not near:
        return None
    rows = _rows(chain, stored, part, near)
    encoded = with_keys(rows, spec.key).column(KEY).combine_chunks()
    wanted = pc.is_in(encoded, pa.array(near, pa.large_binary()))
    return rows.filter(wanted), encoded.filter(wanted)


def _rows(chain: ChainSegments, stored: StoredSegment, part: int, keys: Sequence[bytes]) -> pa.Table:
    backup, collection, segment = stored
    if segment.data.shared is not None or segment.data.size_bytes <= WHOLE_BYTES or segment.key_range is None:
        return chain.piece(backup, collection, part, segment).open().rows()
    size, read = chain.read_data(backup, collection, part, segment)
    return RowGroups(size, read, f"{backup.backup_id}/{segment.data.name} ({collection.name}#{part})").rows(keys)


def _splits(text: str, count: int) -> Iterator[list[str]]:
    """Yield the ways to take a label apart into the texts of so many columns, which `:` joins."""
    pieces = text.split(":")
    for cuts in combinations(range(1, len(pieces)), count - 1):
        ends = [0, *cuts, len(pieces)]
        yield [":".join(pieces[start:end]) for start, end in pairwise(ends)]


def _values(text: str, letters: set[str]) -> list[tuple[str, Value]]:
    """Return the values of some types that are shown as a text; more than those do no harm."""
    found: list[tuple[str, Value]] = []
    if "n" in letters and not text:
        found.append(("n", None))
    if "i" in letters and _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        found.append(("i", int(text)))
    if "f" in letters:
        found += [("f", value) for value in _floats(text)]
    if "t" in letters:
        found.append(("t", text))
    if "b" in letters:
        found.append(("b", text.encode("utf-8", "surrogateescape")))
    return found


def _floats(text: str) -> list[float]:
    try:
        return [float(text)]
    except ValueError:
        return []


def _encoded(chosen: tuple[tuple[str, Value], ...]) -> bytes:
    names = [f"c{n}" for n in range(len(chosen))]
    columns = {name: pa.array([value], _TYPES[kind]) for name, (kind, value) in zip(names, chosen, strict=True)}
    encoded: bytes = encode_keys(pa.table(columns), names)[0].as_py()
    return encoded
