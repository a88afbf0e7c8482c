"""The emergency backup that an in-place restore takes first, so that it can be undone."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.errors import SourceUnavailable
from blocks.hooks import Hooks
from blocks.manifest import BackupType
from blocks.plan import BackupPlan
from flows.backup import make_backup
from flows.targets import Rescue

WAIT_SECONDS = 60.0
"""How long a restore waits for a running backup of the same plan to end."""


def rescue_live_state(plan: BackupPlan, sources: Sequence[str]) -> Rescue:
    """Back up the live state of the sources about to be overwritten, as far as it can still be read.

    On the worst day there is nothing left to back up; then the restore goes on, and says so.
    """
    notes, readable = [], {}
    for name in sources:
        try:
            with plan.sources[name].view() as view:
                view.collections()
            readable[name] = plan.sources[name]
        except SourceUnavailable as exc:
            notes.append(f"{name}: no emergency backup of the live state, it cannot be read ({exc.message})")
    if not readable:
        return Rescue(None, notes)
    # all of what is overwritten, not only what the plan calls critical: an undo that brings back half is none
    # no hooks: one that lets paused writers go on would do so just before their state is overwritten
    narrowed = plan.model_copy(update={"sources": readable, "critical": [], "hooks": Hooks()})
    try:
        made = make_backup(narrowed, BackupType.EMERGENCY, ["before-restore"], WAIT_SECONDS)
    except SourceUnavailable as exc:
        return Rescue(None, [*notes, f"no emergency backup of the live state, it cannot be read ({exc.message})"])
    return Rescue(made.backup_id, [*notes, *(w for s in made.sources for w in s.warnings)])
