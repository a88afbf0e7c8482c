"""Sources that were not there before the restore that is taken back: what it made goes, unless it was changed since."""

from __future__ import annotations

from contextlib import ExitStack

from blocks.errors import BackupNotFound, RestoreRefused, SourceUnavailable, UnsupportedState
from blocks.plan.plan import BackupPlan
from blocks.repository.block import Repository
from blocks.sources.view import View, read_whole
from flows.pipeline.chain import Chain
from flows.restoring.change_list import ChangeList
from flows.restoring.origin import Origin
from flows.restoring.records import record_changes
from flows.restoring.request import RestoreRequest


def put_away_absent(plan: BackupPlan, repository: Repository, origin: Origin) -> list[str]:
    """Move aside what a restore put where nothing was before; return sentences that say what became of it.

    Args:
        plan: The plan, with its places settled.
        repository: Its unlocked repository.
        origin: The restore that was taken back.
    """
    return [sentence for name in origin.absent for sentence in _put_away(plan, repository, origin, name)]


def _put_away(plan: BackupPlan, repository: Repository, origin: Origin, name: str) -> list[str]:
    if (source := plan.sources.get(name)) is None:
        return []
    try:
        if (why := _changed(plan, repository, origin, name)) is None:
            where = source.put_away()
            if where is not None:
                return [
                    f"{name}: nothing was there before the restore; what it made is moved to {where}, which can be"
                    f" removed: backup {origin.restored} holds the same."
                ]
            why = "lastgood does not remove a source of this kind"
    except (RestoreRefused, UnsupportedState, BackupNotFound) as exc:
        why = exc.message
    except SourceUnavailable:  # nothing is there
        return []
    return [f"{name}: nothing was there before the restore, and what is there now stays: {why}."]


def _changed(plan: BackupPlan, repository: Repository, origin: Origin, name: str) -> str | None:
    """Say what is there beside what was restored; None where it is exactly that.

    Raises:
        SourceUnavailable: Nothing is there that can be read.
        BackupNotFound: What was restored is gone, so nobody knows.
    """
    # what the plan leaves out would be moved as well
    whole = plan.model_copy(update={"sources": {**plan.sources, name: plan.sources[name].unnarrowed()}})
    with ExitStack() as opened:
        view = opened.enter_context(whole.sources[name].view())
        chain = Chain(repository, repository.find(plan.name, origin.restored))
        chain.open_data(whole.sources)
        changes = ChangeList(whole, chain, RestoreRequest(selection=origin.selection))
        if name not in changes.sources:
            return "it was not restored"
        found = list(record_changes(changes, name, view, {}))
        if any(len(one.added) + len(one.changed) + len(one.deleted) + one.replaced for one in found):
            return "it was changed since"
        restored = {collection.name for collection in changes.sources[name].collections}
        others = [spec.name for spec in view.collections() if f"{name}/{spec.name}" not in restored]
        if others or _count(view) != sum(one.rows for one in found):
            return "it holds more than was restored"
    definition = chain.target.source(name).definition
    if origin.selection.everything:
        with whole.sources[name].as_backed_up(definition).view() as view:
            return None if view.definition == definition else "its definition was changed since"
    return None


def _count(view: View) -> int:
    parts = [(spec, bounds) for spec in view.collections() for bounds in view.partition(spec)]
    return sum(read_whole(view, spec, bounds).rows.num_rows for spec, bounds in parts)
