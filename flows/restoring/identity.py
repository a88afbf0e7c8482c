"""A restore in place writes to the source that its backup is of, unless a person said that it may be another one.

A copied plan with another path would put rows of one environment into the other. A place that is empty may be another
one: that is what a restore after a loss finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blocks.errors import RestoreRefused
from blocks.sources.identity import another
from flows.pipeline.doubts import accepted, belongs
from flows.restoring.change_list import ChangeList


def check_identity(changes: ChangeList, in_place: Iterable[str], occupied: Callable[[str], str | None]) -> list[str]:
    """Compare live places with those of the backup.

    Args:
        changes: What the restore writes and deletes.
        in_place: Names of the sources that are restored to where they live.
        occupied: Says what is at the place of a source; None where that is empty.

    Returns:
        What to say of places that are written although they are others, a sentence each.

    Raises:
        RestoreRefused: One is another, is not empty, and nobody said that it may be written.
    """
    backup, notes = changes.chain.target, []
    for name in in_place:
        if not backup.source(name).identity:
            continue
        now = changes.plan.sources[name].identity()
        if (sentence := another(backup, name, now)) is None:
            continue
        if not changes.wanted.adopt and (found := occupied(name)) is not None:
            if belongs(backup, name, now, accepted(changes.chain.repository, changes.plan.name)):
                continue
            raise RestoreRefused(
                f"{sentence}. There is {found}, which the restore would overwrite",
                hint="Restore to another place with --to. If the plan's state lives here now, add --adopt.",
            )
        notes.append(
            f"{sentence}. The next backup is a full one. If the plan's state stays here, say so once by `lastgood "
            "retention --adopt`"
        )
    return notes
