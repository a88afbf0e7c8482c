"""Are all verifications of a backup there, and does each follow from those before it? Pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.repository.rollback_guard import LastVerification
from blocks.repository.verdict import knows_all_before, recorded_standing, standings_of
from blocks.verification import Verification

_SHOWN = 20
"""Numbers of vanished records that a finding lists."""


@dataclass(frozen=True)
class Recorded:
    """A stored verification.

    Attributes:
        name: Its name in the repository.
        sha256: Of its sealed bytes; None where they cannot be read.
        record: None where it does not open.
        wrong: Why it does not open.
    """

    name: str
    sha256: str | None
    record: Verification | None
    wrong: str | None = None


def chain_findings(
    backup_id: str, manifest_sha256: str, found: Sequence[Recorded], seen: LastVerification | None
) -> list[str]:
    """Return what is wrong with the verifications of one backup, in sentences.

    Args:
        backup_id: Its id.
        manifest_sha256: Of the backup.
        found: Its verifications, in the order of their names.
        seen: The last one that this machine has seen.
    """
    findings = [f"{one.name} does not open: {one.wrong}" for one in found if one.record is None]
    gone = _gone(found)
    if gone:
        shown = ", ".join(map(str, gone[:_SHOWN])) + ("…" if len(gone) > _SHOWN else "")
        findings.append(f"verifications of {backup_id} are gone, which nothing removes: number {shown}")
    there = {one.sha256 for one in found}
    if seen is not None and seen.sha256 not in there and seen.sequence not in gone and not findings:
        findings.append(
            f"the last verification of {backup_id} that this machine has seen (number {seen.sequence}) is gone or "
            "another one: the repository was rolled back or replaced"
        )
    other = sum(one.record.manifest_sha256 != manifest_sha256 for one in found if one.record is not None)
    if other:
        findings.append(
            f"{other} verifications of {backup_id} are of another manifest than the one that is there: it was swapped"
        )
    return findings or _not_following(backup_id, manifest_sha256, found)


def newest(found: Sequence[Recorded]) -> LastVerification | None:
    """Return what to remember of some verifications of a backup; None where none has a number."""
    numbered = [one for one in found if one.record is not None and one.record.sequence]
    if not numbered or (last := numbered[-1]).record is None or last.sha256 is None:
        return None
    return LastVerification(sequence=last.record.sequence or 0, sha256=last.sha256)


def _gone(found: Sequence[Recorded]) -> list[int]:
    """Return the numbers of records that are not there."""
    records = [one.record for one in found if one.record is not None]
    numbers = [one.sequence for one in records if one.sequence is not None]
    old = len(records) - len(numbers)  # of earlier versions: they have the first numbers
    missing = set(range(old + 1, max(numbers, default=0) + 1)) - set(numbers)
    # two that were made at once have one number between them, and the next one counts both
    explained = len(numbers) - len(set(numbers)) + len(found) - len(records)
    gone = missing if len(missing) > explained else set()
    there = {one.sha256 for one in found}
    for one in records:
        if one.previous is not None and one.previous not in there and one.sequence:
            gone.add(one.sequence - 1)
    return sorted(gone)


def _not_following(backup_id: str, manifest_sha256: str, found: Sequence[Recorded]) -> list[str]:
    """Compare what records say that stands with what follows from all of them, where nothing is in the way of that."""
    records = [one.record for one in found if one.record is not None]
    numbers = [one.sequence for one in records if one.sequence is not None]
    if len(set(numbers)) < len(numbers):
        return []
    return [
        f"what verification number {record.sequence} of {backup_id} says that is known does not follow from "
        "it and those before it"
        for record in records
        if record.sequence is not None
        and knows_all_before(record)
        and recorded_standing(record)
        != standings_of([one for one in records if (one.sequence or 0) <= record.sequence], manifest_sha256)
    ]
