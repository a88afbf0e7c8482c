"""The leases of a plan as stored objects: `locks/<plan>/<token>`, of which the highest token counts.

The object with the highest token is never deleted, so tokens never come back.

Expiry compares the holder's clock with the reader's. Clocks that differ by less than two thirds of the lease (it is
renewed after each third) cannot make a live lease look expired; beyond that a running backup may be taken over: it
notices when it commits, and commits nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from blocks.errors import (
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
)
from blocks.host.leftovers import has_ended
from blocks.records import Record, UtcTime
from blocks.repository import names
from blocks.repository.stock import Listing
from blocks.storage.base import StorageTier

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024

KEPT = 32
"""Leases that lie in a storage in a network before old ones are deleted, which is a request."""


class Clock:
    """The time and how to wait; tests bring their own."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        return datetime.now(UTC)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until `stop` is set (True) or the seconds have passed (False)."""
        return stop.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Let the seconds pass."""
        time.sleep(seconds)


class LeaseRecord(Record):
    """What a lease object says, as JSON, readable without keys."""

    holder: str
    purpose: str
    backup_id: str | None
    acquired_at: UtcTime
    expires_at: UtcTime
    nonce: str
    released: bool

    def live(self, now: datetime) -> bool:
        """Whether the holder may still be at work; a killed process of this machine is known to be not."""
        return not self.released and now < self.expires_at and not has_ended(self.holder)


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

    def tokens(self) -> list[int]:
        """Return all tokens that have an object, ascending."""
        found = (names.token_of(stored.name) for stored in self._listing(names.locks(self.plan)))
        return sorted(token for token in found if token is not None)

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
        name, data = names.lock(self.plan, token), record.model_dump_json().encode()
        try:
            self._tier.put(name, data, exclusive)
        except RepositoryFull:
            if exclusive:
                raise
            # torn, it counts as held for its full length, and that is what it says anyway
            self._tier.overwrite(name, data)

    def current(self) -> tuple[int, LeaseRecord] | None:
        """Return the token and record that count, live or not; None where the plan was never leased."""
        while tokens := self.tokens():
            # the highest is deleted only after a higher one was made
            if record := self.read(tokens[-1]):
                return tokens[-1], record
        return None

    def live(self) -> LeaseRecord | None:
        """Return the lease that is held now."""
        found = self.current()
        return found[1] if found and found[1].live(self.clock.now()) else None

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
