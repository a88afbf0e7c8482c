"""What a verb does from outside: it begins, and it ends well or not. The one place that tells others of it.

Each verb opens one `operation` around its work, in a flow run or not. Listeners are told of both moments: the journal,
metrics, events, notifications. One that fails is logged, and stops nothing.
"""

from __future__ import annotations

import logging
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from blocks.errors import LastgoodError
from blocks.host.log_lines import LoggedRun, logged_as, without_secrets
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.telemetry.numbers import OperationNumbers
from blocks.telemetry.recorder import Recorder, recording
from blocks.verification import Verification
from flows.pipeline.prefect_compat import in_flow_run
from flows.pipeline.run_log import stages_counted

if TYPE_CHECKING:
    from flows.pipeline.results import RestoreResult, RetentionResult

logger = logging.getLogger(__name__)


class Verb(StrEnum):
    """What is done."""

    BACKUP = "backup"
    RESTORE = "restore"
    VERIFICATION = "verification"
    RETENTION = "retention"


@dataclass
class Operation:
    """One run of a verb. The verb fills in what came of it while it is under way.

    Attributes:
        plan: The plan, as it was read.
        verb: What is done.
        kind: Of a backup its type, as it was asked for; of a restore its mode; of a verification `deep` or `quick`;
            else nothing.
        operation_id: Names it, in all that is told of it.
        started_at: When it began, by this machine's clock.
        backup_id: The backup that is made, restored or verified; None while it is not known, and for retention. Of a
            backup that failed it is the id that was drawn for it, which no backup has.
        result: What came of it; None while it is under way, and where it failed before there was a result.
        error: What ended it; None while it is under way, and where it did what it should. A verification that finds a
            backup bad, and a restore that leaves something out, have no error: their result says so.
        shortfall: What is wrong although there is a result: what a verification found, what a restore left out.
        seconds: How long it took; None while it is under way.
        numbers: What it did: seconds by stage, calls of tiers, reads of sources, waits; empty while it is under way.
        told: The targets of the plan's notifications that were told of its end, as messages call them.
    """

    plan: BackupPlan
    verb: Verb
    kind: str = ""
    operation_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    backup_id: str | None = None
    result: BackupMetadata | RestoreResult | Verification | RetentionResult | None = None
    error: BaseException | None = None
    shortfall: LastgoodError | None = None
    seconds: float | None = None
    numbers: OperationNumbers = field(default_factory=OperationNumbers)
    told: tuple[str, ...] = ()

    @property
    def backup_there(self) -> str | None:
        """The id of the backup that it is about, where there is one: a backup that failed left none behind."""
        return None if self.verb is Verb.BACKUP and self.result is None else self.backup_id


class Listener(Protocol):
    """Is told of operations. What it raises is logged; it must not take long, since the verb waits for it."""

    def started(self, operation: Operation) -> None:
        """Take note that an operation begins."""
        ...

    def ended(self, operation: Operation) -> None:
        """Take note that an operation ended: `seconds` and `numbers` are set, and `error` where it failed."""
        ...


def listeners(plan: BackupPlan) -> Sequence[Listener]:
    """Return who is told of the operations of a plan, in this order; imported only where there is somebody to tell."""
    from flows.reporting.journal import Journal  # it knows what operations are

    told: list[Listener] = [Journal()]
    if plan.metrics.sends:
        from flows.reporting.sent_metrics import SentMetrics  # and what it needs, for plans that have it

        told.append(SentMetrics(plan))
    if plan.notifications:
        from flows.reporting.notifications import PlanNotifications

        told.append(PlanNotifications(plan))
    if in_flow_run():
        from flows.reporting.events import RunEvents

        told.append(RunEvents())  # last: events say who was told
    return told


@contextmanager
def operation(plan: BackupPlan, verb: Verb, kind: str = "", backup_id: str | None = None) -> Iterator[Operation]:
    """Tell listeners that an operation begins, and how it ends.

    Args:
        plan: The plan, read and resolved.
        verb: What is done.
        kind: See `Operation`.
        backup_id: The backup, where it is known before.
    """
    told = listeners(plan)
    run, started = Operation(plan, verb, kind, backup_id=backup_id), time.monotonic()
    with logged(plan, verb, run.operation_id, backup_id) as (log, recorder):
        for listener in told:
            _tell(listener, "started", run)
        try:
            yield run
        except BaseException as exc:
            run.error = exc
            raise
        finally:
            run.seconds, run.numbers = time.monotonic() - started, recorder.numbers()
            run.backup_id = run.backup_id or log.backup_id
            _tell_log(run)
            for listener in told:
                _tell(listener, "ended", run)


@contextmanager
def logged(
    plan: BackupPlan, verb: Verb, operation_id: str | None = None, backup_id: str | None = None
) -> Iterator[tuple[LoggedRun, Recorder]]:
    """Let the lines of a block name a run of a plan, and what it does be recorded; of a preview nobody else is told."""
    run = LoggedRun(plan.name, verb.value, operation_id or uuid.uuid4().hex, backup_id, plan.secret_variables)
    with logged_as(run), stages_counted(), recording() as recorder:
        yield run, recorder


def _tell_log(run: Operation) -> None:
    """Write into the log what came of a run, and what each of its stages did; of one that failed, how far it came."""
    from flows.reporting.run_lines import result_lines, stage_lines, tell  # Prefect's artifacts are not needed before

    try:
        tell([*(result_lines(run.plan, run.result) if run.result is not None else ()), *stage_lines()])
    except Exception as exc:  # noqa: BLE001  as of a listener
        logger.warning("the lines of this run were not written: %s", without_secrets(str(exc)))


def _tell(listener: Listener, moment: str, run: Operation) -> None:
    try:
        getattr(listener, moment)(run)
    except Exception as exc:  # noqa: BLE001  whatever it is: nothing that only reports may stop a backup
        said = without_secrets(str(exc))
        logger.warning("%s was not told that a %s %s: %s", type(listener).__name__, run.verb.value, moment, said)
        logger.debug("where it failed: %s", without_secrets(traceback.format_exc()))
