"""What every source of state offers.

    source.view()      one consistent look at live state      -> collections, parts, rows
    source.target(...) a place to write restored state to     -> preflight, ..., apply, commit or abort

A source says what it holds as Arrow tables with declared key columns; everything after that (canonical types,
keys, digests, differences) is the stages' work and the same for all sources.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, JsonValue, model_validator

from blocks.host.passwords import HINT, has_password
from blocks.host.places import Location
from blocks.prefect_compat import LastgoodBlock, document
from blocks.sources.collection import CollectionSpec
from blocks.sources.target import RestoreScope, Target
from blocks.sources.view import View

if TYPE_CHECKING:  # a plan can be read without Arrow
    import pyarrow as pa


class StateSource(LastgoodBlock):
    """Base of all sources: common behaviour only, never saved by itself."""

    _documentation_url = document("docs/sources.md")
    _is_anonymous = None

    model_config = ConfigDict(hide_input_in_errors=True)

    allow_empty: bool = Field(
        default=False,
        description="Whether the source may hold nothing at all where the last backup of it holds records. Without it "
        "such a backup fails: an emptied file or an unmounted folder looks like that.",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_no_password(cls, given: Any) -> Any:
        for name, value in given.items() if isinstance(given, dict) else ():
            known = cls.model_fields.get(name)
            # what is secret by itself is kept so where the source is saved by itself; a plan looks at it, too
            if isinstance(value, str) and known and known.annotation is str and has_password(value):
                where = "the URL (`url`)" if name == "url" else f"`{name}`"
                raise ValueError(f"there is a password in {where}, where it would be kept and shown. {HINT}")
        return given

    @property
    def named_password(self) -> str | None:
        """The field that holds a password in the text that names a place, which a plan would keep and show."""
        return None

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold what lets lastgood in."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_env")}
        return frozenset(value for value in fields.values() if value)

    def admitted_elsewhere(self, password_env: str) -> StateSource:
        """Return this source for restores to another server, which asks for another password; itself where none does.

        Args:
            password_env: The environment variable that holds it, or the word `none`.
        """
        return self

    def reach(self) -> str:
        """Reach live state and say what is there: product, version and place. No state is read, nothing is written.

        Raises:
            SourceUnavailable: It cannot be reached, or may not be read.
            ConfigurationError: What lets lastgood in is missing or wrong, or a program is.
        """
        with self.view() as view:
            count = len(view.collections())
            return f"{view.system}, {count} {'collection' if count == 1 else 'collections'}"

    def scratch_need(self) -> str | None:
        """Make sure that a deep verification can restore somewhere, and say what it uses; None where a folder will do.

        Raises:
            ProgramMissing: A program is not on this machine.
            PlaceUnfit: The server does not let this role make a place for it.
            SourceUnavailable: That server cannot be reached.
        """
        return None

    def notes(self) -> tuple[str, ...]:
        """Say what a check of the plan should show of the live source, each a sentence; it may ask the server."""
        return ()

    def restored_without(self, *, owner: bool, privileges: bool) -> StateSource:
        """Return this source for restores that name no roles of the server; itself where its kind knows none.

        Args:
            owner: Whether owners are left out.
            privileges: Whether privileges are.
        """
        return self

    @property
    def rows_of_nothing(self) -> int:
        """How many rows a place has that is there and holds no records."""
        return 0

    @property
    def beyond_privileges(self) -> frozenset[str]:
        """Columns that a restore cannot bring back with the privileges of this process."""
        return frozenset()

    def anchored(self, folder: Path) -> StateSource:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        return self

    @abstractmethod
    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one consistent look at live state.

        Args:
            since: The token of the view that the base of an incremental was made from. A source may then prepare for
                being asked only what changed since, but has to be able to give all of it.

        Raises:
            SourceUnavailable: It cannot be reached or read.
        """

    def salvage(self) -> AbstractContextManager[View]:
        """Open a look at live state that goes on past records and collections that cannot be read.

        For the backup before a restore. The view is `Salvaging` where it can leave anything out.

        Raises:
            SourceUnavailable: Nothing of it can be read.
        """
        return self.view()

    def location(self, to: str | None = None) -> Location:
        """Say where the source's state lives, or where `to` is, resolved so that other spellings compare equal.

        It may ask the server, and then falls back to what the address says where that does not answer.
        """
        return Location(shown=to or "live")

    def identity(self) -> dict[str, JsonValue]:
        """Say what tells this source from another one of its kind, without secrets; see `blocks/sources/identity.py`.

        It stays the same when a server is started again or fails over, and when a disk is mounted elsewhere. Nothing
        where no such thing is known, nothing is there, or the server does not answer.
        """
        return {}

    @property
    def local(self) -> bool:
        """Whether the state is in local files, so that `location` asks nobody."""
        return False

    def around(self, left_out: Sequence[Path], protected: Sequence[Path]) -> StateSource:
        """Return a copy that knows which local paths inside of it are not its own.

        Args:
            left_out: Resolved paths, with all beneath them, that are neither backed up nor touched by a restore:
                the repository, and what other sources own.
            protected: Resolved paths of files (the plan, key files) that are backed up, but never written or deleted
                by a restore in place.
        """
        return self

    def covers(self, collection: CollectionSpec) -> bool:
        """Whether the plan covers a collection of a backup; one that it leaves out is neither written nor deleted."""
        return True

    def covered(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray | None:
        """Return for each row of a backup whether the plan covers it; None where it covers all of the collection.

        Args:
            collection: A collection that is covered.
            rows: Rows with at least the key columns of the collection, named and typed as its source reads them.
        """
        return None

    def merges_by_content(self, collection: CollectionSpec) -> bool:
        """Whether a merge compares whole rows, because the key of a collection is the identity of none over time.

        It then adds the rows that are missing, and neither changes nor deletes any for the sake of its key.
        """
        return False

    def as_backed_up(self, definition: Mapping[str, JsonValue]) -> StateSource:
        """Return a copy that covers what a backup covered, as far as its definition of the source says so.

        Args:
            definition: The source's definition from the manifest.
        """
        return self

    def unnarrowed(self) -> StateSource:
        """Return a copy that covers everything at its place.

        A verification reads back all that the backup covered, which may be more than the plan covers now.
        """
        return self

    def put_away(self) -> str | None:
        """Move all that is at the source's place aside, and return where it is now; None where this kind cannot.

        For an undo, which has found that it is what a restore made where nothing was.

        Raises:
            RestoreRefused: It cannot be moved, or is in use.
        """
        return None

    @abstractmethod
    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the live place, or another one named by `to` (a path or URL of the source's kind)."""

    @abstractmethod
    def at(self, place: str) -> StateSource:
        """Return this source as it would be at another place; verification reads a scratch restore through it."""

    @abstractmethod
    def scratch(self, folder: Path) -> str:
        """Name a place inside an empty folder to which a verification can really restore."""

    def inside(self, folder: Path) -> str:
        """Name a place inside a folder, for a restore of several sources at once; what is there stays usable."""
        return self.scratch(folder)

    def discard_scratch(self, place: str) -> None:
        """Remove a place that `scratch` named, where it is not inside the folder."""
