"""States of a database read by hand, and restores driven step by step as the flow drives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import JsonValue, SecretStr

from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres import PostgresSource
from blocks.sources.target import RestoreMode, RestoreScope, Target
from blocks.sources.view import Salvaging, Unread, View
from tests.postgres_server import PostgresServer


@dataclass(frozen=True)
class State:
    """What a view showed."""

    definition: dict[str, JsonValue]
    rows: dict[str, pa.Table]
    specs: dict[str, CollectionSpec]
    unread: tuple[Unread, ...] = ()
    warnings: tuple[str, ...] = ()

    def scope(self, names: Sequence[str] | None = None, **more: Any) -> RestoreScope:
        chosen = self.specs if names is None else names
        collections = tuple((self.specs[name], self.rows[name].num_rows) for name in chosen)
        fields = {
            "mode": RestoreMode.EXACT,
            "selection": Selection(tuple(names or ())),
            "size_bytes": 0,
            "plan": "books",
        }
        return RestoreScope(self.definition, collections, **(fields | more))


def source_of(server: PostgresServer, database: str, **fields: Any) -> PostgresSource:
    fields = {"part_size_bytes": 700, "lock_timeout_seconds": 2, "connect_timeout_seconds": 2} | fields
    dsn = SecretStr(server.dsn(database, **fields.pop("dsn", {})))
    return PostgresSource(dsn=dsn, pg_dump=str(server.programs.pg_dump), **fields)


def seen(view: View) -> State:
    """Read all that a view shows."""
    rows, specs = {}, {}
    for spec in view.collections():
        parts = [view.read(spec, bounds, None).rows for bounds in view.partition(spec)]
        specs[spec.name], rows[spec.name] = spec, pa.concat_tables(parts, promote_options="permissive")
    unread = tuple(view.unread) if isinstance(view, Salvaging) else ()
    return State(view.definition, rows, specs, unread, tuple(view.warnings))


def state_of(source: PostgresSource) -> State:
    with source.view() as view:
        return seen(view)


def nothing() -> None:
    """What nobody does meanwhile."""


@dataclass
class Restored:
    """A restore that came to its end."""

    target: Target
    emergency: State
    said: tuple[str, ...] = ()


def restore(
    source: PostgresSource,
    state: State,
    names: Sequence[str] | None = None,
    *,
    to: str | None = None,
    meanwhile: Callable[[], object] = nothing,
    removed: dict[str, pa.Table] | None = None,
    rows: dict[str, pa.Table] | None = None,
    **more: Any,
) -> Restored:
    """Restore in place, with a view of before; `meanwhile` happens between that view and the first write."""
    target = source.target(state.scope(names, **more), to)
    try:
        said = target.preflight()
        target.hold()
        with source.salvage() as view:
            target.guard(view)
            emergency = seen(view)
        if emergency.unread:
            said += target.keep_aside(emergency.unread)
        meanwhile()
        write(target, state, names, removed, rows)
    finally:
        target.abort()
    return Restored(target, emergency, said)


def write(
    target: Target,
    state: State,
    names: Sequence[str] | None = None,
    removed: dict[str, pa.Table] | None = None,
    rows: dict[str, pa.Table] | None = None,
) -> None:
    """Give a target its rows, and commit."""
    target.begin()
    for name in names if names is not None else state.specs:
        given = (rows or {}).get(name, state.rows[name])
        if given.num_rows:
            target.apply(state.specs[name], given)
    for name, keys in (removed or {}).items():
        target.remove(state.specs[name], keys)
    target.check_unwritten()
    target.commit()
