"""What a source offers to a proof beside its rows: checks of a restored store by its own means, and its definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from blocks.verification import Axis, CheckOutcome


def counted(number: int, what: str = "row") -> str:
    """Write a number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class StoreFinding:
    """What a check of a restored store found: a sentence with counts and names, and never with values of rows.

    Attributes:
        axis: What it speaks of.
        sentence: In words.
        outcome: BAD; UNPROVEN where a check could not be made; GOOD where it is only worth a warning.
    """

    axis: Axis
    sentence: str
    outcome: CheckOutcome = CheckOutcome.BAD


@runtime_checkable
class ChecksRestored(Protocol):
    """A source that can check a store by that store's own means."""

    def check_restored(self, definition: Mapping[str, JsonValue]) -> Sequence[StoreFinding]:
        """Check the store at the source's place, into which a backup was restored as a whole; it is left as it is.

        Args:
            definition: The source's definition from the manifest.

        Raises:
            SourceUnavailable: It cannot be reached or read.
        """
        ...


@dataclass(frozen=True)
class DefinedObject:
    """An object that is defined in a store: a table, an index, a function.

    Attributes:
        kind: What it is, in the words that `NotRebuilt` has for it ("index").
        name: Its full name; no other of its kind has it.
        text: What defines it; two with the same text are the same.
        parts: What it consists of by kind and name ("column price"), with the text of each; may be empty.
        guards: Whether its loss goes unnoticed until something is slow or wrong: an index, a constraint, a trigger.
        moves: Whether it changes with use (a position of a sequence), so that a change says nothing.
    """

    kind: str
    name: str
    text: str
    parts: Mapping[str, str] = field(default_factory=dict)
    guards: bool = False
    moves: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def same_as(self, other: DefinedObject) -> bool:
        """Whether both are defined the same."""
        return self.text == other.text


@runtime_checkable
class DefinesObjects(Protocol):
    """A source whose definition in a manifest says which objects there are."""

    def defined_objects(self, definition: Mapping[str, JsonValue]) -> Sequence[DefinedObject]:
        """Return the objects that a definition makes at a place to which this source restores.

        Args:
            definition: The source's definition, from a manifest or a view; entries of it may be left out.
        """
        ...
