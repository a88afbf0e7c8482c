"""What a restore asks of the place that it writes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import JsonValue

from blocks.sources.collection import CollectionSpec
from blocks.sources.view import Unread, View

if TYPE_CHECKING:  # a plan can be read without Arrow
    import pyarrow as pa

    from blocks.rows.selection import Selection


class RestoreMode(StrEnum):
    """How restored rows meet what is already at the target."""

    PREVIEW = "preview"
    """Write nothing; say what would be done."""
    MERGE = "merge"
    """Put the backup's rows; leave everything else as it is."""
    EXACT = "exact"
    """Afterwards the target holds the backup's rows of the selection, and no others."""


class Script(StrEnum):
    """What statements are written for; the value ends the name of their file."""

    SQL = "sql"
    REDIS_CLI = "redis-cli"
    """A command in each line, for the standard input of `redis-cli`; it has no comments, so commands say them."""


@dataclass(frozen=True)
class NotRebuilt:
    """An object of a backup that a restore left out because it could not be rebuilt; all else is there.

    Attributes:
        name: Its kind and full name ("materialised view public.totals", "key db0/user:1").
        reason: Why, as a clause.
        statement: What would rebuild it, as the program takes it that `script` names; empty where there is none.
        script: For which program that is.
        compared: Whether a proof compares it; False where `by_meaning` leaves it out of the rows.
        faulty: Whether the backup is at fault, so that no place takes it: rows that break a constraint, a statement
            that fails. Else the place lacks something, which says nothing of the backup.
        plain: The reason without values of rows; empty where `reason` has none.
    """

    name: str
    reason: str
    statement: str = ""
    script: Script = Script.SQL
    compared: bool = True
    faulty: bool = False
    plain: str = ""

    @property
    def said(self) -> str:
        """What is said of it where no value of a row may be: its name, and why."""
        return f"{self.name} cannot be rebuilt here: {self.plain or self.reason}"


@dataclass(frozen=True)
class Examination:
    """What a target's own check finds in what was restored, as sentences with counts and without values of rows.

    Attributes:
        damage: What is wrong with it, although every record is as it was backed up.
        oddities: What came back as it was, and breaks a rule that its own definitions state: bad data.
        unproven: What could not be checked here.
    """

    damage: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All of it."""
        return [*self.damage, *self.oddities]


@dataclass(frozen=True)
class RestoreScope:
    """What a restore is going to write to one source.

    Attributes:
        definition: The source's definition from the manifest.
        collections: The collections to restore, as they were backed up, each with its total of rows.
        mode: MERGE or EXACT.
        selection: Which collections and keys; `selection.everything` when nothing was narrowed down.
        size_bytes: Estimate of the Arrow bytes to be written.
        narrowed: Key globs that an emergency backup was narrowed to, by the collection's name: of other keys it
            knows nothing, so an exact restore leaves them alone.
        plan: Name of the plan; temporary places are named after it.
        in_place: Whether the place is where the source's live state is. Elsewhere nothing that is there goes away
            without `overwrite`.
        overwrite: Whether a person said that what is at another place may be replaced; what goes is kept aside where
            the target can.
        created: Collections that the restore which this one takes back has created: they are dropped. One that is
            `narrowed` was created for some keys: rows of other keys may be others', and stay.
        taken_back: The source's definition in the backup whose restore is taken back: what else that may have made.
        keep_going: Whether an object that cannot be rebuilt is left out, and named, instead of failing the restore.
    """

    definition: dict[str, JsonValue]
    collections: tuple[tuple[CollectionSpec, int], ...]
    mode: RestoreMode
    selection: Selection
    size_bytes: int
    narrowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plan: str = ""
    in_place: bool = True
    overwrite: bool = False
    created: tuple[str, ...] = ()
    taken_back: Mapping[str, JsonValue] = field(default_factory=dict)
    keep_going: bool = False

    def selection_of(self, collection: str) -> Selection:
        """Return what is restored of one collection."""
        return replace(self.selection, within=self.narrowed.get(collection, ()))


class Target(Protocol):
    """Where restored state is written. `apply` may be called from several threads, part by part, in any order.

    The calls come in this order:

        preflight -> hold -> keep_aside, guard (in place) -> begin -> apply, remove -> check_unwritten -> commit

    and `abort` at any time. Nothing that others see changes before `commit`.
    """

    def preflight(self) -> tuple[str, ...]:
        """Check everything that can be checked before the first write; return sentences worth showing.

        A preview calls it too, so it changes nothing and waits for little.

        Raises:
            RestoreRefused: The restore would do harm, or cannot succeed.
        """
        ...

    def occupied(self) -> str | None:
        """Say what is at the place, as a phrase with counts ("a folder with 12 entries"); None where it is empty."""
        ...

    def hold(self) -> None:
        """Keep others from writing to the place until `commit` or `abort`, where the source can do that.

        Called before the view of the pre-restore backup is opened: what is written afterwards would be in neither.

        Raises:
            RestoreRefused: A lock could not be had in time; names who holds it, where that is known.
        """
        ...

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Take what the pre-restore backup lacks: `commit` moves it aside and `notes` name where it is.

        Returns:
            Sentences that say what will be moved where; none where nothing is there.

        Raises:
            RestoreRefused: It cannot be moved aside.
        """
        ...

    def guard(self, view: View) -> None:
        """Remember the moment of the pre-restore backup's view, for `check_unwritten`; called while it is open."""
        ...

    def begin(self) -> None:
        """Called once when nothing prevents writing any more: begin what the first `apply` would wait for.

        That is done beside other work; what fails is raised by `apply` or `commit`.
        """
        ...

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part, already narrowed to the selection; return how many.

        Args:
            collection: One of the scope's.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        ...

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Delete records by their key columns, in a merge that takes another one back; return how many were there.

        Args:
            collection: One of the scope's, or of `created`.
            keys: One row per record to delete, with the key columns of the collection, named and typed as `apply` gets
                them; other columns may be there too.
        """
        ...

    def check_unwritten(self) -> None:
        """Called on all targets right before the first `commit`, where `guard` was called.

        Raises:
            RestoreRefused: What the restore will write or delete was written to since the view that `guard` was given;
                says what and, where it is known, by whom. Nothing was changed.
        """
        ...

    def commit(self) -> None:
        """Make the restored state live, at once where the target can.

        Before it is final, the target counts what it holds of the rows that it was given.

        Raises:
            RestoreRefused: Nothing was changed.
            Partial: Some of it is live; says what, and how to go on.
        """
        ...

    def abort(self) -> None:
        """Leave the target as it was before the first `apply`; after a part of `commit`, clean up what is temporary."""
        ...

    @property
    def changed(self) -> bool:
        """Whether anything that others see was changed already; asked when a restore was interrupted."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Notes of `commit` for the user, each a sentence."""
        ...


@runtime_checkable
class KeepsGoing(Protocol):
    """A target that may leave objects out, where its scope says `keep_going`."""

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """What was left out, complete after `commit`."""
        ...


@runtime_checkable
class LeavesOutRows(Protocol):
    """A target that keeps going, and knows only in `commit` which of the rows that it took it has left out."""

    @property
    def rows_left_out(self) -> Mapping[str, int]:
        """How many, by collection; complete after `commit`."""
        ...


@runtime_checkable
class Examining(Protocol):
    """A target that has a check of its own for what was restored."""

    @property
    def examination(self) -> Examination:
        """What it found; complete after `commit`."""
        ...
