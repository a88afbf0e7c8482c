"""The backup command: back up all sources of a plan, or none."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.errors import LastgoodError
from blocks.host.log_lines import told_of
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType
from blocks.repository.verdict import Verdict
from flows.backup import backup as backup_flow
from flows.backup import backup_and_verify, made_unproved
from flows.cli import options
from flows.cli.given_state import read_given_state
from flows.cli.manner import manner
from flows.cli.output import remark, say, say_json, warn
from flows.cli.progress import open_progress
from flows.cli.render import backup_json, changed, collections_table, held_log, proof_text
from flows.cli.running import open_plan, run_reference, run_verb
from flows.cli.tables import fields, grid
from flows.reading.state import plan_of_given
from flows.rehearsal import rehearse
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes, human_seconds


def backup_arguments(command: ArgumentParser) -> None:
    """Declare what `backup` takes."""
    options.plan(command)
    options.kind(
        command,
        "--type",
        BackupType,
        "What to make, incremental if not given; where it needs a base and finds none it becomes a full one.",
        dest="backup_type",
        default=BackupType.INCREMENTAL,
    )
    options.values(command, "--tag", "WORD", "A word to keep with it; may be repeated.", dest="tags", type=options.word)
    options.value(
        command,
        "--wait",
        "SECONDS",
        "How long to wait where another run holds the plan.",
        type=options.seconds,
        default=0.0,
    )
    options.value(
        command, "--state", "FILE", "State to back up in place of the live sources: a JSON object, or - for stdin."
    )
    options.flag(command, "--dry-run", "Read and compare, count what would be stored, and store nothing.")
    options.no_server(command)
    options.json(command)


def backup(
    plan: str,
    *,
    backup_type: BackupType,
    tags: Sequence[str],
    wait: float,
    state: str | None,
    dry_run: bool,
    no_server: bool,
    json: bool,
) -> None:
    """Back up all sources of a plan, or none; where the plan says `verify_after_backup`, verify the backup then."""
    given = read_given_state(state) if state is not None else None
    opened, tags = open_plan(plan), list(tags)
    if given is not None:
        opened = plan_of_given(opened, given)
    if dry_run:
        _rehearse(opened, backup_type, json)
        return
    try:
        made = run_verb(
            backup_flow,
            lambda progress: backup_and_verify(opened, backup_type, tags, wait, progress),
            no_server or given is not None,  # a run in Prefect would have to keep the state as a parameter
            {"plan": run_reference(plan), "backup_type": backup_type, "tags": tags, "wait_seconds": wait},
        )
    except LastgoodError as exc:
        if (there := made_unproved(exc)) is not None:
            _show(there.made, there.verdict, json)
        raise
    _show(made, _proved(opened, made), json)


def _proved(plan: BackupPlan, made: BackupMetadata) -> Verdict:
    """Return what is known of a backup that was just made: nothing, unless it was verified in the same run."""
    if plan.verify_after_backup == "off":
        return Verdict()
    return plan.repository.unlock(plan.encryption).verdict(made)


def _rehearse(plan: BackupPlan, backup_type: BackupType, json: bool) -> None:
    with open_progress("dry run") as progress:
        found = rehearse(plan, backup_type, progress)
    if json:
        say_json(found.model_dump(mode="json"))
        return
    if found.promoted_because:
        asked, would = found.requested_type.value, found.backup_type.value
        remark(f"asked for {asked}, would make {would}: {found.promoted_because}")
    for warning in found.warnings:
        warn(warning)
    upserts, tombstones = (sum(getattr(one, name) for one in found.collections) for name in ("upserts", "tombstones"))
    say(
        fields(
            [
                ("would make", found.backup_type.value),
                ("base", found.base or "none, it would stand alone"),
                ("rows", f"{sum(one.rows for one in found.collections):,}, changed {changed(upserts, tombstones)}"),
                ("size", f"{human_bytes(sum(one.size_bytes for one in found.collections))} before compression"),
            ]
        )
    )
    say("")
    table = grid("collection", ">rows", ">changed", ">parts", ">size")
    for one in found.collections:
        table.add_row(
            one.collection,
            f"{one.rows:,}",
            changed(one.upserts, one.tombstones),
            str(one.parts),
            human_bytes(one.size_bytes),
        )
    say(table)
    remark("nothing was written")


def _show(made: BackupMetadata, verdict: Verdict, json: bool) -> None:
    _warn(made)
    if json:
        say_json(backup_json(made, verdict))
    elif manner().watched:
        _say_backup(made, verdict)
    elif not manner().quiet:
        _say_briefly(made, verdict)


def _warn(made: BackupMetadata) -> None:
    with told_of("backup", made.backup_id):
        if made.clock_doubt:
            warn(made.clock_doubt)
        for sentence in made.suspicions:
            warn(f"suspicious: {sentence}")
        for source in made.sources:
            for warning in source.warnings:
                warn(f"{source.name}: {warning}")


def _say_briefly(made: BackupMetadata, verdict: Verdict) -> None:
    """Say in a line what was made, for a log or a mail."""
    why = f" ({made.promoted_because})" if made.promoted_because else ""
    kind, changes = f"{made.backup_type.value}{why}", changed(made.upserts, made.tombstones)
    stored, took = human_bytes(made.size_stored), human_seconds(made.backup_duration_seconds)
    proof = f", {proof_text(verdict)}" if verdict.axes else ""
    say(f"backup {made.backup_id}: {kind}, {made.rows:,} rows, {changes}, stored {stored}, took {took}{proof}")


def _say_backup(made: BackupMetadata, verdict: Verdict) -> None:
    if made.promoted_because:
        remark(f"asked for {made.requested_type.value}, made {made.backup_type.value}: {made.promoted_because}")
    for source in made.sources:
        if held := held_log(source):
            remark(f"{source.name}: {held}")
    say(
        fields(
            [
                ("backup", made.backup_id),
                ("type", made.backup_type.value),
                ("state as of", local_time(made.timestamp)),
                ("base", made.base or "none, it stands alone"),
                ("rows", f"{made.rows:,}, changed {changed(made.upserts, made.tombstones)}"),
                ("stored", f"{human_bytes(made.size_stored)} of {human_bytes(made.size_bytes)}"),
                ("took", human_seconds(made.backup_duration_seconds)),
                ("proof", proof_text(verdict)),
            ]
        )
    )
    say("")
    say(collections_table(made))


COMMAND = options.Command("Back up all sources of a plan, or none.", backup_arguments, backup)
