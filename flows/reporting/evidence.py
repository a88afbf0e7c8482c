"""What is on record of a backup's verifications, and how it was with the backups before: the input of every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.repository import names
from blocks.repository.repository import Repository
from blocks.repository.verdict import Verdict, standing_after
from blocks.verification import Axis, ColumnProfile, Depth, RuleOutcome, RuleResult, Verification
from flows.reporting.wording import float_text, percent, share

MOST_VERIFICATIONS = 30
"""How many verifications histories go back."""

_MOST_FLOAT = 2**1023

RuleKey = tuple[str, str, str, tuple[str, ...], int]


@dataclass(frozen=True)
class Evidence:
    """The records that a report is made of.

    Attributes:
        backup: The backup.
        verdict: What is known of it, seeing those that it depends on.
        result: Its verification that is reported; None where it was never verified.
        history: The newest verifications of the plan up to this one, in the order of their backups.
    """

    backup: BackupMetadata
    verdict: Verdict
    result: Verification | None
    history: Sequence[Verification] = field(default=())


def read_evidence(repository: Repository, backup: BackupMetadata, result: Verification | None = None) -> Evidence:
    """Read the records of a backup and of those before it; no data.

    Args:
        repository: Where they are.
        backup: The backup.
        result: Its verification that is to be reported, which need not be recorded; None for the newest one on record.
    """
    found = repository.newest_verifications(backup.plan, MOST_VERIFICATIONS, until=backup.backup_id)
    history, verdict = sorted(found, key=_place), repository.verdict(backup)
    if result is not None:
        # those that were recorded after it are not its history; it may have been recorded, or not
        history = [*(one for one in history if _is_before(one, result)), result]
        if result.sequence is None:  # it could not be recorded
            verdict = replace(verdict, axes=standing_after(verdict.axes, result, 0))
        return Evidence(backup, verdict, result, tuple(history[-MOST_VERIFICATIONS:]))
    own = [one for one in history if one.backup_id == backup.backup_id]
    whole = [one for one in own if compared(one) is not None]
    newest = (whole or own)[-1] if own else None
    return Evidence(backup, verdict, newest, tuple(history))


def compared(one: Verification) -> int | None:
    """Return how many rows a verification compared; None of one that only read objects, as another one's base."""
    stored = one.results.get(Axis.BYTES.value)
    return None if stored is not None and stored.depth in ("", Depth.OBJECTS.value) else one.rows


def plan_evidence(plan: BackupPlan, backup: str, result: Verification | None = None) -> Evidence:
    """Read the records of a plan's backup, by its id or `latest`, and of those before it.

    Raises:
        BackupNotFound: There is no such backup.
        RepositoryUnavailable: The records cannot be read.
    """
    repository = plan.repository.unlock(plan.encryption)
    return read_evidence(repository, repository.find(plan.name, backup), result)


def _place(one: Verification) -> tuple[str, str, int, str]:
    """Say where a verification stands: state is compared over time, so the order is that of the backups."""
    moment = names.moment(one.verified_at)
    return names.id_moment(one.backup_id), one.backup_id, one.sequence or 0, moment


def _is_before(one: Verification, result: Verification) -> bool:
    if one.backup_id != result.backup_id or (one.sequence and result.sequence):
        return _place(one) < _place(result)
    return one.verified_at < result.verified_at  # what is not recorded has no number


@dataclass(frozen=True)
class RuleHistory:
    """One expectation, and what came of it in each verification.

    Attributes:
        rule: As it was evaluated now.
        outcomes: By verification, oldest first; None where it was not evaluated.
        values: The observed number, or the share of rows that were not as expected; None where there is none.
        measure: What the values are, in words.
    """

    rule: RuleResult
    outcomes: tuple[RuleOutcome | None, ...]
    values: tuple[float | None, ...]
    measure: str

    @property
    def counted(self) -> Counter[RuleOutcome]:
        """How often it came to what."""
        return Counter(outcome for outcome in self.outcomes if outcome is not None)


def rule_histories(evidence: Evidence) -> list[RuleHistory]:
    """Return the history of each expectation of the reported verification, in the order of the suites."""
    if evidence.result is None:
        return []
    past = [dict(_keyed(one.rules)) for one in evidence.history]
    return [_history(rule, [rules.get(key) for rules in past]) for key, rule in _keyed(evidence.result.rules)]


def _keyed(rules: Sequence[RuleResult]) -> Iterator[tuple[RuleKey, RuleResult]]:
    """Name each expectation as it is named in every verification; those that look alike are told apart by counting."""
    seen: Counter[tuple[str, str, str, tuple[str, ...]]] = Counter()
    for rule in rules:
        looks = (rule.suite, rule.collection, rule.rule, rule.columns)
        yield (*looks, seen[looks]), rule
        seen[looks] += 1


def _history(rule: RuleResult, past: Sequence[RuleResult | None]) -> RuleHistory:
    observes = _number(rule) is not None
    measure = "observed value" if observes else "share of rows not as expected"
    values = tuple(None if one is None else _number(one) if observes else share(one) for one in past)
    return RuleHistory(rule, tuple(None if one is None else one.outcome for one in past), values, measure)


def _number(rule: RuleResult) -> float | None:
    """Return what was observed as a number; None where it is something else, or more than a float can be."""
    observed = rule.observed
    if isinstance(observed, bool) or not isinstance(observed, int | float):
        return None
    return float(observed) if abs(observed) < _MOST_FLOAT else None


@dataclass(frozen=True)
class CollectionTrend:
    """The rows of a collection over time, and what changed in its columns since the backup before.

    Attributes:
        name: Its full name.
        rows: Rows in this backup.
        before: Rows in the backup before; None where that is not on record.
        history: Rows by verification, oldest first; None where they were not counted.
        changes: Sentences, the greatest change first.
    """

    name: str
    rows: int
    before: int | None
    history: tuple[int | None, ...]
    changes: tuple[str, ...] = ()


def collection_trends(evidence: Evidence) -> list[CollectionTrend]:
    """Return the trend of each collection of the backup: rows from its manifest, all else from profiles."""
    earlier = [one for one in evidence.history if one.backup_id != evidence.backup.backup_id]
    found = []
    for collection in evidence.backup.collections:
        name = collection.name
        history = [one.profile[name].rows if name in one.profile else None for one in evidence.history]
        before = next((one.profile[name] for one in reversed(earlier) if name in one.profile), None)
        now = evidence.result.profile.get(name) if evidence.result is not None else None
        changes = [] if now is None or before is None else _changes(now.columns, now.rows, before.columns, before.rows)
        rows = before.rows if before is not None else None
        found.append(CollectionTrend(name, collection.rows, rows, tuple(history), tuple(changes)))
    return found


def _changes(now: dict[str, ColumnProfile], rows: int, before: dict[str, ColumnProfile], rows_before: int) -> list[str]:
    """Say which columns came or went, and where the share of NULL or the mean is another one, as far as it is shown."""
    said: list[tuple[float, str]] = []
    for column, profile in now.items():
        if (old := before.get(column)) is None:
            said.append((2.0, f"{column}: new"))
            continue
        was, nulls = (old.nulls / max(rows_before, 1), profile.nulls / max(rows, 1))
        if percent(was) != percent(nulls):
            said.append((abs(nulls - was), f"{column}: NULL {percent(was)} → {percent(nulls)}"))
        if profile.mean is not None and old.mean is not None and _short(old.mean) != _short(profile.mean):
            weight = abs(profile.mean - old.mean) / max(abs(profile.mean), abs(old.mean))
            said.append((weight, f"{column}: mean {_short(old.mean)} → {_short(profile.mean)}"))
    said += [(2.0, f"{column}: gone") for column in before if column not in now]
    return [text for _, text in sorted(said, key=lambda one: -one[0])]


def _short(mean: float) -> str:
    return float_text(float(f"{mean:.4g}"))
