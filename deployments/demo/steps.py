"""The steps of the story, and what each of them proves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.repository.lookup import LATEST
from blocks.sources.target import RestoreMode
from blocks.verification import Verification
from deployments.demo.application import Application
from deployments.demo.comparison import equal
from deployments.demo.folder import DemoFolder
from deployments.demo.narrator import Narrator
from deployments.demo.oracle import Oracle
from deployments.demo.proofs import Proof, Proofs
from deployments.demo.servers import Servers
from deployments.demo.state import Number, live_state, restored_state
from deployments.demo.trading import Places
from flows.backup import backup
from flows.pipeline.results import RestoreResult
from flows.reporting.units import human_bytes
from flows.restore import restore
from flows.retention import apply_retention, retention
from flows.verify import verify

TRANSACTIONS = 15
"""What the application commits between two backups, at least."""


@dataclass(frozen=True)
class Moment:
    """A backup, and what state really was when it was made: byte for byte, and by the numbers of orders and fills."""

    made: BackupMetadata
    oracle: Oracle
    numbers: set[Number]


class Story:
    """The steps of the demo, in their order, and what they prove.

    Args:
        place: The demo's folder.
        places: Where the application keeps its state.
        servers: Those that it has.
        narrator: Shows it.
        save_plan: Save the plan as a block and run it by its name; not on a server that is not the demo's own.
    """

    def __init__(
        self, place: DemoFolder, places: Places, servers: Servers, narrator: Narrator, save_plan: bool
    ) -> None:
        self._place, self._places, self._servers = place, places, servers
        self._narrator, self._save_plan = narrator, save_plan
        self._live = live_state(places, servers)
        self.proofs = Proofs()

    def tell(self) -> None:
        """Show it."""
        self._initialize()
        with Application(self._places) as application:
            before = self._live.numbers()
            full, _ = self._backup_under_writes(application, BackupType.FULL)
            self._delete_some(application)
            earlier = self._backup_exactly(application, BackupType.INCREMENTAL)
            deleted = before - earlier.numbers
            self._change_some(application)
            differential, meanwhile = self._backup_under_writes(application, BackupType.DIFFERENTIAL)
            application.trade(TRANSACTIONS)
            latest = self._backup_exactly(application, BackupType.INCREMENTAL)
            self._lose_everything(application)
        self._restore_in_place(latest)
        self._trade_on()
        self._restore_point_in_time(earlier, deleted)
        self._restore_made_under_writes(differential, meanwhile)
        self._compare_sizes(full, latest.made)
        self._verify(latest.made)
        self._rehearse_retention()

    def _initialize(self) -> None:
        with self._narrator.step("lastgood init") as step:
            path = self._place.write_plan(self._servers.sources, self._servers.repository)
            self._plan: BackupPlan = read_plan(path)
            self._reference = str(path)
            if self._save_plan:
                self._plan.save(self._plan.name, overwrite=True, _sync=True)
                self._reference = self._plan.name
            kit = self._plan.repository.initialize(self._plan.encryption)
            where = "" if self._servers.repository is None else f" at {kit.url}"
            step.done(f"repository {kit.repository_id[:8]}{where}, keys sealed under a passphrase")

    def _backup(self, kind: BackupType, note: str) -> BackupMetadata:
        with self._narrator.step(f"{kind.value} backup") as step:
            made: BackupMetadata = backup(self._reference, kind)
            changes = "" if kind is BackupType.FULL else f", {made.tombstones:,} deletions"
            step.done(f"{made.upserts:,} rows{changes}, {human_bytes(made.size_stored)}; {note}")
        return made

    def _backup_under_writes(self, application: Application, kind: BackupType) -> tuple[BackupMetadata, int]:
        before = application.trade(1)
        made = self._backup(kind, "writing on")
        return made, application.tell("resume")["transactions"] - before

    def _backup_exactly(self, application: Application, kind: BackupType) -> Moment:
        """Back up while nothing writes, so that what comes back can be compared to the last byte."""
        application.tell("pause")
        oracle, numbers = self._live.freeze(), self._live.numbers()
        made = self._backup(kind, "paused, to compare")
        application.tell("resume")
        return Moment(made, oracle, numbers)

    def _delete_some(self, application: Application) -> None:
        with self._narrator.step("changes") as step:
            application.trade(TRANSACTIONS)
            gone = application.tell("purge")
            keys = f", {gone['keys']:,} keys" if "keys" in gone else ""
            step.done(f"{gone['rows']:,} rows{keys} and {gone['files']} files deleted, new orders")

    def _change_some(self, application: Application) -> None:
        with self._narrator.step("changes") as step:
            application.tell("retrain")
            application.trade(TRANSACTIONS)
            step.done("one model retrained, one added, settings, new orders")

    def _lose_everything(self, application: Application) -> None:
        with self._narrator.step("disaster") as step:
            application.kill()
            step.done(self._live.destroy())

    def _restore(
        self,
        what: str,
        note: Callable[[RestoreResult], str],
        backup_id: str = LATEST,
        at: datetime | None = None,
        to: Path | None = None,
    ) -> RestoreResult:
        with self._narrator.step(what) as step:
            place = None if to is None else str(to)
            result: RestoreResult = restore(self._reference, backup_id, at, to=place, mode=RestoreMode.EXACT)
            step.done(note(result))
        return result

    def _restore_in_place(self, latest: Moment) -> None:
        def told(result: RestoreResult) -> str:
            rescued = "; the rest kept first" if result.rescue_id else ""
            return f"{result.rows:,} rows of {result.backup_id}{rescued}"

        result = self._restore("restore latest, in place", told)
        for proof in equal("latest state is back", latest.oracle, self._live.freeze(), result.seconds):
            self.proofs.add(proof)

    def _restore_point_in_time(self, earlier: Moment, deleted: set[Number]) -> None:
        moment: datetime = earlier.made.timestamp
        folder = self._place.path / "restored" / "point-in-time"
        result = self._restore(
            f"restore as of {moment:%H:%M:%S}",
            lambda r: f"{r.rows:,} rows of {r.backup_id}, to a folder",
            at=moment,
            to=folder,
        )
        with restored_state(folder, result, self._servers) as restored:
            for proof in equal("point in time is back", earlier.oracle, restored.freeze(), result.seconds):
                self.proofs.add(proof)
            left = len(deleted & restored.numbers()) + len(deleted & self._live.numbers())
        self.proofs.add(
            Proof(
                "deletions stay deleted",
                f"{len(deleted):,} orders, fills; {left} are back",
                left == 0 < len(deleted),
            )
        )

    def _restore_made_under_writes(self, made: BackupMetadata, meanwhile: int) -> None:
        folder = self._place.path / "restored" / "under-writes"
        result = self._restore(
            "restore the differential",
            lambda r: f"{r.rows:,} rows of {r.backup_id}, to a folder",
            backup_id=made.backup_id,
            to=folder,
        )
        with restored_state(folder, result, self._servers) as restored:
            broken = restored.broken()
        self.proofs.add(
            Proof(
                "backup under writes is consistent",
                f"{meanwhile} commits, {broken} wrong sums",
                broken == 0 and meanwhile > 0,
                result.seconds,
            )
        )

    def _trade_on(self) -> None:
        with self._narrator.step("start application again") as step:
            there = self._live.numbers()
            with Application(self._places) as application:
                application.trade(TRANSACTIONS)
                application.tell("pause")
                new = self._live.numbers() - there
            step.done(f"{len(new):,} new orders and fills on the restored state")
        broken = self._live.broken()
        self.proofs.add(
            Proof(
                "application works on it",
                f"{len(new):,} new orders, {broken} wrong sums",
                bool(new) and broken == 0,
            )
        )

    def _compare_sizes(self, full: BackupMetadata, incremental: BackupMetadata) -> None:
        self.proofs.add(
            Proof(
                "incremental stores only changes",
                f"{incremental.upserts:,} rows; the full {human_bytes(full.size_stored)}",
                incremental.upserts < incremental.rows and incremental.size_stored * 4 < full.size_stored,
                incremental.backup_duration_seconds,
                incremental.size_stored,
            )
        )

    def _verify(self, latest: BackupMetadata) -> None:
        with self._narrator.step("deep verification") as step:
            result = cast("Verification", verify(self._reference, latest.backup_id, deep=True))
            step.done(f"{result.rows:,} rows restored, compared; {result.expectations} quality checks")
        self.proofs.add(
            Proof(
                "deep verification finds nothing",
                f"{result.rows:,} rows, {result.expectations} expectations",
                result.status is BackupStatus.VERIFIED and result.rows == latest.rows and result.expectations > 0,
                result.seconds,
                latest.size_bytes,
            )
        )

    def _rehearse_retention(self) -> None:
        repository = self._plan.repository.unlock(self._plan.encryption)
        before = {made.backup_id for made in repository.backups(self._plan.name)}
        with self._narrator.step("retention, dry run") as step:
            retention(self._reference, dry_run=True)
            next_week = datetime.now(UTC) + self._plan.retention.incremental + timedelta(days=1)
            result = apply_retention(self._plan, dry_run=True, now=next_week)
            going = ", ".join(decision.backup_id for decision in result.removed)
            step.done(f"on {next_week:%Y-%m-%d} {len(result.removed)} of {len(result.decisions)} would go: {going}")
        left = {made.backup_id for made in repository.backups(self._plan.name)}
        needed = {link.backup_id for made in repository.backups(self._plan.name) for link in made.chain}
        gone = {decision.backup_id for decision in result.removed}
        self.proofs.add(
            Proof(
                "retention breaks no chain",
                f"{len(gone)} of {len(before)} would go, {len(gone & needed)} needed",
                bool(gone) and left == before and not gone & needed,
            )
        )
