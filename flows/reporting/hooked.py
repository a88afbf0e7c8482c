"""The hooks of a run as it begins, and what is told of them: lines in the log of the run, and an artifact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blocks.plan.hook_context import HookContext
from blocks.plan.hooked_run import HookedRun, HookRun
from blocks.plan.plan import BackupPlan
from flows.reporting.artifacts import publish_table
from flows.reporting.lifecycle import Operation, Verb
from flows.reporting.run_lines import tell
from flows.reporting.units import human_seconds


@contextmanager
def hooked(run: Operation, mode: str = "") -> Iterator[HookedRun]:
    """Give the hooks of a run of a verb, and publish what they said when it has ended.

    Args:
        run: The run.
        mode: What hooks are told as the mode of a restore or a verification.
    """
    ran: list[HookRun] = []

    def record(one: HookRun) -> None:
        ran.append(one)
        tell(hook_lines(one))

    plan = run.plan
    kind = run.kind if run.verb is Verb.BACKUP else ""
    context = HookContext(plan.name, run.verb.value, backup_type=kind, mode=mode)
    try:
        yield HookedRun(plan.hooks, context, plan.secret_variables, record, plan.hooks.calls)
    except Exception:
        _publish(plan, ran)
        raise
    # where somebody ended the run nobody waits for a server
    _publish(plan, ran)


def hook_lines(run: HookRun) -> list[str]:
    """Say how a hook ended, and what it said."""
    ended = run.error or "done" if run.exit_code is None else f"exit code {run.exit_code}"
    return [
        f"hook {run.name} ({run.where}): {ended}, took {human_seconds(run.seconds)}",
        *(f"hook {run.name}: {line}" for line in run.output.splitlines()),
    ]


def _publish(plan: BackupPlan, ran: list[HookRun]) -> None:
    if not ran:
        return
    table = [
        {
            "hook": run.name,
            "in the plan": run.where,
            "exit code": "" if run.exit_code is None else run.exit_code,
            "seconds": run.seconds,
            "failure": run.error,
            "output": run.output,
        }
        for run in ran
    ]
    failed = sum(bool(run.error) for run in ran)
    publish_table(("hooks", plan.name), table, f"{len(ran)} hooks, {failed} failed")
