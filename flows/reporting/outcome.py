"""What an operation that has ended came to, in the words that notifications and events are chosen by."""

from __future__ import annotations

from blocks.errors import LastgoodError
from blocks.host.log_lines import without_secrets
from blocks.plan.notifications import Occasion
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.verdict import Verdict, recorded_standing
from blocks.rows.selection import printed
from blocks.verification import Verification
from flows.reporting.lifecycle import Operation

MOST_CHARACTERS = 3000
"""How much of an error is told; Slack takes no more in one message."""


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
    return tuple(map(printed, run.result.suspicions)) if isinstance(run.result, BackupMetadata) else ()


def problem_of(run: Operation) -> tuple[str, str] | None:
    """Return what went wrong, and its hint, which may be empty; None where nothing did. Without secrets of the plan."""
    error = run.error if run.error is not None else run.shortfall
    if error is None:
        return None
    if isinstance(error, LastgoodError):
        return _without_secrets(run.plan, error.message), _without_secrets(run.plan, error.hint)
    if not isinstance(error, Exception):
        return "it was interrupted", ""
    # a bug of ours, or of what we use: its text may hold anything
    return f"it failed unexpectedly ({type(error).__name__})", "The log of the run says where."


def _without_secrets(plan: BackupPlan, text: str) -> str:
    """Leave out what variables of the plan hold, which a hook or a server may repeat, and what is no UTF-8."""
    text = printed(without_secrets(text, plan.secret_variables))
    if len(text) > MOST_CHARACTERS:
        return f"{text[:MOST_CHARACTERS]} …"
    return text
