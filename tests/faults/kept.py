"""A repository with a long history, and what is said of it after it was damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.errors import CorruptionDetected, LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata, BackupStatus, BackupType, Blob, Segment
from blocks.rows.selection import Selection
from flows.backup import make_backup
from flows.check import check_repository
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.damage import hard_copy
from tests.faults.live_state import PLAN, LiveState, Oracle, dump_of, make_key, make_plan, restored

BLOB_BYTES = 1_100_000
"""Incompressible, so that a segment has many chunks, and a pack of its own."""
CURVE_BYTES = 100_000
"""Incompressible, so that a segment has two chunks, and shares its pack, but not its blobs, with others."""
PART_BYTES = 1_500_000

FULL, INC1, DIF, INC2, SNA = range(5)
TOP = {FULL: INC2, INC1: INC1, DIF: INC2, INC2: INC2, SNA: SNA}
"""For each backup the newest one that depends on it."""


@dataclass
class Said:
    """What a person hears about one backup of a damaged repository; data that came back was compared."""

    restore: LastgoodError | None = None
    verify: LastgoodError | None = None
    status: BackupStatus | None = None
    findings: tuple[str, ...] = ()
    noticed: list[str] = field(default_factory=list)


class Kept:
    """Five backups with verifications, and two more that retention removed on record.

    Args:
        folder: An empty folder.
        encrypted: Whether the repository is.
    """

    def __init__(self, folder: Path, encrypted: bool = True, blob_bytes: int = BLOB_BYTES) -> None:
        self.folder = folder
        self.key = make_key(folder / "key") if encrypted else None
        self.state = LiveState(folder, blob_bytes=blob_bytes, curve_bytes=CURVE_BYTES)
        self.state.create()
        self.pristine = folder / "repository"
        self.plan = self.plan_at(self.pristine)
        self.plan.repository.initialize(self.plan.encryption)
        self._make_expired()
        self.backups: list[BackupMetadata] = []
        self.oracles: list[Oracle] = []
        kinds = [BackupType.FULL, BackupType.INCREMENTAL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL]
        for step, kind in enumerate([*kinds, BackupType.SNAPSHOT], 1):
            self.state.change(step)
            self.backups.append(make_backup(self.plan, kind))
            self.oracles.append(self.state.oracle())
        assert [b.promoted_because for b in self.backups] == [None] * 5
        for number in (INC2, INC2, SNA):
            make_verification(self.plan, self.backups[number].backup_id, deep=False)
        self._copies = 0

    def _make_expired(self) -> None:
        made = [make_backup(self.plan, BackupType.SNAPSHOT) for _ in range(2)]
        make_backup(self.plan, BackupType.FULL)
        policy = RetentionPolicy(snapshot=timedelta(seconds=1))
        plan = self.plan.model_copy(update={"retention": policy})
        done = apply_retention(plan, now=datetime.now(UTC) + timedelta(minutes=1))
        assert {one.backup_id for one in done.removed} == {one.backup_id for one in made}

    def plan_at(self, repository: Path, later: bool = False) -> BackupPlan:
        return make_plan(self.state, repository, self.key, PART_BYTES, later)

    def copy(self) -> Path:
        """Copy the pristine repository."""
        self._copies += 1
        copied = self.folder / f"copy {self._copies}"
        hard_copy(self.pristine, copied)
        return copied

    def blob_of(self, backup: int, collection: str, part: int, kind: str) -> Blob:
        """Return the blob of a segment that is its `data` or its `index`."""
        segment = self.segment(backup, collection, part)
        return segment.data if kind == "data" else segment.index

    def object_of(self, backup: int, collection: str, part: int, kind: str) -> str:
        """Name the pack that holds the `data` or the `index` of a segment, within the repository."""
        return f"{self.folder_of(backup)}/{self.blob_of(backup, collection, part, kind).name}"

    def blobs(self, backup: int) -> list[tuple[Blob, str]]:
        """Return all blobs of a backup, each once and with what it holds: `data` or `index`; as they lie in packs."""
        segments = [part.segment for part in self.backups[backup].stored_parts if part.segment]
        found = {(s.data.name, s.data.offset): (s.data, "data") for s in segments}
        found |= {(s.index.name, s.index.offset): (s.index, "index") for s in segments}
        return [found[place] for place in sorted(found)]

    def harmed(self, repository: Path, backup: int) -> set[str]:
        """Return what of a backup is not where it was stored: `data`, `index`, both or nothing."""

        def held(root: Path, blob: Blob) -> bytes:
            path = root / self.folder_of(backup) / blob.name
            return path.read_bytes()[blob.offset :][: blob.size_bytes] if path.is_file() else b""

        return {kind for blob, kind in self.blobs(backup) if held(repository, blob) != held(self.pristine, blob)}

    def segment(self, backup: int, collection: str, part: int) -> Segment:
        found = next(c for c in self.backups[backup].collections if c.name == collection)
        segment = found.parts[part].segment
        assert segment is not None
        return segment

    def folder_of(self, backup: int) -> str:
        return f"backups/{PLAN}/{self.backups[backup].backup_id}"

    def listen(self, repository: Path, backup: int) -> Said:
        """Restore, verify and check a backup; whatever comes back must be right."""
        plan, backup_id, said = self.plan_at(repository), self.backups[backup].backup_id, Said()
        said.restore = error_of(lambda: self.compare(plan, backup))

        def verify() -> None:
            result = make_verification(plan, backup_id, deep=False)
            said.status, said.findings = result.status, result.findings

        said.verify = error_of(verify)
        if error := error_of(lambda: said.noticed.extend(check_repository(plan, read_share=1.0).findings)):
            said.noticed.append(error.message)
        assert said.status is not BackupStatus.VERIFIED or said.restore is None, "verified what cannot be restored"
        return said

    def look_up(self, plan: BackupPlan, backup: int, order: int) -> None:
        """Restore one row of the orders by its key and compare it with the oracle."""
        to = self.folder / "one.db"
        selection = Selection(("ledger/orders",), (str(order),))
        request = RestoreRequest(self.backups[backup].backup_id, selection=selection, to=str(to))
        wanted = [
            line for line in self.oracles[backup].dump if line.startswith(f'INSERT INTO "orders" VALUES({order},')
        ]
        try:
            make_restore(plan, request)
            assert [line for line in dump_of(to) if line.startswith('INSERT INTO "orders"')] == wanted != []
        finally:
            to.unlink(missing_ok=True)

    def compare(self, plan: BackupPlan, backup: int) -> None:
        """Restore a backup and compare it with its oracle."""
        to = self.folder / "restored"
        try:
            assert restored(plan, self.backups[backup].backup_id, to) == self.oracles[backup], "wrong data came back"
        finally:
            shutil.rmtree(to, ignore_errors=True)


def error_of(work: Callable[[], object]) -> LastgoodError | None:
    """Return the error that was raised on purpose; anything else is a failure of the test."""
    try:
        work()
    except LastgoodError as error:
        return error
    return None


def record_of(repository: Path, folder: str) -> Path:
    return max((repository / folder / PLAN).rglob("*Z"))


def names_it(error: LastgoodError | None, *words: str) -> bool:
    return isinstance(error, CorruptionDetected) and any(word in error.message for word in words) and bool(error.hint)
