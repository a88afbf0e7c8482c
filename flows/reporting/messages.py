"""What people are told of an operation: a subject, and a few plain lines. No secrets."""

from __future__ import annotations

import shlex
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from blocks.plan.notifications import Occasion
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.rows.selection import printed
from flows.pipeline.hints import as_typed
from flows.pipeline.prefect_compat import in_flow_run
from flows.reporting.lifecycle import Operation, Verb
from flows.reporting.outcome import problem_of, suspicions_of
from flows.reporting.units import human_bytes, human_seconds


@dataclass(frozen=True)
class Message:
    """What is told.

    Attributes:
        occasion: What it is about.
        subject: One line.
        lines: The rest, plain text.
        facts: The same for programs: what a webhook is posted beside the text.
    """

    occasion: Occasion
    subject: str
    lines: tuple[str, ...]
    facts: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All but the subject."""
        return "\n".join(self.lines)

    def as_json(self) -> dict[str, JsonValue]:
        """Return what a webhook is posted."""
        return {"occasion": self.occasion.value, "subject": self.subject, "text": self.text, **self.facts}


def message_of(run: Operation, occasion: Occasion) -> Message:
    """Tell of an operation that has ended.

    Args:
        run: The operation.
        occasion: What is told of it.
    """
    ended = run.started_at + timedelta(seconds=run.seconds or 0.0)
    problem, suspicions = problem_of(run), suspicions_of(run)
    host, plan = socket.gethostname(), run.plan
    lines = [
        f"plan: {plan.name}" + (f" ({printed(plan.reference)})" if plan.reference else ""),
        *([f"backup: {run.backup_there}"] if run.backup_there else []),
        f"began: {local_time(run.started_at)}, took {human_seconds(run.seconds or 0.0)}",
        f"host: {host}",
        *([f"run: {url}"] if (url := _run_url()) else []),
        *_numbers(run),
    ]
    if suspicions:
        lines += ["", "suspicious:", *(f"- {one}" for one in suspicions)]
    if problem is not None:
        error, hint = problem
        lines += ["", f"error: {error}", *([f"hint: {printed(as_typed(hint, plan.reference))}"] if hint else [])]
    if occasion not in (Occasion.COMPLETED, Occasion.VERIFIED):
        lines += ["", f"What to do: {_to_do(run, occasion)}"]
    facts: dict[str, JsonValue] = {
        "plan": plan.name,
        "verb": run.verb.value,
        "type": run.kind,
        "backup_id": run.backup_there,
        "started_at": run.started_at.isoformat(),
        "ended_at": ended.isoformat(),
        "seconds": round(run.seconds or 0.0, 3),
        "host": host,
        "run_url": _run_url(),
        "suspicions": list(suspicions),
        "error": problem[0] if problem else None,
        "hint": problem[1] if problem else None,
    }
    return Message(occasion, subject_of(run, occasion), tuple(lines), facts)


def trial_message(plan: BackupPlan, now: datetime | None = None) -> Message:
    """Return what is sent to find out whether a target can be told.

    Args:
        plan: The plan.
        now: What this machine's clock says; it is read where this is None.
    """
    now = now or datetime.now(UTC)
    host = socket.gethostname()
    lines = (
        f"plan: {plan.name}" + (f" ({printed(plan.reference)})" if plan.reference else ""),
        f"at: {local_time(now)}",
        f"host: {host}",
        "",
        "This is a test: nothing happened. Whoever reads it will be told of what becomes of the backups.",
    )
    facts: dict[str, JsonValue] = {"plan": plan.name, "test": True, "host": host, "started_at": now.isoformat()}
    return Message(Occasion.COMPLETED, f"lastgood: a test of the notifications of {plan.name}", lines, facts)


def subject_of(run: Operation, occasion: Occasion) -> str:
    """Say in one line what happened to which plan."""
    what = run.verb.value if run.verb is not Verb.BACKUP else f"{run.kind} backup"
    said = {
        Occasion.CORRUPTED: f"a backup of {run.plan.name} is bad",
        Occasion.SUSPICIOUS: f"a backup of {run.plan.name} looks wrong",
        Occasion.VERIFIED: f"a backup of {run.plan.name} is proved good",
        Occasion.COMPLETED: f"{what} of {run.plan.name} completed",
    }
    return f"lastgood: {said.get(occasion, f'{what} of {run.plan.name} failed')}"


def local_time(moment: datetime) -> str:
    """Write an aware time as the clock of this machine shows it, with its zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _numbers(run: Operation) -> list[str]:
    made = run.result
    if not isinstance(made, BackupMetadata):
        return []
    sizes = f"{human_bytes(made.size_bytes)}, stored {human_bytes(made.size_stored)}"
    return [f"rows: {made.rows:,}, of which {made.upserts:,} written and {made.tombstones:,} deleted; {sizes}"]


def _to_do(run: Operation, occasion: Occasion) -> str:
    plan = shlex.quote(printed(run.plan.reference or run.plan.name))
    backup = run.backup_there or "latest"
    if occasion is Occasion.CORRUPTED:
        return (
            f"make a full backup (`lastgood backup {plan} --type full`), then see what is wrong "
            f"(`lastgood show {plan} {backup}`)"
        )
    if occasion is Occasion.SUSPICIOUS:
        return (
            f"see whether that is right (`lastgood show {plan} {backup}`), and say so "
            f"(`lastgood accept {plan} {backup}`); until then the last good one before it is kept"
        )
    if run.verb is Verb.VERIFICATION:
        return f"see what was found (`lastgood show {plan} {backup}`), and verify it again"
    return f"see how the plan stands (`lastgood status {plan}`)"


def _run_url() -> str | None:
    if not in_flow_run():
        return None
    from prefect.context import FlowRunContext
    from prefect.utilities.urls import url_for

    context = FlowRunContext.get()
    return url_for("flow-run", obj_id=context.flow_run.id) if context and context.flow_run else None
