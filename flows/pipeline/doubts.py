"""What speaks against a run's clock, or against the plan's sources being those that its backups are of.

A backup goes on and says it; what removes or overwrites refuses, unless a person said so in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from blocks.errors import NotConfirmed
from blocks.plan.clock import future_doubt, newest_time, silence_doubt, storage_doubt
from blocks.plan.plan import BackupPlan
from blocks.plan.retention import Decision
from blocks.records import Acceptance, BackupMetadata, Expiry
from blocks.repository.block import Repository
from blocks.repository.summaries import Shown
from blocks.sources.identity import Identity, another, difference
from flows.pipeline.past import Past

_SET_CLOCK = "Set the clock right; if it is right, add --accept-clock."
_SHARED_NAME = (
    "Where two plans share a name, give one of them another name. If all of these backups are the plan's own, since "
    "its state was moved or its server upgraded, add --adopt, once."
)


@dataclass(frozen=True)
class Stranger:
    """A source that is another one than that of some backups.

    Attributes:
        sentence: Says how it differs from that of the newest of them.
        identity: What it is now.
    """

    sentence: str
    identity: Identity


@dataclass(frozen=True)
class Doubts:
    """What speaks against removing backups.

    Attributes:
        clock: Sentences on the clock.
        strangers: By name sources that are other ones than those of backups.
        acceptance: What is put on record where a person accepts all of it; None where that would be of no use later.
    """

    clock: Sequence[str]
    strangers: Mapping[str, Stranger]
    acceptance: Acceptance | None

    @property
    def sentences(self) -> list[str]:
        """All of them."""
        return [*self.clock, *(one.sentence for one in self.strangers.values())]

    @property
    def refusals(self) -> list[str]:
        """All of them, with what a run needs to go on."""
        return [
            *(f"{one}; without --accept-clock a run refuses" for one in self.clock),
            *(f"{one.sentence}; without --adopt a run refuses" for one in self.strangers.values()),
        ]

    def refuse(self, plan: str, *, accept_clock: bool, adopt: bool) -> None:
        """Refuse, where there is a doubt that nobody has accepted.

        Raises:
            NotConfirmed: There is.
        """
        told = [(one, _SET_CLOCK) for one in self.clock if not accept_clock]
        told += [(one.sentence, _SHARED_NAME) for one in self.strangers.values() if not adopt]
        for sentence, hint in told:
            raise NotConfirmed(f"plan {plan}: {sentence}", hint=f"Nothing was removed. {hint}")


def doubts_of_retention(
    plan: BackupPlan, repository: Repository, decisions: Sequence[Decision], now: datetime, storage: datetime | None
) -> Doubts:
    """Find out what speaks against removing backups of a plan.

    Args:
        plan: The plan; its sources are asked who they are, where backups know that of theirs.
        repository: Its repository.
        decisions: On all backups of the plan, in the order of their commits.
        now: This machine's time.
        storage: The same by the clock of the storage; None where it was not asked.
    """
    backups = [decision.backup for decision in decisions]
    said, event = accepted(repository, plan.name), repository.newest_event(plan.name)
    lasting = [future_doubt(now, backups, event, said)]
    if any(decision.remove for decision in decisions):  # where nothing goes, no backup being young does no harm
        lasting.append(silence_doubt(now, backups, plan.retention, said))
    strangers = dict(_strangers(plan, backups, said))
    acceptance = None
    if any(lasting) or strangers:
        acceptance = Acceptance(
            sequence=max((backup.sequence for backup in backups), default=0),
            newest=max(now, newest_time(backups, event) or now) if any(lasting) else None,
            identities={name: {**one.identity} for name, one in strangers.items()},
        )
    return Doubts([one for one in (storage_doubt(now, storage), *lasting) if one], strangers, acceptance)


def _strangers(
    plan: BackupPlan, backups: Sequence[BackupMetadata], said: Sequence[Expiry]
) -> Iterator[tuple[str, Stranger]]:
    for name, source in plan.sources.items():
        known = [backup for backup in backups if _knows(backup, name)]
        now = source.identity() if known else {}
        foreign = [backup for backup in known if not belongs(backup, name, now, said)]
        if foreign and (sentence := another(foreign[-1], name, now)):
            yield name, Stranger(f"{sentence} ({len(foreign)} of {len(known)} backups)", now)


def doubt_of_backup(
    plan: BackupPlan, repository: Repository, past: Past, now: datetime, storage: datetime | None
) -> str | None:
    """Say why the clock under which a backup is made is not believed; None where nothing speaks against it.

    Args:
        plan: The plan that is backed up.
        repository: Its repository.
        past: The backups of the plan.
        now: This machine's time.
        storage: The same by the clock of the storage; None where it was not asked.
    """
    if said := storage_doubt(now, storage):
        return said
    if _newest_clears(plan, past, now) or not _record_doubt(now, past.backups, plan, ()):
        return None
    return _record_doubt(now, past.backups, plan, accepted(repository, plan.name))


def _newest_clears(plan: BackupPlan, past: Past, now: datetime) -> bool:
    """Whether the newest backup alone shows that no record speaks against the clock.

    It does where it is young, was itself made under a clock that nothing spoke against, and no other one was begun
    later than now: then nothing is still to come, and not all backups are old.
    """
    newest = past.newest
    if newest is None:
        return False
    proves = newest.clock_doubt is None and newest.is_regular
    return proves and not past.begun_after(now) and not _record_doubt(now, [newest], plan, ())


def _record_doubt(
    now: datetime, backups: Sequence[BackupMetadata], plan: BackupPlan, said: Sequence[Expiry]
) -> str | None:
    return future_doubt(now, backups, None, said) or silence_doubt(now, backups, plan.retention, said)


def others(past: Past, identities: Mapping[str, Identity]) -> Iterator[tuple[str, str]]:
    """Yield each source that is another one than that of the newest backup that knows its own, and a sentence."""
    for name, now in identities.items():
        # a source that does not know itself is nobody else
        newest = _newest_that_knows(past, name) if now else None
        if newest is not None and (sentence := another(newest, name, now)):
            yield name, sentence


def _newest_that_knows(past: Past, source: str) -> BackupMetadata | None:
    if past.newest is None or _knows(past.newest, source):
        return past.newest
    return next((backup for backup in reversed(past.backups) if _knows(backup, source)), None)


def accepted(repository: Repository, plan: str) -> list[Expiry]:
    """Return the records of what persons accepted."""
    return [expiry for expiry in repository.expiries(plan) if expiry.accepted is not None]


def settled(repository: Repository, plan: str, backups: Sequence[Shown]) -> frozenset[str]:
    """Return the ids of the suspicious ones of some backups that a person accepted; where none is, nothing is read."""
    suspicious = {one.backup_id for one in backups if one.suspicions}
    if not suspicious:
        return frozenset()
    # all of them: by the clock of this machine it may have been accepted before it was made
    said = (one.accepted for one in accepted(repository, plan) if one.accepted)
    return frozenset(suspicious & {backup_id for one in said for backup_id in one.suspicions})


def belongs(backup: BackupMetadata, source: str, now: Identity, said: Sequence[Expiry]) -> bool:
    """Whether a backup is of a source as it is now, or a person said that it belongs to that.

    Args:
        backup: The backup.
        source: Name of the source.
        now: Its identity.
        said: What persons accepted, as `accepted` returns it.
    """
    if another(backup, source, now) is None:
        return True
    adopted = [one.accepted for one in said if one.accepted and source in one.accepted.identities]
    return any(backup.sequence <= one.sequence and difference(one.identities[source], now) is None for one in adopted)


def _knows(backup: BackupMetadata, source: str) -> bool:
    return any(state.name == source and state.identity for state in backup.sources)
