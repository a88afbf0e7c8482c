"""What a verification amounts to as an error: the worst that it found, or that stands, or what could not be tried."""

from __future__ import annotations

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    CouldNotBeTried,
    LastgoodError,
    NotRestorable,
    ObjectUnreadable,
    QualityFailed,
)
from blocks.plan.quality.findings import faults, is_untried
from blocks.repository.verdict import bad_sentence
from blocks.verification import Axis, CheckOutcome, Depth, Verification

NOT_RECORDED = "this result could not be recorded"
"""Begins the warning of a verification that only its reader knows of."""


class Reported(Verification):
    """A verification with what is not recorded of it.

    Attributes:
        recorded: Whether it could be recorded beside its backup.
        lost: That the newest backup which this machine has seen is gone, in a sentence, if it is.
        below: What stands against a backup that it depends on, though all that was read is right, in a sentence.
    """

    recorded: bool = True
    lost: str | None = None
    below: str | None = None


_KINDS: dict[Axis, type[LastgoodError]] = {
    Axis.BYTES: CorruptionDetected,
    Axis.RESTORABLE: NotRestorable,
    Axis.DEFINITIONS: NotRestorable,
    Axis.QUALITY: QualityFailed,
}
"""What a backup that is bad on an axis is called, the worst first."""


def failure(result: Verification) -> LastgoodError | None:
    """Return the error that a verification amounts to; None where it proved all that it tried, and nothing stands.

    The worst that it found counts. Where it found nothing, what an earlier one found and this one does not outdo
    counts, of it or of what it depends on, then that the newest backup is gone, then what could not be tried.
    """
    tried = (_found, _faulty, _standing, _below, _lost, _untried)
    found = next((failed for look in tried if (failed := look(result))), None)
    if found is None:
        return None
    kind, sentence, hint = found
    error = kind(f"backup {result.backup_id} of plan {result.plan}: {sentence}", hint=hint)
    error.__cause__ = Unproved(result)
    return error


_Failure = tuple[type[LastgoodError], str, str]
"""The kind of an error, its sentence and its hint."""


def _found(result: Verification) -> _Failure | None:
    for axis, kind in _KINDS.items():
        one = result.results.get(axis.value)
        if one is not None and one.outcome is CheckOutcome.BAD:
            more = f" (and {len(result.findings) - 1} more)" if len(result.findings) > 1 else ""
            return kind, f"{one.findings[0]}{more}", _hint(result, kind)
    return None


def _faulty(result: Verification) -> _Failure | None:
    wrong = faults(result.rules)
    if not wrong:
        return None
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return (
        ConfigurationError,
        f"{wrong[0]}{more}",
        "It says nothing of the backup. Mend the suite, and verify it again.",
    )


def _standing(result: Verification) -> _Failure | None:
    for axis, kind in _KINDS.items():
        stands = result.standing.get(axis.value)
        if stands is not None and stands.outcome is CheckOutcome.BAD:
            with_suites = f" with the suites {', '.join(stands.suites)}" if stands.suites else ""
            deep = " with --deep" if stands.depth == Depth.RESTORED.value else ""
            sentence = f"nothing new was found, and what was found before stands: {bad_sentence(axis, stands)}"
            return kind, sentence, f"Only a verification{deep}{with_suites} that finds it good outdoes it."
    return None


def _below(result: Verification) -> _Failure | None:
    if isinstance(result, Reported) and result.below is not None:
        return CorruptionDetected, f"it is good, but {result.below}", "A verification of that one outdoes it."
    return None


def _lost(result: Verification) -> _Failure | None:
    if isinstance(result, Reported) and result.lost is not None:
        return CorruptionDetected, f"it is good, but {result.lost}", "`lastgood check` reports more."
    return None


def _untried(result: Verification) -> _Failure | None:
    stored = result.results.get(Axis.BYTES.value)
    if stored is not None and stored.outcome is CheckOutcome.UNPROVEN:
        return ObjectUnreadable, stored.warnings[0], "It says nothing of the backup. Verify it again."
    restored = result.results.get(Axis.RESTORABLE.value)
    if restored is not None and restored.outcome is CheckOutcome.UNPROVEN and not restored.depth:
        return CouldNotBeTried, restored.warnings[0], "All else is good; `lastgood show` lists what was proved."
    if rule := next((one for one in result.rules if is_untried(one)), None):
        return CouldNotBeTried, f"suite {rule.suite}: {rule.sentence}", "All else is good. Verify it again."
    return None


def _hint(result: Verification, kind: type[LastgoodError]) -> str:
    known = f"{NOT_RECORDED}." if isinstance(result, Reported) and not result.recorded else _SHOWN
    if kind is NotRestorable:
        return f"{known} `lastgood restore --keep-going` leaves out what cannot be rebuilt."
    return f"{known} Restore an earlier backup with --at."


_SHOWN = "`lastgood show` lists all findings."


def unproved(error: LastgoodError) -> Verification | None:
    """Return the verification that failed with an error; None where it travelled between processes."""
    return error.__cause__.result if isinstance(error.__cause__, Unproved) else None


class Unproved(Exception):
    """Why a verification failed, as the cause of the error that says so.

    Attributes:
        result: The result of the verification.
    """

    def __init__(self, result: Verification) -> None:
        super().__init__(f"{len(result.findings)} findings")
        self.result = result
