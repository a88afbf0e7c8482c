"""Which metrics lastgood has of its own, what each of them means, and its series for plans.

All series of counters that can be known before are there from the beginning, with 0: what first appears with 1 is no
increase to Prometheus.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks.plan.clock import TOLERANCE
from blocks.plan.plan import BackupPlan
from blocks.records import BackupStatus, BackupType
from blocks.sources.target import RestoreMode
from blocks.storage.attempts import Breaker
from blocks.telemetry.numbers import Call, Direction, Outcome
from blocks.telemetry.published import SECONDS
from flows.reading.repository_numbers import RepositoryNumbers
from flows.reporting.exposition import Family
from flows.reporting.journal import BAD, COMPLETED, FAILED, PARTIAL
from flows.reporting.lifecycle import Verb
from flows.reporting.plan_totals import MICRO, Counts, Made, PlanTotals, buckets, total

_BACKUP_TYPES = tuple(kind.value for kind in BackupType)
_MODES = tuple(mode.value for mode in RestoreMode if mode is not RestoreMode.PREVIEW)
TYPES: Mapping[str, Sequence[str]] = {
    Verb.BACKUP: _BACKUP_TYPES,
    Verb.RESTORE: _MODES,
    Verb.VERIFICATION: ("quick", "deep"),
    Verb.RETENTION: ("",),
}
"""The types of each verb: what a backup is asked to be, the mode of a restore, the depth of a verification."""
_OUTCOMES: Mapping[str, Sequence[str]] = {
    Verb.BACKUP: (COMPLETED, FAILED),
    Verb.RESTORE: (COMPLETED, FAILED, PARTIAL),
    Verb.VERIFICATION: (COMPLETED, FAILED, PARTIAL, BAD),
    Verb.RETENTION: (COMPLETED, FAILED, PARTIAL),
}
_STATUSES = (BackupStatus.COMPLETED.value, BackupStatus.VERIFIED.value, BackupStatus.CORRUPTED.value)
_STAGES: Mapping[str, Sequence[str]] = {
    Verb.BACKUP: ("collect", "normalize", "diff", "compress", "encrypt", "store", "record"),
    Verb.RESTORE: ("find", "fetch", "decrypt", "decompress", "merge", "denormalize", "apply"),
    Verb.VERIFICATION: ("find", "fetch", "decrypt", "decompress", "merge", "prove"),
    Verb.RETENTION: ("decide", "explain", "remove", "sweep"),
}
_CALLS = tuple(call.value for call in Call)
_CALL_OUTCOMES = tuple(outcome.value for outcome in Outcome)
_DIRECTIONS = tuple(direction.value for direction in Direction)
_READ_OUTCOMES = (Outcome.OK.value, Outcome.FAILED.value)


@dataclass(frozen=True)
class PlanState:
    """What is known of a plan beside the journal.

    Attributes:
        plan: The plan.
        numbers: What was last seen of its repository; None where that was never read.
        up: Whether it can be read now.
        rpo_target: How old the newest good state may be; None where nothing says so.
        place: The repository's place as the numbers of operations call it, without secrets; empty while unknown.
        breaker: Of a storage in a network; None of a folder.
    """

    plan: BackupPlan
    numbers: RepositoryNumbers | None = None
    up: bool = False
    rpo_target: timedelta | None = None
    place: str = ""
    breaker: Breaker | None = None


Known = Sequence[tuple[PlanState, PlanTotals]]


def series(known: Known, now: datetime) -> Iterator[Family]:
    """Return lastgood's own metrics, labelled by plan.

    Args:
        known: What is known of each plan.
        now: The moment that ages are counted from, aware.
    """
    yield from _operations(known)
    yield from _moments(known)
    yield from _newest_backups(known)
    yield from _repositories(known)
    yield from _proofs(known, now)
    yield from _objectives(known, now)
    yield from _work(known)
    yield from _tiers(known)
    yield from _sources(known)


def _operations(known: Known) -> Iterator[Family]:
    started = Family(
        "lastgood_operations_started_total",
        "counter",
        "Operations that were begun, by verb (backup, restore, verification, retention) and type: of a backup what it "
        "was asked to be, of a restore its mode, of a verification quick or deep.",
    )
    ended = Family(
        "lastgood_operations_ended_total",
        "counter",
        "Operations that ended, by outcome: completed; failed (also of killed processes, once they are known to be "
        "gone); partial (what could be done was done, or proved); bad (a verification found the backup bad).",
    )
    took = Family("lastgood_operation_duration_seconds", "histogram", "How long operations took, however they ended.")
    for state, totals in known:
        plan, counts = state.plan.name, totals.counts
        for verb, kind in _kinds(counts):
            started.add(counts["started", verb, kind], plan=plan, verb=verb, type=kind)
            seen = {name[3] for name in counts if name[:3] == ("ended", verb, kind)}
            for outcome in dict.fromkeys([*_OUTCOMES[verb], *sorted(seen)]):
                ended.add(counts["ended", verb, kind, outcome], plan=plan, verb=verb, type=kind, outcome=outcome)
            key = ("took", verb, kind)
            seconds = total(counts, *key) / MICRO
            took.add_histogram(buckets(counts, *key), seconds, SECONDS, plan=plan, verb=verb, type=kind)
    yield from (started, ended, took)


def _kinds(counts: Counts) -> Sequence[tuple[str, str]]:
    """Return verbs and types: those that there are, and others that a journal names."""
    known = [(verb, kind) for verb, kinds in TYPES.items() for kind in kinds]
    seen = {(name[1], name[2]) for name in counts if name[0] in ("started", "ended")}
    return [*known, *sorted(seen - set(known))]


def _moments(known: Known) -> Iterator[Family]:
    success = Family(
        "lastgood_last_success_timestamp_seconds",
        "gauge",
        "When an operation last ended well, since 1970, of backups on any machine; not there where none has.",
    )
    failure = Family(
        "lastgood_last_failure_timestamp_seconds",
        "gauge",
        "When an operation last ended otherwise (failed, partial or bad), since 1970; not there where none has.",
    )
    for state, totals in known:
        latest = dict(totals.latest)
        # another machine may have made it, whose journal is not known here
        for kind, made in (state.numbers.made_at if state.numbers is not None else {}).items():
            success_of = ("success", Verb.BACKUP.value, kind)
            latest[success_of] = max(made.timestamp(), latest.get(success_of, 0.0))
        for name, moment in sorted(latest.items()):
            if name[0] in ("success", "failure"):
                family = success if name[0] == "success" else failure
                family.add(moment, plan=state.plan.name, verb=name[1], type=name[2])
    yield from (success, failure)


def _newest_backups(known: Known) -> Iterator[Family]:
    rows = Family("lastgood_backup_rows", "gauge", "Rows of the state in the newest backup of a type.")
    size = Family(
        "lastgood_backup_size_bytes",
        "gauge",
        "What the newest backup of a type stored, before compression: of an incremental its changes.",
    )
    stored = Family(
        "lastgood_backup_stored_bytes", "gauge", "What the newest backup of a type takes in the repository."
    )
    ratio = Family(
        "lastgood_backup_ratio",
        "gauge",
        "Size of what the newest backup of a type stored by what it takes; not there where it takes nothing.",
    )
    suspicious = Family(
        "lastgood_backup_suspicious",
        "gauge",
        "1 where a backup departs from the history, and no person accepted that; it is as good as any other.",
    )
    for state, totals in known:
        plan = state.plan.name
        for kind, made in sorted(_newest(state, totals).items()):
            rows.add(made.rows, plan=plan, type=kind)
            size.add(made.size_bytes, plan=plan, type=kind)
            stored.add(made.size_stored, plan=plan, type=kind)
            if made.size_stored:
                ratio.add(made.size_bytes / made.size_stored, plan=plan, type=kind)
        if state.up and state.numbers is not None:
            suspicious.add(int(state.numbers.suspicious), plan=plan)
    yield from (rows, size, stored, ratio, suspicious)


def _newest(state: PlanState, totals: PlanTotals) -> Mapping[str, Made]:
    return state.numbers.newest if state.up and state.numbers is not None else totals.newest


def _repositories(known: Known) -> Iterator[Family]:
    up = Family(
        "lastgood_up",
        "gauge",
        "1 where the repository could be read when it was last looked at; where it is 0, what is told of backups is "
        "what the journal knows, and what was seen before.",
    )
    backups = Family(
        "lastgood_backups",
        "gauge",
        "Backups that are there now, by type and status: completed (nothing known against them), verified, corrupted.",
    )
    stored = Family("lastgood_repository_stored_bytes", "gauge", "What all backups of the plan take.")
    free = Family(
        "lastgood_repository_free_bytes", "gauge", "Room that is left where the repository is; of folders only."
    )
    committed = Family(
        "lastgood_backups_committed_total",
        "counter",
        "Backups that were ever committed, emergency backups before restores among them, by the number of the newest.",
    )
    for state, totals in known:
        plan, numbers = state.plan.name, state.numbers
        up.add(int(state.up), plan=plan)
        if numbers is None:
            continue
        committed.add(max([numbers.sequence, *(made.sequence for made in totals.newest.values())]), plan=plan)
        if not state.up:
            continue
        for kind in _BACKUP_TYPES:
            for status in _STATUSES:
                backups.add(numbers.backups.get((kind, status), 0), plan=plan, type=kind, status=status)
        stored.add(numbers.stored_bytes, plan=plan)
        if numbers.free_bytes is not None:
            free.add(numbers.free_bytes, plan=plan)
    yield from (up, backups, stored, free, committed)


def _proofs(known: Known, now: datetime) -> Iterator[Family]:
    verified = Family(
        "lastgood_newest_verified_backup_timestamp_seconds",
        "gauge",
        "The point in time that the newest verified backup restores to, since 1970; not there where there is none.",
    )
    last = Family(
        "lastgood_last_verification_timestamp_seconds",
        "gauge",
        "When a backup was last verified, whatever was found, since 1970; not there where none was.",
    )
    counted = Family(
        "lastgood_verifications_total", "counter", "Verifications, by the status of the backup that they amounted to."
    )
    for state, totals in known:
        plan, numbers = state.plan.name, state.numbers
        regular = [] if state.up else [made for made in totals.backups if made.regular]
        proved = [made.timestamp for made in regular if made.verified and not made.bad]
        _add_latest(verified, plan, numbers.newest_verified if numbers else None, proved, now)
        told = totals.latest.get(("verification",))
        tried = numbers.last_verification if numbers else None
        _add_latest(last, plan, tried, () if told is None else (told,), now)
        for status in _STATUSES:
            counted.add(totals.counts["verified", status], plan=plan, status=status)
    yield from (verified, last, counted)


def _add_latest(family: Family, plan: str, seen: datetime | None, told: Iterable[float], now: datetime) -> float | None:
    """Add the latest of what was seen in a repository and of what the journal tells, and return it.

    What is still to come is left out: a clock that was ahead said it, and it would hide all that does not come.
    """
    moments = [*told] if seen is None else [*told, seen.timestamp()]
    most = (now + TOLERANCE).timestamp()
    latest = max((one for one in moments if one <= most), default=None)
    if latest is not None:
        family.add(latest, plan=plan)
    return latest


def _objectives(known: Known, now: datetime) -> Iterator[Family]:
    good = Family(
        "lastgood_newest_good_backup_timestamp_seconds",
        "gauge",
        "The point in time that the newest backup restores to that nothing is known against, emergency backups left "
        "out, since 1970; not there where there is none. One that is dated ahead does not count before that time.",
    )
    rpo = Family(
        "lastgood_rpo_seconds",
        "gauge",
        "Age of that state: what would be lost now. Infinite where the repository holds no such backup.",
    )
    rpo_target_ = Family(
        "lastgood_rpo_target_seconds",
        "gauge",
        "How old it may be, as the plan says; where it says nothing, the time in which two backups are due.",
    )
    rto = Family(
        "lastgood_rto_seconds", "gauge", "How long a restore takes: the longest of the last 30 scratch restores."
    )
    rto_target = Family("lastgood_rto_target_seconds", "gauge", "How long it may take, where the plan says so.")
    for state, totals in known:
        plan, numbers = state.plan.name, state.numbers
        told = () if state.up else [made.timestamp for made in totals.backups if made.regular and not made.bad]
        newest = _add_latest(good, plan, numbers.newest_good if numbers else None, told, now)
        if newest is not None:
            rpo.add(max(0.0, now.timestamp() - newest), plan=plan)
        elif state.up:
            rpo.add(math.inf, plan=plan)
        if state.rpo_target is not None:
            rpo_target_.add(state.rpo_target.total_seconds(), plan=plan)
        measured = numbers.rto_seconds if state.up and numbers is not None else None
        restores = [seconds for _, seconds in totals.restores]
        if measured is not None or (not state.up and restores):
            rto.add(max(restores) if measured is None else measured, plan=plan)
        if (target := state.plan.objectives.rto) is not None:
            rto_target.add(target.total_seconds(), plan=plan)
    yield from (good, rpo, rpo_target_, rto, rto_target)


def _work(known: Known) -> Iterator[Family]:
    stages = Family(
        "lastgood_stage_seconds_total",
        "counter",
        "Time that stages of operations took; parts run at the same time, so this may be more than passed.",
    )
    waited = Family(
        "lastgood_lease_wait_seconds_total", "counter", "How long operations waited for another run that held the plan."
    )
    refused = Family(
        "lastgood_leases_refused_total", "counter", "Operations that did not get the plan: another run held it."
    )
    for state, totals in known:
        plan, counts = state.plan.name, totals.counts
        expected = [(verb, stage) for verb, names in _STAGES.items() for stage in names]
        for verb, stage in _and_seen(expected, counts, "stage"):
            stages.add(counts["stage", verb, stage] / MICRO, plan=plan, verb=verb, stage=stage)
        waited.add(counts["lease_wait",] / MICRO, plan=plan)
        refused.add(counts["leases_refused",], plan=plan)
    yield from (stages, waited, refused)


def _tiers(known: Known) -> Iterator[Family]:
    calls = Family(
        "lastgood_tier_calls_total",
        "counter",
        "Calls of the storage, by kind and outcome; one that was tried again counts once. That there is no such "
        "object (missing), or one already (exists), is an answer; all but these and ok are failures.",
    )
    seconds = Family(
        "lastgood_tier_seconds_total", "counter", "Time that calls of the storage took, all attempts of each together."
    )
    moved = Family(
        "lastgood_tier_bytes_total", "counter", "Content of objects that was written to the storage, or read from it."
    )
    open_ = Family(
        "lastgood_tier_breaker_open",
        "gauge",
        "1 where this machine leaves a storage in a network alone, for half a minute after calls that failed.",
    )
    for state, totals in known:
        plan, counts = state.plan.name, totals.counts
        tiers = [state.place] if state.place else []
        expected = [(tier, call, outcome) for tier in tiers for call in _CALLS for outcome in _CALL_OUTCOMES]
        for tier, call, outcome in _and_seen(expected, counts, "calls"):
            calls.add(counts["calls", tier, call, outcome], plan=plan, tier=tier, call=call, outcome=outcome)
        for tier, call in _and_seen([(tier, call) for tier in tiers for call in _CALLS], counts, "call_seconds"):
            seconds.add(counts["call_seconds", tier, call] / MICRO, plan=plan, tier=tier, call=call)
        for tier, way in _and_seen([(tier, way) for tier in tiers for way in _DIRECTIONS], counts, "moved"):
            moved.add(counts["moved", tier, way], plan=plan, tier=tier, direction=way)
    breakers = {state.place: state.breaker for state, _ in known if state.breaker is not None}
    for tier, breaker in sorted(breakers.items()):
        open_.add(int(breaker.is_open), tier=tier)
    yield from (calls, seconds, moved, open_)


def _sources(known: Known) -> Iterator[Family]:
    reads = Family(
        "lastgood_source_reads_total",
        "counter",
        "Reads of parts of a source, by outcome; one that was tried again counts again.",
    )
    seconds = Family(
        "lastgood_source_seconds_total",
        "counter",
        "Time that reads of a source took; parts are read at the same time, so this may be more than passed.",
    )
    rows = Family("lastgood_source_rows_total", "counter", "Rows that were read from a source.")
    size = Family("lastgood_source_bytes_total", "counter", "Size of these rows in memory, before compression.")
    held = Family(
        "lastgood_slot_held_bytes",
        "gauge",
        "Write-ahead log that the replication slot of a source held back when it was last backed up.",
    )
    for state, totals in known:
        plan, counts = state.plan.name, totals.counts
        named = list(state.plan.sources)
        expected = [(source, outcome) for source in named for outcome in _READ_OUTCOMES]
        for source, outcome in _and_seen(expected, counts, "reads"):
            reads.add(counts["reads", source, outcome], plan=plan, source=source, outcome=outcome)
        for (source,) in _and_seen([(source,) for source in named], counts, "read_seconds"):
            seconds.add(counts["read_seconds", source] / MICRO, plan=plan, source=source)
            rows.add(counts["read_rows", source], plan=plan, source=source)
            size.add(counts["read_bytes", source], plan=plan, source=source)
        if state.up and state.numbers is not None:
            for source, held_bytes in sorted(state.numbers.slots.items()):
                held.add(held_bytes, plan=plan, source=source)
    yield from (reads, seconds, rows, size, held)


def _and_seen(expected: Sequence[tuple[str, ...]], counts: Counts, name: str) -> Sequence[tuple[str, ...]]:
    """Return labels: those that are expected, and then what others a journal names."""
    seen = {labels[1:] for labels in counts if labels[0] == name}
    return [*expected, *sorted(seen - set(expected))]
