"""The show command: what is known of one backup. It needs no Prefect server and no data key."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.block import Repository
from blocks.repository.verdict import Verdict
from blocks.verification import Verification
from flows.cli import options
from flows.cli.output import say, say_json, say_sentence
from flows.cli.render import (
    backup_json,
    chain_text,
    changed,
    collections_table,
    held_log,
    proof_table,
    recovery_rows,
    status_text,
)
from flows.cli.running import open_plan
from flows.cli.tables import Table, fields, grid
from flows.pipeline.doubts import settled
from flows.reading.recovery import Recovery, recovery_of
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes, human_seconds
from flows.reporting.wording import AXES


def show_arguments(command: ArgumentParser) -> None:
    """Declare what `show` takes."""
    options.plan(command)
    options.backup(command)
    options.json(command)


def show(plan: str, backup: str, *, json: bool) -> None:
    """Show one backup: its numbers, its collections, its chain and its verifications."""
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    made = repository.find(opened.name, backup)
    if json:
        say_json(_show_json(repository, made))
        return
    verdict = repository.verdict(made)
    say(_summary(made, verdict.shown_status, made.backup_id in settled(repository, opened.name, [made])))
    say("")
    say(collections_table(made))
    for source in made.sources:
        say_sentence(f"\n{source.name} ({source.type}): {source.system}, seen {local_time(source.taken_at)}")
        if held := held_log(source):
            say(f"  {held}")
        for warning in source.warnings:
            say_sentence(f"  warning: {warning}")
    say("")
    say(proof_table(verdict))
    if verdict.doubt is not None:
        say_sentence(f"not all is known: {verdict.doubt}")
    verifications = repository.verifications(opened.name, made.backup_id)
    say("")
    say(_verifications_table(verifications) if verifications else "never verified")
    for finding in _findings(verdict, verifications):
        say_sentence(f"found: {finding}")
    if rows := recovery_rows(_recovery(repository, opened.name)):
        say("")
        say(fields(rows))


def _recovery(repository: Repository, plan: str) -> Recovery:
    return recovery_of(repository, plan, repository.survey(plan, shown=True).backups, None, datetime.now(UTC))


def _summary(made: BackupMetadata, status: BackupStatus, accepted: bool) -> Table:
    promoted = f"asked for {made.requested_type.value}: {made.promoted_because}" if made.promoted_because else ""
    kept = "for ever" if made.retention_days is None else f"{made.retention_days:g} days"
    return fields(
        [
            ("backup", made.backup_id),
            ("plan", f"{made.plan}, number {made.sequence}"),
            ("type", made.backup_type.value),
            ("", promoted),
            ("holds", "" if made.whole else "only what the plan calls critical"),
            ("state as of", local_time(made.timestamp)),
            ("warning", made.clock_doubt or ""),
            *((f"suspicious{', accepted' if accepted else ''}", sentence) for sentence in made.suspicions),
            ("status", status_text(status)),
            ("chain", chain_text(made)),
            ("", " ← ".join(link.backup_id for link in reversed(made.chain))),
            ("rows", f"{made.rows:,}, changed {changed(made.upserts, made.tombstones)}"),
            ("size", f"{human_bytes(made.size_bytes)}, stored {human_bytes(made.size_stored)}"),
            ("took", human_seconds(made.backup_duration_seconds)),
            ("kept", kept),
            ("tags", ", ".join(made.tags)),
            ("made on", made.source_system),
            ("made with", ", ".join(f"{name} {version}" for name, version in made.tool_versions.items())),
            ("key", made.encryption_key_id if made.encapsulated_key else "none, not encrypted"),
            ("checksum", made.checksum),
        ]
    )


def _show_json(repository: Repository, made: BackupMetadata) -> JsonValue:
    head = backup_json(made, repository.verdict(made), settled(repository, made.plan, [made]))
    return head | {
        "plan": made.plan,
        "sequence": made.sequence,
        "source_system": made.source_system,
        "encryption_key_id": made.encryption_key_id,
        "checksum": made.checksum,
        "tool_versions": dict(made.tool_versions),
        "sources": [
            {
                "name": s.name,
                "type": s.type,
                "system": s.system,
                "taken_at": s.taken_at.isoformat(),
                "warnings": list(s.warnings),
                "identity": dict(s.identity),
                **({"slot": slot} if (slot := s.definition.get("slot")) else {}),
            }
            for s in made.sources
        ],
        "collections": [
            {
                "name": c.name,
                "key": list(c.key),
                "columns": [list(column) for column in c.columns],
                "rows": c.rows,
                "upserts": c.upserts,
                "tombstones": c.tombstones,
                "parts": len(c.parts),
                "selected_keys": list(c.selected_keys),
            }
            for c in made.collections
        ],
        "verifications": [
            v.model_dump(mode="json", exclude={"format_version"})
            for v in repository.verifications(made.plan, made.backup_id)
        ],
        "recovery": _recovery(repository, made.plan).model_dump(mode="json"),
    }


def _verifications_table(verifications: Sequence[Verification]) -> Table:
    """Show the verifications of a backup, oldest first."""
    table = grid(">number", "verified", "how", "status", ">rows", ">rules", ">took", ">findings")
    for one in verifications:
        table.add_row(
            f"{one.sequence or ''}",
            local_time(one.verified_at),
            "deep" if one.deep else "compared",
            status_text(one.status),
            f"{one.rows:,}",
            str(one.expectations),
            human_seconds(one.seconds),
            f"{len(one.findings):,}",
        )
    return table


def _findings(verdict: Verdict, verifications: Sequence[Verification]) -> list[str]:
    """Say all that was ever found wrong, each finding once: what stands first, then what was found before."""
    standing = [f"{AXES[axis]}: {one}" for axis in verdict.bad for one in verdict.axes[axis].findings]
    said = {one for axis in verdict.bad for one in verdict.axes[axis].findings}
    for verification in reversed(verifications):
        standing += [
            f"verification {verification.sequence or ''}: {one}" for one in verification.findings if one not in said
        ]
        said.update(verification.findings)
    return standing


COMMAND = options.Command("Show one backup, its collections, its chain and its verifications.", show_arguments, show)
