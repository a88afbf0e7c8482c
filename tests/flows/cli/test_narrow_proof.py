"""What is known of a backup on a terminal of 80 columns: no word is folded."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from blocks.records import BackupStatus
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Depth, Standing, Verification
from flows.cli.commands.show import verifications_table
from flows.cli.output import Table
from flows.cli.render import proof_findings, proof_table

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TORN = "backups/trading/FUL_20260102_030405_9f3a/00000.pack is missing"


def words(table: Table) -> set[str]:
    console = Console(width=80, force_terminal=False)
    with console.capture() as shown:
        console.print(table.on_terminal())
    return set(shown.get().split())


def test_findings_stand_below_their_tables_and_headers_are_whole() -> None:
    stands = Standing(
        outcome=CheckOutcome.BAD, depth=Depth.ROWS.value, sequence=12, verified_at=AT, findings=(TORN, TORN)
    )
    verdict = Verdict(dict.fromkeys(Axis, stands))
    assert {"verification", "findings", "2026-01-02", "03:04:05", "bytes", "quality"} <= words(proof_table(verdict))
    assert proof_findings(verdict)[0] == f"stored bytes: {TORN}"
    assert len(proof_findings(verdict)) == 8
    made = Verification(
        plan="trading",
        backup_id="FUL_20260102_030405_9f3a",
        manifest_sha256="0" * 64,
        verified_at=AT,
        deep=True,
        status=BackupStatus.CORRUPTED,
        rows=1_000_000,
        expectations=3,
        seconds=1.5,
        findings=(TORN,),
        tool_versions={},
    )
    seen = words(verifications_table([made]))
    assert {"number", "expectations", "findings", "corrupted", "1,000,000", "2026-01-02"} <= seen
