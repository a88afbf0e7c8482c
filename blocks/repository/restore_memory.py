"""What this machine remembers of restores in place, so that `undo` takes back the right one, or says that it cannot.

A restore that changed nothing has nothing to be taken back; one without an emergency backup cannot be.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from blocks.host.state_folder import state_folder
from blocks.repository import names

_WITHOUT = "without:"

logger = logging.getLogger(__name__)


class RestoreMemory:
    """Remembers restores in `$XDG_STATE_HOME/lastgood/<repository id>/<plan>.unchanged`, one a line.

    A line is the id of a pre-restore backup, or the time of a restore without one.

    Where that cannot be written, an undo takes back a restore that did nothing, which loses nothing either.

    Args:
        repository_id: Id of the repository.
        plan: Name of the plan, as in object names.
    """

    def __init__(self, repository_id: str, plan: str) -> None:
        self._repository_id, self._plan = repository_id, plan

    def changed_nothing(self) -> frozenset[str]:
        """Return the ids of pre-restore backups whose restore changed nothing."""
        try:
            return frozenset(self._path().read_text(encoding="utf-8", errors="replace").split())
        except (OSError, RuntimeError):  # RuntimeError: there is no home
            return frozenset()

    def without_backup(self) -> datetime | None:
        """Return when live state was last overwritten without a backup of it."""
        lines = [line.removeprefix(_WITHOUT) for line in self.changed_nothing() if line.startswith(_WITHOUT)]
        return max((moment for line in lines if (moment := _moment(line)) is not None), default=None)

    def remember_without_backup(self) -> None:
        """Remember that live state is overwritten now without a backup of it; a failure is logged only."""
        self.remember(f"{_WITHOUT}{datetime.now(UTC).isoformat()}")

    def remember(self, backup_id: str) -> None:
        """Remember the pre-restore backup of a restore that ended before its first change; a failure is logged only."""
        try:
            path = self._path()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{backup_id}\n")  # the line before may have been cut off
        except (OSError, RuntimeError) as exc:
            logger.warning("how a restore of plan %s ended cannot be remembered: %s", self._plan, exc)

    def _path(self) -> Path:
        return state_folder() / self._repository_id / f"{names.checked_plan(self._plan)}.unchanged"


def _moment(text: str) -> datetime | None:
    """Read a moment; None where the line was cut off, by a full disk for one."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else None
    return None
