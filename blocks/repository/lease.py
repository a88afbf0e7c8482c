"""One run at a time on a plan: a lease that expires by itself, with a fencing token that only grows.

Taking a lease means creating the object of the next token exclusively, so of several that try exactly one wins, also
over a lease that has expired.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from blocks.errors import AlreadyExists, LastgoodError, RepositoryLocked
from blocks.repository.leases import LeaseRecord, Leases

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Pause between two looks while waiting for another run to finish."""

RECENT_SHARE = 1 / 30
"""Within so much of its length after a look the lease is written without another look."""


class Lease:
    """A held lease. Thread-safe; a daemon thread renews it until it is released or lost."""

    def __init__(self, leases: Leases, token: int, record: LeaseRecord) -> None:
        self.plan = leases.plan
        self.token = token
        self._leases = leases
        self._record = record
        self._guard = threading.Lock()
        self._lost: str | None = None
        self._looked = leases.clock.now()
        self._stop = threading.Event()

    @property
    def record(self) -> LeaseRecord:
        """What the lease object says now."""
        return self._record

    def check(self) -> None:
        """Make sure that the lease is still ours; called right before a commit.

        Raises:
            RepositoryLocked: It expired, or another run took it over.
            RepositoryUnavailable: That is not known.
        """
        with self._guard:
            self._check()

    def work_on(self, backup_id: str) -> None:
        """Record which backup is being made, so that its unfinished folder is not collected as garbage.

        Raises:
            RepositoryLocked: The lease is lost.
        """
        with self._guard:
            self._check_unless_recent()
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
                self._check_unless_recent()
                self._write(self._record.model_copy(update={"released": True}))
            except LastgoodError as exc:
                logger.warning("the lease of plan %s was not given back: %s", self.plan, exc)
            self._lost = self._lost or "it was given back"

    def _write(self, record: LeaseRecord) -> None:
        self._leases.write(self.token, record)
        self._record = record

    def _check_unless_recent(self) -> None:
        """Look whether the lease is ours before it is written, unless that was just done: right before a commit, say.

        A commit never relies on this.
        """
        since = self._leases.clock.now() - self._looked
        if self._lost or not timedelta() <= since < timedelta(seconds=self._leases.seconds * RECENT_SHARE):
            self._check()

    def _check(self) -> None:
        self._lost = self._lost or self._reason_lost()
        self._looked = self._leases.clock.now()
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


def acquire(
    leases: Leases,
    holder: str,
    purpose: str,
    floor: Callable[[], int],
    wait_seconds: float = 0,
    draw: Callable[[], str] | None = None,
) -> Lease:
    """Take the lease.

    Args:
        leases: Those of the plan.
        holder: Who asks: host and process.
        purpose: What for, in a word.
        floor: The highest token that a commit is known to have used; asked where there is no lease, so that they were
            lost, or never were: the one with the highest token is never deleted.
        wait_seconds: How long to wait for another run to finish.
        draw: Gives the id of the backup that is to be made, when the lease is taken.

    Raises:
        RepositoryLocked: Another run holds it; names it.
    """
    deadline = leases.clock.now() + timedelta(seconds=wait_seconds)
    used = 0
    while True:
        found = leases.current()
        if found is None:
            used = max(used, floor())
        if found and found[1].live(leases.clock.now()):
            left = (deadline - leases.clock.now()).total_seconds()
            if left <= 0:
                raise _locked(leases.plan, found[1])
            leases.clock.sleep(min(POLL_SECONDS, left))
            continue
        token = max(found[0] if found else 0, used) + 1
        if lease := _claim(leases, token, holder, purpose, draw() if draw is not None else None):
            return lease
        # another run took it, or something that is no lease has its name: never ask for it again
        used = token


def _claim(leases: Leases, token: int, holder: str, purpose: str, backup_id: str | None) -> Lease | None:
    record = LeaseRecord(
        holder=holder, purpose=purpose, backup_id=backup_id, acquired_at=leases.clock.now(),
        expires_at=leases.expiry(), nonce=secrets.token_hex(16), released=False,
    )  # fmt: skip
    try:
        leases.write(token, record, exclusive=True)
    except AlreadyExists:
        return None
    tokens = leases.tokens()
    if tokens and tokens[-1] > token:
        # we looked long ago: meanwhile others took this token and higher ones, and this one was deleted
        leases.remove(token)
        return None
    if len(tokens) > leases.kept:
        leases.tidy(tokens)
    return Lease(leases, token, record)


def _locked(plan: str, record: LeaseRecord) -> RepositoryLocked:
    what = f"{record.purpose} {record.backup_id}" if record.backup_id else record.purpose
    since, until = (f"{moment:%Y-%m-%d %H:%M:%S} UTC" for moment in (record.acquired_at, record.expires_at))
    return RepositoryLocked(
        f"plan {plan} is locked by {record.holder} for {what} since {since}; "
        f"the lease expires at {until} unless it is renewed",
        hint="Wait until that run has finished. If it is dead, the lease expires by itself and can then be taken.",
    )


@contextmanager
def held(lease: Lease) -> Iterator[Lease]:
    """Renew a lease in a daemon thread, and give it back at the end."""
    keeper = threading.Thread(target=lease.keep, name=f"lease-{lease.plan}", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        lease.release()
