"""The integrity of a plan's part of a repository: does the history add up, and are the bytes what was stored?

Without reading data, names, sizes and sealed records are compared. Reading data compares the SHA-256 of every object
(or of a random share) with its manifest and, as far as the credential reaches, opens it. A repair mends what can be
made again from the manifests, and marks what cannot, so that no backup is made on it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel

from blocks.crypto.keyring import Role
from blocks.errors import LastgoodError, ObjectUnreadable, RepositoryUnavailable
from blocks.host.threads import WorkerThreads
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.repository.capabilities import Capabilities
from blocks.repository.stock import Stock
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Depth, Verification
from flows.pipeline.progress import Progress, expect, moved
from flows.proving.objects import ObjectReader, Wrong, objects_to_check, sample, verification_of_objects
from flows.reporting.moments import local_time

READERS = 2
"""Objects that are read at once; each needs memory for its sealed and its opened bytes."""


MANY_MISSING = 10
"""So many objects do not get lost one by one: a disk is not mounted as a whole, or a copy is not finished."""


class CheckResult(BaseModel):
    """The outcome of a check.

    Attributes:
        findings: What is wrong, each a sentence; after a repair, what is still wrong.
        unavailable: Those findings that only say that the storage failed or refused: nothing about what is stored.
        notes: What is worth knowing and no fault.
        actions: What a repair did, each a sentence.
        capabilities: What was proved of the storage by trying it; None where it may not be written.
    """

    plan: str
    repository: str
    backups: int
    objects: int
    objects_read: int
    bytes_read: int
    findings: list[str]
    unavailable: list[str]
    notes: list[str]
    actions: list[str]
    capabilities: Capabilities | None
    seconds: float


def check_repository(
    plan: BackupPlan,
    read_share: float = 0.0,
    repair: bool = False,
    accept_head: bool = False,
    progress: Progress | None = None,
    mark_missing: bool = False,
) -> CheckResult:
    """Check what a plan has in its repository.

    Args:
        plan: The plan whose backups are checked.
        read_share: Share of the objects whose bytes are read, 0 to 1; a share below 1 is drawn at random.
        repair: Mend what can be mended; waits for no other run.
        accept_head: Take the newest backup there is as the newest ever, after a person has looked.
        progress: Told of objects that were read.
        mark_missing: In a repair, mark backups also where many objects are missing at once: they are gone for good.

    Raises:
        RepositoryLocked: A repair was asked for, and another run holds the plan.
    """
    started = time.monotonic()
    repository = plan.repository.unlock(plan.encryption)
    actions = []
    if accept_head:
        repository.accept_head(plan.name)
        actions.append("took the newest backup there is as the newest that this machine has seen")
    check = _Check(plan, repository)
    check.prove()
    check.read(read_share, progress)
    actions += check.record()
    if repair:
        with repository.lease(plan.name, "repair"):
            actions += check.repair(mark_missing)
    return CheckResult(
        plan=plan.name,
        repository=repository.url,
        backups=len(check.backups),
        objects=len(check.objects),
        objects_read=check.objects_read,
        bytes_read=check.bytes_read,
        findings=check.findings(),
        unavailable=check.unavailable(),
        notes=check.notes(),
        actions=actions,
        capabilities=check.capabilities,
        seconds=round(time.monotonic() - started, 3),
    )


class _Check:
    """One check while it goes on."""

    def __init__(self, plan: BackupPlan, repository: Repository) -> None:
        self._plan, self._repository = plan, repository
        self._survey()
        self._unlisted: list[str] = []
        self._missing = self._look_for_missing()
        self._wrong: list[Wrong] = []
        self._marked_nothing: list[str] = []
        self._not_proved: list[str] = []
        self._right: set[str] = set()
        self.capabilities: Capabilities | None = None
        self.objects_read = self.bytes_read = 0

    def _survey(self) -> None:
        """See what backups there are; each is named by digest at once, since retention may remove it meanwhile."""
        self.backups = self._repository.survey(self._plan.name).backups
        self.objects = [one for backup in self.backups for one in objects_to_check(backup)]
        self._links = {backup.backup_id: self._repository.link_of(backup) for backup in self.backups}

    def prove(self) -> None:
        """Try again what the storage can do; credentials or a disk that are only for reading are no fault."""
        try:
            self.capabilities = self._plan.repository.prove()
        except LastgoodError as exc:
            self._not_proved.append(f"what the storage can do was not proved again: {exc.message}")

    def read(self, share: float, progress: Progress | None) -> None:
        """Read a share of the objects that are there, and go on past what cannot be read."""
        absent = {f"{backup_id}/{name}" for backup_id, lost in self._missing.items() for name in lost}
        chosen = sample([one for one in self.objects if str(one) not in absent], share)
        ids = {one.backup.backup_id for one in chosen}
        reader = ObjectReader(self._repository, [b for b in self.backups if b.backup_id in ids], self._missing_of)
        with WorkerThreads(READERS, thread_name_prefix="check") as pool:
            expect(progress, sum(one.stored.size_bytes for one in chosen))
            for one, wrong in zip(chosen, pool.map(reader.read, chosen), strict=True):
                self.objects_read += 1
                self.bytes_read += one.stored.size_bytes
                if wrong is not None:
                    self._wrong.append(wrong)
                if progress is not None:
                    progress.entered(str(one))
                    moved(progress, one.stored.size_bytes)
                    progress.left(str(one))
        if share >= 1 and self._repository.keys.role is not Role.WRITER:
            faulty = {wrong.one.backup.backup_id for wrong in self._wrong}
            self._right = {b.backup_id for b in self.backups if not self._missing[b.backup_id]} - faulty

    def record(self) -> list[str]:
        """Record what reading the objects has proved; returns what was done, in words.

        What is wrong is recorded of who stored it. What is right is, where a backup was known to have damaged objects:
        it is read so often that each time is not worth a record.
        """
        if not self.objects_read:
            return []
        now, actions = datetime.now(UTC), list[str]()
        known = self._repository.own_verdicts(self._plan.name, self._links.values())
        for backup in self.backups:
            own = known[self._links[backup.backup_id]]
            damage = [w.text for w in self._wrong if w.proved and w.one.backup.backup_id == backup.backup_id]
            try:
                if damage and not own.bad_bytes:
                    self._repository.record_verification(self._of_objects(backup, damage, now))
                    actions.append(f"marked {backup.backup_id} as corrupted: no backup will be made on it")
                elif own.bad_bytes and own.depth(Axis.BYTES) == Depth.OBJECTS and backup.backup_id in self._right:
                    self._repository.record_verification(self._of_objects(backup, (), now))
                    actions.append(f"recorded that all objects of {backup.backup_id} are what was stored")
            except RepositoryUnavailable as exc:
                self._not_proved.append(f"what was read of {backup.backup_id} could not be recorded: {exc.message}")
        return actions

    def findings(self) -> list[str]:
        """Return what is wrong as of now; what retention removed while this looked is not."""
        found = [*self._lost_capabilities(), *self._repository.audit(self._plan.name)]
        there = self._repository.survey(self._plan.name).backups
        ids = {backup.backup_id for backup in there}
        found += [str(wrong) for wrong in self._wrong if wrong.one.backup.backup_id in ids]
        looked_at = [backup for backup in there if backup.backup_id in self._links]
        read = {wrong.one.backup.backup_id for wrong in self._wrong if wrong.proved}
        for backup_id, verdict in self._repository.verdicts(self._plan.name, looked_at).items():
            found += _known_before(backup_id, verdict, backup_id in read)
        return list(dict.fromkeys(found))

    def _lost_capabilities(self) -> list[str]:
        """Return what the storage does not do, although backups were begun there because it did."""
        if self.capabilities is None:
            return []
        before = self._repository.config.capabilities
        now = self.capabilities
        lost = []
        if not now.exclusive_creation and not self._plan.repository.single_writer:
            lost.append("the storage lets an existing object be created again: two runs could overwrite each other")
        if before is not None and before.ranges and not now.ranges:
            lost.append("the storage does not read parts of objects any more")
        if before is not None and before.list_after_write and not now.list_after_write:
            lost.append("the storage does not list an object right after it was written any more")
        return lost

    def unavailable(self) -> list[str]:
        """Return the findings that only say that the storage failed or refused."""
        return [str(wrong) for wrong in self._wrong if wrong.unavailable]

    def notes(self) -> list[str]:
        """Return what is no fault: who is at work, and what unfinished runs left."""
        notes = [*self._not_proved, *self._marked_nothing]
        notes += [note for source in self._plan.sources.values() for note in source.notes()]
        if lease := self._repository.current_lease(self._plan.name):
            since = local_time(lease.acquired_at)
            notes.append(f"{lease.holder} holds the plan for {lease.purpose} since {since}")
        grace = self._plan.retention.sweep_grace
        notes += [
            f"{backup_id} was never finished; retention removes what it left after {grace}"
            for backup_id in self._repository.abandoned(self._plan.name)
        ]
        if self._repository.keys.role is Role.WRITER and self.objects_read:
            notes.append("a writer's credential opens no data: of segments only the SHA-256 was compared")
        return notes

    def repair(self, mark_missing: bool) -> list[str]:
        """Mend what can be made again; mark what cannot. Returns what was done, in words.

        Under the lease everything is looked at again. Where the disk may not be all there (objects missing in bulk or
        unreadable, the newest backup gone) only bytes that were read and are wrong are marked, and no garbage is
        collected.
        """
        now = datetime.now(UTC)
        self._survey()
        self._missing = self._look_for_missing()
        doubt = None if mark_missing else self._doubt()
        if doubt:
            self._marked_nothing.append(
                f"{doubt}: no backup was marked for what it lacks and nothing was swept. Is the disk mounted as a "
                "whole? If it is gone for good, say `--repair --mark-missing`"
            )
            return self._mark(now, with_missing=False)
        actions = self._write_checksums()
        actions += self._mark(now, with_missing=True)
        swept = self._repository.collect_garbage(self._plan.name, self._plan.retention.sweep_grace, now)
        return actions + [f"removed {name}, left by an unfinished run" for name in swept]

    def _doubt(self) -> str | None:
        """Return why what is missing may only not be mounted; None where it is a few objects of a whole repository."""
        lost = sum(len(missing) for missing in self._missing.values())
        if lost >= MANY_MISSING or (lost > 1 and 2 * lost >= len(self.objects)):
            return f"{lost} of {len(self.objects)} objects are missing at once"
        if unreadable := [str(w.one) for w in self._wrong if not w.proved] + self._unlisted:
            return f"{len(unreadable)} cannot be read, the first {unreadable[0]}"
        return self._repository.rolled_back(self._plan.name)

    def _write_checksums(self) -> list[str]:
        actions = []
        for backup in self.backups:
            try:
                if self._repository.repair_checksums(backup):
                    actions.append(f"wrote SHA256SUMS of {backup.backup_id} again")
            except RepositoryUnavailable as exc:
                self._marked_nothing.append(f"SHA256SUMS of {backup.backup_id} could not be written: {exc.message}")
        return actions

    def _mark(self, now: datetime, with_missing: bool) -> list[str]:
        actions = []
        for backup in self.backups:
            damage = [w.text for w in self._wrong if w.proved and w.one.backup.backup_id == backup.backup_id]
            if with_missing:
                damage += [f"it lacks {name}" for name in self._missing[backup.backup_id]]
            own = self._repository.own_verdict(backup.plan, self._links[backup.backup_id])
            if damage and not own.bad_bytes:
                self._repository.record_verification(self._of_objects(backup, damage, now))
                actions.append(f"marked {backup.backup_id} as corrupted: no backup will be made on it")
        return actions

    def _of_objects(self, backup: BackupMetadata, damage: Sequence[str], now: datetime) -> Verification:
        return verification_of_objects(backup.plan, self._links[backup.backup_id], damage, now)

    def _look_for_missing(self) -> dict[str, list[str]]:
        """Return by backup the names of its objects that are absent or of another size."""
        self._unlisted = []
        stock = self._repository.stock(self._plan.name)
        return {backup.backup_id: self._missing_of(backup, stock) for backup in self.backups}

    def _missing_of(self, backup: BackupMetadata, stock: Stock | None = None) -> list[str]:
        try:
            missing = self._repository.missing(backup, stock)
        except ObjectUnreadable as exc:
            self._unlisted.append(exc.message)
            return []
        unreadable = {name: wrong for name in missing if (wrong := self._repository.unreadable(backup, name))}
        self._unlisted += unreadable.values()
        return [name for name in missing if name not in unreadable]


def _known_before(backup_id: str, verdict: Verdict, read: bool) -> list[str]:
    """Say what is known to be wrong with what a backup stored, and with its restore.

    Args:
        backup_id: Its id.
        verdict: What is known; what is only known of those that it depends on is said of them.
        read: Whether this check has found that its bytes are wrong, and says so itself.
    """
    told = [] if read or verdict.bad_base else [Axis.BYTES]
    return [
        f"{backup_id} failed its verification of {local_time(stands.verified_at)}: {stands.findings[0]}"
        for axis in (*told, Axis.RESTORABLE)
        if verdict.outcome(axis) is CheckOutcome.BAD and (stands := verdict.axes[axis]).findings
    ]
