"""The status command: how plans stand, and what to do now. It needs no Prefect server and no data key."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError
from blocks.plan.strict_yaml import load_yaml
from flows.cli import options
from flows.cli.exit import error_json, note_error_of
from flows.cli.output import say, say_json
from flows.cli.running import open_plan
from flows.cli.tables import Styled, fields
from flows.reading.status import Health, PlanStatus, ProofAge, plan_status
from flows.reporting.moments import ago, local_time
from flows.reporting.units import human_bytes

NOT_AS_PLANNED = 13
"""Exit code where a plan is stale, unproved or suspicious."""

_MOST_SUSPICIOUS = 5
"""The newest suspicious backups, which are shown."""

_CODES = {
    Health.DAMAGED: CorruptionDetected.exit_code,
    Health.STALE: NOT_AS_PLANNED,
    Health.SUSPICIOUS: NOT_AS_PLANNED,
    Health.UNPROVED: NOT_AS_PLANNED,
}
_STYLES = {
    Health.GOOD: "green",
    Health.UNPROVED: "yellow",
    Health.SUSPICIOUS: "yellow",
    Health.STALE: "bold red",
    Health.DAMAGED: "bold red",
}


def status_arguments(command: ArgumentParser) -> None:
    """Declare what `status` takes."""
    command.add_argument(
        "plans",
        metavar="PLAN",
        nargs="*",
        help="Paths of YAML plans, or names of saved ones; all of this folder if none.",
    )
    options.json(command)


def status(plans: Sequence[str], *, json: bool) -> int:
    """Show how plans stand, and what to do now.

    Exit code 13 where one is stale, unproved or suspicious, 8 where something is wrong with one or its repository, that
    of the error where one cannot be looked at; of several plans the worst.
    """
    now = datetime.now(UTC)
    found = [_looked_at(reference, now) for reference in plans or _plans_here(Path())]
    if json:
        say_json({"plans": [_json(reference, one) for reference, one in found]})
    for number, (reference, one) in enumerate(found):
        if isinstance(one, LastgoodError):
            note_error_of(reference, one)
        elif not json:
            if number:
                say("")
            _say(one, now)
    return _worst([one for _, one in found])


def _plans_here(folder: Path) -> list[str]:
    """Return the plans of a folder: files of YAML that name sources and a repository, also where they are wrong."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    plans = [str(path) for path in files if _is_plan(path)]
    if not plans:
        raise ConfigurationError("there is no plan in this folder", hint="Name one: lastgood status PLAN.yaml.")
    return plans


def _is_plan(path: Path) -> bool:
    try:
        read = load_yaml(path.read_text(encoding="utf-8"), str(path))
    except (ConfigurationError, OSError, UnicodeDecodeError):
        return False  # files of others need not be what a plan is
    return isinstance(read, dict) and {"sources", "repository"} <= read.keys()


def _looked_at(reference: str, now: datetime) -> tuple[str, PlanStatus | LastgoodError]:
    """Return how a plan stands, or why that is not known: the others are looked at all the same."""
    try:
        return reference, plan_status(open_plan(reference), reference, now)
    except LastgoodError as exc:
        return reference, exc


def _worst(found: Sequence[PlanStatus | LastgoodError]) -> int:
    errors = [one.exit_code for one in found if isinstance(one, LastgoodError)]
    healths = [one.health for one in found if isinstance(one, PlanStatus)]
    worst = max(healths, key=list(Health).index, default=Health.GOOD)
    return errors[0] if errors else _CODES.get(worst, 0)


def _json(reference: str, one: PlanStatus | LastgoodError) -> JsonValue:
    if isinstance(one, LastgoodError):
        return {"plan": reference, "health": "unknown", **error_json(one)}
    told: JsonValue = one.model_dump(mode="json")
    return told


def _say(one: PlanStatus, now: datetime) -> None:
    overdue = f", overdue since {local_time(one.overdue_since)}" if one.overdue_since else ""
    lines: list[tuple[str, str | Styled]] = [
        ("plan", one.plan),
        ("health", Styled(one.health.value, _STYLES[one.health])),
    ]
    if good := one.last_good:
        lines.append(
            ("last good", f"{ago(good.timestamp, now)}: {good.backup_id} ({local_time(good.timestamp)}){overdue}")
        )
    else:
        lines.append(("last good", "none"))
    if failed := one.last_failed:
        lines.append(("failed", f"{ago(failed.failed_at, now)}: {failed.type} backup ({local_time(failed.failed_at)})"))
    lines.append(("next due", f"{ago(one.next_due, now)} ({local_time(one.next_due)})" if one.next_due else "by hand"))
    lines.append(("verified", _proof(one.last_verified, now)))
    for suspicious in one.suspicious[-_MOST_SUSPICIOUS:]:
        lines.append(("suspicious", f"{suspicious.backup_id}: {suspicious.suspicions[0]}"))
    grown = f"{human_bytes(one.grown_7_days)} in 7 days, {human_bytes(one.grown_30_days)} in 30 days"
    lines.append(("stored", f"{human_bytes(one.size_stored)} in {one.backups:,} backups; of that {grown}"))
    if one.free_bytes is not None:
        lines.append(("room", f"{human_bytes(one.free_bytes)} free"))
    lines += [
        ("slot", f"{slot.name} of {slot.source} held back {human_bytes(slot.held_bytes)} when it was last backed up")
        for slot in one.slots
    ]
    if held := one.held_by:
        lines.append(("held by", f"{held.purpose} of {held.holder}, begun {ago(held.since, now)}"))
    lines += [("found", finding) for finding in one.findings]
    lines.append(("to do", one.to_do))
    say(fields(lines))


def _proof(proof: ProofAge | None, now: datetime) -> str:
    if proof is None:
        return "never"
    axes = ", ".join(f"{axis} {outcome}" for axis, outcome in proof.axes.items())
    return f"{ago(proof.verified_at, now)}: {proof.backup_id}, as deep as {proof.depth}: {axes}"


COMMAND = options.Command("Show how plans stand, and what to do now.", status_arguments, status)
