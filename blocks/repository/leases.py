"""The leases of a plan as stored objects: `locks/<plan>/<token>`, of which the highest token counts.

The object with the highest token is never deleted while it counts, so tokens never come back. Others are deleted with
the next lease, in a network when there are more than 32 of them.

No host's time of day decides who holds a plan: hosts differ by hours, and a clock that was wrong when a run died once
locked a plan for two years. What decides:

- A holder on this host whose process is gone holds nothing any more (`blocks/host/leftovers.py`).
- A lease is alive as long as its object is written anew within its length. Its age is the storage's time less the time
  at which the storage says that it was last written, so it is one clock with itself. The storage is asked for its time
  with an object that is made for that, and only where the clock of this host has the lease expired or written in the
  future; where that has it alive, it is waited for, at most for its length once more.
- Who has seen the lease change, or has watched it for its full length without a change, knows that by its own count of
  seconds, which no step of a clock moves (`lease_watch.py`).
- A lease that was written further in the future than it is long, by the storage's own time, is of no known age. It is
  watched for its length, also by a run that waits for nobody.

`expires_at` is the holder's wish in the holder's time. People read it, and versions of lastgood before this rule.

A holder loses its lease only by a higher token. A run that stood still (SIGSTOP, a laptop asleep) longer than its lease
is long writes the lease anew and then looks for a higher token before it commits. Who takes over a lease that was not
given back creates the higher token and then looks whether the lower one was written meanwhile. Each writes first and
looks afterwards, so at least one sees the other: the holder commits nothing then, or the other one gives way. What
remains is a run that stands still for half of its lease between that look and the manifest, which is the next thing it
writes. Then there may be two backups of one number, each of them whole, and `lastgood check` names them.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ConfigDict, Field, ValidationError

from blocks.errors import (
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
)
from blocks.host.leftovers import has_ended
from blocks.records import Record, UtcTime
from blocks.repository import names
from blocks.repository.stock import Listing
from blocks.storage.base import StorageTier

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024
_LOOKS, _LOOK_SECONDS = 20, 0.1
"""How often a listing is believed to be about to show what is there."""

KEPT = 32
"""Leases that lie in a storage in a network before old ones are deleted, which is a request."""


_DURATIONS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where the system has such a clock."""

DEFAULT_SECONDS = 300
"""How long a lease is that does not say it."""


class Clock:
    """The time of this host and of the storage, durations, and how to wait; tests bring their own."""

    def now(self) -> datetime:
        """Return the time of this host, aware, in UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Return seconds since some moment or other: the machine's sleep counts, a step of its time does not."""
        return time.clock_gettime(_DURATIONS)

    def of_storage(self, tier: StorageTier) -> datetime:
        """Return the time that the storage gives to an object that is made now.

        Args:
            tier: The storage.

        Raises:
            RepositoryUnavailable: It cannot be made.
        """
        name = names.probe()
        tier.put(name, b"")
        try:
            return next((made.modified_at for made in tier.list(names.PROBES) if made.name == name), self.now())
        finally:
            with suppress(LastgoodError):  # it is garbage then
                tier.remove([name])

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until `stop` is set (True) or the seconds have passed (False)."""
        return stop.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Let the seconds pass."""
        time.sleep(seconds)


class LeaseRecord(Record):
    """What a lease object says, as JSON, readable without keys; fields of later versions do not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    holder: str
    purpose: str
    backup_id: str | None
    acquired_at: UtcTime
    expires_at: UtcTime
    nonce: str
    released: bool
    lease_seconds: float | None = Field(default=None, ge=0, le=1e8)
    """How long it holds without being renewed; None where that is 300, which older readers understand."""

    @property
    def open(self) -> bool:
        """Whether it was not given back, and its holder is not known to have ended."""
        return not self.released and not has_ended(self.holder)


@dataclass(frozen=True)
class FoundLease:
    """A lease as it lies in the storage.

    Attributes:
        token: Its fencing token.
        record: What it says.
        modified_at: When it was last written, by the storage's time.
    """

    token: int
    record: LeaseRecord
    modified_at: datetime


class Leases:
    """The leases of one plan.

    Args:
        tier: The tier that holds the repository's objects.
        plan: Name of the plan, as in object names.
        seconds: How long a lease holds without being renewed.
        clock: Gives the time and waits; the machine's own by default.
        listing: Lists a folder as it is now; the tier's own by default.
    """

    def __init__(
        self, tier: StorageTier, plan: str, seconds: float, clock: Clock, listing: Listing | None = None
    ) -> None:
        self.plan = names.checked_plan(plan)
        self.seconds = seconds
        self.clock = clock
        self._tier, self._listing = tier, listing or tier.list
        self.kept = KEPT if tier.remote else 1
        """So many leases lie there before old ones are deleted."""

    def expiry(self) -> datetime:
        """Return when a lease taken or renewed now expires."""
        return self.clock.now() + timedelta(seconds=self.seconds)

    def length(self, record: LeaseRecord) -> float:
        """Return how long a lease holds without being renewed, in seconds; where it does not say it, at least 300."""
        return max(self.seconds, DEFAULT_SECONDS) if record.lease_seconds is None else record.lease_seconds

    def storage_time(self) -> datetime:
        """Return the storage's time.

        Raises:
            RepositoryUnavailable: The storage cannot be written, so it cannot be asked.
        """
        return self.clock.of_storage(self._tier)

    def tokens(self) -> list[int]:
        """Return all tokens that have an object, ascending."""
        return list(self.listed())

    def listed(self) -> dict[int, datetime]:
        """Return by token when its object was last written, by the storage's time; tokens ascend."""
        stored = self._listing(names.locks(self.plan))
        found = ((names.token_of(one.name), one.modified_at) for one in stored)
        return dict(sorted((token, moment) for token, moment in found if token is not None))

    def read(self, token: int) -> LeaseRecord | None:
        """Read a lease; None where it is gone. One that cannot be understood counts as held for its full length."""
        name = names.lock(self.plan, token)
        try:
            return self._open(name)
        except ObjectMissing:
            return None
        except (ValidationError, ObjectUnreadable, CorruptionDetected):
            changed = next((s.modified_at for s in self._tier.list(names.locks(self.plan)) if s.name == name), None)
            since = changed or self.clock.now()
            return LeaseRecord(
                holder="an unreadable lease", purpose="unknown", backup_id=None, acquired_at=since,
                expires_at=since + timedelta(seconds=self.seconds), nonce="", released=False,
                lease_seconds=self.seconds,
            )  # fmt: skip

    def damaged(self) -> list[str]:
        """Say that the lease that counts does not open, if it does not; it holds for its full length nevertheless."""
        for token in self.tokens()[-1:]:
            name = names.lock(self.plan, token)
            try:
                self._open(name)
            except ObjectMissing:
                continue
            except (ObjectUnreadable, CorruptionDetected) as exc:
                return [exc.message]
            except ValidationError as exc:
                return [f"{name} is no lease: {exc.error_count()} problems"]
        return []

    def _open(self, name: str) -> LeaseRecord:
        return LeaseRecord.model_validate_json(self._tier.get(name, limit=_MOST_BYTES))

    def write(self, token: int, record: LeaseRecord, exclusive: bool = False) -> None:
        """Write a lease; where no room is left, over the one that is there."""
        left_out = {"lease_seconds"} if record.lease_seconds is None else None
        name, data = names.lock(self.plan, token), record.model_dump_json(exclude=left_out).encode()
        try:
            self._tier.put(name, data, exclusive)
        except RepositoryFull:
            if exclusive:
                raise
            # torn, it counts as held for its full length, and that is what it says anyway
            self._tier.overwrite(name, data)

    def find(self, token: int) -> FoundLease | None:
        """Return the lease of a token; None where it is gone."""
        moment = self.listed().get(token)
        record = self.read(token) if moment is not None else None
        return FoundLease(token, record, moment) if record is not None and moment is not None else None

    def current(self) -> FoundLease | None:
        """Return the lease that counts, held or not; None where the plan was never leased.

        Raises:
            RepositoryUnavailable: The storage goes on listing one that is not there.
        """
        for _ in range(_LOOKS):
            if not (listed := self.listed()):
                return None
            # the highest is deleted only after a higher one was made
            token = max(listed)
            if record := self.read(token):
                return FoundLease(token, record, listed[token])
            self.clock.sleep(_LOOK_SECONDS)
        raise RepositoryUnavailable(
            f"the storage lists the lease {names.lock(self.plan, token)}, which is not there",
            hint="Its listings are old: try again later, or see what is between this machine and the storage.",
        )

    def live(self) -> LeaseRecord | None:
        """Return the lease that is held as far as the clock of this host can tell, with the time at which it expires.

        For people: nothing that removes is decided by it, and nothing is written.
        """
        found, now = self.current(), self.clock.now()
        if found is None or not found.record.open:
            return None
        until = min(found.modified_at, now) + timedelta(seconds=self.length(found.record))
        return found.record.model_copy(update={"expires_at": until}) if now < until else None

    def remove(self, token: int) -> None:
        """Delete the object of a token."""
        self._tier.remove([names.lock(self.plan, token)])

    def tidy(self, tokens: list[int]) -> list[str]:
        """Delete all leases but the one with the highest of the tokens; return the names deleted."""
        old = [names.lock(self.plan, token) for token in tokens[:-1]]
        try:
            self._tier.remove(old)
        except LastgoodError as exc:
            logger.warning("old leases of plan %s could not be deleted: %s", self.plan, exc)
            return []
        return old
