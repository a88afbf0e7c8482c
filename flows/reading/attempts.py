"""How runs of a plan ended, also those that left no backup: the journal has them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from blocks.plan.plan import BackupPlan
from flows.reporting.journal import COMPLETED, place_key
from flows.reporting.journal_files import journal_folder
from flows.reporting.journal_reader import JournalReader
from flows.reporting.lifecycle import Verb

logger = logging.getLogger(__name__)


class Attempts(NamedTuple):
    """How many backups of a type were begun and have ended, and how many of these runs did all that they should."""

    ended: int
    succeeded: int


def backup_attempts(plan: BackupPlan, repository_id: str) -> Mapping[str, Attempts]:
    """Return by type, as it was asked for, how backups ended, since the journal of this machine began.

    Where it cannot be read, that is a warning, and nothing is known.

    Args:
        plan: The plan, read and resolved.
        repository_id: Id of its repository: what another one at the same place had is not counted.
    """
    try:
        totals = JournalReader(journal_folder()).read()
    except (OSError, ValueError, RuntimeError) as exc:  # RuntimeError: there is no home
        logger.warning("how many runs succeeded is not known: the journal cannot be read: %s", exc)
        return {}
    found: dict[str, Attempts] = {}
    for name, count in totals.of(place_key(plan), repository_id, plan.name).counts.items():
        match name:
            case ("ended", Verb.BACKUP, kind, outcome):
                so_far = found.get(kind, Attempts(0, 0))
                good = count if outcome == COMPLETED else 0
                found[kind] = Attempts(so_far.ended + count, so_far.succeeded + good)
    return found
