"""The names under which monitoring knows backups and retention, what they mean, and buckets that fit."""

from __future__ import annotations

import re

CREATED, OPERATIONS, CLEANED = "backup.operations.created", "backup.operations", "backup.retention.cleaned"
"""What the names of counters and of a duration begin with."""
SIZE, REMOVED = "backup.operations.size_bytes_total", "backup.retention.removed_count"

COUNTERS: dict[str, str] = {
    f"{CREATED}_total": "Backups that were begun.",
    f"{CREATED}_success": "Backups that were made and committed.",
    f"{CREATED}_failed": "Backups that failed.",
    f"{CLEANED}_total": "Retention runs that were begun.",
    f"{CLEANED}_success": "Retention runs that did all they should.",
    f"{CLEANED}_failed": "Retention runs that failed, or removed only a part.",
}
"""Counters and what they count."""

HISTOGRAMS: dict[str, str] = {
    f"{OPERATIONS}.duration_seconds": "How long backups took that ended, well or not.",
    SIZE: "What each backup that was made takes in the repository.",
    REMOVED: "How many backups a retention run removed, of those that removed any.",
}
"""Histograms and what they observe."""

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600)
"""Upper bounds of buckets of durations: 0.1 s to 6 h."""
BYTES = (*(digit * 10**power for power in range(3, 13) for digit in (1, 3)), 10**13)
"""Upper bounds of buckets of sizes: 1 KB to 10 TB."""
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Upper bounds of buckets of numbers of backups: 1 to 10,000."""

_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_OTHER = re.compile(r"[^A-Za-z0-9_:]")


def buckets_of(name: str) -> tuple[float, ...]:
    """Return the upper bounds of the buckets of a histogram, ascending, by what its name says that it observes."""
    if "seconds" in name:
        return SECONDS
    return BYTES if "bytes" in name else COUNTS


def checked_prefix(prefix: str) -> str:
    """Return a prefix of names without the dots and underscores that it may end with.

    Raises:
        ValueError: It cannot stand before a name of a metric.
    """
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ValueError("write letters, digits, dots and underscores, such as `acme` or `acme.trading`")
    return prefix.rstrip("._")


def dotted(name: str, prefix: str = "") -> str:
    """Return a metric's name as StatsD, Datadog and OTLP have it: `acme.backup.operations.created_total`."""
    return f"{prefix}.{name}" if prefix else name


def underscored(name: str, prefix: str = "") -> str:
    """Return a metric's name as Prometheus has it: `acme_backup_operations_created_total`."""
    return _OTHER.sub("_", f"{prefix}_{name}" if prefix else name)
