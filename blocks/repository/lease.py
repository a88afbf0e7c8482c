"""One run at a time on a plan: a lease that expires by itself, with a fencing token that only grows.

Taking a lease means creating the object of the next token exclusively, so of several that try exactly one wins, also
over a lease that has expired. When one has expired, and why no two runs commit at once, says leases.py.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from blocks.errors import AlreadyExists, LastgoodError, RepositoryFull, RepositoryLocked
from blocks.host.local_time import local_time
from blocks.host.threads import worker_thread
from blocks.repository.lease_watch import LeaseWatch
from blocks.repository.leases import DEFAULT_SECONDS, FoundLease, LeaseRecord, Leases
from blocks.telemetry.recorder import recorder

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Pause between two looks while waiting for another run to finish."""

UNLOCK = "unlock"
"""What a lease is for that was made to break another one."""

RECENT_SHARE = 1 / 30
"""Within so much of its length after a look the lease is written without another look."""


class Lease:
    """A held lease. Thread-safe; a daemon thread renews it until it is released or lost.

    Args:
        leases: Those of the plan.
        token: Its fencing token.
        record: What its object says.
        written: When that was written, as the clock's `elapsed` had it before; others were looked for afterwards.
        made_at: The same by the storage's time; None where that does not tell.
    """

    def __init__(
        self, leases: Leases, token: int, record: LeaseRecord, written: float, made_at: datetime | None = None
    ) -> None:
        self.plan = leases.plan
        self.token = token
        self.made_at = made_at
        self._leases = leases
        self._record = record
        self._written = written
        self._guard = threading.Lock()
        self._lost: str | None = None
        self._looked = written
        self._stop = threading.Event()

    @property
    def record(self) -> LeaseRecord:
        """What the lease object says now."""
        return self._record

    def check(self) -> None:
        """Make sure that the lease is still ours; called right before a commit.

        Where it was not renewed for long, since this process was suspended, others may be about to take it over: then
        it is renewed first, so that they see that, and looked at afterwards.

        Raises:
            RepositoryLocked: Another run took it over.
            RepositoryUnavailable: That is not known.
        """
        with self._guard:
            self._check()
            if self._idle() >= self._leases.seconds / 2:
                self._renew()
                self._check()

    def work_on(self, backup_id: str) -> None:
        """Record which backup is being made, so that its unfinished folder is not collected as garbage.

        Raises:
            RepositoryLocked: The lease is lost.
        """
        with self._guard:
            self._check_unless_recent()
            self._renew(backup_id=backup_id)

    def renew(self) -> None:
        """Extend the lease by its full length from now.

        Raises:
            RepositoryLocked: The lease is lost.
            RepositoryUnavailable: It could not be written; it may be tried again before it expires.
        """
        with self._guard:
            self._check()
            self._renew()

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

    def _renew(self, **changes: str) -> None:
        self._write(self._record.model_copy(update={"expires_at": self._leases.expiry(), **changes}))

    def _write(self, record: LeaseRecord) -> None:
        before = self._leases.clock.elapsed()
        self._leases.write(self.token, record)
        self._record, self._written = record, before

    def _idle(self) -> float:
        """Return for how many seconds the lease was not written."""
        return self._leases.clock.elapsed() - self._written

    def _check_unless_recent(self) -> None:
        """Look whether the lease is ours before it is written, unless that was just done: right before a commit, say.

        A commit never relies on this.
        """
        since = self._leases.clock.elapsed() - self._looked
        if self._lost or since >= self._leases.seconds * RECENT_SHARE:
            self._check()

    def _check(self) -> None:
        before = self._leases.clock.elapsed()
        self._lost = self._lost or self._reason_lost()
        self._looked = before
        if self._lost:
            raise RepositoryLocked(
                f"this run no longer holds the lease of plan {self.plan}: {self._lost}",
                hint="Nothing was committed. Run it again when the other run has finished.",
            )

    def _reason_lost(self) -> str | None:
        highest = max(self._leases.tokens(), default=0)
        if highest > self.token:
            return self._taken_by(highest)
        found = self._leases.read(self.token)
        if found is None or found.nonce != self._record.nonce:
            return "its object is gone or belongs to another run"
        return None

    def _taken_by(self, highest: int) -> str:
        tokens, taker = f"(token {highest} after {self.token})", self._leases.read(highest)
        if taker is not None and taker.purpose == UNLOCK:
            return f"{taker.holder} broke it with `lastgood unlock` {tokens}"
        idle = self._idle()
        stood_still = f", after this one had not renewed it for {idle:.0f} s" if idle >= self._leases.seconds else ""
        return f"another run took it over {tokens}{stood_still}"


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
    clock, watch = leases.clock, LeaseWatch(leases)
    began = clock.elapsed()
    until = began + wait_seconds
    used = 0
    warned = waited = False
    while True:
        found = leases.current()
        if found is None:
            used = max(used, floor())
        elif (remaining := _remaining(leases, watch, found)) > 0:
            if watch.incredible and not warned:
                warned = True
                logger.warning("%s", _incredible(leases.plan, found, remaining))
                until = max(until, clock.elapsed() + remaining)
            left = until - clock.elapsed()
            if left <= 0:
                _note_wait(clock.elapsed() - began, refused=True)
                raise _locked(leases, found.record, remaining)
            clock.sleep(min(POLL_SECONDS, left))
            waited = True
            continue
        token = max(found.token if found else 0, used) + 1
        if lease := _claim(leases, token, holder, purpose, draw() if draw is not None else None, found):
            if waited:
                _note_wait(clock.elapsed() - began, refused=False)
            return lease
        # another run took it, or something that is no lease has its name: never ask for it again
        used = token


def _note_wait(seconds: float, *, refused: bool) -> None:
    if (recorded := recorder()) is not None:
        recorded.waited(seconds, refused=refused)


def _remaining(leases: Leases, watch: LeaseWatch, found: FoundLease) -> float:
    """Return for how many seconds a lease may still be held: as it says itself where there is no room to find out.

    Nor is there room to take it over then.
    """
    try:
        return watch.remaining(found)
    except RepositoryFull:
        return (found.record.expires_at - leases.clock.now()).total_seconds()


def _claim(
    leases: Leases, token: int, holder: str, purpose: str, backup_id: str | None, before: FoundLease | None
) -> Lease | None:
    """Create the next lease; None where another run was faster.

    Args:
        leases: Those of the plan.
        token: The token to create.
        holder: Who asks.
        purpose: What for.
        backup_id: The backup that is to be made, where one is.
        before: The lease that counted, and may be taken over.
    """
    record = _record(leases, holder, purpose, backup_id)
    written = leases.clock.elapsed()
    try:
        leases.write(token, record, exclusive=True)
    except AlreadyExists:
        return None
    listed = leases.listed()
    tokens = list(listed)
    # we looked long ago: meanwhile others took this token and higher ones, and this one was deleted; or the holder of
    # the one before is at work again, and has looked whether it is still the highest before this one was there
    if (tokens and tokens[-1] > token) or (before is not None and _at_work(leases, before)):
        leases.remove(token)
        return None
    if len(tokens) > leases.kept:
        leases.tidy(tokens)
    return Lease(leases, token, record, written, listed.get(token))


def _record(
    leases: Leases, holder: str, purpose: str, backup_id: str | None = None, released: bool = False
) -> LeaseRecord:
    return LeaseRecord(
        holder=holder, purpose=purpose, backup_id=backup_id, acquired_at=leases.clock.now(),
        expires_at=leases.expiry(), nonce=secrets.token_hex(16), released=released,
        lease_seconds=None if leases.seconds == DEFAULT_SECONDS else leases.seconds,
    )  # fmt: skip


def _at_work(leases: Leases, before: FoundLease) -> bool:
    """Whether a lease that was not given back has been written since it was found."""
    if not before.record.open:
        return False
    now = leases.find(before.token)
    return now is not None and now.record.open and now != before


def break_lease(leases: Leases, found: FoundLease, holder: str, floor: Callable[[], int]) -> None:
    """Take a lease away from its holder for good: one with a higher token, given back already, counts from now on.

    Raises:
        RepositoryLocked: Another run has taken the lease since it was found; nothing was changed.
    """
    token = max(found.token, floor()) + 1
    now = leases.current()
    if now is None or (now.token, now.record.nonce) != (found.token, found.record.nonce):
        raise _changed(leases.plan)
    try:
        leases.write(token, _record(leases, holder, UNLOCK, released=True), exclusive=True)
    except AlreadyExists as exc:
        raise _changed(leases.plan) from exc
    leases.tidy(leases.tokens())


def _changed(plan: str) -> RepositoryLocked:
    return RepositoryLocked(
        f"another run has taken the lease of plan {plan} meanwhile; nothing was broken",
        hint=f"See who holds it now: `lastgood unlock {plan}`.",
    )


def _incredible(plan: str, found: FoundLease, remaining: float) -> str:
    return (
        f"the lease of plan {plan}, held by {found.record.holder}, was written at "
        f"{local_time(found.modified_at)}, which is still to come: waiting {remaining:.0f} s to see whether "
        "it is renewed"
    )


def _locked(leases: Leases, record: LeaseRecord, remaining: float) -> RepositoryLocked:
    plan = leases.plan
    what = f"{record.purpose} {record.backup_id}" if record.backup_id else record.purpose
    expires_at = leases.clock.now() + timedelta(seconds=remaining)
    since, until = map(local_time, (record.acquired_at, expires_at))
    return RepositoryLocked(
        f"plan {plan} is locked by {record.holder} for {what} since {since}; "
        f"the lease expires at {until} unless it is renewed",
        hint="Wait until that run has finished. If it is dead, the lease expires by itself and can then be taken; "
        f"`lastgood unlock {plan}` breaks it at once.",
    )


@contextmanager
def held(lease: Lease) -> Iterator[Lease]:
    """Renew a lease in a daemon thread, and give it back at the end."""
    keeper = worker_thread(lease.keep, name=f"lease-{lease.plan}")
    keeper.start()
    try:
        yield lease
    finally:
        lease.release()
