"""What an operation that has ended came to, in the words that notifications and events are chosen by."""

from __future__ import annotations

from blocks.errors import LastgoodError
from blocks.plan.notifications import Occasion
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.verdict import Verdict, recorded_standing
from blocks.verification import Verification
from flows.reporting.lifecycle import Operation


def occasion_of(run: Operation) -> Occasion:
    """Return what an operation that has ended came to: completed, failed, verified or corrupted."""
    if run.error is not None:
        return Occasion.FAILED
    if isinstance(run.result, Verification):
        standing = Verdict(recorded_standing(run.result)).status
        if BackupStatus.CORRUPTED in (run.result.status, standing):
            return Occasion.CORRUPTED
        return Occasion.FAILED if run.shortfall is not None else Occasion.VERIFIED
    return Occasion.FAILED if run.shortfall is not None else Occasion.COMPLETED


def suspicions_of(run: Operation) -> tuple[str, ...]:
    """Return what is suspicious about the backup that was made, in sentences."""
    return run.result.suspicions if isinstance(run.result, BackupMetadata) else ()


def problem_of(run: Operation) -> tuple[str, str] | None:
    """Return what went wrong, and its hint, which may be empty; None where nothing did."""
    error = run.error if run.error is not None else run.shortfall
    if error is None:
        return None
    if isinstance(error, LastgoodError):
        return error.message, error.hint
    if not isinstance(error, Exception):
        return "it was interrupted", ""
    # a bug of ours, or of what we use: its text may hold anything
    return f"it failed unexpectedly ({type(error).__name__})", "The log of the run says where."
