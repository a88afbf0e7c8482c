"""What is known of a backup after all its verifications: pure rules, no I/O.

Of each axis the worst stands that is known, until an equal or stronger proof of the same thing outdoes it. What came
first is told by the numbers of verifications, never by a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from blocks.records import BackupStatus
from blocks.verification import Axis, AxisResult, CheckOutcome, Depth, Standing, Verification

Standings = Mapping[Axis, Standing]
"""What stands by axis; an axis that was never tried is not there."""

_DEPTHS = ("", *(depth.value for depth in Depth))


@dataclass(frozen=True)
class Verdict:
    """What is known of one backup.

    Attributes:
        axes: What stands.
        doubt: Why not all is known: a record of a verification does not open. None where all do that were needed.
        bad_base: Of one that has bad bytes only because it depends on them: the id of the backup that stored them.
    """

    axes: Standings = field(default_factory=dict)
    doubt: str | None = None
    bad_base: str | None = None

    def outcome(self, axis: Axis) -> CheckOutcome:
        """What stands on an axis."""
        return self.axes[axis].outcome if axis in self.axes else CheckOutcome.UNTRIED

    def depth(self, axis: Axis) -> str:
        """How deep it was looked at; one of `Depth`, or empty."""
        return self.axes[axis].depth if axis in self.axes else ""

    @property
    def bad(self) -> list[Axis]:
        """The axes that something is wrong on, the worst first."""
        return [axis for axis in Axis if self.outcome(axis) is CheckOutcome.BAD]

    @property
    def bad_bytes(self) -> bool:
        """Whether its bytes are not what was stored: nothing may depend on it."""
        return self.outcome(Axis.BYTES) is CheckOutcome.BAD

    @property
    def status(self) -> BackupStatus | None:
        """What it amounts to in one word; None where that is not known."""
        bad = self.bad
        if Axis.BYTES in bad or Axis.RESTORABLE in bad:
            return BackupStatus.CORRUPTED
        if self.doubt is not None:
            return None
        compared = self.outcome(Axis.BYTES) is CheckOutcome.GOOD and _at_least(self.depth(Axis.BYTES), Depth.ROWS)
        return BackupStatus.VERIFIED if compared and not bad else BackupStatus.COMPLETED

    @property
    def shown_status(self) -> BackupStatus:
        """What is shown of it in one word: a backup of which nothing is known is completed."""
        return self.status or BackupStatus.COMPLETED

    @property
    def good(self) -> bool:
        """Whether it is good on all axes that were tried, its bytes among them."""
        return self.status is BackupStatus.VERIFIED

    @property
    def restored(self) -> bool:
        """Whether it is good, and was really restored: what `restore latest --verified` takes."""
        return self.good and self.outcome(Axis.RESTORABLE) is CheckOutcome.GOOD

    def sentences(self) -> list[str]:
        """Say what is wrong, an axis a sentence."""
        return [bad_sentence(axis, self.axes[axis]) for axis in self.bad]


WORDS = {
    Axis.BYTES: "its stored bytes are bad",
    Axis.RESTORABLE: "a restore of it fails",
    Axis.DEFINITIONS: "what is rebuilt is defined otherwise",
    Axis.QUALITY: "its data are bad",
}
"""What is said of a backup that is bad on an axis."""


def bad_sentence(axis: Axis, standing: Standing) -> str:
    """Say what stands against a backup: when it was found, and the first finding."""
    first = f": {standing.findings[0]}" if standing.findings else ""
    more = f" (and {len(standing.findings) - 1} more)" if len(standing.findings) > 1 else ""
    return f"{WORDS[axis]}, found {standing.verified_at:%Y-%m-%d %H:%M} UTC{first}{more}"


def results_of(record: Verification) -> Mapping[Axis, AxisResult]:
    """Return what a verification found on each axis; of a record of earlier versions as far as its status says."""
    if record.results:
        known = {axis.value for axis in Axis}
        return {Axis(name): result for name, result in record.results.items() if name in known}
    if record.status is BackupStatus.CORRUPTED:
        # what was wrong as restored was called the same, so both are taken for bad
        found = {Axis.BYTES: _result(CheckOutcome.BAD, Depth.ROWS, record.findings)}
        if record.deep:
            found[Axis.RESTORABLE] = _result(CheckOutcome.BAD, Depth.RESTORED, record.findings)
        return found
    found = {Axis.BYTES: _result(CheckOutcome.GOOD, Depth.ROWS)}
    if record.deep:
        found[Axis.RESTORABLE] = _result(CheckOutcome.GOOD, Depth.RESTORED)
    depth = Depth.RESTORED if record.deep else Depth.ROWS
    if record.findings:
        found[Axis.QUALITY] = _result(CheckOutcome.BAD, depth, record.findings)
    elif record.expectations:
        found[Axis.QUALITY] = _result(CheckOutcome.GOOD, depth)
    return found


def standing_after(before: Standings, record: Verification, sequence: int) -> dict[Axis, Standing]:
    """Return what stands after one more verification.

    Args:
        before: What stood.
        record: The verification; its own `standing` is not looked at.
        sequence: Its number.
    """
    after = dict(before)
    for axis, result in results_of(record).items():
        if result.outcome is CheckOutcome.UNTRIED:
            continue
        now = Standing(
            outcome=result.outcome,
            depth=result.depth,
            sequence=sequence,
            verified_at=record.verified_at,
            findings=result.warnings if result.outcome is CheckOutcome.UNPROVEN else result.findings,
            suites=tuple(sorted(record.suites)) if axis is Axis.QUALITY else (),
        )
        after[axis] = _replaced(after[axis], now) if axis in after else now
    return after


def _replaced(old: Standing, new: Standing) -> Standing:
    if new.outcome is CheckOutcome.BAD:
        if old.outcome is not CheckOutcome.BAD:
            return new
        # a proof that is to outdo it must be one of all that was found
        deeper = max(old.depth, new.depth, key=_rank)
        return new.model_copy(update={"depth": deeper, "suites": tuple(sorted({*old.suites, *new.suites}))})
    if new.outcome is CheckOutcome.GOOD:
        if old.outcome is CheckOutcome.UNPROVEN:
            return new
        stronger = _at_least(new.depth, old.depth) and set(old.suites) <= set(new.suites)
        return new if stronger else old
    return new if old.outcome is CheckOutcome.UNPROVEN else old


def numbered(records: Iterable[Verification]) -> list[tuple[int, Verification]]:
    """Return verifications of one backup with their numbers, in that order.

    Records of earlier versions have none. They come first, by time.
    """
    listed = list(records)
    old = sorted((one for one in listed if one.sequence is None), key=lambda one: one.verified_at)
    new = sorted((one for one in listed if one.sequence is not None), key=lambda one: (one.sequence, one.verified_at))
    return [*enumerate(old, 1), *((one.sequence or 0, one) for one in new)]


def standings_of(records: Iterable[Verification], manifest_sha256: str) -> dict[Axis, Standing]:
    """Return what stands after some verifications of one backup, of which some may be missing.

    Args:
        records: In any order.
        manifest_sha256: Of the backup: what was found of another manifest says nothing of it.
    """
    stands: dict[Axis, Standing] = {}
    ours = [one for one in numbered(records) if one[1].manifest_sha256 == manifest_sha256]
    for sequence, group in groupby(ours, key=itemgetter(0)):
        at_once = [record for _, record in group]
        for record in at_once:
            stands = standing_after(stands, record, sequence)
        # what a record knew of those before it holds, also where they were removed since; and of those that were made
        # at once none knew of the others, so that none of them outdoes another
        for told in map(recorded_standing, at_once):
            stands |= {axis: one for axis, one in told.items() if _is_worse(one, stands.get(axis))}
    return stands


def _is_worse(told: Standing, stands: Standing | None) -> bool:
    return told.outcome is CheckOutcome.BAD and (stands is None or stands.outcome is not CheckOutcome.BAD)


def recorded_standing(record: Verification) -> dict[Axis, Standing]:
    """Return what stood after a verification, as its record says."""
    known = {axis.value for axis in Axis}
    return {Axis(name): stands for name, stands in record.standing.items() if name in known}


def knows_all_before(record: Verification) -> bool:
    """Whether a numbered verification was recorded by who could open what is before it."""
    return record.sequence == 1 or record.previous is not None


def depending(own: Verdict, bases: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Return what is known of a backup, seeing what is known of those it depends on.

    Args:
        own: What its own verifications say.
        bases: Id and verdict of each backup of its chain, full first.
    """
    if own.bad_bytes:
        return own
    for backup_id, verdict in bases:
        if verdict.bad_bytes:
            stands = verdict.axes[Axis.BYTES]
            finding = f"it depends on {backup_id}, whose bytes are bad"
            if stands.findings:
                finding += f": {stands.findings[0]}"
            axes = {**own.axes, Axis.BYTES: stands.model_copy(update={"findings": (finding,), "suites": ()})}
            return Verdict(axes, own.doubt, backup_id)
    return own


def _result(outcome: CheckOutcome, depth: Depth, findings: tuple[str, ...] = ()) -> AxisResult:
    return AxisResult(outcome=outcome, depth=depth.value, findings=findings)


def _at_least(depth: str, other: str) -> bool:
    return _rank(depth) >= _rank(other)


def _rank(depth: str) -> int:
    """Number a depth; one that a later version knows is taken for deeper."""
    return _DEPTHS.index(depth) if depth in _DEPTHS else len(_DEPTHS)
