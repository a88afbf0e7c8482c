"""Any Python object that hands out state by key: a state manager, a client of one, or a plain store of values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pydantic import Field, JsonValue, PrivateAttr, field_validator

from blocks.errors import ConfigurationError, LastgoodError, RestoreRefused
from blocks.host.identity import place_identity
from blocks.host.places import Location
from blocks.sources.collection import PART_SIZE_BYTES, CollectionSpec
from blocks.sources.mapping.calls import WRITING, StateObject, import_object, open_object
from blocks.sources.mapping.coverage import Coverage
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.file import check_file, occupied_file, open_file, write_file
from blocks.sources.mapping.held import HeldState
from blocks.sources.mapping.look import Rules
from blocks.sources.mapping.place import Place
from blocks.sources.mapping.target import MappingTarget
from blocks.sources.mapping.tiers import Tiers
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.view import MappingView, SalvagingView
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreScope, Target
from blocks.sources.view import View

Values = dict[str, object]
"""State by key."""

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class MappingSource(StateSource):
    """Any Python object with `get_keys_by_pattern`, `get_state` and `set_state`, plain or async.

    The object is imported into the process that makes the backup; it has to reach the state from there. Values come
    back with the Python types they had: Python's own, enums, dataclasses, named tuples, pydantic models, what numpy and
    pandas make, and collections of them. A value of any other type stops the backup with an error that names it, or is
    left out where `on_unsupported` says so.

    Example:
        ```python
        from blocks.sources.mapping import MappingSource

        MappingSource(object="trading.state:manager", patterns=["position:*"]).save("trading-state")
        state = MappingSource.load("trading-state")
        ```
    """

    _block_type_name = "Mapping Source"
    _block_type_slug = "mapping-source"

    # another place than `object`, whose package's classes stay the allowed ones
    _place: str | None = PrivateAttr(default=None)
    # values to read in place of those of the object
    _held: HeldState | None = PrivateAttr(default=None)

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
    protocol: Literal["plain", "tiered"] = Field(
        default="plain",
        description="How values are set: `set_state(key, value)`, or with the tier that the key belongs to, "
        "`set_state(key, value, category)`.",
    )
    categories: dict[str, Literal["hot", "warm", "cold"]] = Field(
        default_factory=dict,
        description="Of a tiered object: globs of keys with the tier that they belong to. Where none matches, "
        "`ml_model:*` and `config:*` are warm and all other keys hot.",
    )
    on_unsupported: Literal["fail", "skip"] = Field(
        default="fail",
        description="What a value that cannot be kept exactly does: it fails the backup, or is left out with a "
        "warning, and a restore leaves the key alone that holds one.",
    )
    search_path: list[str] = Field(
        default_factory=list, description="Folders where the object's module is looked for if it is not installed."
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="How long, in seconds, one call of an async method may take."
    )
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Size that parts are partitioned for, in bytes of Arrow data."
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
        return self._view(salvaging=False)

    def salvage(self) -> AbstractContextManager[View]:
        """Open one look that goes on past values that cannot be read, or kept exactly.

        Raises:
            ConfigurationError: There is no such object, or it lacks a method.
            SourceUnavailable: It lists no keys.
        """
        return self._view(salvaging=True)

    @contextmanager
    def _view(self, *, salvaging: bool) -> Iterator[View]:
        kind = SalvagingView if salvaging else MappingView
        if (path := self._file) is not None:
            with open_file(path, self._types) as stored:
                yield kind(stored, self.patterns, f"File {path}", self.part_size_bytes, Rules(self._types))
            return
        with self._opened() as state:
            system = "State given by the caller" if self._held is not None else f"Python object {self._where}"
            offered = state.offers("create_snapshot")
            snapshot = state.snapshot() if offered else None
            if snapshot is None:
                why = ".create_snapshot() answered None" if offered else " has no create_snapshot"
                warning = f"{self._where}{why}: its keys were read one after another."
                yield kind(state, self.patterns, system, self.part_size_bytes, self._rules, (warning,))
                return
            try:
                rules = replace(self._rules, none_is_failure=False) if snapshot.is_held else self._rules
                yield kind(snapshot, self.patterns, system, self.part_size_bytes, rules)
            finally:
                snapshot.close()

    def read_values(self, rows: pa.Table) -> Values:
        """Return the values that rows of a backup hold, by key, with the Python types they had.

        Args:
            rows: With the columns `key` and `value`, both text.

        Raises:
            RestoreRefused: A value names a class that the plan does not allow, or that is not there.
            CorruptionDetected: A value is not one that lastgood wrote.
        """
        pairs = zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True)
        return {key: decode(text, key, self._types) for key, text in pairs}

    def location(self, to: str | None = None) -> Location:
        """Say where the state is: which object of this process, or which file.

        Two import paths of one object are one place. An object that cannot be imported is identified by its path.
        """
        source = self if to is None else self.at(to)
        if (path := source._file) is not None:
            beside = [path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", "-journal")]
            return Location(shown=str(path), paths=(path, *beside))
        try:
            identity = _identity(import_object(source._where, self.search_path))
        except ConfigurationError:
            identity = source._where
        part = "" if "*" in self.patterns else f"keys that match {' or '.join(self.patterns)}"
        return Location(shown=source._where, server=("Python object", identity), part=part)

    def identity(self) -> dict[str, JsonValue]:
        """Say which object it is, by its import path; state that a caller gives is nobody's."""
        if (path := self._file) is not None:
            return place_identity(path, path.parent)
        return {} if self._held is not None else {"import path": [self._where]}

    def covered(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray | None:
        """Return for each key of a backup whether the plan's patterns cover it.

        A key for which that is not known counts as covered; a target refuses it where the patterns were others then.

        Args:
            collection: The store.
            rows: One row per record, with at least `key` (large_string).
        """
        coverage = self._coverage
        if coverage.everything:
            return None
        keys = rows.column("key").to_pylist()
        verdicts = coverage.verdicts(keys)
        return pa.array([verdicts[key] is not False for key in keys], pa.bool_())

    @property
    def _coverage(self) -> Coverage:
        live = self.model_copy()
        live._place = None

        def listed(pattern: str) -> list[str]:
            with live._opened() as state:
                return state.keys([pattern])

        def present(keys: Sequence[str]) -> set[str]:
            found: dict[str, object] = {}
            with live._opened() as state:
                state.read(keys, found.__setitem__)
            return {key for key, value in found.items() if value is not None}

        return Coverage(self.patterns, listed, present)

    def as_backed_up(self, definition: Mapping[str, JsonValue]) -> MappingSource:
        """Return a copy that covers what a backup covered."""
        patterns = definition.get("patterns")
        return self.model_copy(update={"patterns": patterns} if isinstance(patterns, list) else {})

    def unnarrowed(self) -> MappingSource:
        """Return a copy that covers everything at its place."""
        return self.model_copy(update={"patterns": ["*"]})

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a restore into the object itself, into another one by its import path, or into a file by its path."""
        source = self if to is None else self.at(to)
        return MappingTarget(source._as_place(self, scope), self.patterns, scope, self._rules)

    def _as_place(self, live: MappingSource, scope: RestoreScope) -> Place:
        def undetermined(keys: Sequence[str]) -> list[str]:
            return [key for key, covered in live._coverage.verdicts(keys).items() if covered is None]

        if (path := self._file) is not None:
            return Place(
                name=str(path),
                check=lambda deleting: check_file(path),
                opened=partial(write_file, path, self._types, scope.plan),
                occupied=partial(occupied_file, path),
                folder=path.absolute().parent,
                at_once=True,
                undetermined=undetermined,
            )
        return Place(
            name=self._where,
            check=partial(self._check, None if scope.in_place else live),
            opened=self._opened,
            occupied=self._occupied,
            folder=None,
            at_once=False,
            undetermined=undetermined,
        )

    def holding(self, state: Values) -> MappingSource:
        """Return a copy that reads all of some values, given by key, in place of what the object holds.

        Args:
            state: The values. They are read when a view of the source is, so they must not change until then.
        """
        source = self.unnarrowed().model_copy(update={"allow_empty": True})  # the caller has seen that it is
        source._held = HeldState(state)
        return source

    def _opened(self) -> AbstractContextManager[StateObject]:
        if self._held is not None:
            return nullcontext(StateObject("the given state", self._held, self.timeout_seconds))
        tiers = Tiers(self.categories) if self.protocol == "tiered" else None
        return open_object(self._where, self.search_path, self.timeout_seconds, tiers)

    def _occupied(self) -> str | None:
        with self._opened() as state:
            keys = len(state.keys(self.patterns))
        return f"a state object with {keys} keys" if keys else None

    def _check(self, live: MappingSource | None, deleting: bool) -> None:
        """Check the methods of the object, and that it is not the live one where a restore is said to go elsewhere."""
        with self._opened() as state:
            state.need(WRITING)
            if deleting and not state.offers("delete_state"):
                raise ConfigurationError(
                    f"{self._where} has no method delete_state, without which nothing can be removed from it",
                    hint="Restore with --mode merge, or give the object that method.",
                )
            if live is not None and live._makes(state):
                raise RestoreRefused(
                    f"{self._where} is the live state, which {live.object} gives",
                    hint="Leave --to out to restore in place, with an emergency backup before.",
                )

    def _makes(self, other: StateObject) -> bool:
        """Whether another import path leads to the very object of this one, through a function perhaps."""
        try:
            with self._opened() as state:
                return state.is_same(other)
        except LastgoodError:
            return False

    def at(self, place: str) -> MappingSource:
        """Return this source for another object, or for a file that a restore was written to.

        Raises:
            ConfigurationError: The object is in a package that the plan does not name: a place comes as a parameter of
                a restore, and a user who may give one must not thereby import and call arbitrary code.
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
        if _IMPORT_PATH.fullmatch(self._where):
            return None
        place = unquote(urlsplit(self._where).path) if self._where.startswith("file://") else self._where
        return Path(place).expanduser()

    @property
    def _rules(self) -> Rules:
        return Rules(self._types, self.protocol == "tiered", self.on_unsupported == "skip")

    @property
    def _types(self) -> Types:
        module = self.object.partition(":")[0]
        return Types(module.rpartition(".")[0] or module, self.types)


def _identity(found: object) -> str:
    """Return what identifies an object of this process; a method is created each time that it is asked for."""
    parts = (found.__self__, found.__func__) if isinstance(found, MethodType) else (found,)
    return ":".join(f"{id(part):x}" for part in parts)
