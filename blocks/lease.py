"""One run at a time on a plan: a lease that expires by itself, with a fencing token that only grows.

A lease is an object `locks/<plan>/<token>`; the highest token counts. Taking it means creating the next token
exclusively, so of several that try exactly one wins, also over a lease that has expired. The object with the
highest token is never deleted, so tokens never come back.

Expiry compares the holder's clock with the reader's. Clocks that differ by less than two thirds of the lease (it is
renewed after each third) cannot make a live lease look expired; beyond that a running backup may be taken over: it
notices when it commits, and commits nothing.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from blocks import names
from blocks.errors import AlreadyExists, LastgoodError, ObjectMissing, RepositoryLocked
from blocks.manifest import Record, UtcTime
from blocks.tiers import StorageTier

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Pause between two looks while waiting for another run to finish."""


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
        """Whether the holder may still be at work."""
        return not self.released and now < self.expires_at


class Lease:
    """A held lease. Thread-safe; a daemon thread renews it until it is released or lost."""

    def __init__(self, leases: Leases, token: int, record: LeaseRecord) -> None:
        self.plan = leases.plan
        self.token = token
        self._leases = leases
        self._record = record
        self._guard = threading.Lock()
        self._lost: str | None = None
        self._stop = threading.Event()

    @property
    def record(self) -> LeaseRecord:
        """What the lease object says now."""
        return self._record

    def check(self) -> None:
        """Make sure that the lease is still ours; called right before a commit.

        Raises:
            RepositoryLocked: It expired, or another run took it over.
            RepositoryUnavailable: That cannot be told.
        """
        with self._guard:
            self._check()

    def work_on(self, backup_id: str) -> None:
        """Record which backup is being made, so that its unfinished folder is not swept away.

        Raises:
            RepositoryLocked: The lease is lost.
        """
        with self._guard:
            self._check()
            self._write(self._record.model_copy(update={"backup_id": backup_id}))

    def renew(self) -> None:
        """Extend the lease by its full length from now.

        Raises:
            RepositoryLocked: The lease is lost.
            RepositoryUnavailable: It could not be written; it may be tried again before it expires.
        """
        with self._guard:
            self._check()
            self._write(self._record.model_copy(update={"expires_at": self._leases.expiry()}))

    def keep(self) -> None:
        """Renew after each third of the lease until it is released or lost: the body of the renewing thread."""
        while not self._leases.clock.wait(self._stop, self._leases.seconds / 3):
            try:
                self.renew()
            except RepositoryLocked as exc:
                logger.warning("%s", exc)
                return
            except LastgoodError as exc:
                logger.warning("the lease of plan %s could not be renewed, trying again: %s", self.plan, exc)

    def release(self) -> None:
        """Give the lease back; a failure is logged only, since the lease then expires by itself."""
        self._stop.set()
        with self._guard:
            try:
                self._check()
                self._write(self._record.model_copy(update={"released": True}))
            except LastgoodError as exc:
                logger.warning("the lease of plan %s was not given back: %s", self.plan, exc)
            self._lost = self._lost or "it was given back"

    def _write(self, record: LeaseRecord) -> None:
        self._leases.write(self.token, record)
        self._record = record

    def _check(self) -> None:
        self._lost = self._lost or self._reason_lost()
        if self._lost:
            raise RepositoryLocked(
                f"this run no longer holds the lease of plan {self.plan}: {self._lost}",
                hint="Nothing was committed. Run it again when the other run has finished.",
            )

    def _reason_lost(self) -> str | None:
        if self._leases.clock.now() >= self._record.expires_at:
            return f"it expired at {self._record.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        highest = max(self._leases.tokens(), default=0)
        if highest > self.token:
            return f"another run took it over (token {highest} after {self.token})"
        found = self._leases.read(self.token)
        if found is None or found.nonce != self._record.nonce:
            return "its object is gone or belongs to another run"
        return None


class Leases:
    """The leases of one plan.

    Args:
        tier: Where the repository is.
        plan: The plan's name.
        seconds: How long a lease holds without being renewed.
        clock: The time.
    """

    def __init__(self, tier: StorageTier, plan: str, seconds: float, clock: Clock) -> None:
        self.plan = names.checked_plan(plan)
        self.seconds = seconds
        self.clock = clock
        self._tier = tier

    def expiry(self) -> datetime:
        """Return when a lease taken or renewed now expires."""
        return self.clock.now() + timedelta(seconds=self.seconds)

    def tokens(self) -> list[int]:
        """Return all tokens that have an object, ascending."""
        found = (names.token_of(stored.name) for stored in self._tier.list(names.locks(self.plan)))
        return sorted(token for token in found if token is not None)

    def read(self, token: int) -> LeaseRecord | None:
        """Read a lease; None where it is gone. One that cannot be understood counts as held for its full length."""
        name = names.lock(self.plan, token)
        try:
            data = self._tier.get(name)
        except ObjectMissing:
            return None
        try:
            return LeaseRecord.model_validate_json(data)
        except ValidationError:
            changed = next((s.modified_at for s in self._tier.list(names.locks(self.plan)) if s.name == name), None)
            since = changed or self.clock.now()
            return LeaseRecord(
                holder="an unreadable lease", purpose="unknown", backup_id=None, acquired_at=since,
                expires_at=since + timedelta(seconds=self.seconds), nonce="", released=False,
            )  # fmt: skip

    def write(self, token: int, record: LeaseRecord, exclusive: bool = False) -> None:
        """Write a lease."""
        self._tier.put(names.lock(self.plan, token), record.model_dump_json().encode(), exclusive)

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

    def acquire(self, holder: str, purpose: str, floor: Callable[[], int], wait_seconds: float = 0) -> Lease:
        """Take the lease.

        Args:
            holder: Who asks: host and process.
            purpose: What for, in a word.
            floor: The highest token that a commit is known to have used.
            wait_seconds: How long to wait for another run to finish.

        Raises:
            RepositoryLocked: Another run holds it; names it.
        """
        deadline = self.clock.now() + timedelta(seconds=wait_seconds)
        used = floor()
        while True:
            found = self.current()
            if found and found[1].live(self.clock.now()):
                left = (deadline - self.clock.now()).total_seconds()
                if left <= 0:
                    raise self._locked(found[1])
                self.clock.sleep(min(POLL_SECONDS, left))
                continue
            lease = self._claim(max(found[0] if found else 0, used) + 1, holder, purpose)
            if lease:
                return lease

    def _claim(self, token: int, holder: str, purpose: str) -> Lease | None:
        record = LeaseRecord(
            holder=holder, purpose=purpose, backup_id=None, acquired_at=self.clock.now(),
            expires_at=self.expiry(), nonce=secrets.token_hex(16), released=False,
        )  # fmt: skip
        try:
            self.write(token, record, exclusive=True)
        except AlreadyExists:
            return None
        tokens = self.tokens()
        if tokens and tokens[-1] > token:
            # we looked long ago: meanwhile others took this token and higher ones, and this one was deleted
            self._tier.remove([names.lock(self.plan, token)])
            return None
        self.tidy(tokens)
        return Lease(self, token, record)

    def tidy(self, tokens: list[int]) -> list[str]:
        """Delete all leases but the one with the highest of the tokens; return the names deleted."""
        old = [names.lock(self.plan, token) for token in tokens[:-1]]
        try:
            self._tier.remove(old)
        except LastgoodError as exc:
            logger.warning("old leases of plan %s could not be deleted: %s", self.plan, exc)
            return []
        return old

    def _locked(self, record: LeaseRecord) -> RepositoryLocked:
        what = f"{record.purpose} {record.backup_id}" if record.backup_id else record.purpose
        since, until = (f"{moment:%Y-%m-%d %H:%M:%S} UTC" for moment in (record.acquired_at, record.expires_at))
        return RepositoryLocked(
            f"plan {self.plan} is locked by {record.holder} for {what} since {since}; "
            f"the lease expires at {until} unless it is renewed",
            hint="Wait until that run has finished. If it is dead, the lease expires by itself and can then be taken.",
        )

    @contextmanager
    def held(self, lease: Lease) -> Iterator[Lease]:
        """Renew a lease in a daemon thread, and give it back at the end."""
        keeper = threading.Thread(target=lease.keep, name=f"lease-{self.plan}", daemon=True)
        keeper.start()
        try:
            yield lease
        finally:
            lease.release()
