"""One run of `verify --due`: make the proofs that are due, go on past what is bad, and say what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel

from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    NotRestorable,
    ObjectUnreadable,
    Partial,
    QualityFailed,
    RepositoryUnavailable,
)
from blocks.plan.clock import future_doubt
from blocks.plan.plan import BackupPlan
from blocks.plan.proof import DueProof, ProofKind, ProofSchedule, due, everything
from blocks.repository.block import Repository
from blocks.verification import Verification
from flows.pipeline.doubts import accepted
from flows.pipeline.progress import Progress
from flows.proving.own_objects import prove_own
from flows.proving.proof_records import ProofRecords
from flows.reading.recovery import Recovery, recovery
from flows.reporting.units import human_bytes, human_span

NAMED = 5
"""So many backups are named in one sentence."""

Verify = Callable[[BackupPlan, str, datetime, Progress | None], Verification]
"""Proves one backup wholly and records that: plan, id of the backup, when the run began, who is told of parts."""

Record = Callable[[Repository, Verification], Verification]
"""Records a verification, and returns it as it was recorded."""


class MadeProof(BaseModel):
    """One proof of a run.

    Attributes:
        kind: `whole` (read, merged, restored) or `own objects` (only what the backup itself stored).
        why: Why it was due.
        verification: What it found.
    """

    backup_id: str
    kind: ProofKind
    why: str
    verification: Verification


class DueResult(BaseModel):
    """The outcome of one run.

    Attributes:
        proofs: In the order in which they were made.
        overdue: Ids of backups whose time is over and that the run did not prove, the oldest proof first.
        left_out: Ids of backups that are not proved again: known to be bad, or depending on what is.
        findings: Why no more was proved, each a sentence: manifests that do not open, a storage that failed.
        warnings: What does not make the run fail: a clock that may be wrong, a budget that will not do.
        recovery: What a restore costs, as measured.
    """

    plan: str
    proofs: list[MadeProof]
    overdue: list[str]
    left_out: list[str]
    findings: list[str]
    warnings: list[str]
    recovery: Recovery
    seconds: float


class DueRun:
    """One run while it goes on.

    Args:
        plan: The plan, read and resolved.
        verify: Proves one backup wholly.
        record: Records the other proofs.
        now: What this machine's clock says.
    """

    def __init__(self, plan: BackupPlan, verify: Verify, record: Record, now: datetime) -> None:
        self._plan, self._verify, self._record, self._now = plan, verify, record, now
        self._repository = plan.repository.unlock(plan.encryption)
        self._survey = self._repository.survey(plan.name)
        self._backups = self._survey.backups
        self._records = ProofRecords(self._repository, plan.name, self._backups)
        self._made: list[MadeProof] = []
        self._failed: set[str] = set()
        self._late: list[str] = []
        self._findings = list(self._survey.findings)
        self._unread: list[LastgoodError] = []
        self._warnings: list[str] = []

    def run(self, all_of_them: bool, progress: Progress | None) -> tuple[DueResult, list[LastgoodError]]:
        """Make the proofs; return what came of it, and the errors that it amounts to."""
        started, known, policy = time.monotonic(), self._records.known(self._now), self._plan.proof
        if not self._backups and not self._findings:
            raise BackupNotFound(f"plan {self._plan.name} has no backup", hint="Make one: lastgood backup.")
        plan_of_run = everything(self._backups, known) if all_of_them else due(self._backups, known, self._now, policy)
        self._warn(plan_of_run)
        stopped = False
        for proof in plan_of_run.proofs:
            over = policy.budget_time is not None and time.monotonic() - started > policy.budget_time.total_seconds()
            if stopped or (over and not all_of_them and self._made):
                self._skip(proof)
            else:
                stopped = not self._prove(proof, progress)
        overdue = [*plan_of_run.overdue(self._now), *self._late]
        statuses = self._repository.statuses(self._plan.name, self._backups)
        result = DueResult(
            plan=self._plan.name,
            proofs=self._made,
            overdue=overdue,
            left_out=list(plan_of_run.left_out),
            findings=self._findings,
            warnings=self._warnings,
            recovery=recovery(self._backups, self._records.verifications, statuses, self._now),
            seconds=round(time.monotonic() - started, 3),
        )
        return result, [*self._unread, *self._errors(result)]

    def _prove(self, proof: DueProof, progress: Progress | None) -> bool:
        """Make one proof; return whether the storage still answers, so that the run goes on."""
        backup, bases = proof.backup, [link.backup_id for link in proof.backup.chain]
        unproved = [base for base in bases if base in self._failed or base not in self._records.numbers]
        if proof.kind is ProofKind.OWN and unproved:
            self._skip(proof)
            return True
        try:
            if proof.kind is ProofKind.WHOLE:
                found = self._verify(self._plan, backup.backup_id, self._now, progress)
            else:
                stands_on = {base: self._records.numbers[base] for base in bases}
                own = prove_own(self._plan, self._repository, backup, stands_on, self._now, progress)
                found = self._record(self._repository, own)
        except BackupNotFound:
            return True  # retention removed it meanwhile
        except RepositoryUnavailable as exc:
            self._findings.append(f"{backup.backup_id}: {exc.message}")
            self._unread.append(exc)
            self._skip(proof)
            return isinstance(exc, ObjectUnreadable)
        except ConfigurationError:
            raise  # it would be the same for all others
        except LastgoodError as exc:
            self._findings.append(f"{backup.backup_id}: {exc.message}")
            self._unread.append(exc)
            self._skip(proof)
            return True
        self._records.add(found)
        if found.findings:  # of backups that it depends on, too
            verdicts = self._repository.verdicts(self._plan.name, self._backups)
            self._failed.update(backup_id for backup_id, verdict in verdicts.items() if verdict.bad_bytes)
        if backup.backup_id not in self._records.numbers:
            self._failed.add(backup.backup_id)
        self._made.append(MadeProof(backup_id=backup.backup_id, kind=proof.kind, why=proof.why, verification=found))
        return True

    def _skip(self, proof: DueProof) -> None:
        self._failed.add(proof.backup.backup_id)
        if proof.deadline is None or proof.deadline < self._now:
            self._late.append(proof.backup.backup_id)

    @property
    def _within(self) -> str:
        within = self._plan.prove_within
        return "" if within is None else f" within {human_span(within)}"

    def _warn(self, schedule: ProofSchedule) -> None:
        name = self._plan.name
        events = [*self._records.runs, *([event] if (event := self._repository.newest_event(name)) else [])]
        if doubt := future_doubt(self._now, self._backups, max(events, default=None), accepted(self._repository, name)):
            self._warnings.append(f"{doubt}: proofs of times to come count for nothing")
        if schedule.left_out:
            self._warnings.append(
                f"{_named(schedule.left_out)} not proved again: known to be bad, or what they depend on is bad or gone"
            )
        budget = self._plan.proof.budget_bytes
        if budget is not None and schedule.needed_bytes > budget:
            self._warnings.append(
                f"prove_budget is {human_bytes(budget)}: to prove all{self._within}, "
                f"a run every {human_span(schedule.every)} has to read {human_bytes(schedule.needed_bytes)}"
            )

    def _errors(self, result: DueResult) -> Iterator[LastgoodError]:
        name = self._plan.name
        if self._survey.findings:
            yield CorruptionDetected(f"plan {name}: {self._survey.findings[0]}", hint="`lastgood check` reports more.")
        if result.overdue:
            yield Partial(
                f"plan {name}: {_named(result.overdue)} not proved{self._within}",
                hint="Run `lastgood verify PLAN --due` more often, raise prove_budget, or prove all: `--all`.",
            )


def prove_due(
    plan: BackupPlan,
    verify: Verify,
    record: Record,
    all_of_them: bool = False,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> tuple[DueResult, list[LastgoodError]]:
    """Make the proofs that are due, or all.

    Args:
        plan: The plan, read and resolved.
        verify: Proves one backup wholly.
        record: Records the other proofs.
        all_of_them: Prove every kept backup, whenever it was proved.
        progress: Told of parts.
        now: What this machine's clock says; it is read where this is None.

    Returns:
        What came of it; and the errors that it amounts to besides what the verifications found: a storage that failed,
        manifests that do not open, backups that are overdue.

    Raises:
        BackupNotFound: The plan has no backup.
    """
    return DueRun(plan, verify, record, now or datetime.now(UTC)).run(all_of_them, progress)


def worst(errors: Iterable[LastgoodError], result: DueResult) -> LastgoodError | None:
    """Return the worst of the errors that a run amounts to, with all that the run did as its cause; None for none."""
    found = min(errors, key=_rank, default=None)
    if found is not None:
        found.__cause__ = NotAllProved(result)
    return found


def _rank(error: LastgoodError) -> int:
    return next((n for n, kind in enumerate(_WORST_FIRST) if isinstance(error, kind)), len(_WORST_FIRST))


_WORST_FIRST = (CorruptionDetected, NotRestorable, QualityFailed, RepositoryUnavailable)
"""What a run that found several things wrong ends with; all else comes after these."""


class NotAllProved(Exception):
    """Why a run of `verify --due` failed, as the cause of the error that says so.

    Attributes:
        result: All that the run did.
    """

    def __init__(self, result: DueResult) -> None:
        super().__init__(f"{len(result.proofs)} proofs")
        self.result = result


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{', '.join(ids[:NAMED])}{more} {'is' if len(ids) == 1 else 'are'}"
