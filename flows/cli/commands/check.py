"""The check command: see that the repository is whole, and repair what can be."""

from __future__ import annotations

import re
from argparse import ArgumentParser

from blocks.errors import ConfigurationError, CorruptionDetected, RepositoryUnavailable
from blocks.repository.capabilities import Capabilities
from flows.check import CheckResult, check_repository
from flows.cli import options
from flows.cli.manner import manner
from flows.cli.output import note, say, say_json
from flows.cli.progress import open_progress
from flows.cli.running import open_plan
from flows.cli.tables import fields
from flows.reporting.units import human_bytes, human_seconds


def check_arguments(command: ArgumentParser) -> None:
    """Declare what `check` takes."""
    options.plan(command)
    options.value(
        command,
        "--read-data",
        "[SHARE]",
        "Also read and open every object, or a random share: --read-data=10%%.",
    )
    options.flag(command, "--repair", "Mend SHA256SUMS, mark damaged backups, remove old leftovers.")
    options.flag(
        command,
        "--mark-missing",
        "With --repair: mark backups also where many objects are missing at once, once you know that they are gone.",
    )
    options.flag(command, "--accept-head", "Accept that the newest backup seen is gone, once you know why.")
    options.json(command)


def check(plan: str, *, read_data: str | None, repair: bool, mark_missing: bool, accept_head: bool, json: bool) -> int:
    """Check that the repository is whole; exit code 8 where anything is wrong, 4 where the storage failed only."""
    opened, share = open_plan(plan), _share(read_data)
    if mark_missing and not repair:
        raise ConfigurationError("--mark-missing says what a repair marks", hint="Write --repair --mark-missing.")
    with open_progress("check", "objects") as progress:
        result = check_repository(opened, share, repair, accept_head, progress, mark_missing)
    if json:
        say_json(result.model_dump(mode="json"))
    elif result.findings or not manner().quiet:
        _show_check(result)
    if set(result.findings) - set(result.unavailable):
        return CorruptionDetected.exit_code
    return RepositoryUnavailable.exit_code if result.findings else 0


def _share(text: str | None) -> float:
    if text is None:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise ConfigurationError(f"{text!r} is not a share of the data", hint="Write --read-data or --read-data=10%.")
    return float(match[1]) / 100


def _show_check(result: CheckResult) -> None:
    read = f", {result.objects_read:,} read ({human_bytes(result.bytes_read)})" if result.objects_read else ""
    say(
        fields(
            [
                ("repository", result.repository),
                ("backups", f"{result.backups:,}"),
                ("objects", f"{result.objects:,}{read}"),
                ("storage", _proved(result.capabilities)),
                ("took", human_seconds(result.seconds)),
            ]
        )
    )
    for title, texts in (("repaired", result.actions), ("note", result.notes), ("found", result.findings)):
        for text in texts:
            say(f"{title}: {text}")
    if result.findings:
        note(f"{len(result.findings)} findings; `lastgood verify` shows whether a backup can still be restored")
    else:
        say("nothing is wrong")


def _proved(capabilities: Capabilities | None) -> str:
    if capabilities is None:
        return "not tried"
    words = {
        "exclusive_creation": "creates an object once",
        "ranges": "reads parts of objects",
        "list_after_write": "lists what was just written",
    }
    able = [text for field, text in words.items() if getattr(capabilities, field)]
    return ", ".join(able) or "does nothing of what was tried"


COMMAND = options.Command("Check that the repository is whole, and repair what can be.", check_arguments, check)
