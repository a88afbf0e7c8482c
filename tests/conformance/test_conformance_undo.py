"""What every source promises of `undo` in whole flows: a restore is taken back, and that can be taken back, too."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest

from blocks.records import BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.restoring.targets import Targets
from flows.undo import make_undo
from tests.conformance.chains import back_up, holder_of
from tests.conformance.children import Child
from tests.conformance.suite import Picture, SourceAdapter
from tests.conformance.test_conformance_flows import plan_of

RESTORES_ONLY = True
EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE

CASES = [(EXACT, (), False), (MERGE, (), False), (EXACT, (), True), (EXACT, ("k:0*",), False), (MERGE, ("a:01",), True)]


def changed(state: SourceAdapter, rng: random.Random) -> Picture:
    """Change much, and surely some keys; return what is there then."""
    for _ in range(3):
        state.mutate(rng)
    for key, n in (("a:01", 77), ("k:00", 78), ("k:09", 79), ("z:98", 80)):
        state.put(key, n)
    return state.picture()


@pytest.mark.parametrize("case", CASES, ids=["exact", "merge", "one collection", "some keys", "one key"])
def test_a_restore_is_undone_and_the_undo_too(
    filled: SourceAdapter, rng: random.Random, case: tuple[RestoreMode, tuple[str, ...], bool]
) -> None:
    mode, keys, one = case
    plan = plan_of(filled)
    filled.put("a:01", 76)
    make_backup(plan, BackupType.FULL)
    holder = holder_of(back_up(filled.source), "a:01")
    now = changed(filled, rng)
    make_restore(plan, RestoreRequest(mode=mode, selection=Selection((f"state/{holder}",) if one else (), keys)))
    restored = filled.picture()
    assert restored != now
    make_undo(plan)
    assert filled.picture() == now
    make_undo(plan)
    assert filled.picture() == restored


def test_an_undo_of_one_key_leaves_newer_records_alone(filled: SourceAdapter) -> None:
    plan = plan_of(filled)
    filled.put("a:01", 1)
    make_backup(plan, BackupType.FULL)
    filled.put("a:01", 2)
    now = filled.picture()
    make_restore(plan, RestoreRequest(mode=EXACT, selection=Selection(keys=("a:01",))))
    assert filled.picture() != now
    filled.put("z:01", 5)
    newer = {key: value for key, value in filled.picture().items() if key[1] == "z:01"}
    make_undo(plan)
    assert filled.picture() == now | newer


WHOLE_COMMIT = Targets.commit


def die(targets: Targets) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def commit_and_die(targets: Targets) -> None:
    WHOLE_COMMIT(targets)
    die(targets)


@pytest.mark.parametrize(("mode", "commit"), [(EXACT, commit_and_die), (MERGE, die)])
def test_a_restore_that_was_killed_is_undone(
    filled: SourceAdapter, rng: random.Random, mode: RestoreMode, commit: Callable[[Targets], None]
) -> None:
    plan = plan_of(filled)
    # the lease of a run that died is waited for
    plan = plan.model_copy(update={"repository": plan.repository.model_copy(update={"lease_seconds": 1})})
    make_backup(plan, BackupType.FULL)
    now = changed(filled, rng)

    def restore_and_die() -> None:
        Targets.commit = commit  # type: ignore[method-assign]  it is the child's own
        make_restore(plan, RestoreRequest(mode=mode))

    assert Child.ended_by(restore_and_die) == signal.SIGKILL
    if commit is die:
        assert filled.picture() == now
    make_undo(plan)
    assert filled.picture() == now
