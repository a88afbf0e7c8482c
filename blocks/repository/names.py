"""The names of all objects in a repository, made here and nowhere else.

lastgood.json                              settings: format version, repository id, key slots
backups/<plan>/<backup id>/manifest        the commit point
backups/<plan>/<backup id>/NNNNN.pack      sealed segments and indexes, one after another
backups/<plan>/<backup id>/NNNNN.seg       in version 1 a sealed segment, and NNNNN.idx, its index
backups/<plan>/<backup id>/SHA256SUMS      digests of the sealed bytes
verifications/<plan>/<backup id>/<time>    results of verifications
expired/<plan>/<time>                      what a retention run removed
locks/<plan>/<fencing token>               leases; the highest token counts
probes/<random>                            made and removed again, to see what the storage can do
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected

CONFIG = "lastgood.json"
MANIFEST = "manifest"
CHECKSUMS = "SHA256SUMS"
PROBES = "probes/"

_PLAN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_BACKUP = re.compile(r"(?:FUL|DIF|INC|SNA|EME)_[0-9]{8}_[0-9]{6}_[0-9a-f]{4}")
_OBJECT = re.compile(r"[0-9]{5}\.(?:pack|seg|idx)")
_TOKEN = re.compile(r"[0-9]{12}")
_MOMENT = "%Y%m%dT%H%M%S.%fZ"


def probe() -> str:
    """Name an object that is made only to see whether it can be made twice, or what time it gets; it may be left."""
    return f"{PROBES}{secrets.token_hex(8)}"


def checked_plan(plan: str) -> str:
    """Return the name of a plan that is fit to be part of a path.

    Raises:
        ConfigurationError: It is not.
    """
    if not _PLAN.fullmatch(plan):
        raise ConfigurationError(
            f"{plan!r} is not a name for a plan",
            hint="Use 1 to 63 lower case letters, digits, dots, dashes and underscores; begin with a letter or digit.",
        )
    return plan


def is_backup_id(text: str) -> bool:
    """Return whether a text has the form of a backup id."""
    return bool(_BACKUP.fullmatch(text))


def id_moment(backup_id: str) -> str:
    """Return the time inside an id as text that sorts by time."""
    return backup_id[4:19]


def backups(plan: str) -> str:
    """Name the folder of a plan's backups."""
    return f"backups/{checked_plan(plan)}/"


def backup(plan: str, backup_id: str) -> str:
    """Name the folder of a backup.

    Raises:
        BackupNotFound: The id has not the form of one.
    """
    if not is_backup_id(backup_id):
        raise BackupNotFound(
            f"{backup_id!r} is not the id of a backup of plan {plan}",
            hint=f"Ids look like INC_20260102_030405_9f3a; `lastgood list {plan}` shows them.",
        )
    return f"{backups(plan)}{backup_id}/"


def manifest(plan: str, backup_id: str) -> str:
    """Name the manifest of a backup."""
    return backup(plan, backup_id) + MANIFEST


def checksums(plan: str, backup_id: str) -> str:
    """Name the list of digests of a backup."""
    return backup(plan, backup_id) + CHECKSUMS


def stored(plan: str, backup_id: str, name: str) -> str:
    """Name an object of a backup that holds segments or indexes.

    Raises:
        CorruptionDetected: The name, which may come from a manifest, is not one of ours: it could lead elsewhere.
    """
    if not _OBJECT.fullmatch(name):
        raise CorruptionDetected(
            f"backup {backup_id} of plan {plan} names an object {name!r}, which holds no segment or index",
            hint="The manifest was not made by lastgood. Do not trust this backup.",
        )
    return backup(plan, backup_id) + name


def pack(number: int) -> str:
    """Name a pack within its backup's folder."""
    return f"{number:05d}.pack"


def verifications(plan: str, backup_id: str | None = None) -> str:
    """Name the folder of the verifications of a plan, or of one backup."""
    if backup_id is None:
        return f"verifications/{checked_plan(plan)}/"
    backup(plan, backup_id)
    return f"verifications/{plan}/{backup_id}/"


def expired(plan: str) -> str:
    """Name the folder of a plan's expiry records."""
    return f"expired/{checked_plan(plan)}/"


def locks(plan: str) -> str:
    """Name the folder of a plan's leases."""
    return f"locks/{checked_plan(plan)}/"


def lock(plan: str, token: int) -> str:
    """Name the lease with a fencing token."""
    return f"{locks(plan)}{token:012d}"


def token_of(name: str) -> int | None:
    """Return the fencing token of a lease's name; None where it is something else."""
    last = name.rpartition("/")[2]
    return int(last) if _TOKEN.fullmatch(last) else None


def moment(time: datetime) -> str:
    """Name a time in UTC with microseconds, so that names sort by time."""
    return time.astimezone(UTC).strftime(_MOMENT)


def moment_of(name: str) -> datetime | None:
    """Return the time at the end of the name of a verification or an expiry; None where it is something else."""
    try:
        return datetime.strptime(name.rpartition("/")[2], _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return None
