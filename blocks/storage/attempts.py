"""The one place where calls of a storage are tried again, and where it is left alone after many failures."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import get_ident
from typing import TypeVar

from blocks.errors import AlreadyExists, ObjectMissing, RepositoryUnavailable, StorageUnreachable
from blocks.host.state_folder import state_folder
from blocks.telemetry.recorder import recorder

logger = logging.getLogger(__name__)

R = TypeVar("R")

BREAK_AFTER = 3
"""So many calls that failed in all of their attempts, one after another, open the breaker; those that were under way at
the same time are one, because they saw the same failure."""
BREAK_SECONDS = 30.0
"""For so long calls then fail at once, without a request."""


class Transient(Exception):
    """A call failed in a way that may pass.

    Args:
        error: What is raised when it does not.
    """

    def __init__(self, error: RepositoryUnavailable) -> None:
        super().__init__(error.message)
        self.error = error


class Attempts:
    """Calls a storage, again after a failure that may pass. Thread-safe.

    Only `Transient` is tried again and counted: that something is refused, missing or there already is an answer.

    Args:
        most: Attempts of one call.
        seconds: No attempt is begun so many seconds after the first.
        breaker: Shared by all processes of this machine that use the place.
        sleep: Waits between attempts; takes seconds.
    """

    def __init__(
        self, most: int, seconds: float, breaker: Breaker, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._most, self._seconds, self._breaker, self._sleep = most, seconds, breaker, sleep

    def call(self, work: Callable[[], R]) -> R:
        """Do the work, with exponential backoff and jitter between attempts.

        Raises:
            StorageUnreachable: It failed in all attempts, or the breaker is open.
        """
        # only tiers in a network need it, and local ones start without it
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay
        from tenacity.wait import wait_exponential_jitter

        self._breaker.check()
        began = self._breaker.now()
        retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_attempt(self._most) | stop_before_delay(self._seconds),
            wait=wait_exponential_jitter(multiplier=0.2, max=10, jitter=0.2),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            answer = retrying(work)
        except Transient as exc:
            self._breaker.failed(began)
            error, made = exc.error, retrying.statistics["attempt_number"]
            tries = f" ({made} attempt{'' if made == 1 else 's'})"
            raise StorageUnreachable(error.message + tries, hint=error.hint) from exc
        except (AlreadyExists, ObjectMissing):
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return answer


class Breaker:
    """Counts calls that failed one after another, in a file that all processes of this machine share.

    What is lost or torn there costs attempts, nothing else.

    After `BREAK_SECONDS` calls are let through again: a success closes it, another failure opens it at once.

    Args:
        place: The place that is called.
        clock: The time in seconds, the same for all processes.
    """

    def __init__(self, place: str, clock: Callable[[], float] = time.time) -> None:
        self._place, self.now = place, clock
        self._name = sha256(place.encode()).hexdigest()

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self._holds(*self._read())

    def _holds(self, failures: int, until: float) -> bool:
        # a time further away than a breaker is ever open was written by another clock
        return failures >= BREAK_AFTER and 0 < until - self.now() <= BREAK_SECONDS

    def check(self) -> None:
        """Fail while the breaker is open.

        Raises:
            StorageUnreachable: So many calls failed that nothing is asked for a while.
        """
        failures, until = self._read()
        if self._holds(failures, until):
            when = datetime.fromtimestamp(until, UTC).astimezone()
            raise StorageUnreachable(
                f"{self._place} failed {failures} times in a row, and is left alone until {when:%H:%M:%S %Z}",
                hint="See whether the storage works and can be reached from this machine.",
            )

    def failed(self, began: float) -> None:
        """Count a call that failed in all of its attempts, unless one that was under way with it was counted.

        Args:
            began: When the call began, by the breaker's clock.
        """
        failures, until = self._read()
        counted, now = until - BREAK_SECONDS, self.now()
        if not failures or not began <= counted <= now:
            self._write(failures + 1, now + BREAK_SECONDS)
            if failures + 1 >= BREAK_AFTER:
                self._note_turn(opened=True)

    def succeeded(self) -> None:
        """Close the breaker."""
        failures, _ = self._read()
        if not failures:  # as nearly always: there is nothing to remove
            return
        try:
            self._path().unlink()
        except FileNotFoundError:
            return
        except (OSError, RuntimeError) as exc:
            logger.debug("the breaker of %s cannot be closed: %s", self._place, exc)
        if failures >= BREAK_AFTER:
            self._note_turn(opened=False)

    def _note_turn(self, *, opened: bool) -> None:
        if (recorded := recorder()) is not None:
            recorded.breaker(self._place, opened=opened)

    def _path(self) -> Path:
        return state_folder() / "breakers" / self._name

    def _read(self) -> tuple[int, float]:
        try:
            failures, until = json.loads(self._path().read_bytes())
            return int(failures), float(until)
        except (OSError, RuntimeError, ValueError, TypeError):
            return 0, 0.0

    def _write(self, failures: int, until: float) -> None:
        try:
            path = self._path()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}-{get_ident()}")
            temporary.write_text(json.dumps([failures, until]))
            os.replace(temporary, path)
        except (OSError, RuntimeError) as exc:  # RuntimeError: there is no home
            logger.debug("the breaker of %s cannot be opened: %s", self._place, exc)
