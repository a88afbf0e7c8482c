"""Whether each key that a person asked for is in the backup, found out before anything is written."""

from __future__ import annotations

from blocks.errors import BackupNotFound, CorruptionDetected
from blocks.plan.plan import BackupPlan
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain, RestorePart


def _covers(plan: BackupPlan, part: RestorePart) -> bool:
    source = plan.sources.get(part.collection.source)
    return source is not None and source.covers(part.spec)


def _check_lookups(plan: BackupPlan, chain: Chain, selection: Selection, missing: list[str]) -> None:
    """Make sure, by reading all rows, that what was looked up and not found is not there.

    Raises:
        CorruptionDetected: It is there; what says in which segments a record can be is wrong.
    """
    for part in chain.parts(Selection(selection.collections, tuple(missing)), plan.sources):
        if part.wanted is None or not _covers(plan, part):
            continue
        rows = part.whole().load()
        for key in missing:
            if part.matches(key, rows):
                raise CorruptionDetected(
                    f"{part} holds a record that its range of keys or its filter denies: {key}",
                    hint="`lastgood verify` says which; restore an earlier backup.",
                )


def check_keys(plan: BackupPlan, chain: Chain, selection: Selection) -> None:
    """Check that each key glob matches a record of the selected collections that the plan covers.

    Raises:
        BackupNotFound: One matches nothing; it is named.
    """
    missing = list(selection.keys)
    for glob in selection.collections if selection.keys else ():
        if not any(Selection((glob,)).has_collection(c.name) for c in chain.target.collections):
            return  # what is wrong with the collections is said where they are looked up
    parts = chain.parts(Selection(selection.collections, selection.keys), plan.sources) if missing else iter(())
    for part in parts:
        if not missing:
            return
        if _covers(plan, part):
            rows = part.load()
            missing = [key for key in missing if not part.matches(key, rows)]
    if missing:
        _check_lookups(plan, chain, selection, missing)
        where = f" in {', '.join(selection.collections)}" if selection.collections else ""
        raise BackupNotFound(
            f"backup {chain.target.backup_id} holds no record whose key matches {missing[0]}{where}",
            hint="Nothing was written. Check how the key is spelled, and whether the plan leaves it out now.",
        )
