"""Does the history of a plan add up? What was removed, swapped or rolled back without a record is found here.

Every manifest names the one committed before it by digest, manifests are numbered, and retention leaves a sealed record
of what it removed. Against the rollback of a whole repository none of that helps: for it, each machine remembers the
newest backup that it has seen, outside the repository.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from blocks import names
from blocks.catalogue import Catalogue, Survey
from blocks.errors import ObjectMissing
from blocks.history import History
from blocks.manifest import BackupMetadata, Link, Record
from blocks.sums import objects_of, sums_text
from blocks.tiers import StorageTier, StoredName

logger = logging.getLogger(__name__)

_SHOWN = 20
"""Numbers of vanished backups that a finding lists."""


class Head(Record):
    """The newest backup that this machine has seen of a plan."""

    link: Link
    sequence: int


class HeadAnchor:
    """Remembers the newest backup of each plan in `$XDG_STATE_HOME/lastgood/<repository id>/<plan>.json`.

    Where that cannot be written, backups go on and only the detection of a rollback is lost.

    Args:
        repository_id: Id of the repository.
    """

    def __init__(self, repository_id: str) -> None:
        self._repository_id = repository_id

    def path(self, plan: str) -> Path:
        """Return the file of a plan."""
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(home) / "lastgood" / self._repository_id / f"{names.checked_plan(plan)}.json"

    def read(self, plan: str) -> Head | None:
        """Return what is remembered; None where nothing is, or it cannot be read."""
        try:
            return Head.model_validate_json(self.path(plan).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValidationError) as exc:  # RuntimeError: there is no home
            logger.warning("the newest backup seen of plan %s cannot be read: %s", plan, exc)
            return None

    def write(self, plan: str, head: Head | None) -> None:
        """Remember a backup, or forget; a failure is logged only."""
        try:
            path = self.path(plan)
            if head is None:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            temporary.write_text(head.model_dump_json())
            temporary.chmod(0o600)
            os.replace(temporary, path)
        except (OSError, RuntimeError) as exc:
            logger.warning("the newest backup seen of plan %s cannot be remembered: %s", plan, exc)


class Audit:
    """One audit of one plan: everything it reads, it reads anew.

    Args:
        tier: Where the repository is.
        catalogue: Opens manifests.
        history: Opens verifications and expiries.
        anchor: What this machine remembers.
        plan: The plan's name.
    """

    def __init__(
        self, tier: StorageTier, catalogue: Catalogue, history: History, anchor: HeadAnchor, plan: str
    ) -> None:
        self._tier, self._catalogue, self._history, self._anchor, self._plan = tier, catalogue, history, anchor, plan
        catalogue.forget(plan)
        self._survey: Survey = catalogue.survey(plan)
        self._links = {one.backup_id: catalogue.link(plan, one.backup_id) for one in self._survey.backups}
        expiries, self._unreadable = history.expiries(plan)
        self._expired = {link.backup_id: link.manifest_sha256 for expiry in expiries for link in expiry.removed}

    def run(self) -> list[str]:
        """Return what is wrong, each a sentence that names the backup; remember the newest if nothing is."""
        findings = [*self._survey.findings, *self._unreadable]
        for backup in self._survey.backups:
            findings += self._history_of(backup)
        findings += [*self._numbers(), *self._head(), *self._folders()]
        if not findings:
            self.accept()
        return findings

    def accept(self) -> None:
        """Remember the newest backup there is now."""
        newest = self._survey.backups[-1] if self._survey.backups else None
        head = Head(link=self._links[newest.backup_id], sequence=newest.sequence) if newest else None
        self._anchor.write(self._plan, head)

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
        # counted, not listed: whoever writes a manifest chooses its number
        gaps = max(seen, default=0) - sum(1 for number in seen if number > 0)
        explained = len(self._survey.damaged) + sum(1 for gone in self._expired if gone not in self._links)
        if gaps > explained:
            missing = (number for number in range(1, max(seen)) if number not in seen)
            shown = ", ".join(map(str, islice(missing, _SHOWN))) + ("…" if gaps > _SHOWN else "")
            findings.append(
                f"backups number {shown} of plan {self._plan} are gone, and only {explained} removals are explained"
            )
        return findings

    def _head(self) -> list[str]:
        head = self._anchor.read(self._plan)
        if head is None:
            return []
        role = f"the newest backup of plan {self._plan} seen by this machine (number {head.sequence})"
        wrong = self._trace(head.link, role)
        return [f"{wrong}: the repository was rolled back or replaced"] if wrong else []

    def _folders(self) -> list[str]:
        prefix = names.backups(self._plan)
        folders: dict[str, dict[str, StoredName]] = {}
        findings = []
        for stored in self._tier.list(prefix):
            folder, _, name = stored.name.removeprefix(prefix).rpartition("/")
            if names.is_backup_id(folder):
                folders.setdefault(folder, {})[name] = stored
            else:
                findings.append(f"{stored.name} does not belong there")
        for backup in self._survey.backups:
            findings += self._folder(backup, folders.get(backup.backup_id, {}))
            findings += self._history.verifications(self._plan, backup.backup_id)[1]
        return findings

    def _folder(self, backup: BackupMetadata, stored: dict[str, StoredName]) -> list[str]:
        expected = {one.name: one.size_bytes for one in objects_of(backup)}
        findings = [f"{backup.backup_id} lacks {name}" for name in expected if name not in stored]
        findings += [
            f"{backup.backup_id}/{name} has {stored[name].size_bytes} bytes instead of {size}"
            for name, size in expected.items()
            if name in stored and stored[name].size_bytes != size
        ]
        extra = stored.keys() - expected.keys() - {names.MANIFEST, names.SUMS}
        findings += [f"{backup.backup_id}/{name} is not named by the manifest" for name in sorted(extra)]
        return findings + self._sums(backup)

    def _sums(self, backup: BackupMetadata) -> list[str]:
        digests = {one.name: one.sha256 for one in objects_of(backup)}
        digests[names.MANIFEST] = self._links[backup.backup_id].manifest_sha256
        try:
            found = self._tier.get(names.sums(self._plan, backup.backup_id))
        except ObjectMissing:
            return [f"{backup.backup_id} lacks {names.SUMS}"]
        same = found == sums_text(digests).encode()
        return [] if same else [f"{backup.backup_id}/{names.SUMS} does not say what the manifest says"]
