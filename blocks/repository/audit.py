"""Does the history of a plan add up? What was removed, swapped or rolled back without a record is found here.

Every manifest names the one committed before it by digest, manifests are numbered, and retention leaves a sealed record
of what it removed. Against the rollback of a whole repository none of that helps: for it, each machine remembers the
newest backup that it has seen, outside the repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice

from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    ObjectMissing,
    ObjectUnreadable,
)
from blocks.records import BackupMetadata, BackupType, Link
from blocks.repository import names
from blocks.repository.catalogue import Catalogue, Survey
from blocks.repository.checksums import checksums_text, objects_of
from blocks.repository.history import History
from blocks.repository.overview import Overview
from blocks.repository.record_chain import chain_findings, newest
from blocks.repository.rollback_guard import Head, LastVerification, RollbackGuard, VerificationMemory
from blocks.repository.stock import Stock
from blocks.storage.base import StorageTier, StoredName

_SHOWN = 20
"""Numbers of vanished backups that a finding lists."""

LOOKS = 4
"""How often an audit looks again before it believes what it found."""

_MOST_CHECKSUMS_BYTES = 256 * 1024 * 1024


def settled_findings(look: Callable[[], list[str]]) -> list[str]:
    """Look until two looks in a row say the same: what a running backup or retention caused is gone by then.

    Args:
        look: Reads everything again, and returns what is wrong.
    """
    found = look()
    for _ in range(LOOKS):
        if not found:
            break
        again = look()
        if again == found:
            break
        found = again
    return found


def remembered_loss(
    catalogue: Catalogue, history: History, guard: RollbackGuard, plan: str, listed: Overview | None = None
) -> str | None:
    """Return whether the newest backup that this machine has seen of a plan is gone without a record.

    Args:
        catalogue: Opens and checks the manifests of the repository.
        history: The expiries of the repository.
        guard: The newest backup of each plan that this machine has seen.
        plan: Name of the plan.
        listed: A listing that was just made, where it showed all of the repository: a manifest that is in it, and was
            read before, is not looked for again.

    Returns:
        A sentence; None where it is there, was removed on record or is only damaged, which is found elsewhere.
    """
    head = guard.read(plan)
    if head is None:
        return None
    try:
        name = names.manifest(plan, head.link.backup_id)
        there = listed is not None and listed.complete and any(one.name == name for one in listed.known(name))
        found = catalogue.link(plan, head.link.backup_id, listed=there)
    except BackupNotFound:
        if any(head.link in expiry.removed for expiry in history.expiries(plan)[0]):
            return None
    except (CorruptionDetected, ConfigurationError, ObjectUnreadable):
        return None
    else:
        if found == head.link:
            return None
    return (
        f"the newest backup of plan {plan} that this machine has seen, {head.link.backup_id} (number {head.sequence}), "
        "is gone or another one: the repository was rolled back, replaced, or is not all there"
    )


def _still_there(catalogue: Catalogue, survey: Survey, stock: Stock) -> tuple[Survey, dict[str, Link]]:
    """Name what a survey found by digest, without what retention removed since."""
    there = set(stock.committed)
    backups = [one for one in survey.backups if one.backup_id in there]
    links = {one.backup_id: catalogue.link_of(one) for one in backups}
    return Survey(backups, survey.findings, survey.damaged), links


class Audit:
    """One audit of one plan: everything is read for it.

    Args:
        tier: The tier that holds the repository's objects.
        catalogue: Opens and checks the manifests of the repository.
        history: The verifications and expiries of the repository.
        guard: The newest backup of each plan that this machine has seen.
        memory: The last verification of each backup that this machine has seen.
        plan: Name of the plan, as in object names.
    """

    def __init__(
        self,
        tier: StorageTier,
        catalogue: Catalogue,
        history: History,
        guard: RollbackGuard,
        memory: VerificationMemory,
        plan: str,
    ) -> None:
        self._tier, self._catalogue, self._history, self._guard, self._plan = tier, catalogue, history, guard, plan
        self._memory = memory
        # first of all: what is committed or recorded from now on is remembered, and was not listed
        self._seen, self._last = guard.read(plan), memory.read(plan)
        catalogue.forget(plan)
        survey = catalogue.survey(plan)
        self._stock = Stock(tier, tier.list, plan)
        self._survey, self._links = _still_there(catalogue, survey, self._stock)
        expiries, self._unreadable = history.expiries(plan)
        self._expired = {link.backup_id: link.manifest_sha256 for expiry in expiries for link in expiry.removed}

    def run(self) -> list[str]:
        """Return what is wrong, each a sentence that names the backup; remember the newest if nothing is."""
        findings = [*self._survey.findings, *self._unreadable]
        for backup in self._survey.backups:
            findings += self._history_of(backup)
        findings += [*self._numbers(), *self._head(), *self._folders(), *self._verifications()]
        if not findings and self._guard.read(self._plan) == self._seen:
            self.accept()
        return findings

    def accept(self) -> None:
        """Remember the newest backup there is now."""
        newest = self._survey.backups[-1] if self._survey.backups else None
        head = Head(link=self._links[newest.backup_id], sequence=newest.sequence) if newest else None
        self._guard.write(self._plan, head)

    def accept_verifications(self) -> None:
        """Remember the last verifications that there are now."""
        last = {}
        for backup in self._survey.backups:
            if found := newest(self._history.chain(self._plan, backup.backup_id, self._recorded(backup))):
                last[backup.backup_id] = found
        self._memory.replace(self._plan, last)

    def _history_of(self, backup: BackupMetadata) -> list[str]:
        findings = []
        if backup.previous:
            findings.append(self._trace(backup.previous, f"committed right before {backup.backup_id}"))
        findings += [self._trace(link, f"a base of {backup.backup_id}", needed=True) for link in backup.chain]
        return [finding for finding in findings if finding]

    def _trace(self, link: Link, role: str, needed: bool = False) -> str | None:
        """Say what is wrong with a backup that is named by digest elsewhere."""
        found, expired = self._links.get(link.backup_id), self._expired.get(link.backup_id)
        if found is not None:
            return None if found == link else f"{link.backup_id}, {role}, was swapped: its manifest is another one"
        if link.backup_id in self._survey.damaged:
            return None
        if needed:
            return f"{link.backup_id}, {role}, is gone"
        if expired is None:
            return f"{link.backup_id}, {role}, is gone, and no retention run recorded its removal"
        same = expired == link.manifest_sha256
        return None if same else f"{link.backup_id}, {role}, was swapped before it was removed"

    def _numbers(self) -> list[str]:
        """Compare the gaps in the numbers of backups with the number of recorded removals."""
        seen = Counter(backup.sequence for backup in self._survey.backups)
        findings = [f"{count} backups of plan {self._plan} are number {n}" for n, count in seen.items() if count > 1]
        # counted, not listed: the writer of a manifest chooses its number
        gaps = max(seen, default=0) - sum(1 for number in seen if number > 0)
        explained = len(self._survey.damaged) + sum(1 for gone in self._expired if gone not in self._links)
        if gaps > explained:
            missing = (number for number in range(1, max(seen)) if number not in seen)
            shown = ", ".join(map(str, islice(missing, _SHOWN))) + ("…" if gaps > _SHOWN else "")
            findings.append(
                f"backups number {shown} of plan {self._plan} are gone, and only {explained} removals are explained"
            )
        return findings + self._removed_newest(gaps)

    def _removed_newest(self, gaps: int) -> list[str]:
        """Look for the record of a removal that retention does not do: that of the newest backup.

        What it removed has a lower number than the newest one that it kept, so that each removal leaves a gap.
        """
        # an emergency backup may be the newest one, and goes when its time is over
        of_the_plan = (one for one in self._expired if not one.startswith(f"{BackupType.EMERGENCY.prefix}_"))
        gone = [backup_id for backup_id in of_the_plan if backup_id not in self._links]
        if len(gone) <= gaps:
            return []
        return [
            f"{len(gone)} removals are recorded of plan {self._plan}, and {gaps} numbers below that of its newest "
            "backup are missing: a newer backup was removed, which retention never does"
        ]

    def _head(self) -> list[str]:
        head = self._seen
        if head is None:
            return []
        role = f"the newest backup of plan {self._plan} seen by this machine (number {head.sequence})"
        wrong = self._trace(head.link, role)
        return [f"{wrong}: the repository was rolled back or replaced"] if wrong else []

    def _folders(self) -> list[str]:
        stock = self._stock
        findings = [exc.message for exc in stock.unlisted.values()]
        findings += [f"{name} does not belong there" for name in stock.others]
        for backup in self._survey.backups:
            findings += self._folder(backup, stock.objects(backup.backup_id))
        return findings

    def _verifications(self) -> list[str]:
        """Say which records of verifications are missing or wrong; remember the last ones where they are in order."""
        findings, last = [], dict[str, LastVerification]()
        for backup in self._survey.backups:
            backup_id, seen = backup.backup_id, self._last.get(backup.backup_id)
            try:
                found = self._history.chain(self._plan, backup_id, self._recorded(backup))
            except ObjectUnreadable as exc:
                findings.append(exc.message)
                continue
            wrong = chain_findings(backup_id, self._links[backup_id].manifest_sha256, found, seen)
            findings += wrong
            if remembered := seen if wrong else newest(found):
                last[backup_id] = remembered
        kept = {name: one for name, one in self._last.items() if name in self._survey.damaged}
        if self._memory.read(self._plan) == self._last:
            self._memory.replace(self._plan, kept | last)
        return findings

    def _recorded(self, backup: BackupMetadata) -> list[str] | None:
        try:
            return self._stock.verifications(backup.backup_id)
        except ObjectUnreadable:
            return None  # of one backup perhaps, which its own listing tells

    def _folder(self, backup: BackupMetadata, stored: dict[str, StoredName]) -> list[str]:
        if backup.backup_id in self._stock.unlisted:
            return []
        expected = {one.name: one.size_bytes for one in objects_of(backup)}
        findings = [f"{backup.backup_id} lacks {name}" for name in expected if name not in stored]
        findings += [
            f"{backup.backup_id}/{name} has {stored[name].size_bytes} bytes instead of {size}"
            for name, size in expected.items()
            if name in stored and stored[name].size_bytes != size
        ]
        extra = stored.keys() - expected.keys() - {names.MANIFEST, names.CHECKSUMS}
        findings += [f"{backup.backup_id}/{name} is not named by the manifest" for name in sorted(extra)]
        return findings + self._checksums(backup)

    def _checksums(self, backup: BackupMetadata) -> list[str]:
        digests = {one.name: one.sha256 for one in objects_of(backup)}
        digests[names.MANIFEST] = self._links[backup.backup_id].manifest_sha256
        try:
            found = self._tier.get(names.checksums(self._plan, backup.backup_id), limit=_MOST_CHECKSUMS_BYTES)
        except ObjectMissing:
            return [f"{backup.backup_id} lacks {names.CHECKSUMS}"]
        except (ObjectUnreadable, CorruptionDetected) as exc:
            return [exc.message]
        same = found == checksums_text(digests).encode()
        return [] if same else [f"{backup.backup_id}/{names.CHECKSUMS} does not say what the manifest says"]
