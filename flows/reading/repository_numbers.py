"""What the records of a repository say of a plan's backups, in numbers, for metrics: looked at again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from blocks.host.room import free_bytes
from blocks.plan.clock import is_ahead
from blocks.plan.plan import BackupPlan
from blocks.plan.suspicion import is_unsettled
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.repository.block import Repository
from blocks.repository.catalogue import Survey
from blocks.repository.stock import Stock
from blocks.repository.verdict import Verdict
from blocks.storage.attempts import Breaker
from flows.pipeline.doubts import settled
from flows.reading.recovery import recovery_of
from flows.reading.status import last_good, slots
from flows.reporting.plan_totals import Made


@dataclass(frozen=True)
class RepositoryNumbers:
    """How a plan's backups stand. Sizes are in bytes, times aware UTC.

    Attributes:
        repository_id: Id of the repository.
        backups: How many there are, by type and status.
        newest: The newest one, by type.
        made_at: The point in time that the newest one restores to, by the type that was asked for.
        sequence: How many were ever committed.
        stored_bytes: What all of them take.
        free_bytes: Room that is left; None where that is not known.
        newest_good: The point in time that the newest backup restores to that nothing is known against. Times that are
            still to come are left out here and below: they are those of a clock that was ahead.
        newest_verified: The same of the newest one that is verified.
        last_verification: When a backup that is still there was last verified.
        ahead: Whether any time was left out.
        rto_seconds: The longest of the newest scratch restores.
        slots: By source the log that a replication slot held back when it was last backed up.
        suspicious: Whether a backup that is there departs from the history, and no person accepted that.
    """

    repository_id: str
    backups: Mapping[tuple[str, str], int]
    newest: Mapping[str, Made]
    made_at: Mapping[str, datetime]
    sequence: int
    stored_bytes: int
    free_bytes: int | None
    newest_good: datetime | None
    newest_verified: datetime | None
    last_verification: datetime | None
    ahead: bool
    rto_seconds: float | None
    slots: Mapping[str, int]
    suspicious: bool


_Listed = Sequence[tuple[str, datetime | None, Sequence[str]]]
"""Of each backup its id, when its manifest was written, and the names of its verifications."""


class RepositoryReader:
    """Looks at the records of a plan. What a listing shows to be as it was is not read again.

    Args:
        plan: The plan, read and resolved.

    Attributes:
        place: Where the repository is, as messages name it; empty before the first look.
        breaker: Of a storage in a network; None of a folder, and before.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self._plan = plan
        self.place = ""
        self.breaker: Breaker | None = None
        self._repository: Repository | None = None
        self._listed: _Listed | None = None
        self._known: RepositoryNumbers | None = None
        self._marked: Sequence[BackupMetadata] = ()

    def read(self) -> RepositoryNumbers:
        """Return what they say now.

        Raises:
            LastgoodError: The repository cannot be read.
        """
        try:
            return self._read()
        except BaseException:
            # it may be another one, or have other keys, when it is back
            self._repository = self._listed = None
            raise

    def _read(self) -> RepositoryNumbers:
        if not self.place:
            tier = self._plan.repository.tier
            self.place, self.breaker = tier.place, Breaker(tier.place) if tier.remote else None
        # another repository may have been made in its place since, or the keys of this one changed
        if self._repository is None or not self._repository.is_there():
            self._repository, self._listed = self._plan.repository.unlock(self._plan.encryption), None
        repository, folder = self._repository, self._plan.repository.folder
        free = free_bytes(folder) if folder is not None else None
        stock = repository.stock(self._plan.name)
        listed = _listing(stock)
        if self._known is None or self._known.ahead or listed != self._listed:
            survey = repository.survey(self._plan.name, shown=True)
            self._marked = [one for one in survey.backups if one.suspicions]
            self._known, self._listed = _numbers(repository, self._plan.name, survey, stock), listed
        # that a person accepts a backup changes nothing of what is listed
        accepted = settled(repository, self._plan.name, self._marked)
        suspicious = any(is_unsettled(one, accepted) for one in self._marked)
        return replace(self._known, free_bytes=free, suspicious=suspicious)


def _listing(stock: Stock) -> _Listed:
    return [(one, stock.committed_at(one), stock.verifications(one)) for one in sorted(stock.committed)]


def _numbers(repository: Repository, plan: str, survey: Survey, stock: Stock) -> RepositoryNumbers:
    """Return all but what may change while the listing stays the same: room, and what is accepted."""
    backups, now = survey.backups, datetime.now(UTC)
    verdicts = repository.verdicts(plan, backups)
    regular = [made for made in backups if made.is_regular]
    good = last_good(backups, verdicts, now)
    verified = [made.timestamp for made in regular if verdicts[made.backup_id].good]
    verifications = _verified_at(verdicts)
    rto = recovery_of(repository, plan, backups, None, now).rto
    return RepositoryNumbers(
        repository_id=repository.repository_id,
        backups=_counted(backups, verdicts, survey.damaged),
        newest={made.backup_type.value: _made(made) for made in backups},
        made_at={m.requested_type.value: m.timestamp for m in backups if not is_ahead(m.timestamp, now)},
        # retention may have removed the newest one
        sequence=repository.next_position(plan, stock)[0] - 1,
        stored_bytes=sum(made.size_stored for made in backups),
        free_bytes=None,
        newest_good=_latest([good.timestamp] if good else [], now),
        newest_verified=_latest(verified, now),
        last_verification=_latest(verifications, now),
        ahead=any(is_ahead(moment, now) for moment in (*(made.timestamp for made in regular), *verifications)),
        rto_seconds=rto.worst_seconds if rto is not None else None,
        slots={slot.source: slot.held_bytes for slot in slots(backups)},
        suspicious=False,
    )


def _latest(moments: Iterable[datetime], now: datetime) -> datetime | None:
    return max((moment for moment in moments if not is_ahead(moment, now)), default=None)


def _made(made: BackupMetadata) -> Made:
    return Made(
        backup_id=made.backup_id,
        type=made.backup_type.value,
        timestamp=made.timestamp.timestamp(),
        sequence=made.sequence,
        rows=made.rows,
        size_bytes=made.size_bytes,
        size_stored=made.size_stored,
        regular=made.is_regular,
    )


def _counted(
    backups: Sequence[BackupMetadata], verdicts: Mapping[str, Verdict], damaged: Sequence[str]
) -> Mapping[tuple[str, str], int]:
    """Count backups by type and status; one whose manifest does not open is corrupted, and its id tells its type."""
    found = Counter((made.backup_type.value, verdicts[made.backup_id].shown_status.value) for made in backups)
    types = {kind.prefix: kind.value for kind in BackupType}
    found.update((types[backup_id[:3]], BackupStatus.CORRUPTED.value) for backup_id in damaged)
    return found


def _verified_at(verdicts: Mapping[str, Verdict]) -> list[datetime]:
    own = (verdict for verdict in verdicts.values() if verdict.bad_base is None)
    return [stands.verified_at for verdict in own for stands in verdict.axes.values()]
