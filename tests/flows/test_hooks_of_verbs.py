"""Hooks before and after each verb: what they are told, what their failure stops, and where they run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import lastgood
from blocks.crypto.keyring import NoEncryption
from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    HookFailed,
    Partial,
    RepositoryLocked,
    SourceUnavailable,
)
from blocks.plan.hook_context import HookContext
from blocks.plan.hooks import Hooks
from blocks.plan.plan import BackupPlan
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupType
from blocks.repository.block import BackupRepository, Repository
from blocks.sources.sqlite import SQLiteSource
from flows.backup import make_backup
from flows.proving.failure import failure, unproved
from flows.rehearsal import rehearse
from flows.reporting import journal
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.undo import make_undo
from flows.verify import make_due, make_verification
from tests.flows.flow_support import EXACT, FULL, PREVIEW, blobs, flip

TOLD = ("MOMENT", "VERB", "BACKUP_TYPE", "MODE", "PLACE", "OUTCOME")
NOTE = ["sh", "-c", f'echo "{" ".join(f"${{LASTGOOD_{name}:--}}" for name in TOLD)}" >> notes']
FAIL = "sh -c 'echo the application is busy; exit 7'"


class App:
    """One ledger, and a plan that may have hooks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger = folder, folder / "ledger.db"
        self.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)", "INSERT INTO orders VALUES (1)")
        self.repository_block = BackupRepository(url=str(folder / "repository"))
        self.repository_block.initialize(NoEncryption(type="none"))

    def plan(self, **hooks: Any) -> BackupPlan:
        return BackupPlan(
            name="books",
            sources={"ledger": SQLiteSource(path=str(self.ledger), busy_timeout_seconds=0.1)},
            repository=self.repository_block,
            encryption=NoEncryption(type="none"),
            retention=RetentionPolicy(snapshot=timedelta(microseconds=1)),
            hooks=Hooks.model_validate(hooks).anchored(self.folder),
        )

    def execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.ledger, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)

    @property
    def orders(self) -> list[int]:
        with closing(sqlite3.connect(self.ledger)) as db:
            return [row[0] for row in db.execute("SELECT id FROM orders ORDER BY id")]

    @property
    def repository(self) -> Repository:
        return self.repository_block.unlock(NoEncryption(type="none"))

    @property
    def ids(self) -> list[str]:
        return [backup.backup_id for backup in self.repository.backups("books")]

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def everything(self) -> dict[str, bytes]:
        """What is stored and live, but for leases and what hooks wrote."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and "locks" not in path.parts)
        return {str(path): path.read_bytes() for path in files if path.name != "notes"}


@pytest.fixture
def app(tmp_path: Path) -> App:
    made = App(tmp_path)
    make_backup(made.plan(), FULL)
    made.execute("INSERT INTO orders VALUES (2)")
    return made


def damage(app: App) -> None:
    (backup,) = app.repository.backups("books")
    flip(app.folder / "repository" / "backups" / "books" / backup.backup_id, blobs(backup)[0])


@dataclass(frozen=True)
class Verb:
    """One verb, and what its hooks are told."""

    run: Callable[[BackupPlan], object]
    before: str
    after: str
    done: str


def restored(plan: BackupPlan) -> None:
    make_restore(plan, RestoreRequest(mode=EXACT))


def elsewhere(plan: BackupPlan) -> None:
    make_restore(plan, RestoreRequest(mode=EXACT, to=str(Path(plan.repository.url).parent / "other.db")))


VERBS = {
    "backup": Verb(
        lambda plan: make_backup(plan, BackupType.INCREMENTAL),
        "before backup incremental - - -",
        "after backup incremental - - completed",
        "the backup is made",
    ),
    "restore": Verb(
        restored,
        "before restore full exact live -",
        "after restore full exact live completed",
        "the backup is restored",
    ),
    "retention": Verb(
        apply_retention, "before retention - - - -", "after retention - - - completed", "retention is done"
    ),
    "verification": Verb(
        lambda plan: make_verification(plan, deep=False),
        "before verification - quick - -",
        "after verification full quick - completed",
        "the verification is done",
    ),
}


@pytest.mark.parametrize("name", VERBS)
def test_hooks_of_a_verb_run_around_it_and_know_what_it_is(app: App, name: str) -> None:
    verb = VERBS[name]
    hooks = {"before": [NOTE], "after": [NOTE, ["sh", "-c", "echo $LASTGOOD_PLAN $LASTGOOD_BACKUP_ID >> notes"]]}
    verb.run(app.plan(**{name: hooks}))
    *told, last = app.notes
    assert told == [verb.before, verb.after]
    plan, *backup_id = last.split()
    assert plan == "books"
    assert len(backup_id) == (name != "retention")
    assert set(backup_id) <= set(app.ids)


@pytest.mark.parametrize("name", VERBS)
def test_other_verbs_do_not_run_them(app: App, name: str) -> None:
    others = {verb: {"before": ["false"], "after": ["false"]} for verb in VERBS if verb != name}
    VERBS[name].run(app.plan(**others))


@pytest.mark.parametrize("name", VERBS)
def test_a_failing_hook_before_stops_the_verb_and_leaves_nothing(app: App, name: str) -> None:
    told = ["sh", "-c", 'echo "$LASTGOOD_OUTCOME: $LASTGOOD_ERROR" >> notes']
    plan = app.plan(**{name: {"before": [FAIL, NOTE], "after": [told]}, "before": [NOTE], "after": [NOTE]})
    before = app.everything
    with pytest.raises(HookFailed, match=r"^the hook sh ended with exit code 7: the application is busy") as caught:
        VERBS[name].run(plan)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, SourceUnavailable)
    assert app.notes == ["failed: the hook sh ended with exit code 7: the application is busy"]
    assert app.everything == before
    with app.repository.lease("books", "a test"):
        pass  # it is free


@pytest.mark.parametrize("name", VERBS)
def test_a_failing_hook_after_is_told_and_the_work_stays(app: App, name: str) -> None:
    verb = VERBS[name]
    make_backup(app.plan(), BackupType.SNAPSHOT)
    make_backup(app.plan(), FULL)
    with pytest.raises(Partial, match=f"{verb.done}.*, but afterwards the hook sh ended with exit code 7") as caught:
        verb.run(app.plan(**{name: {"after": [FAIL, NOTE]}}))
    assert caught.value.exit_code == 11
    assert len(app.notes) == 1  # the others run all the same
    with app.repository.lease("books", "a test"):
        pass
    done: dict[str, bool] = {
        "backup": len(app.ids) == 4,
        "restore": len(app.ids) == 4,
        "retention": len(app.ids) == 2,
        "verification": bool(app.repository.verifications("books", app.ids[-1])),
    }
    assert done[name]


def test_hooks_of_a_backup_run_outside_of_those_of_its_reading_while_it_holds_the_plan(app: App) -> None:
    def note(word: str) -> list[str]:
        held = "grep -qF '\"released\":false' repository/locks/books/*2"  # the second lease that there was
        return ["sh", "-c", f"{held} && echo {word} >> notes"]

    make_backup(
        app.plan(
            before=[note("pause")],
            after=[note("resume")],
            backup={"before": [note("begin")], "after": [note("end")]},
        ),
        FULL,
    )
    assert app.notes == ["begin", "pause", "resume", "end"]


def test_a_run_that_does_not_get_the_plan_runs_no_hooks(app: App) -> None:
    """Those that let go what a run paused would let go what the other run did."""
    hooks = {"before": [NOTE], "after": [NOTE]}
    with app.repository.lease("books", "a test"), pytest.raises(RepositoryLocked):
        make_backup(app.plan(**hooks, backup=hooks), FULL)
    assert app.notes == []


def test_hooks_of_a_restore_run_before_its_backup_and_after_all_is_in_place(app: App) -> None:
    look = "sqlite3 ledger.db 'select count(*) from orders' >> notes; ls repository/backups/books | wc -l >> notes"
    make_restore(
        app.plan(restore={"before": [["sh", "-c", look]], "after": [["sh", "-c", look]]}), RestoreRequest(mode=EXACT)
    )
    assert app.notes == ["2", "1", "1", "2"]


def test_hooks_after_a_restore_that_fails_run_when_all_is_taken_back(app: App) -> None:
    damage(app)
    look = ["sh", "-c", "echo $LASTGOOD_OUTCOME >> notes; ls -A >> notes"]
    there = sorted({path.name for path in app.folder.iterdir()} | {"notes"})
    with pytest.raises(CorruptionDetected):
        elsewhere(app.plan(restore={"before": ["true"], "after": [look]}))
    assert app.notes == ["failed", *there]


def test_a_restore_to_another_place_says_so(app: App) -> None:
    elsewhere(app.plan(restore={"before": [NOTE], "after": [NOTE]}))
    assert app.notes == ["before restore full exact other -", "after restore full exact other completed"]


def test_hooks_do_not_see_the_password_of_another_place(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_OTHER", "hunter2")
    show = ["sh", "-c", 'echo "${OF_THE_OTHER-none}" >> notes']
    other = str(app.folder / "other.db")
    make_restore(
        app.plan(restore={"before": [show]}), RestoreRequest(mode=EXACT, to=other, to_password_env="OF_THE_OTHER")
    )
    assert app.notes == ["none"]


def test_an_undo_is_a_restore(app: App) -> None:
    restored(app.plan())
    make_undo(app.plan(restore={"before": [NOTE], "after": [NOTE]}), preview=False)
    assert app.notes == ["before restore emergency exact live -", "after restore emergency exact live completed"]
    assert app.orders == [1, 2]


def test_what_writes_nothing_runs_no_hooks(app: App) -> None:
    failing = {"before": ["false"], "after": ["false"]}
    plan = app.plan(**failing, **dict.fromkeys(VERBS, failing))
    make_restore(plan, RestoreRequest(mode=EXACT, preview=True))
    make_restore(plan, RestoreRequest(mode=PREVIEW))
    apply_retention(plan, dry_run=True)
    rehearse(plan, FULL)


def test_a_deep_verification_runs_only_its_own(app: App) -> None:
    failing = {"before": ["false"], "after": ["false"]}
    make_verification(
        app.plan(**failing, backup=failing, restore=failing, verification={"before": [NOTE], "after": [NOTE]})
    )
    assert app.notes == ["before verification - deep - -", "after verification full deep - completed"]


def test_a_run_of_proofs_has_its_hooks_once(app: App) -> None:
    make_backup(app.plan(), FULL)
    result, wrong = make_due(app.plan(verification={"before": [NOTE], "after": [NOTE]}), everything=True)
    assert (len(result.proofs), wrong) == (2, None)
    assert app.notes == ["before verification - due - -", "after verification - due - completed"]
    result, wrong = make_due(app.plan(verification={"after": [FAIL]}), everything=True)
    assert len(result.proofs) == 2
    assert isinstance(wrong, Partial)
    assert "the verification is done, but afterwards the hook sh" in wrong.message
    with pytest.raises(HookFailed):
        make_due(app.plan(verification={"before": [FAIL]}), everything=True)


def test_hooks_learn_that_a_backup_is_bad_and_their_failure_does_not_hide_it(app: App) -> None:
    damage(app)
    told = ["sh", "-c", 'echo "$LASTGOOD_OUTCOME: $LASTGOOD_ERROR" >> notes']
    found = failure(make_verification(app.plan(verification={"after": [told]})))
    assert isinstance(found, CorruptionDetected)
    assert app.notes == [f"bad: {found.message}"]
    with pytest.raises(CorruptionDetected, match="; and afterwards the hook sh ended with exit code 7") as caught:
        make_verification(app.plan(verification={"after": [FAIL]}))
    verified = unproved(caught.value)
    assert verified is not None
    assert verified.findings


def test_what_a_hook_does_afterwards_is_told_with_what_the_verb_did(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[str, bool, str]] = []
    monkeypatch.setattr(
        journal.Journal, "ended", lambda _, run: ended.append((run.verb, bool(run.backup_id), journal.outcome(run)))
    )
    failing = {"after": [FAIL]}
    with pytest.raises(Partial):
        make_backup(app.plan(backup=failing), FULL)
    with pytest.raises(Partial):
        make_verification(app.plan(verification=failing))
    for backup in app.repository.backups("books"):
        flip(app.folder / "repository" / "backups" / "books" / backup.backup_id, blobs(backup)[0])
    with pytest.raises(CorruptionDetected):
        make_verification(app.plan(verification=failing))
    assert ended == [("backup", True, "partial"), ("verification", True, "partial"), ("verification", True, "bad")]


def test_a_verification_whose_hook_failed_afterwards_gives_its_result(app: App) -> None:
    with pytest.raises(Partial) as caught:
        make_verification(app.plan(verification={"after": [FAIL]}))
    verified = unproved(caught.value)
    assert verified is not None
    assert not verified.findings


def test_a_program_is_called_around_the_verbs_of_its_manager(app: App) -> None:
    told: list[tuple[str, str, str, bool]] = []

    def note(run: HookContext) -> None:
        told.append((run.moment, run.verb, run.outcome, bool(run.backup_id)))

    hooks = {"before": [NOTE], "after": [NOTE]}
    manager = lastgood.BackupManager(app.plan(backup=hooks), before=note, after=note)
    manager.create_backup("full")
    manager.test_restore()
    manager.restore_latest_backup()
    manager.cleanup_old_backups()
    assert told == [
        ("before", "backup", "", False),
        ("after", "backup", "completed", True),
        ("before", "verification", "", False),
        ("after", "verification", "completed", True),
        ("before", "restore", "", True),
        ("after", "restore", "completed", True),
        ("before", "retention", "", False),
        ("after", "retention", "completed", False),
    ]
    assert len(app.notes) == 2


def test_what_a_function_was_told_stays_what_it_was(app: App) -> None:
    told: list[HookContext] = []
    lastgood.BackupManager(app.plan(), before=told.append, after=told.append).create_backup("full")
    assert [(run.moment, run.outcome) for run in told] == [("before", ""), ("after", "completed")]


async def _later(_run: HookContext) -> None: ...


@pytest.mark.parametrize("wrong", [_later, "shop.ops:tell", 7])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_no_plain_function_is_refused_before_anything_is_done(app: App, moment: str, wrong: Any) -> None:
    manager = lastgood.BackupManager(app.plan(), **{moment: wrong})
    with pytest.raises(ConfigurationError, match=f"what is to be called {moment} is .*, and no plain function"):
        manager.create_backup("full")
    assert len(app.ids) == 1


def test_a_function_that_only_begins_a_coroutine_has_failed(app: App) -> None:
    with pytest.raises(HookFailed, match="nothing of it ran"):
        lastgood.BackupManager(app.plan(), before=lambda run: _later(run)).create_backup("full")


def test_a_function_that_raises_stops_the_work_before_and_is_told_after(app: App) -> None:
    def refuse(run: HookContext) -> None:
        raise RuntimeError(f"{run.moment} {run.verb}")

    outcomes: list[str] = []
    manager = lastgood.BackupManager(app.plan(), before=refuse, after=lambda run: outcomes.append(run.outcome))
    with pytest.raises(HookFailed, match="failed: RuntimeError: before backup") as caught:
        manager.create_backup("full")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert (len(app.ids), outcomes) == (1, ["failed"])
    with pytest.raises(Partial, match=r"the backup is made, but afterwards .*RuntimeError: after backup"):
        lastgood.BackupManager(app.plan(), after=refuse).create_backup("full")
    assert len(app.ids) == 2


def test_a_hook_that_is_to_be_given_what_there_is_not_stops_the_verb_before_any_hook(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    plan = app.plan(backup={"before": [NOTE], "after": [{"command": ["true"], "env": {"WORD": "$NOWHERE"}}]})
    with pytest.raises(ConfigurationError, match="the hook true is to be given NOWHERE as WORD"):
        make_backup(plan, FULL)
    assert app.notes == []
    assert os.environ.get("NOWHERE") is None
