"""Restores in place that are interrupted: afterwards the live state is the old or the new one, and can be saved."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.sources.target import RestoreMode
from flows.pipeline.results import RestoreResult
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from tests.faults.crash_scenarios import PLAN, Case, Scenario, prepared
from tests.faults.killing import RestoreSteps, inside_sqlite_commit
from tests.faults.live_state import LiveState, dump_of, make_plan, restored, tree_of


def _prepare(journal_mode: str) -> Callable[[Path], None]:
    def prepare(seed: Path) -> None:
        prepared(seed, BackupType.FULL)
        with closing(sqlite3.connect(seed / "ledger.db")) as connection:
            connection.execute(f"PRAGMA journal_mode = {journal_mode}")

    return prepare


def _own_state(case: Case) -> LiveState:
    """Give the case a live state of its own, which the restore may change."""
    state = LiveState(case.folder / "live")
    if not state.tree.exists():
        state.tree.parent.mkdir()
        shutil.copy2(case.seed / "ledger.db", state.database)
        shutil.copytree(case.seed / "models", state.tree, symlinks=True)
    return state


def _plan(case: Case, state: LiveState, later: bool = True) -> BackupPlan:
    return make_plan(state, case.folder / "repository", case.seed / "key", later=later)


def _restore(case: Case, later: bool = False, progress: RestoreSteps | None = None) -> RestoreResult:
    plan = _plan(case, _own_state(case), later)
    # what was backed up is the seed, and this is a copy of it
    wanted = RestoreRequest(next(iter(case.oracles)), mode=RestoreMode.EXACT, adopt=True)
    return make_restore(plan, wanted, progress=progress)


def _killed_at_a_step(case: Case) -> object:
    return _restore(case, progress=RestoreSteps(case.folder, case.number))


def _killed_inside_sqlite(case: Case) -> object:
    inside_sqlite_commit(case.folder, case.number)
    return _restore(case)


def _witness(case: Case) -> None:
    wanted, old = case.oracles.values()
    state = _own_state(case)
    assert dump_of(state.database) in (old.dump, wanted.dump), "the database is neither the old nor the new one"
    tree = tree_of(state.tree)
    for path in tree.keys() | old.tree.keys() | wanted.tree.keys():
        assert tree.get(path) in (old.tree.get(path), wanted.tree.get(path)), f"{path} is neither the old nor the new"

    plan = case.plan(later=True)
    repository = plan.repository.unlock(plan.encryption)
    (rescue,) = [b for b in repository.backups(PLAN) if b.backup_type is BackupType.EMERGENCY]
    assert restored(plan, rescue.backup_id, case.folder / "rescued") == old
    assert repository.audit(PLAN) == []

    undone = make_undo(_plan(case, state))
    assert undone.backup_id == rescue.backup_id
    assert (dump_of(state.database), tree_of(state.tree)) == (old.dump, old.tree), "an undo does not bring back"

    result = _restore(case, later=True)
    assert (dump_of(state.database), tree_of(state.tree)) == (wanted.dump, wanted.tree)
    left = [path.name for path in state.tree.parent.iterdir() if path.name not in ("ledger.db", "models")]
    unnamed = [name for name in left if not any(name in note for note in result.notes)]
    assert [name for name in unnamed if not name.endswith(("-wal", "-shm"))] == []


RESTORES = {
    "a restore in place": Scenario(_prepare("delete"), _killed_at_a_step, _witness),
    "a restore inside of SQLite's commit": Scenario(_prepare("delete"), _killed_inside_sqlite, _witness),
    "a restore inside of SQLite's commit in WAL mode": Scenario(_prepare("wal"), _killed_inside_sqlite, _witness),
}
