"""What is known of a plan's backups before a run of `verify --due`: read from the records of verifications."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from blocks.errors import ObjectUnreadable
from blocks.plan.proof import Known
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.repository.checksums import objects_of
from blocks.repository.verdict import numbered, results_of, standings_of
from blocks.verification import Axis, CheckOutcome, Depth, Verification


class ProofRecords:
    """The verifications of a plan's backups, and what they still prove.

    Args:
        repository: The unlocked repository.
        plan: Name of the plan.
        backups: All committed backups in the order of their sequence.

    Attributes:
        numbers: By id of backup the number of the verification that proved its own objects.
        verifications: Those of all backups.
    """

    def __init__(self, repository: Repository, plan: str, backups: Sequence[BackupMetadata]) -> None:
        self._repository, self._plan, self._backups = repository, plan, backups
        self._stock = repository.stock(plan)
        read = dict[str, list[Verification]]()
        for record in repository.all_verifications(plan):
            read.setdefault(record.backup_id, []).append(record)
        self._records = {backup_id: numbered(records) for backup_id, records in read.items()}
        self.numbers: dict[str, int] = {}

    @property
    def verifications(self) -> list[Verification]:
        """The verifications of all backups."""
        return [record for records in self._records.values() for _, record in records]

    @property
    def runs(self) -> list[datetime]:
        """When runs of `verify --due` began, by the clocks of then."""
        return [record.run_at for record in self.verifications if record.run_at is not None]

    def known(self, now: datetime) -> Known:
        """Return what they prove.

        The time of a proof is when its run began, by the clock of then: that of a record is later where one before it
        is from the future.

        Args:
            now: The time of this run, with a time zone.
        """
        proved, doubted, bad = dict[str, datetime](), set[str](), set[str]()
        for backup in self._backups:
            records = self._records.get(backup.backup_id, [])
            digest = self._repository.link_of(backup).manifest_sha256
            stands = standings_of([record for _, record in records], digest)
            if Axis.BYTES in stands and stands[Axis.BYTES].outcome is CheckOutcome.BAD:
                bad.add(backup.backup_id)
                continue
            proof = next(((n, one) for n, one in reversed(records) if _proves(one, digest)), None)
            if not self._is_whole(backup, proof[1] if proof else None):
                doubted.add(backup.backup_id)
            elif proof is not None:
                proved[backup.backup_id] = proof[1].run_at or proof[1].verified_at
                self.numbers[backup.backup_id] = proof[0]
        return Known(proved, doubted, bad, max((run for run in self.runs if run < now), default=None))

    def add(self, result: Verification) -> None:
        """Take in a verification that was just made and recorded."""
        records = self._records.setdefault(result.backup_id, [])
        number = result.sequence or (records[-1][0] if records else 0) + 1
        records.append((number, result))
        self.numbers.pop(result.backup_id, None)  # what stood before counts for nothing where this one finds it bad
        if _proves(result, result.manifest_sha256):
            self.numbers[result.backup_id] = number

    def _is_whole(self, backup: BackupMetadata, proof: Verification | None) -> bool:
        """Whether all objects are there, and none was written since they were proved."""
        objects = objects_of(backup)
        try:
            if proof is None:
                return not self._stock.missing(backup.backup_id, objects)
            return self._stock.unchanged_since(backup.backup_id, proof.verified_at, objects)
        except ObjectUnreadable:
            return False  # its proof says why


def _proves(record: Verification, manifest_sha256: str) -> bool:
    """Whether a verification read the own objects of its backup and found every row in them good."""
    found = results_of(record).get(Axis.BYTES)
    if found is None or record.manifest_sha256 != manifest_sha256:
        return False
    return found.outcome is CheckOutcome.GOOD and found.depth in (Depth.ROWS, Depth.RESTORED)
