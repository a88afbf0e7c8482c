"""Which backup a person means, and which backups it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected
from blocks.host.local_time import local_time
from blocks.records import BackupMetadata, BackupType
from blocks.repository import names
from blocks.repository.catalogue import Catalogue, Survey
from blocks.repository.stock import Stock
from blocks.repository.verdict import Verdict

LATEST = "latest"
LATEST_VERIFIED = "latest verified"
"""The newest backup that was really restored, and found good in all that was looked at."""


def find_backup(catalogue: Catalogue, plan: str, wanted: str = LATEST, at: datetime | None = None) -> BackupMetadata:
    """Find a backup by id, by the unique beginning or end of an id, by `latest`, or the newest as of a time.

    `latest` and a time never find an emergency backup, which holds only part of the state.

    Raises:
        BackupNotFound: There is none; the hint says what there is.
        CorruptionDetected: It, or a newer one that may be meant, is damaged.
        ConfigurationError: The time has no zone, or is given together with an id.
    """
    check_wanted(wanted, at)
    if names.is_backup_id(wanted):
        return catalogue.manifest(plan, wanted)[0]
    survey = catalogue.survey(plan)
    return _newest(survey, plan, at) if wanted == LATEST else _by_part_of_id(catalogue, survey, plan, wanted)


def check_wanted(wanted: str, at: datetime | None) -> None:
    """Refuse a time that has no zone, or that is given together with an id.

    Raises:
        ConfigurationError: It is such a one.
    """
    if at is not None and (at.tzinfo is None or wanted not in (LATEST, LATEST_VERIFIED)):
        raise ConfigurationError(f"give either a backup or a time with its zone, not {wanted!r} and {at}")


def find_verified(
    catalogue: Catalogue,
    plan: str,
    at: datetime | None,
    verdicts: Callable[[Sequence[BackupMetadata]], Mapping[str, Verdict]],
) -> BackupMetadata:
    """Find the newest backup, or the newest as of a time, that was really restored and found good; see `find_backup`.

    Args:
        catalogue: Opens the manifests of the repository.
        plan: Name of the plan.
        at: An aware time.
        verdicts: Returns what is known of backups, by their ids.

    Raises:
        BackupNotFound: There is none.
    """
    candidates = _in_order(catalogue.survey(plan), at)
    known = verdicts(candidates)
    for one in reversed(candidates):
        if known[one.backup_id].restored:
            return one
    raise BackupNotFound(
        f"plan {plan} has no backup{_as_old_as(at)} that was restored in a verification and found good",
        hint=f"`lastgood verify {plan} --deep` tries the latest; `lastgood list {plan}` shows what is known of each.",
    )


def find_chain(
    catalogue: Catalogue, metadata: BackupMetadata, copies: bool = False, stock: Stock | None = None
) -> list[BackupMetadata]:
    """Return the backups that a restore needs, full first, the given one last.

    Args:
        catalogue: Opens the manifests of the repository.
        metadata: The backup on top.
        copies: This machine's copies will do for those below; a listing shows that the storage has them.
        stock: As it was just listed: manifests in it, that were read before, are not looked for again.

    Raises:
        CorruptionDetected: One is missing, damaged, or not the one that this backup was made on.
    """
    chain = []
    for position, link in enumerate(metadata.chain):
        role = f"the chain of backup {metadata.backup_id} of plan {metadata.plan}"
        try:
            listed = stock is not None and stock.committed_at(link.backup_id) is not None
            member, digest = catalogue.member(metadata.plan, link, listed=listed, copies=copies)
        except BackupNotFound as exc:
            raise CorruptionDetected(f"{role} lacks {link.backup_id}", hint=_HINT) from exc
        if digest != link.manifest_sha256 or member.chain != metadata.chain[:position]:
            raise CorruptionDetected(f"{role} was made on another {link.backup_id}: it was swapped", hint=_HINT)
        chain.append(member)
    if metadata.base != (chain[-1].backup_id if chain else None):
        raise CorruptionDetected(f"backup {metadata.backup_id} does not depend on the end of its chain", hint=_HINT)
    for one in (*chain, metadata):
        if one.inherits:  # a backup of the chain was not there, or was another one, when its manifest was read
            raise CorruptionDetected(f"{one.backup_id} was read without the backups it depends on", hint=_HINT)
    return [*chain, metadata]


_HINT = "Restore an older backup, or one that stands alone; `lastgood check` shows which are whole."


def _newest(survey: Survey, plan: str, at: datetime | None) -> BackupMetadata:
    candidates = _in_order(survey, at)
    newest = candidates[-1] if candidates else None
    _refuse_damage(survey, newest, at)
    if newest is None:
        raise BackupNotFound(f"plan {plan} has no backup{_as_old_as(at)}", hint=_what_there_is(survey, plan))
    return newest


def _in_order(survey: Survey, at: datetime | None) -> list[BackupMetadata]:
    """Return the backups that may be the latest one, or that as of a time, in order."""
    whole = [one for one in survey.backups if one.is_regular]
    if at is None:
        return whole
    # as of a time, what counts is the time that a restore returns to; otherwise the order of commits
    until = _end_of(at)
    return sorted((one for one in whole if one.timestamp <= until), key=lambda one: (one.timestamp, one.sequence))


def _as_old_as(at: datetime | None) -> str:
    return f" as old as {local_time(at)}" if at else ""


def _end_of(at: datetime) -> datetime:
    """Return the end of the second that is meant: times of backups are shown in whole seconds, and typed as shown."""
    return at if at.microsecond else at.replace(microsecond=999_999)


def _refuse_damage(survey: Survey, newest: BackupMetadata | None, at: datetime | None) -> None:
    """Raise where a damaged backup may be the one meant: handing out an older one in silence would be a lie."""
    until = f"{at.astimezone(UTC):%Y%m%d_%H%M%S}" if at else "9"
    since = names.id_moment(newest.backup_id) if newest else ""
    for damaged, finding in zip(survey.damaged, survey.findings, strict=True):
        partial = damaged.startswith(BackupType.EMERGENCY.prefix)
        if not partial and since <= names.id_moment(damaged) <= until:
            good = f"To use an older one, name it: {newest.backup_id}." if newest else "No older one is whole."
            raise CorruptionDetected(f"backup {damaged}, which may be meant, is damaged: {finding}", hint=good)


def _by_part_of_id(catalogue: Catalogue, survey: Survey, plan: str, wanted: str) -> BackupMetadata:
    ids = [*(one.backup_id for one in survey.backups), *survey.damaged]
    matches = [one for one in ids if wanted and (one.startswith(wanted) or one.endswith(wanted))]
    if len(matches) == 1:
        return catalogue.manifest(plan, matches[0])[0]
    if matches:
        shown = ", ".join(matches[:5]) + (", …" if len(matches) > 5 else "")
        raise BackupNotFound(
            f"{wanted!r} fits {len(matches)} backups of plan {plan}", hint=f"Write more of the id: {shown}."
        )
    near = get_close_matches(wanted.lower(), [LATEST, LATEST_VERIFIED], 1, 0.75)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise BackupNotFound(f"plan {plan} has no backup {wanted!r}{meant}", hint=_what_there_is(survey, plan))


def _what_there_is(survey: Survey, plan: str) -> str:
    if not survey.backups:
        return f"The plan has no backups yet: run `lastgood backup {plan}`."
    first, last = survey.backups[0], survey.backups[-1]
    return (
        f"There are {len(survey.backups)} backups, from {first.backup_id} to {last.backup_id}; "
        f"`lastgood list {plan}` shows them."
    )
