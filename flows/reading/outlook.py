"""What retention will remove, by the plan's own policy, of the backups that are there now. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from blocks.plan.retention import Decision, RetentionPolicy
from flows.reading.status import Seen
from flows.reporting.report_facts import Leaving, MarkedBackup, Outlook

TIMES = (
    ("at the next run", timedelta(0)),
    ("within 7 days", timedelta(days=7)),
    ("within 30 days", timedelta(days=30)),
)


def outlook(policy: RetentionPolicy, seen: Seen, marked: Mapping[str, MarkedBackup], now: datetime) -> Outlook:
    """Decide as retention would, now and later.

    What is made meanwhile takes over from what stays now because it is the newest: so more may go than is told.

    Args:
        policy: Of the plan.
        seen: The backups, and what is known of them.
        marked: How they are shown, by id.
        now: The moment to count from, aware.
    """
    known = {one: verdict if verdict.status is not None else None for one, verdict in seen.verdicts.items()}
    leaving: list[Leaving] = []
    first: dict[str, tuple[MarkedBackup, str, str]] = {}
    decided: Sequence[Decision] = ()
    for when, later in TIMES:
        decided = policy.decide(seen.backups, now + later, known, seen.settled)
        going = [one for one in decided if one.remove]
        counts = Counter(one.backup.backup_type for one in going)
        leaving.append(Leaving(when, counts, sum(one.backup.size_stored for one in going)))
        then = "then " if later else ""
        for one in going:
            first.setdefault(one.backup.backup_id, (marked[one.backup.backup_id], when, then + one.reason))
    horizon = now + TIMES[-1][1]
    held = [
        (marked[one.backup.backup_id], one.reason)
        for one in decided
        if not one.remove and horizon - one.backup.timestamp >= policy.age_limit(one.backup.backup_type)
    ]
    return Outlook(leaving, list(first.values()), held)
