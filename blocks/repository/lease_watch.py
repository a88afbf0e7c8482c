"""How long a lease that others hold may still be held, as far as one process can see; leases.py says why."""

from __future__ import annotations

from datetime import datetime, timedelta

from blocks.errors import RepositoryFull
from blocks.repository.leases import FoundLease, LeaseRecord, Leases


class LeaseWatch:
    """What one process has seen of the lease that counts, while it waits for it or asks once.

    Args:
        leases: Those of the plan.

    Attributes:
        incredible: Whether the lease that was seen last was written further in the future than it is long.
    """

    def __init__(self, leases: Leases) -> None:
        self.incredible = False
        self._leases = leases
        self._seen: FoundLease | None = None
        self._since = 0.0
        self._renewed = False
        self._asked: tuple[datetime, float] | None = None

    def remaining(self, found: FoundLease) -> float:
        """Return for how many seconds a lease may still be held; 0 where it may be taken.

        Raises:
            RepositoryUnavailable: The storage had to be asked for its time, and cannot be written.
        """
        if not found.record.open:
            return 0
        now, length = self._leases.clock.elapsed(), self._leases.length(found.record)
        if found != self._seen:
            self._renewed = self._seen is not None and self._seen.record.nonce == found.record.nonce
            self._seen, self._since = found, now
        watched = now - self._since
        age = watched if self._renewed else max(watched, self._age(found, length))
        return min(max(length - age, 0), length)

    def _age(self, found: FoundLease, length: float) -> float:
        """Return how long ago a lease was written, in seconds: by the storage's time wherever that could matter."""
        self.incredible = False
        age = (self._leases.clock.now() - found.modified_at).total_seconds()
        if 0 <= age < length:
            return age
        age = (self._storage_time() - found.modified_at).total_seconds()
        self.incredible = age < -length
        return age

    def _storage_time(self) -> datetime:
        if self._asked is None:
            self._asked = self._leases.storage_time(), self._leases.clock.elapsed()
        moment, then = self._asked
        return moment + timedelta(seconds=self._leases.clock.elapsed() - then)


def held_lease(leases: Leases) -> LeaseRecord | None:
    """Return the lease that may be held, for what removes: where the storage's time is not known, it is held."""
    found = leases.current()
    if found is None:
        return None
    try:
        remaining = LeaseWatch(leases).remaining(found)
    except RepositoryFull:
        return found.record
    return found.record if remaining > 0 else None
