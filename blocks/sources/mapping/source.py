"""Any Python object that hands out state by key: a state manager, a client of one, or a plain store of values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, field_validator

from blocks.errors import ConfigurationError
from blocks.sources.base import PART_SIZE_BYTES, RestoreScope, StateSource, Target, View
from blocks.sources.mapping.calls import WRITING, StateObject, open_object
from blocks.sources.mapping.file import check_file, open_file
from blocks.sources.mapping.target import MappingTarget, Place
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.view import MappingView

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class MappingSource(StateSource):
    """Any Python object with `get_keys_by_pattern`, `get_state` and `set_state`, plain or async.

    The object is imported into the process that makes the backup; it has to reach the state from there. Values come
    back with the Python types they had: None, booleans, numbers, text, bytes, dates and times, timedelta, Decimal,
    UUID, enums, dataclasses, and tuples, sets, frozensets, lists and dicts of them. A value of any other type stops the
    backup with an error that names it.

    Example:
        ```python
        from blocks.sources.mapping import MappingSource

        MappingSource(object="trading.state:manager", patterns=["position:*"]).save("trading-state")
        state = MappingSource.load("trading-state")
        ```
    """

    _block_type_name = "Mapping Source"
    _block_type_slug = "mapping-source"
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    # another place than `object`, whose package's classes stay the allowed ones
    _place: str | None = PrivateAttr(default=None)

    type: Literal["mapping"] = Field("mapping", description="Kind of source.")
    object: str = Field(
        description="Import path, package.module:attribute, of the object or of a function without parameters that "
        "makes it."
    )
    patterns: list[str] = Field(
        default=["*"], min_length=1, description="What `get_keys_by_pattern` is asked for, one after another."
    )
    types: list[str] = Field(
        default_factory=list,
        description="Globs of import paths (package.module:Class) of enums and dataclasses that values may be, and of "
        "objects to restore to, beside those of the object's own package.",
    )
    search_path: list[str] = Field(
        default_factory=list, description="Folders where the object's module is looked for if it is not installed."
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="How long, in seconds, one call of an async method may take."
    )
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Bytes of Arrow data that a part is drawn for."
    )

    @field_validator("object")
    @classmethod
    def _is_import_path(cls, path: str) -> str:
        if not _IMPORT_PATH.fullmatch(path):
            raise ValueError(f"{path!r} is not an import path: write package.module:attribute")
        return path

    def anchored(self, folder: Path) -> MappingSource:
        """Return a copy whose search path is resolved against a folder."""
        folders = [str(folder / Path(path).expanduser()) for path in self.search_path]
        return self.model_copy(update={"search_path": folders})

    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one look at the object, or at its `create_snapshot()` where it has one.

        Raises:
            ConfigurationError: There is no such object, or it lacks a method.
            SourceUnavailable: It failed.
        """
        return self._view()

    @contextmanager
    def _view(self) -> Iterator[View]:
        if (path := self._file) is not None:
            with open_file(path, self._types) as stored:
                yield MappingView(stored, self.patterns, self._types, f"File {path}", self.part_size_bytes)
            return
        with self._opened() as state:
            system = f"Python object {self._where}"
            if not state.offers("create_snapshot"):
                warning = f"{self._where} has no create_snapshot: its keys were read one after another."
                yield MappingView(state, self.patterns, self._types, system, self.part_size_bytes, (warning,))
                return
            snapshot = state.snapshot()
            try:
                yield MappingView(snapshot, self.patterns, self._types, system, self.part_size_bytes)
            finally:
                snapshot.close()

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a restore into the object itself, into another one by its import path, or into a file by its path."""
        source = self if to is None else self.at(to)
        return MappingTarget(source._as_place(), self.patterns, scope, self._types)

    def _as_place(self) -> Place:
        if (path := self._file) is not None:
            opened = partial(open_file, path, self._types, writing=True)
            return Place(str(path), lambda deleting: check_file(path), opened, at_once=True)
        return Place(self._where, self._check, self._opened, at_once=False)

    def _opened(self) -> AbstractContextManager[StateObject]:
        return open_object(self._where, self.search_path, self.timeout_seconds)

    def _check(self, deleting: bool) -> None:
        with self._opened() as state:
            state.need(WRITING)
            if deleting and not state.offers("delete_state"):
                raise ConfigurationError(
                    f"{self._where} has no method delete_state, without which nothing can be removed from it",
                    hint="Restore with --mode merge, or give the object that method.",
                )

    def at(self, place: str) -> MappingSource:
        """Return this source for another object, or for a file that a restore was written to.

        Raises:
            ConfigurationError: The object is in a package that the plan does not name: a place comes as a parameter of
                a restore, and whoever may give one must not thereby import and call what they like.
        """
        if _IMPORT_PATH.fullmatch(place) and not self._types.allows(place):
            raise ConfigurationError(
                f"{place} is outside of the package of {self.object}",
                hint="Add its import path to the source's `types` if state may be restored to it.",
            )
        source = self.model_copy()
        source._place = place
        return source

    def scratch(self, folder: Path) -> str:
        """Name a file inside an empty folder."""
        return str(folder / "state.db")

    @property
    def _where(self) -> str:
        return self._place or self.object

    @property
    def _file(self) -> Path | None:
        return None if _IMPORT_PATH.fullmatch(self._where) else Path(self._where).expanduser()

    @property
    def _types(self) -> Types:
        module = self.object.partition(":")[0]
        return Types(module.rpartition(".")[0] or module, self.types)
