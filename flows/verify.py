"""The verify flow: prove that a backup can be had back, and that what comes back is good data.

Every verification fetches, opens and merges every part, computes keys and digests again from the rows, and compares
them with the index. A deep one also really restores, to a scratch folder, reads the restored state as a backup would,
and compares again. Then the quality suites run on the restored rows.

One proof does not wait for another to be good: all parts are looked at, damage is charged to the backup that stored it,
and a restore that fails is a finding.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime

import pyarrow as pa

from blocks.errors import (
    CorruptionDetected,
    LastgoodError,
    ObjectUnreadable,
    RepositoryUnavailable,
    UnsupportedState,
)
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.host.log_lines import working_on
from blocks.plan.hooked_run import HookedRun
from blocks.plan.plan import BackupPlan, load_plan
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.repository.verdict import bad_sentence
from blocks.rows.normalize import from_normal
from blocks.rows.selection import Selection
from blocks.verification import Axis, Depth, Verification
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.executor import BoundedWindow, StageExecutor, open_executor
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, flow, stage_runner, task
from flows.pipeline.progress import Progress, expect
from flows.pipeline.run_log import tally
from flows.pipeline.run_names import named
from flows.pipeline.tool_versions import tool_versions
from flows.proving.damage import DamageOfChain
from flows.proving.definitions import drift
from flows.proving.due import DueResult, prove_due, worst
from flows.proving.due_report import due_lines, publish_due
from flows.proving.failure import NOT_RECORDED, Reported, Unproved, failure, unproved
from flows.proving.objects import verification_of_objects
from flows.proving.parameters import Parameters
from flows.proving.proof import Proof, proved_index
from flows.proving.row_drift import row_drift
from flows.proving.scratch_restore import ScratchRestore, open_scratch
from flows.reading.report_run import publish_plan
from flows.reporting.artifacts import publish_verification
from flows.reporting.hooked import hooked
from flows.reporting.lifecycle import Operation, Verb, operation
from flows.reporting.run_lines import tell
from flows.stages.compress import decompress
from flows.stages.diff import merge
from flows.stages.encrypt import decrypt
from flows.stages.record import find
from flows.stages.store import fetch

_DUE = "due"
"""The mode of a run that proves several backups, as hooks are told it."""

_WRONG = (CorruptionDetected, UnsupportedState)


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
    opened = load_plan(plan)
    if due or everything:
        proved, wrong = make_due(opened, everything)
        for proof in proved.proofs[:1]:
            publish_verification(opened, proof.verification)  # of the newest backup
        tell(due_lines(proved))
        publish_due(proved)
        publish_plan(opened)
        if wrong:
            raise wrong
        return proved
    try:
        result = make_verification(opened, backup, deep)
    except LastgoodError as exc:
        if (verified := unproved(exc)) is not None:  # and then a hook failed
            publish_verification(opened, verified)
        raise
    publish_verification(opened, result)
    publish_plan(opened)
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
    """Verify one backup, record the result beside it, and return it as it was recorded, whether good or bad.

    What of its chain is found damaged is recorded of the backup that stored it, too. Where the repository cannot be
    written (read-only, full) the result holds all the same: it is returned with a warning that says so, and what is
    known of the backup stays what it was.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, or `latest`.
        deep: Also restore to a scratch folder and read the restored state back.
        progress: Told of parts.
        run_at: When the run of `verify --due` began that this is part of; that run has the hooks.

    Raises:
        HookFailed: A hook before it failed; nothing was verified.
        LastgoodError: It is recorded, and then a hook failed: `unproved` gives the result.
    """
    mode = "deep" if deep else "quick"
    with operation(plan, Verb.VERIFICATION, mode) as run, hooked(run, mode) as hooks:
        result: Verification | None = None
        try:
            with hooks.around_verb() if run_at is None else nullcontext():
                run.result = result = _verified(plan, backup, deep, progress, run_at, hooks)
                run.backup_id = result.backup_id
                run.shortfall = hooks.found = failure(result)
        except LastgoodError as exc:
            if result is not None and exc.__cause__ is None:
                raise exc from Unproved(result)
            raise
        return result


def _verified(
    plan: BackupPlan,
    backup: str,
    deep: bool,
    progress: Progress | None,
    run_at: datetime | None,
    hooks: HookedRun,
) -> Verification:
    started = time.monotonic()
    remove_abandoned_scratch()
    repository = plan.repository.unlock(plan.encryption)
    proof = Proof(plan)
    target = repository.find(plan.name, backup)
    hooks.made(target)
    working_on(target.backup_id)
    lost = repository.noticed_rollback(plan.name)
    proof[Axis.QUALITY].odd += row_drift(repository, target)
    damage = DamageOfChain(repository, target)
    scratch: ScratchRestore | None = None
    with ExitStack() as opened, open_executor() as executor:
        whole = False
        try:
            found = executor.submit(find, repository, plan.name, target.backup_id)
            chain: Chain = found.result()
            chain.open_data(plan.sources)
            chain.proving = True
            opened.enter_context(proof.rows_of(target))
        except _WRONG as exc:
            damage.charge(exc)
        except ObjectUnreadable as exc:
            damage.unread.append(exc.message)
        else:
            scratch = opened.enter_context(open_scratch(plan, chain)) if deep else None
            prove_parts(chain, proof, damage, scratch, executor, progress)
            whole = not damage.found and not damage.unread
            if scratch is not None and whole:
                scratch.prove(proof)
            elif scratch is not None:
                proof[Axis.RESTORABLE].unproven.append("It was not restored, since not all of it could be read.")
            proof[Axis.DEFINITIONS].odd += drift(plan, repository, target)
        proof.run_suites(Parameters(repository, target), whole)
    proof[Axis.BYTES].reach(Depth.ROWS)
    proof[Axis.BYTES].bad += [one.sentence for one in damage.found]
    proof[Axis.BYTES].unproven += damage.unread
    unrecorded, below = _record_of_bases(repository, target, damage, whole)
    proof[Axis.BYTES].odd += [*unrecorded, *below]
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
        suites=proof.evaluated,
        rules=tuple(proof.rules),
        profile=proof.profile,
        restore_seconds=scratch.restore_seconds if scratch is not None else None,
        run_at=run_at,
        tool_versions=tool_versions(),
        place=scratch.place if scratch is not None else None,
    )
    return _recorded(repository, result, lost, below[0] if below else None)


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
        What came of it, and the worst error that it amounts to: what the proofs found, then backups that are overdue.

    Raises:
        BackupNotFound: The plan has no backup.
        HookFailed: A hook before it failed; nothing was proved.
    """

    def verify_one(plan: BackupPlan, backup: str, run_at: datetime, progress: Progress | None) -> Verification:
        return make_verification(plan, backup, True, progress, run_at)

    def record(repository: Repository, result: Verification) -> Verification:
        return _recorded(repository, result)

    result: DueResult | None = None
    with hooked(Operation(plan, Verb.VERIFICATION, _DUE), _DUE) as hooks:  # once, around all
        try:
            with hooks.around_verb():
                result, wrong = prove_due(plan, verify_one, record, everything, progress, now)
                found = [error for proof in result.proofs if (error := failure(proof.verification))]
                hooks.found = worst([*found, *wrong], result)
        except LastgoodError as exc:
            if result is None:
                raise
            return result, worst([exc], result)
        return result, hooks.found


def _recorded(
    repository: Repository, result: Verification, lost: str | None = None, below: str | None = None
) -> Verification:
    recorded, warnings = True, [*result.warnings, *([lost] if lost else [])]
    try:
        result = repository.record_verification(result)
    except RepositoryUnavailable as exc:
        recorded = False
        warnings.append(f"{NOT_RECORDED}, so `lastgood list` does not show it: {exc.message}")
    if recorded and lost is None and below is None:
        return result
    told = {"warnings": tuple(warnings), "recorded": recorded, "lost": lost, "below": below}
    return Reported(**dict(result) | told)


def _record_of_bases(
    repository: Repository, target: BackupMetadata, damage: DamageOfChain, whole: bool
) -> tuple[list[str], list[str]]:
    """Record what was found of the backups that the verified one depends on.

    Damage is recorded of the backup that stored it. One whose objects were damaged before, and were all read and found
    right by now, is healed as far as reading its objects proves it.

    Returns:
        What could not be recorded, and against which of them more stands than that heals, in sentences.
    """
    unrecorded, below = [], []
    known = repository.own_verdicts(target.plan, target.chain) if target.chain and whole else {}
    for link in target.chain:
        wrong = damage.sentences(link.backup_id)
        if not wrong and not (link in known and known[link].bad_bytes):
            continue
        try:
            repository.record_verification(verification_of_objects(target.plan, link, wrong, datetime.now(UTC)))
        except RepositoryUnavailable as exc:
            unrecorded.append(f"what was found of {link.backup_id} could not be recorded: {exc.message}")
            continue
        if not wrong and (stands := repository.own_verdict(target.plan, link)).bad_bytes:
            sentence = bad_sentence(Axis.BYTES, stands.axes[Axis.BYTES])
            below.append(f"{link.backup_id}, which it depends on, is to be verified itself: {sentence}")
    return unrecorded, below


def prove_parts(
    chain: Chain,
    proof: Proof,
    damage: DamageOfChain,
    scratch: ScratchRestore | None,
    executor: StageExecutor,
    progress: Progress | None = None,
) -> None:
    """Run every part of a backup through the restore stages and compare what arrives.

    A part that is damaged, or cannot be read, keeps no other from being looked at.
    """

    def taken(error: BaseException, part: RestorePart) -> bool:
        if isinstance(error, _WRONG):
            damage.charge_part(part, error)
        elif isinstance(error, ObjectUnreadable):
            damage.unread.append(error.message)
        else:
            return False
        return True

    expect(progress, sum(part.size_bytes for part in chain.parts(Selection())))
    window: BoundedWindow[RestorePart] = BoundedWindow(chain.parts(Selection()), progress=progress, failed=taken)
    for part in window:
        pieces = executor.submit(fetch, part)
        packed = executor.submit(decrypt, part, pieces)
        changes = executor.submit(decompress, part, packed)
        merged = executor.submit(merge, part, changes)
        window.follow(part, pieces, packed, changes, merged, executor.submit(prove, part, proof, scratch, merged))


@task(task_run_name="prove {part}", tags=["stage"], **PURE)
def prove(part: RestorePart, proof: Proof, scratch: ScratchRestore | None, merged: OneShot[pa.Table]) -> int:
    """Compare one part's rows with its index; in a deep verification, write them to the scratch restore."""
    rows = from_normal(merged.take())
    expected = proved_index(part, rows)
    if rows.num_columns:
        proof.keep(part.collection.name, rows, part.part.number)
        if scratch is not None:
            scratch.apply(part, rows, expected)
    proof.count(len(expected))
    tally(rows=len(expected), size_bytes=rows.nbytes)
    return len(expected)
