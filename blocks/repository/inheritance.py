"""What a manifest leaves out because it is as in the base, so that it does not grow with the size of the state.

In memory a manifest names all collections and parts. Stored, one that has a base leaves out the parts for which nothing
was stored, and the definitions that did not change.
"""

from __future__ import annotations

from pydantic import JsonValue

from blocks.records import (
    BackupMetadata,
    Collection,
    CollectionChange,
    Part,
    PartChange,
    SourceState,
)


def narrowed(backup: BackupMetadata, base: BackupMetadata) -> BackupMetadata:
    """Leave out what is as in the base; the backup as it is where the base has other collections or parts.

    Args:
        backup: A manifest that names everything.
        base: The manifest of its base, which names everything.
    """
    before = {collection.name: collection for collection in base.collections}
    if [c.name for c in backup.collections] != list(before) or not all(
        _same_parts(c, before[c.name]) for c in backup.collections
    ):
        return backup
    whole, changed = [], []
    for collection in backup.collections:
        if _frame(collection) != _frame(before[collection.name]):
            whole.append(collection)
        elif parts := _changes(collection):
            changed.append(CollectionChange(name=collection.name, parts=parts))
    known = {source.name: source.definition for source in base.sources}
    return backup.model_copy(
        update={
            "inherits": True,
            "collections": tuple(whole),
            "changed": tuple(changed),
            "sources": tuple(_without_known(source, known) for source in backup.sources),
        }
    )


def widened(stored: BackupMetadata, base: BackupMetadata) -> BackupMetadata:
    """Undo `narrowed`.

    Raises:
        ValueError: It names a collection, a part or a source that the base does not have.
    """
    known = {source.name: source.definition for source in base.sources}
    sources = tuple(_with_known(source, known) for source in stored.sources)
    own = {collection.name: collection for collection in stored.collections}
    changes = {change.name: change for change in stored.changed}
    names = [collection.name for collection in base.collections]
    if extra := (own.keys() | changes.keys()).difference(names):
        raise ValueError(f"its base has no collection {min(extra)}")
    collections = tuple(
        own[before.name] if before.name in own else _laid_over(before, changes.get(before.name))
        for before in base.collections
    )
    return stored.model_copy(update={"inherits": False, "changed": (), "collections": collections, "sources": sources})


def _same_parts(one: Collection, other: Collection) -> bool:
    """Whether both have the same parts, with the same rows where nothing was stored."""
    return [p.number for p in one.parts] == [p.number for p in other.parts] and all(
        now.bounds == before.bounds and (now.segment is not None or now.rows == before.rows)
        for now, before in zip(one.parts, other.parts, strict=True)
    )


def _frame(collection: Collection) -> Collection:
    return collection.model_copy(update={"parts": ()})


def _changes(collection: Collection) -> tuple[PartChange, ...]:
    return tuple(
        PartChange(number=part.number, rows=part.rows, segment=part.segment)
        for part in collection.parts
        if part.segment is not None
    )


def _laid_over(before: Collection, change: CollectionChange | None) -> Collection:
    if change is None and all(part.segment is None for part in before.parts):
        return before
    changes = {part.number: part for part in change.parts} if change else {}
    if extra := changes.keys() - {part.number for part in before.parts}:
        raise ValueError(f"{before.name} has no part {min(extra)} in its base")
    parts = tuple(_part(part, changes.get(part.number)) for part in before.parts)
    return before.model_copy(update={"parts": parts})


def _part(before: Part, change: PartChange | None) -> Part:
    if change is not None:
        return before.model_copy(update={"rows": change.rows, "segment": change.segment})
    return before.model_copy(update={"segment": None}) if before.segment is not None else before


def _without_known(source: SourceState, known: dict[str, dict[str, JsonValue]]) -> SourceState:
    if not source.definition or source.definition != known.get(source.name):
        return source
    return source.model_copy(update={"definition": {}, "same_definition": True})


def _with_known(source: SourceState, known: dict[str, dict[str, JsonValue]]) -> SourceState:
    if not source.same_definition:
        return source
    if source.name not in known:
        raise ValueError(f"its base has no source {source.name}")
    return source.model_copy(update={"definition": known[source.name], "same_definition": False})
