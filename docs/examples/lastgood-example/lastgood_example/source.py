"""A source: a file of JSON lines, each an object with a text `key` that no other line has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field, JsonValue

from blocks.host.identity import place_identity
from blocks.host.places import Location
from blocks.sources.collection import PART_SIZE_BYTES, CollectionSpec
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreScope
from lastgood_example.target import LinesTarget
from lastgood_example.view import LinesView, read_bytes


class JSONLinesSource(StateSource):
    """Back up a file of JSON lines that fits into memory. A restore sorts its lines by their keys.

    Example:
        ```python
        from lastgood_example.source import JSONLinesSource

        JSONLinesSource.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "JSON Lines Source"
    _block_type_slug = "lastgood-example-json-lines"

    type: Literal["jsonlines"] = "jsonlines"
    path: str = Field(description="The file.")
    exclude: list[str] = Field(default_factory=list, description="Keys (globs) that are left out.")
    longest_line_bytes: int | None = Field(
        default=None, gt=0, description="What the application can read: a restore writes no longer line."
    )
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Size that parts are partitioned for, in bytes of Arrow data."
    )

    def anchored(self, folder: Path) -> JSONLinesSource:
        """Return a copy whose path is resolved against the folder of the plan."""
        return self.model_copy(update={"path": str(folder / Path(self.path).expanduser())})

    @contextmanager
    def view(self, since: str | None = None) -> Iterator[LinesView]:
        """Read the file at once, so that all parts are of one moment."""
        path = Path(self.path)
        yield LinesView(path, read_bytes(path), self.exclude, self.part_size_bytes)

    def target(self, scope: RestoreScope, to: str | None = None) -> LinesTarget:
        """Prepare a restore to the file, or to another one."""
        return LinesTarget(Path(to or self.path), scope, self.leaves_out, self.longest_line_bytes)

    def leaves_out(self, key: str) -> bool:
        """Whether the plan leaves a key out."""
        return any(fnmatchcase(key, glob) for glob in self.exclude)

    def covered(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray | None:
        """Return for each row of a backup whether the plan covers its key."""
        if not self.exclude:
            return None
        return pa.array([not self.leaves_out(key) for key in rows.column("key").to_pylist()], pa.bool_())

    def as_backed_up(self, definition: Mapping[str, JsonValue]) -> JSONLinesSource:
        """Return a copy that covers what a backup covered."""
        exclude = definition.get("exclude")
        return self.model_copy(update={"exclude": exclude} if isinstance(exclude, list) else {})

    def unnarrowed(self) -> JSONLinesSource:
        """Return a copy that covers all lines."""
        return self.model_copy(update={"exclude": []})

    def location(self, to: str | None = None) -> Location:
        """Say where the file is, so that other spellings of its path are found out."""
        path = Path(to or self.path)
        return Location(shown=str(path), paths=(path,))

    def identity(self) -> dict[str, JsonValue]:
        """Say which file it is, on which machine."""
        path = Path(self.path)
        return place_identity(path, path.parent)

    @property
    def local(self) -> bool:
        """It is in a local file."""
        return True

    def at(self, place: str) -> JSONLinesSource:
        """Return this source for another file."""
        return self.model_copy(update={"path": place})

    def scratch(self, folder: Path) -> str:
        """Name a file in an empty folder."""
        return str(folder / "lines.jsonl")
