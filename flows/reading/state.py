"""The state that a backup holds, read into memory; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from blocks.plan.plan import BackupPlan
from blocks.records import Collection
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain
from flows.pipeline.executor import retried

if TYPE_CHECKING:
    from blocks.sources.mapping import MappingSource

GIVEN = "state"
"""Name of the source of given state where the plan has not one Python object that it could stand in for."""


def plan_of_given(plan: BackupPlan, state: Mapping[str, object]) -> BackupPlan:
    """Return a copy of a plan whose only source is some state that the caller gives.

    It stands in for the plan's Python object, if the plan has one and no more of them; so it can be restored to that.

    Args:
        plan: The plan, read and resolved.
        state: Values by key, of types that a mapping source keeps.
    """
    from blocks.sources.mapping import MappingSource  # most plans have none

    objects = {name: source for name, source in plan.sources.items() if isinstance(source, MappingSource)}
    if len(objects) == 1:
        ((name, source),) = objects.items()
    else:
        name, source = GIVEN, _given_source()
    # what is critical of live state says nothing of this
    return plan.model_copy(update={"sources": {name: source.holding(dict(state))}, "critical": []})


def read_state(plan: BackupPlan, backup: str = "latest") -> dict[str, object]:
    """Return the state that a backup holds, all of it in memory; a reader's credential is needed.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, or `latest`.

    Returns:
        For each collection by its full name (`ledger/orders`) a pyarrow table of its rows, with the columns of the
        source, or for a Python object a dict of its values by key. Of a backup that holds one Python object and nothing
        else, that dict itself.

    Raises:
        BackupNotFound: There is no such backup.
        CorruptionDetected: What was stored is missing or damaged.
        RestoreRefused: A value names a class that the plan does not allow.
    """
    repository = plan.repository.unlock(plan.encryption)
    chain = Chain(repository, repository.find(plan.name, backup))
    chain.open_data({})
    kinds = {source.name: source.type for source in chain.target.sources}
    found: dict[str, object] = {}
    for collection in chain.target.collections:
        rows = _rows(chain, collection)
        mapping = kinds[collection.source] == "mapping"
        found[collection.name] = _mapping(plan, collection.source).read_values(rows) if mapping else rows
    (first, *others) = found.values() or [{}]
    return first if isinstance(first, dict) and not others else found


def _rows(chain: Chain, collection: Collection) -> pa.Table:
    chosen = Selection(collections=(collection.name,))
    tables = [retried(part.load) for part in chain.parts(chosen)]
    filled = [table for table in tables if table.num_columns]
    if filled:
        return pa.concat_tables(filled, promote_options="permissive")
    return pa.table({name: pa.array([], pa.large_string()) for name, _ in collection.columns})


def _mapping(plan: BackupPlan, name: str) -> MappingSource:
    from blocks.sources.mapping import MappingSource

    source = plan.sources.get(name)
    return source if isinstance(source, MappingSource) else _given_source()


def _given_source() -> MappingSource:
    from blocks.sources.mapping import MappingSource

    return MappingSource(type="mapping", object=f"lastgood:{GIVEN}")
