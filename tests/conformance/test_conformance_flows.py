"""What every source has to do in whole flows: backups, restores and verifications through a repository."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import SourceGone, UnsupportedState
from blocks.plan.plan import BackupPlan
from blocks.records import BackupStatus, BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreMode
from blocks.sources.view import View
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.conformance.suite import SourceAdapter, beside, selected

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE


def plan_of(state: SourceAdapter) -> BackupPlan:
    plan = BackupPlan(
        name="conformance",
        sources={"state": state.source},
        repository=BackupRepository(url=str(state.folder / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    return plan


def test_backups_of_all_types_bring_their_state_back(filled: SourceAdapter, rng: random.Random) -> None:
    plan = plan_of(filled)
    pictures = []
    for kind in (BackupType.FULL, BackupType.INCREMENTAL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL):
        made = make_backup(plan, kind)
        assert made.backup_type is kind, made.promoted_because
        pictures.append((made.backup_id, filled.picture()))
        filled.mutate(rng)
    for backup_id, picture in pictures:
        verification = make_verification(plan, backup_id, deep=True)
        assert verification.status is BackupStatus.VERIFIED, verification.findings
        place = filled.place()
        make_restore(plan, RestoreRequest(backup_id, mode=EXACT, to=place))
        assert filled.picture(place) == picture


def test_a_source_that_is_gone_as_a_whole_fails_its_backup_and_is_restored(filled: SourceAdapter) -> None:
    plan, before = plan_of(filled), filled.picture()
    made = make_backup(plan, BackupType.FULL)
    filled.clear()
    filled.settle()
    for kind in (BackupType.INCREMENTAL, BackupType.FULL):
        with pytest.raises(SourceGone) as gone:
            make_backup(plan, kind)
        held = made.rows - filled.source.rows_of_nothing
        told = f"source state holds no records at all now, and held {held} in {made.backup_id} ("
        assert gone.value.message.startswith(told)
        assert "\n" not in gone.value.message
        assert "`allow_empty: true`" in gone.value.hint
    assert [b.backup_id for b in plan.repository.unlock(plan.encryption).backups(plan.name)] == [made.backup_id]
    allowing = {"state": filled.source.model_copy(update={"allow_empty": True})}
    empty = make_backup(plan.model_copy(update={"sources": allowing}), BackupType.FULL)
    assert empty.rows == filled.source.rows_of_nothing
    make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert filled.picture() == before


def test_a_restore_in_place_can_be_undone(filled: SourceAdapter, rng: random.Random) -> None:
    plan, first = plan_of(filled), filled.picture()
    make_backup(plan, BackupType.FULL)
    filled.mutate(rng)
    second = filled.picture()
    preview = make_restore(plan, RestoreRequest(preview=True))
    assert filled.picture() == second
    assert any(c.added or c.changed or c.removed for c in preview.collections)
    done = make_restore(plan, RestoreRequest(mode=EXACT))
    assert filled.picture() == first
    assert done.rescue_id
    make_restore(plan, RestoreRequest(done.rescue_id, mode=EXACT))
    assert filled.picture() == second


def test_an_emergency_backup_of_some_keys_leaves_the_others_alone(filled: SourceAdapter, rng: random.Random) -> None:
    globs = ("k:*",)
    plan = plan_of(filled).model_copy(update={"critical": ["state/*:k:*"]})
    wanted = selected(filled.picture(), globs)
    made = make_backup(plan, BackupType.EMERGENCY)
    assert make_verification(plan, made.backup_id, deep=True).findings == ()
    for _ in range(3):
        filled.mutate(rng)
    filled.put("k:98", 1)
    there = filled.picture()
    make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert selected(filled.picture(), globs) == wanted
    assert beside(filled.picture(), globs) == beside(there, globs)


class FailingView:
    """A view that works until the last part, or until its end."""

    def __init__(self, view: View, where: str) -> None:
        self._view, self._where, self._reads = view, where, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def read(self, *args: Any) -> Any:
        self._reads += 1
        if self._where == "read" and self._reads > 1:
            raise UnsupportedState("it went wrong in the middle")
        return self._view.read(*args)

    def finish(self) -> None:
        self._view.finish()
        if self._where == "finish":
            raise UnsupportedState("it went wrong at the end")


@pytest.mark.parametrize("where", ["read", "finish"])
def test_a_view_that_fails_commits_nothing(
    filled: SourceAdapter, rng: random.Random, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    plan = plan_of(filled)
    whole = type(filled.source).view

    @contextmanager
    def failing(self: StateSource, since: str | None = None) -> Iterator[Any]:
        with whole(self, since) as view:
            yield FailingView(view, where)

    with monkeypatch.context() as patch:
        patch.setattr(type(filled.source), "view", failing)
        with pytest.raises(UnsupportedState, match="went wrong"):
            make_backup(plan, BackupType.FULL)
    repository = plan.repository.unlock(plan.encryption)
    assert list(repository.backups(plan.name)) == []
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert made.backup_type is BackupType.FULL
