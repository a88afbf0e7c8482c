"""State objects where the mapping source can import them, and the way from a view straight to a target."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa

from blocks.rows.selection import Selection
from blocks.sources.mapping import MappingSource
from blocks.sources.mapping.view import STATE
from blocks.sources.target import RestoreMode, RestoreScope
from tests.blocks.sources.mapping import shop as mapping_shop

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
FALSY: dict[str, object] = {"none": None, "zero": 0, "no": False, "empty": "", "list": [], "dict": {}, "set": set()}


class Shelf:
    """Puts objects where the source can import them."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def put(self, thing: object) -> str:
        self.names.append(f"made_{uuid.uuid4().hex}")
        setattr(mapping_shop, self.names[-1], thing)
        return f"{mapping_shop.__name__}:{self.names[-1]}"

    def source(self, thing: object, **fields: Any) -> MappingSource:
        return MappingSource(object=self.put(thing), **fields)


def read(source: MappingSource) -> pa.Table:
    with source.view() as view:
        return pa.concat_tables([view.read(STATE, bounds, None).rows for bounds in view.partition(STATE)])


def keys_of(source: MappingSource) -> list[str]:
    return sorted(read(source).column("key").to_pylist())


def definition(source: MappingSource) -> dict[str, Any]:
    with source.view() as view:
        for bounds in view.partition(STATE):
            view.read(STATE, bounds, None)
        return view.definition


def restore(
    rows: pa.Table,
    source: MappingSource,
    mode: RestoreMode = EXACT,
    keys: tuple[str, ...] = (),
    to: str | None = None,
    guarded: bool = False,
    **fields: Any,
) -> list[str]:
    scope = RestoreScope(
        {"patterns": source.patterns, "types": [], **fields},
        ((STATE, rows.num_rows),),
        mode,
        Selection(keys=keys),
        rows.nbytes,
    )
    target = source.target(scope, to)
    try:
        target.preflight()
        if guarded:
            with source.salvage() as view:
                target.guard(view)
                for bounds in view.partition(STATE):
                    view.read(STATE, bounds, None)
        target.apply(STATE, scope.selection_of("state").rows(rows, STATE.label))
        target.commit()
    finally:
        target.abort()
    return list(target.notes)
