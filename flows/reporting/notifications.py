"""Tells who the plan says of the end of each operation, and dead man's switches of the beginning, too.

All are told at the same time, in threads that nobody waits for longer than some seconds: a target that is broken is a
warning, and neither stops a backup nor delays it by more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Thread

from blocks.errors import LastgoodError
from blocks.plan.notifications import Occasion, PingTarget, Target
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from flows.reporting.delivery import START, deliver, ping
from flows.reporting.lifecycle import Operation, Verb
from flows.reporting.messages import Message, message_of, trial_message
from flows.reporting.outcome import occasion_of, suspicions_of

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 9.0
"""How long the end of an operation waits for all that are told of it, together."""
WHEN_INTERRUPTED_SECONDS = 4.0
"""The same where somebody ends the process, and may kill it soon."""


@dataclass
class Telling:
    """One target that is being told.

    Attributes:
        target: Who.
        error: Why it was not told; None where it was, or is still to be.
        done: Whether it is over.
    """

    target: Target
    work: Callable[[], None]
    error: LastgoodError | None = None
    done: bool = False
    thread: Thread = field(init=False)

    def __post_init__(self) -> None:
        context = copy_context()
        # a daemon: what hangs does not keep the process from ending
        self.thread = Thread(target=lambda: context.run(self._run), daemon=True, name="lastgood-notification")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.work()
        except LastgoodError as exc:
            self.error = exc
        except Exception as exc:  # whatever it is
            logger.debug("a notification failed", exc_info=True)
            self.error = LastgoodError(f"it failed unexpectedly ({type(exc).__name__})")
        self.done = True

    def wait(self, until: float) -> None:
        """Wait until it is told, or a monotonic time comes."""
        self.thread.join(max(0.0, until - time.monotonic()))
        if not self.done:
            self.error = LastgoodError("it does not answer, and is not waited for any longer")


class PlanNotifications:
    """Tells the targets of a plan.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self._targets = plan.notifications
        self._begun: dict[int, Thread] = {}

    def started(self, operation: Operation) -> None:
        """Tell dead man's switches that a backup begins, beside it."""
        if not _pings(operation):
            return
        for number, target in enumerate(self._targets):
            if isinstance(target, PingTarget):
                self._begun[number] = _start(target).thread

    def ended(self, operation: Operation) -> None:
        """Tell all that want to know how it ended, and wait for them for a while."""
        telling = [
            self._tell(number, target, message_of(operation, occasion))
            for number, target in enumerate(self._targets)
            if (occasion := _concern(target, operation)) is not None
        ]
        interrupted = operation.error is not None and not isinstance(operation.error, Exception)
        _settle(telling, WHEN_INTERRUPTED_SECONDS if interrupted else PATIENCE_SECONDS)
        operation.told = tuple(one.target.shown for one in telling if one.error is None)

    def _tell(self, number: int, target: Target, message: Message) -> Telling:
        before = self._begun.get(number)

        def work() -> None:
            if before is not None:
                before.join()  # else a switch might hear of the beginning after the end
            deliver(target, message)

        return Telling(target, work)


def try_targets(plan: BackupPlan) -> Sequence[Telling]:
    """Send a test to all targets of a plan; a dead man's switch is told nothing that counts."""
    message = trial_message(plan)
    telling = [
        Telling(target, lambda target=target: deliver(target, message, test=True))  # type: ignore[misc]
        for target in plan.notifications
    ]
    until = time.monotonic() + PATIENCE_SECONDS
    for one in telling:
        one.wait(until)
    return telling


def _start(target: PingTarget) -> Telling:
    return Telling(target, lambda: ping(target, START))


def _pings(operation: Operation) -> bool:
    return operation.verb is Verb.BACKUP and operation.kind != BackupType.EMERGENCY


def _concern(target: Target, operation: Operation) -> Occasion | None:
    """Return what a target is told of an operation that has ended; None for nothing."""
    occasion = occasion_of(operation)
    if isinstance(target, PingTarget):
        bad = operation.verb is Verb.VERIFICATION and occasion in (Occasion.FAILED, Occasion.CORRUPTED)
        return occasion if bad or _pings(operation) else None
    if suspicions_of(operation) and target.wants(Occasion.SUSPICIOUS):
        return Occasion.SUSPICIOUS
    return occasion if target.wants(occasion) else None


def _settle(telling: Sequence[Telling], seconds: float) -> None:
    until = time.monotonic() + seconds
    for one in telling:
        one.wait(until)
        if one.error is not None:
            text = f"the notification {one.target.shown} was not sent: {one.error.message}"
            logger.warning("%s", f"{text}. {one.error.hint}".strip(" ."))
