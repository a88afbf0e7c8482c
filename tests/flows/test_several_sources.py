"""Plans with several sources: one backup of all or none, and hooks before the first and after the last look."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import (
    ConfigurationError,
    LastgoodError,
    Partial,
    RestoreRefused,
    SourceUnavailable,
    TemporaryFolderFull,
    UnsupportedState,
)
from blocks.plan.hooks import Hooks
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from blocks.sources.mapping import MappingSource
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.conformance import mapping_states
from tests.conformance.mapping_states import StateManager

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


class Application:
    """State in three places, a plan for all of them, and hooks that note when they ran."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.attribute = folder, f"made_{uuid.uuid4().hex}"
        self.manager = StateManager()
        setattr(mapping_states, self.attribute, self.manager)
        self.manager.values["position:AAPL"] = {"quantity": 3}
        self.tree = folder / "models"
        self.tree.mkdir()
        (self.tree / "model").write_text("weights")
        self.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, n)", "INSERT INTO orders VALUES (1, 1)")
        self.plan = self.planned(Hooks())
        self.plan.repository.initialize(self.plan.encryption)

    def planned(self, hooks: Hooks) -> BackupPlan:
        return BackupPlan(
            name="trading",
            sources={
                "ledger": SQLiteSource(path=str(self.folder / "ledger.db"), busy_timeout_seconds=0.1),
                "models": FilesSource(url=str(self.tree)),
                "manager": MappingSource(object=f"{mapping_states.__name__}:{self.attribute}"),
            },
            repository=BackupRepository(url=str(self.folder / "repository")),
            encryption=NoEncryption(type="none"),
            hooks=hooks.anchored(self.folder),
        )

    def execute(self, *statements: str) -> None:
        db = sqlite3.connect(self.folder / "ledger.db", isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()

    @property
    def backups(self) -> list[str]:
        repository = self.plan.repository.unlock(self.plan.encryption)
        return [backup.backup_id for backup in repository.backups("trading")]

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Application]:
    application = Application(tmp_path)
    yield application
    delattr(mapping_states, application.attribute)


def note(word: str) -> list[str]:
    return ["sh", "-c", f"echo {word} >> notes"]


def test_the_manifest_tells_of_each_source_when_its_view_was_taken(app: Application) -> None:
    before = datetime.now(UTC)
    made = make_backup(app.plan, FULL)
    taken = {source.name: source.taken_at for source in made.sources}
    assert list(taken) == ["ledger", "models", "manager"]
    assert all(before <= moment <= datetime.now(UTC) for moment in taken.values())
    assert len(set(taken.values())) == 3
    assert made.timestamp == max(taken.values())
    assert {source.name: source.type for source in made.sources}["manager"] == "mapping"


def test_all_sources_come_back_together(app: Application) -> None:
    make_backup(app.plan, FULL)
    app.manager.values["position:MSFT"] = (1, None)
    make_backup(app.plan, INCREMENTAL)
    assert make_verification(app.plan, deep=True).findings == ()
    app.manager.values.clear()
    (app.tree / "model").unlink()
    app.execute("DELETE FROM orders")
    make_restore(app.plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert app.manager.values == {"position:AAPL": {"quantity": 3}, "position:MSFT": (1, None)}
    assert (app.tree / "model").read_text() == "weights"


@pytest.mark.parametrize("broken", ["ledger", "models", "manager"])
def test_a_source_that_fails_means_no_backup_of_any(
    app: Application, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.pipeline.executor.time.sleep", lambda seconds: None)
    if broken == "ledger":
        (app.folder / "ledger.db").write_bytes(b"no database" * 100)
    elif broken == "models":
        (app.tree / "model").unlink()
        app.tree.rmdir()
    else:
        app.manager.values["odd"] = object()
    with pytest.raises((SourceUnavailable, UnsupportedState), match=r"ledger|models|'odd'"):
        make_backup(app.plan, FULL)
    assert app.backups == []


@pytest.mark.parametrize("kind", [SourceUnavailable, UnsupportedState, TemporaryFolderFull])
def test_what_keeps_a_view_from_being_opened_is_told_with_its_type_and_the_source(
    app: Application, kind: type[LastgoodError], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(StateManager):
        def create_snapshot(self) -> StateManager:
            raise kind("no look at it", hint="Look elsewhere.")

    monkeypatch.setattr("flows.pipeline.executor.time.sleep", lambda seconds: None)
    setattr(mapping_states, app.attribute, Failing())
    with pytest.raises(kind, match="source manager: no look at it") as caught:
        make_backup(app.plan, FULL)
    assert type(caught.value) is kind
    assert caught.value.hint == "Look elsewhere."
    assert app.backups == []


@pytest.mark.parametrize("odd", [object(), "\ud800"])
def test_a_restore_over_what_no_backup_can_keep_is_refused_by_its_key(app: Application, odd: object) -> None:
    make_backup(app.plan, FULL)
    app.manager.values["position:AAPL"] = odd
    with pytest.raises(RestoreRefused, match="position:AAPL"):
        make_restore(app.plan, RestoreRequest(mode=RestoreMode.EXACT))
    make_restore(app.plan, RestoreRequest(mode=RestoreMode.EXACT, without_emergency_backup=True))
    assert app.manager.values["position:AAPL"] == {"quantity": 3}


def test_hooks_run_before_the_first_view_and_after_the_last_part(app: Application) -> None:
    class Watched(StateManager):
        def get_keys_by_pattern(self, pattern: str) -> list[str]:
            with (app.folder / "notes").open("a") as file:
                file.write("read\n")
            return super().get_keys_by_pattern(pattern)

    setattr(mapping_states, app.attribute, Watched())
    make_backup(app.planned(Hooks(before=(note("pause"),), after=(note("resume"),))), FULL)
    assert app.notes == ["pause", "read", "resume"]


def test_writers_that_a_hook_pauses_are_seen_as_they_stopped(app: Application) -> None:
    hooks = Hooks(before=(["sqlite3", "ledger.db", "INSERT INTO orders VALUES (2, 'flushed')"],))
    make_backup(app.planned(hooks), FULL)
    app.execute("DELETE FROM orders")
    make_restore(app.plan, RestoreRequest(mode=RestoreMode.EXACT))
    db = sqlite3.connect(app.folder / "ledger.db")
    assert db.execute("SELECT count(*) FROM orders").fetchone() == (2,)
    db.close()


def test_a_failing_hook_before_means_that_nothing_is_read_or_kept(app: Application) -> None:
    hooks = Hooks(before=("sh -c 'echo busy; exit 1'",), after=(note("resume"),))
    with pytest.raises(SourceUnavailable, match="busy"):
        make_backup(app.planned(hooks), FULL)
    assert app.backups == []
    assert app.notes == ["resume"]
    make_backup(app.plan, FULL)  # the lease is free


def test_hooks_after_run_when_the_backup_fails(app: Application) -> None:
    app.manager.values["odd"] = object()
    with pytest.raises(UnsupportedState, match="'odd'"):
        make_backup(app.planned(Hooks(before=(note("pause"),), after=(note("resume"),))), FULL)
    assert app.notes == ["pause", "resume"]


def test_a_failing_hook_after_is_told_and_the_backup_stays(app: Application) -> None:
    with pytest.raises(Partial, match="the backup is made"):
        make_backup(app.planned(Hooks(after=("false",))), FULL)
    assert len(app.backups) == 1


def test_the_emergency_backup_before_a_restore_runs_no_hooks(app: Application) -> None:
    make_backup(app.plan, FULL)
    app.manager.values["late"] = 1
    restored = make_restore(
        app.planned(Hooks(before=("false",), after=(note("resume"),))), RestoreRequest(mode=RestoreMode.EXACT)
    )
    assert restored.rescue_id in app.backups
    assert app.notes == []
    assert "late" not in app.manager.values
    make_backup(app.planned(Hooks(before=(note("by-hand"),))), BackupType.EMERGENCY)
    assert app.notes == ["by-hand"]


def test_a_plan_with_hooks_and_objects_survives_its_json(app: Application) -> None:
    plan = app.planned(Hooks(before=("pause --now",), after=({"command": ["resume"], "timeout_seconds": 5},)))
    again = BackupPlan.model_validate(plan.model_dump(mode="json"))
    assert again.model_dump() == plan.model_dump()
    assert again.hooks == plan.hooks
    assert isinstance(again.sources["manager"], MappingSource)


def test_a_plan_names_hooks_whose_paths_count_from_its_folder(app: Application) -> None:
    path = app.folder / "plan.yaml"
    path.write_text(
        """
name: trading
sources: {ledger: {type: sqlite, path: ledger.db}}
repository: {url: repository}
encryption: none
hooks:
  before: ["sh -c 'echo $LASTGOOD_PLAN $LASTGOOD_BACKUP_TYPE > notes'"]
  after:
    - {command: [./missing], timeout_seconds: 5}
"""
    )
    with pytest.raises(Partial, match="missing"):
        make_backup(read_plan(path), INCREMENTAL)
    assert app.notes == ["trading", "incremental"]
    path.write_text(path.read_text().replace("after", "befor"))
    with pytest.raises(ConfigurationError):
        read_plan(path)
