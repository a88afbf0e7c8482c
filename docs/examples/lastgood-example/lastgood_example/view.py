"""One look at a file of JSON lines: it is read as a whole, and handed out part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import SourceUnavailable, UnsupportedState
from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, FullRead

LINES = CollectionSpec(
    name="lines", key=("key",), label=("key",), columns=(("key", "large_string"), ("line", "large_string"))
)
"""The one collection: each line as it is written, by its key."""


class LinesView:
    """The lines of a file, in the order of their keys."""

    warnings: tuple[str, ...] = ()

    def __init__(self, path: Path, content: bytes, exclude: Sequence[str], part_size_bytes: int) -> None:
        self.taken_at = datetime.now(UTC)
        self.system = f"JSON lines in {path}"
        self.definition: dict[str, JsonValue] = {"exclude": list[JsonValue](exclude)}
        self.digest = digest_of(content)
        self._part_size_bytes = part_size_bytes
        lines = parsed(path, content)
        self._lines = {key: lines[key] for key in sorted(lines) if not any(fnmatchcase(key, one) for one in exclude)}

    @property
    def token(self) -> str:
        """Equal tokens of two views mean that nothing changed: the digest of the file, and what is left out of it."""
        return digest_of(f"{self.digest} {json.dumps(self.definition)}".encode())

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the one collection."""
        return [LINES]

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Return bounds of parts, each from a key up to another one; the first and the last are open."""
        borders, size = [], 0
        for key, line in self._lines.items():
            size += len(key) + len(line)
            if size > self._part_size_bytes:
                borders.append(key)
                size = 0
        return [{"from": a, "to": b} for a, b in zip([None, *borders], [*borders, None], strict=True)]

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part has outgrown its size by far."""
        largest = max(sum(len(key) + len(line) for key, line in self._within(one).items()) for one in bounds)
        return largest > REPARTITION_FACTOR * self._part_size_bytes

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> FullRead:
        """Read a part as a whole: what did not change is found out by comparing it with the base."""
        found = self._within(bounds)
        columns = [pa.array(found.keys(), pa.large_string()), pa.array(found.values(), pa.large_string())]
        return FullRead(pa.table(columns, names=["key", "line"]))

    def finish(self) -> None:
        """Do nothing: all was read at once."""

    def _within(self, bounds: Bounds) -> dict[str, str]:
        low, high = bounds["from"], bounds["to"]
        return {
            key: line
            for key, line in self._lines.items()
            if (low is None or key >= str(low)) and (high is None or key < str(high))
        }


def read_bytes(path: Path) -> bytes:
    """Read the file.

    Raises:
        SourceUnavailable: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise SourceUnavailable(
            f"{path}: {exc.strerror}", hint="Check `path` of the source, and who may read it."
        ) from exc


def parsed(path: Path, content: bytes) -> dict[str, str]:
    """Return the lines of a file by their keys.

    Raises:
        UnsupportedState: A line is none, or its key is that of another line.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            line = raw.decode()
            value = json.loads(line)
        except ValueError as exc:
            raise UnsupportedState(f"{path}: line {number} is no JSON in UTF-8") from exc
        key = value.get("key") if isinstance(value, dict) else None
        if not isinstance(key, str):
            raise UnsupportedState(f"{path}: line {number} is no object with a text `key`")
        if key in found:
            raise UnsupportedState(f"{path}: line {number} has the key {key!r} of another line")
        found[key] = line
    return found


def digest_of(content: bytes) -> str:
    """Return what tells a content from any other."""
    return hashlib.sha256(content).hexdigest()
