"""How runs of a plan ended, also those that left no backup: the journal has them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import BaseModel

from blocks.plan.plan import BackupPlan
from flows.reporting.journal import COMPLETED, place_key
from flows.reporting.journal_files import journal_folder
from flows.reporting.journal_reader import JournalReader
from flows.reporting.lifecycle import Verb
from flows.reporting.plan_totals import PlanTotals

logger = logging.getLogger(__name__)

KEPT_IN_MIND = timedelta(days=7)
"""A run that failed longer ago, and was not tried again, is nobody's concern now."""


class Attempts(NamedTuple):
    """How many backups of a type were begun and have ended, and how many of these runs did all that they should."""

    ended: int = 0
    succeeded: int = 0


class FailedRun(BaseModel):
    """A backup run that failed, and no run for a backup of that type succeeded since.

    Attributes:
        type: The type that was asked for.
        failed_at: When it ended, or was found to be gone.
    """

    type: str
    failed_at: datetime


def backup_attempts(plan: BackupPlan, repository_id: str) -> Mapping[str, Attempts]:
    """Return by type, as it was asked for, how backups ended, since the journal of this machine began.

    Where it cannot be read, that is a warning, and nothing is known.

    Args:
        plan: The plan, read and resolved.
        repository_id: Id of its repository: what another one at the same place had is not counted.
    """
    found: dict[str, Attempts] = {}
    for name, count in _totals(plan, repository_id).counts.items():
        match name:
            case ("ended", Verb.BACKUP, kind, outcome):
                so_far = found.get(kind, Attempts())
                good = count if outcome == COMPLETED else 0
                found[kind] = Attempts(so_far.ended + count, so_far.succeeded + good)
    return found


def last_failed(plan: BackupPlan, repository_id: str, now: datetime) -> FailedRun | None:
    """Return the newest backup run that failed in the last days, where none of its type succeeded since.

    Args:
        plan: The plan, read and resolved.
        repository_id: Id of its repository.
        now: The moment that days are counted from, aware.
    """
    latest = _totals(plan, repository_id).latest
    failed = []
    for name, moment in latest.items():
        match name:
            case ("failure", Verb.BACKUP, kind) if moment > latest.get(("success", Verb.BACKUP, kind), 0.0):
                failed.append(FailedRun(type=kind, failed_at=datetime.fromtimestamp(moment, UTC)))
    newest = max(failed, key=lambda one: one.failed_at, default=None)
    return newest if newest is not None and now - newest.failed_at < KEPT_IN_MIND else None


def _totals(plan: BackupPlan, repository_id: str) -> PlanTotals:
    try:
        totals = JournalReader(journal_folder()).read()
    except (OSError, ValueError, RuntimeError) as exc:  # RuntimeError: there is no home
        logger.warning("which runs failed is not known: the journal cannot be read: %s", exc)
        return PlanTotals()
    return totals.of(place_key(plan), repository_id, plan.name)
