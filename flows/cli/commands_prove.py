"""Commands that prove: verify that a backup can be restored, check that the repository is whole."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import UTC, datetime

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError, QualityFailed
from blocks.manifest import Verification
from blocks.plan import BackupPlan
from flows.check import CheckResult, check_repository
from flows.cli import options
from flows.cli.console import note, say, say_json
from flows.cli.planning import open_plan, run_reference
from flows.cli.progress import open_progress
from flows.cli.render import fields, status_text
from flows.cli.running import run_verb
from flows.progress import Progress
from flows.units import human_bytes, human_seconds
from flows.verify import failure, make_verification
from flows.verify import verify as verify_flow


def verify_arguments(command: ArgumentParser) -> None:
    """Declare what `verify` takes."""
    options.plan(command)
    options.backup_or_latest(command)
    options.flag(command, "--deep", "Also restore to a scratch folder and compare that.")
    options.no_server(command)
    options.json(command)


def verify(plan: str, backup: str, *, deep: bool, no_server: bool, json: bool) -> None:
    """Prove that a backup can be restored: fetch, open, merge, compare every row, run the quality suites."""
    opened, began = open_plan(plan), datetime.now(UTC)
    parameters = {"plan": run_reference(plan), "backup": backup, "deep": deep}
    try:
        result = run_verb(verify_flow, lambda progress: _proved(opened, backup, deep, progress), no_server, parameters)
    except (CorruptionDetected, QualityFailed):
        if recorded := _recorded(opened, backup, began):
            _show(recorded, json)
        raise
    _show(result, json)


def _proved(plan: BackupPlan, backup: str, deep: bool, progress: Progress) -> Verification:
    result = make_verification(plan, backup, deep, progress)
    if error := failure(result):
        raise error
    return result


def _recorded(plan: BackupPlan, backup: str, since: datetime) -> Verification | None:
    """Return what a failed verification left, so that all its findings are shown."""
    repository = plan.repository.unlock(plan.encryption)
    try:
        found = repository.verifications(plan.name, repository.find(plan.name, backup).backup_id)
    except LastgoodError:
        return None  # it failed before there was a backup to verify; that error is shown
    return found[-1] if found and found[-1].verified_at >= since else None


def _show(result: Verification, json: bool) -> None:
    if json:
        say_json(result.model_dump(mode="json", exclude={"format_version"}))
        return
    say(
        fields(
            [
                ("backup", result.backup_id),
                ("status", status_text(result.status)),
                ("how", "restored to a scratch folder and compared" if result.deep else "compared with its index"),
                ("rows", f"{result.rows:,}"),
                ("expectations", f"{result.expectations:,}"),
                ("took", human_seconds(result.seconds)),
            ]
        )
    )
    for finding in result.findings:
        say(f"found: {finding}")
    for warning in result.warnings:
        note(f"warning: {warning}")


def check_arguments(command: ArgumentParser) -> None:
    """Declare what `check` takes."""
    options.plan(command)
    options.value(
        command,
        "--read-data",
        "[SHARE]",
        "Also read and open every object, or a random share: --read-data=10%%.",
    )
    options.flag(command, "--repair", "Mend SHA256SUMS, mark damaged backups, sweep old leftovers.")
    options.flag(command, "--accept-head", "Accept that the newest backup seen is gone, once you know why.")
    options.json(command)


def check(plan: str, *, read_data: str | None, repair: bool, accept_head: bool, json: bool) -> int:
    """Check that the repository is whole; exit code 8 where anything is wrong."""
    opened, share = open_plan(plan), _share(read_data)
    with open_progress("check", "objects") as progress:
        result = check_repository(opened, share, repair, accept_head, progress)
    if json:
        say_json(result.model_dump(mode="json"))
    else:
        _show_check(result)
    return CorruptionDetected.exit_code if result.findings else 0


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
                ("took", human_seconds(result.seconds)),
            ]
        )
    )
    for title, texts in (("repaired", result.actions), ("note", result.notes), ("found", result.findings)):
        for text in texts:
            say(f"{title}: {text}")
    if result.findings:
        note(f"{len(result.findings)} findings; `lastgood verify` tells whether a backup can still be restored")
    else:
        say("nothing is wrong")
