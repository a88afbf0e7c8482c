"""The targets of one restore: one for each source, all committed or all aborted."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from blocks.errors import LastgoodError, Partial, RestoreRefused
from blocks.sources.target import KeepsGoing, LeavesOutRows, NotRebuilt, RestoreMode, Target
from blocks.sources.view import Unread, View
from flows.pipeline.chain import RestorePart
from flows.pipeline.results import CollectionResult, ObjectNotRebuilt, RestoreResult
from flows.restoring.change_list import ChangeList
from flows.restoring.folders import folders_for
from flows.restoring.identity import check_identity
from flows.restoring.not_rebuilt import write_script
from flows.restoring.places import check_targets

logger = logging.getLogger(__name__)


@dataclass
class PreRestoreBackup:
    """The emergency backup before a restore: its id, or None where there was nothing to back up; notes on it."""

    backup_id: str | None
    notes: list[str]


class Targets:
    """Where the parts of one restore are written.

    Attributes:
        changes: What the restore writes and deletes.
        in_place: Names of the sources that are restored to where they live.
        pre_restore_backup: The backup that was made before the restore; None where there was none.
    """

    def __init__(self, changes: ChangeList, in_place: Sequence[str] = ()) -> None:
        self.changes, self._places = changes, changes.shown_places
        self._targets: dict[str, Target] = {}
        self._committed: list[str] = []
        self._aborted: set[str] = set()
        self._rows = {c.name: 0 for of_source in changes.sources.values() for c in of_source.collections}
        self._not_rebuilt: dict[str, Sequence[NotRebuilt]] = {}
        self._scripts: dict[str, str] = {}
        self.in_place = list(in_place)
        self.notes: list[str] = list(changes.notes)
        self.pre_restore_backup: PreRestoreBackup | None = None

    def add(self, source: str, target: Target) -> None:
        """Take the target of a source."""
        self._targets[source] = target

    def of(self, part: RestorePart) -> Target:
        """Return the target of a part."""
        return self._targets[part.collection.source]

    @property
    def by_source(self) -> Mapping[str, Target]:
        """The targets, by the names of their sources."""
        return self._targets

    def takes(self, part: RestorePart) -> bool:
        """Whether a part is restored: the plan may leave its collection out now."""
        return part.collection.name in self._rows

    def done(self, part: RestorePart, rows: int) -> None:
        """Count what was written."""
        self._rows[part.collection.name] += rows

    def preflight(self) -> None:
        """Let every target look before the first write to any of them."""
        for target in self._targets.values():
            self.notes += target.preflight()

    def occupied(self, source: str) -> str | None:
        """Say what is at a source's place; None where that is empty."""
        return self._targets[source].occupied()

    def meet_occupied(self, overwrite: bool) -> None:
        """Refuse an exact restore to another place that is not empty, or say what it replaces there.

        Raises:
            RestoreRefused: It is not, and nobody said that it may be replaced.
        """
        for source, target in self._targets.items():
            if source in self.in_place or (found := target.occupied()) is None:
                continue
            if overwrite:
                self.notes.append(f"{source}: {found} at {self._places[source]} is replaced")
            else:
                raise RestoreRefused(
                    f"{source} would be restored to {self._places[source]}, where there is {found} already",
                    hint="Name an empty place, add the backup's rows to what is there with --mode merge, or replace it"
                    " with --overwrite.",
                )

    def hold(self) -> None:
        """Keep others from writing to live places, where the sources can do that."""
        for source in self.in_place:
            self._targets[source].hold()

    def guard(self, source: str, view: View) -> None:
        """Give a target the view that the pre-restore backup is made from."""
        self._targets[source].guard(view)

    def keep_aside(self, source: str, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Have a target move aside what could not be backed up."""
        return self._targets[source].keep_aside(unread)

    def begin(self) -> None:
        """Let every target begin what the first rows would wait for."""
        for target in self._targets.values():
            target.begin()

    def commit(self) -> None:
        """Make everything live, after a last look at what was written meanwhile."""
        if self.pre_restore_backup is not None:
            for source in self.in_place:
                self._targets[source].check_unwritten()
        for source, target in self._targets.items():
            target.commit()
            self._committed.append(source)
            self.notes += target.notes
            if isinstance(target, KeepsGoing) and target.not_rebuilt:
                self._not_rebuilt[source] = target.not_rebuilt
            if isinstance(target, LeavesOutRows):
                for collection, rows in target.rows_left_out.items():
                    if rows:
                        self._rows[f"{source}/{collection}"] -= rows

    def write_scripts(self) -> None:
        """Write down the statements that would rebuild what was left out."""
        for source, objects in self._not_rebuilt.items():
            try:
                path = write_script(self.changes.chain.target, source, objects)
            except (OSError, RuntimeError) as exc:
                self.notes.append(f"{source}: the statements for what was not rebuilt could not be written: {exc}")
                continue
            if path is not None:
                self._scripts[source] = str(path)

    @property
    def left_out(self) -> list[ObjectNotRebuilt]:
        """What could not be rebuilt, complete when all is committed."""
        return [
            ObjectNotRebuilt(source=source, name=left.name, reason=left.reason)
            for source, objects in self._not_rebuilt.items()
            for left in objects
        ]

    @property
    def changed(self) -> bool:
        """Whether anything that others see was changed."""
        return bool(self._committed) or any(target.changed for target in self._targets.values())

    def states(self) -> str:
        """Say in what state each source is."""
        return ", ".join(f"{source} is {self._state(source)}" for source in self._targets)

    def _state(self, source: str) -> str:
        if source in self._committed:
            return "restored"
        return "restored in part" if self._targets[source].changed else "as it was"

    def abort(self) -> None:
        """Leave every target that is not committed as it was, once; one that fails keeps no other from it."""
        interrupted: BaseException | None = None
        for source, target in self._targets.items():
            if source in self._committed or source in self._aborted:
                continue
            try:
                target.abort()
                self._aborted.add(source)
            except Exception as exc:  # noqa: BLE001  the error that led here is the one to be seen
                logger.warning("%s: what the restore left could not be cleaned up: %s", source, exc)
            except BaseException as exc:  # noqa: BLE001  Ctrl-C: the others are cleaned up all the same
                interrupted = exc
        if interrupted is not None:
            raise interrupted

    @property
    def undo(self) -> str | None:
        """The command that takes this restore back, where there is something to take back to."""
        if self.pre_restore_backup is None or self.pre_restore_backup.backup_id is None:
            return None
        return "lastgood undo PLAN --yes"

    def result(self, started: float) -> RestoreResult:
        """Sum up."""
        target = self.changes.chain.target
        return RestoreResult(
            plan=self.changes.plan.name,
            backup_id=target.backup_id,
            timestamp=target.timestamp,
            mode=self.changes.wanted.mode,
            collections=[CollectionResult(collection=name, rows=rows) for name, rows in self._rows.items()],
            places=dict(self._places),
            rescue_id=self.pre_restore_backup.backup_id if self.pre_restore_backup else None,
            undo=self.undo,
            notes=self.notes + (self.pre_restore_backup.notes if self.pre_restore_backup else []),
            not_rebuilt=self.left_out,
            scripts=self._scripts,
            seconds=round(time.monotonic() - started, 3),
        )


@contextmanager
def explained(targets: Targets) -> Iterator[None]:
    """Say with whatever ends a restore early in what state each source is, and how to go back.

    Raises:
        Partial: Something was changed before the restore failed.
    """
    try:
        yield
    except LastgoodError as exc:
        if not targets.changed:
            exc.hint = f"{exc.hint} Nothing was changed.".strip()
            raise
        back = f"`{targets.undo}` takes back what was changed." if targets.undo else ""
        raise Partial(f"{exc.message} ({targets.states()})", hint=f"{exc.hint} {back}".strip()) from exc
    except BaseException as exc:
        back = f"; `{targets.undo}` takes that back" if targets.changed and targets.undo else ""
        exc.add_note(f"{targets.states()}{back}" if targets.changed else "nothing was changed")
        raise


@contextmanager
def open_targets(changes: ChangeList) -> Iterator[Targets]:
    """Check all places, then prepare every target; abort them all where the restore does not come to its end."""
    plan, wanted = changes.plan, changes.wanted
    in_place = check_targets(plan, changes.places) if wanted.scratch is None else set()
    targets = Targets(changes, [name for name in changes.sources if name in in_place])
    try:
        with explained(targets):
            _prepare(targets, in_place)
        yield targets
    finally:
        targets.abort()


def _prepare(targets: Targets, in_place: Collection[str]) -> None:
    changes = targets.changes
    plan, wanted = changes.plan, changes.wanted
    for name, of_source in changes.sources.items():
        targets.add(name, plan.sources[name].target(changes.scope(name, name in in_place), of_source.place))
    if wanted.scratch is None:
        targets.notes += check_identity(changes, targets.in_place, targets.occupied)
    if wanted.mode is RestoreMode.EXACT and wanted.scratch is None:
        targets.meet_occupied(wanted.overwrite)
    folder = wanted.to if len(changes.sources) > 1 else None
    if folder is None or not wanted.preview:
        with folders_for(folder, changes.sources):
            targets.preflight()
