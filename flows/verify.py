"""The verify flow: prove that a backup can be had back, and that what comes back is good data.

Every verification fetches, opens and merges every part, computes keys and digests again from the rows, and compares
them with the index. A deep one also really restores, to a scratch folder, reads the restored state as a backup would,
and compares again. Then the quality suites run on the restored rows.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pyarrow as pa

from blocks.errors import (
    CorruptionDetected,
    LastgoodError,
    QualityFailed,
    RepositoryUnavailable,
    UnsupportedState,
)
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.plan.plan import BackupPlan, load_plan
from blocks.records import BackupStatus
from blocks.repository.block import Repository
from blocks.rows.normalize import from_normal
from blocks.rows.selection import Selection
from blocks.verification import Axis, Depth, Verification
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.executor import BoundedWindow, Outcome, StageExecutor, open_executor
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, flow, stage_runner, task
from flows.pipeline.progress import Progress
from flows.pipeline.run_names import named
from flows.pipeline.tool_versions import tool_versions
from flows.proving.due import DueResult, prove_due
from flows.proving.due_report import publish_due
from flows.proving.proof import Proof, compare
from flows.proving.scratch_restore import ScratchRestore, open_scratch
from flows.reporting.artifacts import publish_verification
from flows.stages.compress import decompress
from flows.stages.diff import merge
from flows.stages.encrypt import decrypt
from flows.stages.record import find
from flows.stages.store import fetch

_NOT_RECORDED = "this result could not be recorded"
"""Begins the warning of a verification that only its reader knows of."""


@flow(name="verify", flow_run_name=named("verify {backup} of {plan}"), task_runner=stage_runner, persist_result=False)
def verify(
    plan: str, backup: str = "latest", deep: bool = True, due: bool = False, everything: bool = False
) -> Verification | DueResult:
    """Prove that a backup can be restored and is good data; fails where it is not.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        backup: Id of the backup, or `latest`.
        deep: Also restore to a scratch folder and read the restored state back.
        due: Prove what is due by the plan's `prove_within` instead: the latest backup deeply, and others in turn.
        everything: Prove all backups instead, whenever they were proved.
    """
    if due or everything:
        proved, wrong = make_due(load_plan(plan), everything)
        publish_due(proved)
        if wrong:
            raise wrong
        return proved
    result = make_verification(load_plan(plan), backup, deep)
    publish_verification(result)
    if error := failure(result):
        raise error
    return result


def make_verification(
    plan: BackupPlan,
    backup: str = "latest",
    deep: bool = True,
    progress: Progress | None = None,
    run_at: datetime | None = None,
) -> Verification:
    """Verify one backup, record the result beside it, and return it whether good or bad.

    Where the repository cannot be written (read-only, full) the result holds all the same: it is returned with a
    warning that says so, and the backup's status stays what it was.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, or `latest`.
        deep: Also restore to a scratch folder and read the restored state back.
        progress: Told of parts.
        run_at: When the run of `verify --due` began that this is part of.
    """
    started = time.monotonic()
    remove_abandoned_scratch()
    repository = plan.repository.unlock(plan.encryption)
    proof, scratch = Proof(plan), None
    target = repository.find(plan.name, backup)
    try:
        with ExitStack() as opened, open_executor() as executor:
            found = executor.submit(find, repository, plan.name, target.backup_id)
            chain: Chain = found.result()
            chain.open_data(plan.sources)
            chain.proving = True
            scratch = opened.enter_context(open_scratch(plan, chain)) if deep else None
            prove_parts(chain, proof, scratch, executor, [found], progress)
            proof[Axis.BYTES].depth = Depth.ROWS
            if scratch is not None:
                scratch.compare_restored()
                proof[Axis.RESTORABLE].depth = Depth.RESTORED
                proof[Axis.RESTORABLE].odd += scratch.warnings
                proof[Axis.QUALITY].bad += scratch.findings
        proof.run_suites(target)
    except (CorruptionDetected, UnsupportedState) as exc:
        proof[Axis.BYTES].bad.append(exc.message)
    result = Verification(
        plan=plan.name,
        backup_id=target.backup_id,
        manifest_sha256=repository.link(target).manifest_sha256,
        verified_at=datetime.now(UTC),
        deep=deep,
        status=proof.status,
        rows=proof.rows,
        expectations=proof.expectations,
        seconds=round(time.monotonic() - started, 3),
        findings=tuple(proof.findings),
        warnings=tuple(proof.warnings),
        results=proof.results,
        restore_seconds=scratch.restore_seconds if scratch is not None else None,
        run_at=run_at,
        tool_versions=tool_versions(),
    )
    return _recorded(repository, result)


def make_due(
    plan: BackupPlan, everything: bool = False, progress: Progress | None = None, now: datetime | None = None
) -> tuple[DueResult, LastgoodError | None]:
    """Prove what is due by the plan's `prove_within`, or all; what is bad is recorded, and the others are proved.

    Args:
        plan: The plan, read and resolved.
        everything: Prove all kept backups, whenever they were proved.
        progress: Told of parts.
        now: What this machine's clock says; it is read where this is None.

    Returns:
        What came of it, and the worst error that it amounts to: damage, then bad data, then backups that are overdue.

    Raises:
        BackupNotFound: The plan has no backup.
    """

    def verify_one(plan: BackupPlan, backup: str, run_at: datetime, progress: Progress | None) -> Verification:
        return make_verification(plan, backup, True, progress, run_at)

    result, wrong = prove_due(plan, verify_one, _recorded, everything, progress, now)
    found = [error for proof in result.proofs if (error := failure(proof.verification))]
    errors = [*found, *([wrong] if wrong else [])]
    if not errors:
        return result, None
    worst = min(errors, key=lambda error: _WORST.index(error.exit_code) if error.exit_code in _WORST else len(_WORST))
    worst.__cause__ = NotAllProved(result)
    return result, worst


_WORST = (CorruptionDetected.exit_code, QualityFailed.exit_code, RepositoryUnavailable.exit_code)
"""Exit codes of a run that found several things wrong: the first of them counts."""


class NotAllProved(Exception):
    """Why a run of `verify --due` failed, as the cause of the error that says so.

    Attributes:
        result: All that the run did.
    """

    def __init__(self, result: DueResult) -> None:
        super().__init__(f"{len(result.proofs)} proofs")
        self.result = result


class Unrecorded(Verification):
    """A verification that could not be recorded beside its backup."""


def _recorded(repository: Repository, result: Verification) -> Verification:
    try:
        repository.record_verification(result)
    except RepositoryUnavailable as exc:
        warning = f"{_NOT_RECORDED}, so `lastgood list` does not show it: {exc.message}"
        return Unrecorded(**dict(result) | {"warnings": (*result.warnings, warning)})
    return result


def prove_parts(
    chain: Chain,
    proof: Proof,
    scratch: ScratchRestore | None,
    executor: StageExecutor,
    after: list[Outcome],
    progress: Progress | None = None,
) -> None:
    """Run every part of a backup through the restore stages and compare what arrives."""
    window: BoundedWindow[RestorePart] = BoundedWindow(chain.parts(Selection()), progress=progress)
    for part in window:
        pieces = executor.submit(fetch, part, after=after)
        packed = executor.submit(decrypt, part, pieces)
        changes = executor.submit(decompress, part, packed)
        merged = executor.submit(merge, part, changes)
        window.follow(part, pieces, packed, changes, merged, executor.submit(prove, part, proof, scratch, merged))


@task(task_run_name="prove {part}", tags=["stage"], **PURE)
def prove(part: RestorePart, proof: Proof, scratch: ScratchRestore | None, merged: OneShot[pa.Table]) -> int:
    """Compare one part's rows with its index; in a deep verification, write them to the scratch restore."""
    rows = from_normal(merged.take())
    chain, collection = part.chain, part.collection
    expected = chain.index(collection.name, part.part.number)
    if part.part.rows != len(expected):
        raise CorruptionDetected(f"{part}: the index holds {len(expected)} rows, the manifest {part.part.rows}")
    if rows.num_columns:
        compare(str(part), expected, rows, part.spec.key, chain.index_digest)
        proof.keep(collection.name, rows)
        if scratch is not None:
            scratch.apply(part, rows, expected)
    elif len(expected):
        raise CorruptionDetected(f"{part}: the index holds {len(expected)} rows, the data none")
    proof.count(len(expected))
    return len(expected)


def failure(result: Verification) -> LastgoodError | None:
    """Return the error that a verification's findings amount to, or None where it proved the backup good."""
    if not result.findings:
        return None
    kind = CorruptionDetected if result.status is BackupStatus.CORRUPTED else QualityFailed
    more = f" (and {len(result.findings) - 1} more)" if len(result.findings) > 1 else ""
    shown = "`lastgood show` lists all findings; restore"
    where = f"{_NOT_RECORDED}. Restore" if isinstance(result, Unrecorded) else shown
    error = kind(
        f"backup {result.backup_id} of plan {result.plan}: {result.findings[0]}{more}",
        hint=f"{where} an earlier backup with --at.",
    )
    error.__cause__ = Unproved(result)
    return error


def unproved(error: LastgoodError) -> Verification | None:
    """Return the verification that failed with an error; None where it travelled between processes."""
    return error.__cause__.result if isinstance(error.__cause__, Unproved) else None


class Unproved(Exception):
    """Why a verification failed, as the cause of the error that says so.

    Attributes:
        result: The result of the verification.
    """

    def __init__(self, result: Verification) -> None:
        super().__init__(f"{len(result.findings)} findings")
        self.result = result
