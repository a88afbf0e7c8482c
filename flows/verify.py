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

from blocks.errors import CorruptionDetected, LastgoodError, QualityFailed, UnsupportedState
from blocks.manifest import BackupStatus, Verification
from blocks.plan import BackupPlan, load_plan
from blocks.selection import Selection
from flows.box import Box
from flows.chain import Chain
from flows.engine import INSIDE, flow, stage_runner, task
from flows.line import Line, Outcome, Window, open_line
from flows.naming import named
from flows.parcel import RestorePart
from flows.progress import Progress
from flows.proof import Proof, compare
from flows.report import publish_verification
from flows.scratch import Scratch, open_scratch
from flows.stages.compress import decompress
from flows.stages.diff import merge
from flows.stages.encrypt import decrypt
from flows.stages.normalize import from_normal, to_normal
from flows.stages.record import find
from flows.stages.store import fetch


@flow(name="verify", flow_run_name=named("verify {backup} of {plan}"), task_runner=stage_runner, persist_result=False)
def verify(plan: str, backup: str = "latest", deep: bool = True) -> Verification:
    """Prove that a backup can be restored and is good data; fails where it is not.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        backup: Id of the backup, or `latest`.
        deep: Also restore to a scratch folder and read the restored state back.
    """
    result = make_verification(load_plan(plan), backup, deep)
    publish_verification(result)
    if error := failure(result):
        raise error
    return result


def make_verification(
    plan: BackupPlan, backup: str = "latest", deep: bool = True, progress: Progress | None = None
) -> Verification:
    """Verify one backup, record the result beside it, and return it whether good or bad."""
    started = time.monotonic()
    repository = plan.repository.unlock(plan.encryption)
    proof = Proof(plan)
    target = repository.find(plan.name, backup)
    try:
        with ExitStack() as opened, open_line() as line:
            found = line.submit(find, repository, plan.name, target.backup_id)
            chain: Chain = found.result()
            chain.open_data(plan.sources)
            scratch = opened.enter_context(open_scratch(plan, chain)) if deep else None
            prove_parts(chain, proof, scratch, line, [found], progress)
            if scratch is not None:
                scratch.compare_restored()
        proof.run_suites(target)
    except (CorruptionDetected, UnsupportedState) as exc:
        proof.corrupt(exc.message)
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
    )
    repository.record_verification(result)
    return result


def prove_parts(
    chain: Chain,
    proof: Proof,
    scratch: Scratch | None,
    line: Line,
    after: list[Outcome],
    progress: Progress | None = None,
) -> None:
    """Send every part of a backup up the stages and compare what arrives."""
    window: Window[RestorePart] = Window(chain.parts(Selection()), progress=progress)
    for part in window:
        pieces = line.submit(fetch, part, after=after)
        packed = line.submit(decrypt, part, pieces)
        changes = line.submit(decompress, part, packed)
        merged = line.submit(merge, part, changes)
        window.follow(part, pieces, packed, changes, merged, line.submit(prove, part, proof, scratch, merged))


@task(task_run_name="prove {part}", tags=["stage"], **INSIDE)
def prove(part: RestorePart, proof: Proof, scratch: Scratch | None, merged: Box[pa.Table]) -> int:
    """Compare one part's rows with its index; in a deep verification, write them to the scratch restore."""
    rows = from_normal(merged.take())
    chain, collection = part.chain, part.collection
    expected = chain.index(collection.name, part.part.number)
    if part.part.rows != len(expected):
        raise CorruptionDetected(f"{part}: the index holds {len(expected)} rows, the manifest {part.part.rows}")
    if rows.num_columns:
        compare(str(part), expected, to_normal(rows, part.spec.key, chain.digest))
        proof.keep(collection.name, rows)
        if scratch is not None:
            scratch.apply(part, rows)
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
    return kind(
        f"backup {result.backup_id} of plan {result.plan}: {result.findings[0]}{more}",
        hint="`lastgood show` lists all findings; restore an earlier backup with --at.",
    )
