"""What a run of `verify --due` leaves in the Prefect UI."""

from __future__ import annotations

from flows.proving.due import DueResult
from flows.reporting.artifacts import publish_table
from flows.reporting.units import human_seconds


def due_lines(result: DueResult) -> list[str]:
    """Say what a run proved, and what it left."""
    bad = sum(bool(proof.verification.findings) for proof in result.proofs)
    return [
        f"plan: {result.plan}, {len(result.proofs):,} backups proved, {bad:,} with findings, "
        f"{len(result.overdue):,} overdue",
        *(f"found: {finding}" for finding in result.findings),
        f"took: {human_seconds(result.seconds)}",
    ]


def publish_due(result: DueResult) -> None:
    """Publish what a run proved, and what it left, as a table; what recovery costs stands below it."""
    rows = [
        {
            "backup": proof.backup_id,
            "how": proof.kind.value,
            "why": proof.why,
            "status": proof.verification.status.value,
            "took": human_seconds(proof.verification.seconds),
            "findings": "; ".join(proof.verification.findings),
        }
        for proof in result.proofs
    ]
    late = [{"backup": backup_id, "how": "", "why": "overdue", "status": "not proved"} for backup_id in result.overdue]
    told = [*result.recovery.sentences(), *result.findings, *result.warnings]
    publish_table(["proofs", result.plan], [*rows, *late], " ".join(f"{sentence}." for sentence in told))
