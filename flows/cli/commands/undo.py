"""The undo command: take back the last restore in place, asked and shown as a restore is."""

from __future__ import annotations

from argparse import ArgumentParser

from blocks.plan.plan import BackupPlan
from flows.cli import options
from flows.cli.commands.restore import carry_out, writing
from flows.cli.progress import open_progress
from flows.cli.running import open_plan, run_reference, run_verb
from flows.pipeline.results import RestoreResult
from flows.undo import make_undo
from flows.undo import undo as undo_flow


def undo_arguments(command: ArgumentParser) -> None:
    """Declare what `undo` takes."""
    options.plan(command)
    options.flag(command, "--preview", "Write nothing; show what would be done.")
    writing(command)


def undo(
    plan: str,
    *,
    preview: bool,
    without_emergency_backup: bool,
    adopt: bool,
    keep_going: bool,
    yes: bool,
    no_server: bool,
    json: bool,
) -> None:
    """Take back the last restore in place, from the backup made before it. An undo can be taken back, too."""
    wanted = _Undo(open_plan(plan), plan, without_emergency_backup, adopt, keep_going)
    carry_out(wanted, plan, preview, yes, no_server, json)


class _Undo:
    """The last restore in place, to be taken back."""

    def __init__(self, plan: BackupPlan, reference: str, without_backup: bool, adopt: bool, keep_going: bool) -> None:
        self._plan, self._reference, self._without_backup = plan, reference, without_backup
        self._adopt, self._keep_going = adopt, keep_going
        self._of: str | None = None

    def preview(self) -> RestoreResult:
        """Find out what would be done."""
        with open_progress("preview"):
            return make_undo(self._plan, preview=True, adopt=self._adopt)

    def settle(self, backup_id: str) -> None:
        """Take back the restore that was previewed, and no later one."""
        self._of = backup_id

    def run(self, no_server: bool) -> RestoreResult:
        """Take it back."""
        return run_verb(
            undo_flow,
            lambda progress: make_undo(
                self._plan,
                False,
                progress,
                without_emergency_backup=self._without_backup,
                of=self._of,
                keep_going=self._keep_going,
                adopt=self._adopt,
            ),
            no_server,
            {
                "plan": run_reference(self._reference),
                "without_emergency_backup": self._without_backup,
                "of": self._of,
                "keep_going": self._keep_going,
                "adopt": self._adopt,
            },
        )


COMMAND = options.Command("Take back the last restore in place.", undo_arguments, undo)
