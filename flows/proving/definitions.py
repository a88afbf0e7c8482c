"""Definitions of two moments or places compared object by object: what is gone, what is new, what is otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pydantic import JsonValue

from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.sources.proving import DefinedObject, DefinesObjects

MOST_NAMED = 20
"""How many differences of a source are named one by one."""


class Change(IntEnum):
    """How an object differs, the gravest first."""

    GONE = 0
    OTHER = 1
    NEW = 2


WORDS = {Change.GONE: "is gone", Change.OTHER: "is otherwise", Change.NEW: "is new"}


@dataclass(frozen=True)
class Difference:
    """An object that differs.

    Attributes:
        thing: The object, as it was before; a new one as it is.
        change: How.
        parts: Which of its parts differ, in words.
        weakens: Whether nothing else would show it soon: an index, a constraint or a trigger that is gone.
    """

    thing: DefinedObject
    change: Change
    parts: tuple[str, ...] = ()
    weakens: bool = False

    def __str__(self) -> str:
        parts = f" ({', '.join(self.parts)})" if self.parts else ""
        return f"{self.thing} {WORDS[self.change]}{parts}"


def differences(
    source: DefinesObjects, before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]
) -> list[Difference]:
    """Compare two definitions of a source; what weakens the state most comes first.

    Args:
        source: It reads the definitions.
        before: How it is to be.
        after: How it is.
    """
    # an object is in one entry alone, so those that are the same need not be taken apart
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    was, now = (
        {str(thing): thing for thing in source.defined_objects({n: some[n] for n in names if n in some})}
        for some in (before, after)
    )
    found = [_difference(was.get(name), now.get(name)) for name in dict.fromkeys([*was, *now])]
    return sorted((one for one in found if one is not None), key=lambda one: (not one.weakens, one.change))


def _difference(was: DefinedObject | None, now: DefinedObject | None) -> Difference | None:
    if was is None:
        return None if now is None else Difference(now, Change.NEW)
    if now is None:
        return Difference(was, Change.GONE, weakens=was.guards)
    if was.same_as(now):
        return None
    gone = [name for name in was.parts if name not in now.parts]
    new = [name for name in now.parts if name not in was.parts]
    other = [name for name in was.parts if name in now.parts and was.parts[name] != now.parts[name]]
    said = (*(f"{name} is gone" for name in gone), *(f"{n} is otherwise" for n in other), *(f"{n} is new" for n in new))
    return Difference(was, Change.OTHER, said, weakens=was.guards or any(n.startswith("constraint ") for n in gone))


def shown(found: Iterable[Difference]) -> list[str]:
    """Write differences as clauses, with how many more there are."""
    said = [str(one) for one in found]
    more = len(said) - MOST_NAMED
    return [*said[:MOST_NAMED], *([f"{more:,} more objects differ"] if more > 0 else [])]


def drift(plan: BackupPlan, repository: Repository, backup: BackupMetadata) -> list[str]:
    """Say how the definitions of a backup differ from those of the plan's backup before; nothing is restored for it.

    Args:
        plan: It names the sources, which read their definitions.
        repository: The unlocked repository.
        backup: The backup.

    Returns:
        Sentences, none where the backup before is not there any more or covers something else.
    """
    try:
        before = repository.manifest(backup.plan, backup.previous.backup_id) if backup.previous is not None else None
        return [] if before is None else list(_drift(plan, before, backup))
    except LastgoodError:  # what is wrong with another backup is found by its own verification
        return []


def _drift(plan: BackupPlan, before: BackupMetadata, backup: BackupMetadata) -> Iterator[str]:
    known = {state.name: state for state in before.sources}
    for state in backup.sources:
        source, was = plan.sources.get(state.name), known.get(state.name)
        if not isinstance(source, DefinesObjects) or was is None or was.type != state.type:
            continue
        if bool(was.definition.get("narrowed")) != bool(state.definition.get("narrowed")):
            continue
        found = [one for one in differences(source, was.definition, state.definition) if not one.thing.moves]
        yield from (f"{state.name}: since {before.backup_id}: {clause}." for clause in shown(found))
