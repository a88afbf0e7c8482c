"""lastgood for programs: backups, restores and proofs of a plan, without a Prefect server.

    import lastgood

    made = lastgood.backup("trading.yaml", "full")
    lastgood.verify("trading.yaml")
    lastgood.restore("trading.yaml", made.backup_id)

A plan is the path of a YAML plan, the name of a saved Backup Plan block, or a `BackupPlan`. Where an event loop runs,
as in `await lastgood.backup(plan)`, each of these functions returns an awaitable instead, and does its work in a
thread; a restore or backup that is no longer awaited goes on to its end. Errors are those of blocks/errors.py, the base
of which is `lastgood.LastgoodError`.

In a flow run they are functions like any other; the flows themselves, which are recorded as runs, are in `flows`:
`from flows import backup`.

Importing this changes nothing in the process, and imports nothing. The command `lastgood` starts here, too.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import JsonValue

    from blocks.errors import LastgoodError
    from blocks.plan.hooks import Call
    from blocks.plan.plan import BackupPlan
    from blocks.records import BackupMetadata, BackupType
    from blocks.repository.lease import Lease
    from blocks.repository.plan_lock import PlanLock
    from blocks.sources.target import RestoreMode
    from blocks.telemetry.collector import MetricsCollector
    from blocks.verification import Verification
    from deployments.background import BackgroundSchedules
    from flows.pipeline.results import RestoreResult, RetentionResult
    from flows.reporting.metrics import Collector

    PlanLike = BackupPlan | str | Path

__all__ = [
    "BackupManager",
    "BackupPlan",
    "BackupType",
    "LastgoodError",
    "MetricsCollector",
    "backup",
    "list_backups",
    "lock",
    "main",
    "read_state",
    "restore",
    "restore_latest",
    "retention",
    "stats",
    "undo",
    "verify",
]

P = ParamSpec("P")
R = TypeVar("R")
Kind = TypeVar("Kind", bound=StrEnum)

USAGE = 2
"""Exit code of the command where lastgood is not set up as it should be."""


def __getattr__(name: str) -> object:
    if name not in ("BackupPlan", "BackupType", "LastgoodError", "MetricsCollector"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _refuse_others("blocks")
    from blocks import errors, records

    if name == "BackupPlan":
        from blocks.plan.plan import BackupPlan

        return BackupPlan
    if name == "MetricsCollector":
        from blocks.telemetry.collector import MetricsCollector

        return MetricsCollector
    return errors.LastgoodError if name == "LastgoodError" else records.BackupType


def _either_way(work: Callable[P, R]) -> Callable[P, R]:
    """Make a function that returns an awaitable of its result where an event loop runs, and its result elsewhere."""

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio  # the command does without

        bound = partial(work, *args, **kwargs)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            in_loop = False  # what is raised later has nothing to do with this
        else:
            in_loop = True
        return _in_thread(bound) if in_loop else bound()  # type: ignore[return-value]

    return call


async def _in_thread(work: Callable[[], R]) -> R:
    """Do work in a thread of its own: the loop's own ones are few, and are there for what is short."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    thread = ThreadPoolExecutor(1, thread_name_prefix="lastgood-call")
    done = thread.submit(copy_context().run, work)
    thread.shutdown(wait=False)
    return await asyncio.wrap_future(done)


@_either_way
def backup(
    plan: PlanLike,
    backup_type: BackupType | str = "incremental",
    *,
    tags: Sequence[str] = (),
    wait_seconds: float = 0,
    state: Mapping[str, object] | None = None,
    state_data: Mapping[str, object] | None = None,
) -> BackupMetadata:
    """Back up all sources of a plan, or none.

    Args:
        plan: The plan to back up.
        backup_type: full, differential, incremental, snapshot or emergency; one that needs a base and finds none
            becomes a full backup and says so in `promoted_because`.
        tags: Words to find the backup by.
        wait_seconds: How long to wait where another run holds the plan.
        state: State by key that is backed up instead of the plan's live sources. It takes the place of the plan's
            Python object (a source of type `mapping`), if there is one and no more; values may be what such a source
            keeps.
        state_data: The same, by its name in the system that lastgood replaces.

    Returns:
        What is known of the backup: `backup_id`, `backup_type`, `rows`, `size_stored` and more.
    """
    opened = _opened(plan)
    from blocks.records import BackupType
    from flows.backup import backup_and_verify
    from flows.reading.state import plan_of_given

    kind = _one_of(BackupType, backup_type)
    if state is not None and state_data is not None:
        from blocks.errors import ConfigurationError

        raise ConfigurationError("state and state_data are the same: give one of them")
    given = state if state is not None else state_data
    wanted = opened if given is None else plan_of_given(opened, given)
    with _apart():
        return backup_and_verify(wanted, kind, tuple(tags), wait_seconds)


@_either_way
def restore(  # noqa: PLR0913  what a program says in one call; the flows take a record
    plan: PlanLike,
    backup: str = "latest",
    *,
    at: datetime | None = None,
    collections: Sequence[str] = (),
    keys: Sequence[str] = (),
    to: str | None = None,
    mode: RestoreMode | str = "exact",
    overwrite: bool = False,
    without_emergency_backup: bool = False,
    to_password_env: str | None = None,
    keep_going: bool = False,
    no_owner: bool = False,
    no_privileges: bool = False,
    adopt: bool = False,
) -> RestoreResult:
    """Restore a backup: all of it, some collections, or single keys; to the live place or to another one.

    A restore in place takes an emergency backup first of all that it will overwrite or delete; `undo` brings that back.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, `latest`, or `latest verified`: the newest that was really restored and found good.
        at: Restore the newest backup made at or before this time instead.
        collections: Globs over full names such as `ledger/orders`; none means all.
        keys: Globs over keys such as `position:*`; none means all.
        to: Another place than the live one.
        mode: `exact` makes what is selected what it was, `merge` leaves all else, `preview` writes nothing.
        overwrite: Replace what is at another place.
        without_emergency_backup: Overwrite live state without backing it up first. It cannot be had back.
        to_password_env: Environment variable that holds the password of the other place, or `none`.
        keep_going: Leave out what cannot be rebuilt, and raise `Partial`, which names it, after all else is restored.
        no_owner: PostgreSQL: what is made belongs to the role that restores; owners of the backup need not exist.
        no_privileges: PostgreSQL: bring back no privileges, and no policies for named roles.
        adopt: Write to the live place also where it is another one than that of the backup, and not empty.
    """
    opened = _opened(plan)
    from blocks.rows.selection import Selection
    from blocks.sources.target import RestoreMode
    from flows.restore import make_restore
    from flows.restoring.request import RestoreRequest

    wanted = RestoreRequest(
        backup,
        at=at,
        selection=Selection(tuple(collections), tuple(keys)),
        to=to,
        to_password_env=to_password_env,
        mode=_one_of(RestoreMode, mode),
        overwrite=overwrite,
        without_emergency_backup=without_emergency_backup,
        keep_going=keep_going,
        no_owner=no_owner,
        no_privileges=no_privileges,
        adopt=adopt,
    )
    with _apart():
        return make_restore(opened, wanted)


@_either_way
def restore_latest(
    plan: PlanLike, backup_type: BackupType | str | None = None, *, verified: bool = False
) -> RestoreResult:
    """Restore the newest backup in place and exactly, with an emergency backup first.

    Args:
        plan: The plan, read and resolved.
        backup_type: The newest of this type that is not known to be corrupted; of any but emergency where it is None.
        verified: The newest that was really restored by a verification, and found good in all that was looked at.

    Raises:
        BackupNotFound: There is none.
    """
    return _restore_latest(plan, backup_type, verified)


@_either_way
def undo(
    plan: PlanLike,
    *,
    preview: bool = False,
    without_emergency_backup: bool = False,
    keep_going: bool = False,
    adopt: bool = False,
) -> RestoreResult:
    """Take back the last restore in place. An undo is such a restore itself, and can be taken back.

    Args:
        plan: The plan, read and resolved.
        preview: Write nothing; say what would be done.
        without_emergency_backup: Overwrite live state without backing it up first. It cannot be had back.
        keep_going: Leave out what cannot be rebuilt, and raise `Partial`, which names it, after all else is restored.
        adopt: Write to the live place also where it is another one by now, and not empty.
    """
    opened = _opened(plan)
    from flows.undo import make_undo

    with _apart():
        return make_undo(
            opened,
            preview,
            without_emergency_backup=without_emergency_backup,
            keep_going=keep_going,
            adopt=adopt,
        )


@_either_way
def verify(plan: PlanLike, backup: str = "latest", *, deep: bool = True) -> Verification:
    """Prove that a backup can be restored and is good data; a result that is not good is recorded, and raised.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, or `latest`.
        deep: Also restore to a scratch folder and read the restored state back.

    Raises:
        CorruptionDetected: What was stored is damaged.
        NotRestorable: What was stored is right, and a restore of it fails, or brings back something else.
        QualityFailed: It is not good data.
        CouldNotBeTried: Nothing is wrong, and it could not be restored here.
    """
    opened = _opened(plan)
    from flows.proving.failure import failure
    from flows.verify import make_verification

    with _apart():
        result = make_verification(opened, backup, deep)
    if error := failure(result):
        raise error
    return result


@_either_way
def retention(
    plan: PlanLike, *, dry_run: bool = False, accept_clock: bool = False, adopt: bool = False
) -> RetentionResult:
    """Remove the backups that a plan's policy no longer keeps; never one that a kept backup depends on.

    Args:
        plan: The plan, read and resolved.
        dry_run: Only report what would go, and why.
        accept_clock: Go on although what is on record, or the storage, speaks against this machine's clock.
        adopt: Take backups of other sources (those of before a move or an upgrade, say) for the plan's own.

    Raises:
        NotConfirmed: The clock, or the backups, are in doubt, and nobody accepted that.
    """
    opened = _opened(plan)
    from flows.retention import apply_retention

    with _apart():
        return apply_retention(opened, dry_run, accept_clock=accept_clock, adopt=adopt)


@_either_way
def list_backups(plan: PlanLike) -> list[BackupMetadata]:
    """Return all backups of a plan in the order of their commits.

    Raises:
        CorruptionDetected: The manifest of one does not open; `stats` tells which.
    """
    opened = _opened(plan)
    return opened.repository.unlock(opened.encryption).backups(opened.name)


@_either_way
def stats(plan: PlanLike) -> dict[str, JsonValue]:
    """Return how many backups a plan has, of which types and status, their sizes in bytes, and when they were made."""
    opened = _opened(plan)
    from flows.reading.stats import PlanStats

    return PlanStats(opened).totals()


@_either_way
def read_state(plan: PlanLike, backup: str = "latest") -> dict[str, object]:
    """Return the state that a backup holds, all of it in memory, and write nothing.

    Args:
        plan: The plan, read and resolved.
        backup: Id of the backup, or `latest`.

    Returns:
        By full name of the collection (`ledger/orders`) a pyarrow table of its rows, or for a Python object a dict of
        its values by key; of a backup that holds one Python object and nothing else, as one of `state_data`, that dict
        itself.
    """
    opened = _opened(plan)
    from flows.reading import state

    return state.read_state(opened, backup)


def lock(plan: PlanLike, purpose: str = "an application", *, wait_seconds: float = 0) -> PlanLock:
    """Keep backups, restores in place and retention of a plan away for as long as `with` or `async with` lasts.

    Args:
        plan: The plan, read and resolved.
        purpose: What others are told that the plan is held for.
        wait_seconds: How long to wait where another run holds it.

    Returns:
        A context manager that gives the lease; its `check` raises RepositoryLocked where the lease was lost.
    """
    _begin(plan)
    from blocks.repository.plan_lock import PlanLock

    @contextmanager
    def take(seconds: float) -> Iterator[Lease]:
        opened = _opened(plan)
        repository = opened.repository.unlock(opened.encryption)
        with repository.lease(opened.name, purpose, seconds) as lease:
            yield lease

    return PlanLock(take, wait_seconds)


class BackupManager:
    """Backups of one plan, by the verbs of the system that lastgood replaces; docs/api.md has the table.

    Every method returns an awaitable where an event loop runs, as the functions of this module do.

    Args:
        plan: Path of a YAML plan, name of a saved Backup Plan block, or a `BackupPlan`. It is read anew by each call.
        metrics_collector: Is told of each backup and each cleaning: a `MetricsCollector`, or any object with its
            `record_counter` and `record_histogram`.
        before: Called in this process before each backup, restore, verification and retention run that this manager
            makes, with one argument: what a hook of the plan is told. Where it raises, nothing is done.
        after: Called in the same way afterwards, however it ended.
    """

    def __init__(
        self,
        plan: PlanLike,
        metrics_collector: Collector | None = None,
        *,
        before: Call | None = None,
        after: Call | None = None,
    ) -> None:
        _begin(plan)
        from flows.reporting.metrics import Numbers

        self._plan, self._before, self._after = plan, before, after
        self._numbers = Numbers(metrics_collector)
        self._schedules: BackgroundSchedules | None = None

    @_either_way
    def create_backup(
        self, backup_type: BackupType | str, state_data: Mapping[str, object] | None = None
    ) -> BackupMetadata:
        """Make a backup, of the plan's live sources or of `state_data`; see `backup`."""
        with self._numbers.operation("backup.operations.created"), self._numbers.timed("backup.operations"):
            made = backup(self._hooked(), backup_type, state_data=state_data)
        self._numbers.observe("backup.operations.size_bytes_total", made.size_stored)
        return made

    @_either_way
    def restore_from_backup(self, backup_id: str, apply_state: bool = True) -> RestoreResult | dict[str, object]:
        """Restore a backup in place and exactly, with an emergency backup first.

        Args:
            backup_id: Its id, or `latest`.
            apply_state: Where it is False, nothing is written, and the state is returned as `read_state` does.
        """
        return restore(self._hooked(), backup_id) if apply_state else read_state(self._plan, backup_id)

    @_either_way
    def restore_latest_backup(
        self, backup_type: BackupType | str | None = None, *, verified: bool = False
    ) -> RestoreResult:
        """Restore the newest backup, of one type or of any; see `restore_latest`."""
        return restore_latest(self._hooked(), backup_type, verified=verified)

    @_either_way
    def cleanup_old_backups(self) -> RetentionResult:
        """Remove what the plan's policy no longer keeps; see `retention`."""
        with self._numbers.operation("backup.retention.cleaned"):
            result = retention(self._hooked())
        if result.removed:
            self._numbers.observe("backup.retention.removed_count", len(result.removed))
        return result

    @_either_way
    def test_restore(self) -> Verification:
        """Prove by a restore to a scratch folder that the latest backup is good; see `verify`, which raises else."""
        return verify(self._hooked())

    @_either_way
    def get_backup_stats(self) -> dict[str, JsonValue]:
        """Return numbers of the plan's backups; see `stats`."""
        return stats(self._plan)

    @_either_way
    def get_performance_metrics(self) -> dict[str, JsonValue]:
        """Return how long backups take and how large they are.

        Returns:
            `backups`: by type the number of backups in the repository, their mean and longest time in seconds and mean
            sizes in bytes. `operations`: what this manager counted, by the names that its collector was told.
        """
        opened = _opened(self._plan)
        from flows.reading.stats import PlanStats

        return {
            "plan": opened.name,
            "backups": PlanStats(opened).performance(),
            "operations": {**self._numbers.counted()},
        }

    @_either_way
    def start_scheduled_backups(self) -> None:
        """Run the schedules of the plan in a child process, as `lastgood serve` does, unless they run already.

        They end with `stop_scheduled_backups`, and with this process.

        Raises:
            ConfigurationError: The plan is wrong, or a `BackupPlan` that is neither saved nor read from a file.
        """
        opened = _opened(self._plan)
        _refuse_others("deployments")
        from blocks.errors import ConfigurationError
        from deployments.background import BackgroundSchedules

        if opened.reference is None:
            raise ConfigurationError(
                f"plan {opened.name} is known to this process only, and scheduled runs are processes of their own",
                hint="Write it to a YAML file, or save it as a block: plan.save(NAME).",
            )
        if self._schedules is None:
            self._schedules = BackgroundSchedules(opened.reference)
        self._schedules.start()

    @_either_way
    def stop_scheduled_backups(self) -> None:
        """End the schedules that `start_scheduled_backups` started, in good order; without them, do nothing."""
        if self._schedules is not None:
            self._schedules.stop()

    @property
    def is_running(self) -> bool:
        """Whether the schedules run."""
        return self._schedules is not None and self._schedules.running

    def _hooked(self) -> PlanLike:
        """Return the plan with what this program has called around its verbs."""
        if self._before is None and self._after is None:
            return self._plan
        opened = _opened(self._plan)
        return opened.model_copy(update={"hooks": opened.hooks.calling(self._before, self._after)})


def _restore_latest(plan: PlanLike, backup_type: BackupType | str | None, verified: bool) -> RestoreResult:
    if backup_type is None:
        return restore(plan, "latest verified" if verified else "latest")
    opened = _opened(plan)
    from blocks.records import BackupType
    from flows.reading.newest_of_type import newest_of_type

    return restore(opened, newest_of_type(opened, _one_of(BackupType, backup_type), verified=verified))


def _opened(plan: PlanLike) -> BackupPlan:
    """Load a plan.

    Raises:
        ConfigurationError: There is no such plan, or it is wrong.
    """
    _begin(plan)
    from blocks.errors import ConfigurationError
    from blocks.plan.plan import BackupPlan, read_plan
    from flows.cli.running import open_plan

    if isinstance(plan, BackupPlan):
        return plan
    if isinstance(plan, Path):
        return read_plan(plan.expanduser())
    if isinstance(plan, str):
        return open_plan(plan)
    raise ConfigurationError(
        f"{plan!r} is no plan", hint="Give the path of a YAML plan, the name of a saved block, or a BackupPlan."
    )


def _begin(plan: PlanLike) -> None:
    """Settle what this process has of Prefect before anything is imported: saved plans are blocks of Prefect's."""
    _refuse_others("blocks", "flows")
    from blocks.prefect_compat import is_path, spare_prefect

    if isinstance(plan, Path) or (isinstance(plan, str) and is_path(plan)):
        spare_prefect()


def _apart() -> AbstractContextManager[None]:
    from flows.pipeline.prefect_compat import apart_from_flow_run

    return apart_from_flow_run()


def _one_of(kinds: type[Kind], value: Kind | str) -> Kind:
    from blocks.errors import ConfigurationError

    try:
        return kinds(value)
    except ValueError:
        raise ConfigurationError(f"{value!r} is none of {', '.join(kinds)}") from None


def _refuse_others(*packages: str) -> None:
    """Refuse to work with packages of the names of ours that are somebody else's.

    Raises:
        ImportError: There is one; says where.
    """
    for package in packages:
        if (stranger := _stranger(package)) is not None:
            raise ImportError(stranger, name=package)


def _stranger(package: str) -> str | None:
    """Say that a package is not ours, if it is not: names like `flows` are common."""
    from importlib.util import find_spec

    try:
        spec = find_spec(package)
    except ValueError:  # a module that says nothing of where it is from
        spec = None
    places = [] if spec is None else [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    found, own = next(map(Path, filter(None, places)), None), Path(__file__).resolve().parent / package / "__init__.py"
    if found is not None and found.resolve() == own and _says_ours(own):
        return None
    shown = f"{package!r}, which is not to be found" if found is None else f"{package!r} of {_folder(found)}"
    return (
        f"lastgood needs its own package {package!r} of {own.parent}, and Python finds {shown} instead: "
        "run lastgood from another folder and without that one on PYTHONPATH, or install it in an environment of its "
        "own, as `uv tool install lastgood` does"
    )


def _folder(found: Path) -> Path:
    return found.parent if found.name == "__init__.py" else found


def _says_ours(file: Path) -> bool:
    """Whether nobody installed a package of this name over ours."""
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            return _OURS in text.readline()
    except OSError:
        return True


_OURS = " of lastgood"
"""In the first line of each of our packages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `lastgood` and return its exit code.

    Args:
        argv: The words after `lastgood`; None takes those of this process, which is then the command's own.
    """
    words = sys.argv[1:] if argv is None else argv
    served = ["deployments"] if {"serve", "deploy", "demo"}.intersection(words[:2]) else []
    for package in ("blocks", "flows", *served):
        if (stranger := _stranger(package)) is not None:
            print(f"error: {stranger}", file=sys.stderr)
            return USAGE
    if argv is None:
        return _main_of_own_process(words)
    from flows.cli import main as command

    return command(argv)


def _main_of_own_process(words: Sequence[str]) -> int:
    # before `flows`, which is made with Prefect or without
    from blocks.host.own_process import begin_process

    interrupts = begin_process(words)
    gc.disable()
    from flows.cli import main as command

    # what was imported stays: garbage is looked for elsewhere, now and when the process ends
    gc.freeze()
    # records make many objects and no cycles: looking for garbage after each 700 took a third of a long `list`
    gc.set_threshold(100_000, 20, 100)
    gc.enable()
    return command(None, interrupts)


if __name__ == "__main__":
    sys.exit(main())
