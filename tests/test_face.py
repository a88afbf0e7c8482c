"""`import lastgood`: the verbs, plain and awaited, without a server; nothing of the host process is changed."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

import lastgood
from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected, RepositoryLocked
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupType
from flows.reporting import metrics
from tests.face_support import ROOT, Application, run

PICTURE = """
import logging, os, signal, sys, threading, time, warnings

def picture():
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(one for one in known if isinstance(one, logging.Logger))]
    return {
        "environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "loggers": {one.name: (one.level, list(one.handlers)) for one in loggers if one.level or one.handlers},
        "disabled": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "threads": threading.enumerate(),
        "finders": [*sys.meta_path, *sys.path_hooks],
        "path": list(sys.path),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook),
    }

before = picture()
"""


@pytest.fixture
def application(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Application:
    """An application whose state object is a module of a name of its own."""
    module = f"state_of_{abs(hash(request.node.name)):x}"
    made = Application(tmp_path / "app", module)
    monkeypatch.syspath_prepend(str(made.folder))
    return made


def live(application: Application) -> dict[str, object]:
    module = next(path.stem for path in application.folder.glob("state_of_*.py"))
    values: dict[str, object] = importlib.import_module(module).manager.values
    return values


@pytest.mark.parametrize("imports", ["import lastgood", "import blocks", "import lastgood, blocks.plan"])
def test_an_import_changes_nothing_in_the_process(imports: str, tmp_path: Path) -> None:
    script = f"{PICTURE}\n{imports}\nafter = picture()\n"
    script += "print([name for name in before if before[name] != after[name]], 'prefect' in sys.modules)"
    done = run(script, cwd=tmp_path)
    assert done.stdout == "[] False\n", done.stderr


def test_an_import_of_the_face_imports_nothing_of_ours(tmp_path: Path) -> None:
    script = "import sys, lastgood; print({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:]))"
    done = run(script, "blocks", "flows", "deployments", "prefect", "pyarrow", "numpy", "pydantic", cwd=tmp_path)
    assert done.stdout == "set()\n", done.stderr


def test_an_application_without_prefect_is_left_without_it_and_as_it_was(tmp_path: Path) -> None:
    made = Application(tmp_path / "app", "live_state")
    script = f"""{PICTURE}
import lastgood
full = lastgood.backup("trading.yaml", "full")
second = lastgood.backup("trading.yaml")
assert second.base == full.backup_id
lastgood.restore("trading.yaml", full.backup_id)
lastgood.undo("trading.yaml")
assert lastgood.verify("trading.yaml", deep=True).status == "verified"
lastgood.retention("trading.yaml")
assert len(lastgood.list_backups("trading.yaml")) == lastgood.stats("trading.yaml")["total_backups"] == 4
after = picture()
for theirs in ("warnings", "finders", "path"):  # numpy, pandas, and the plan's search_path
    del before[theirs]
print([name for name in before if before[name] != after[name]], "prefect" in sys.modules)
"""
    done = run(script, cwd=made.folder)
    assert done.stdout == "[] False\n", done.stderr


def test_flows_are_flows_however_their_modules_were_imported_first(tmp_path: Path) -> None:
    script = """
    import importlib, sys
    for first in sys.argv[1:]:
        exec(first)
    from flows import backup, restore, retention, undo, verify
    from flows.backup import backup as same, make_backup
    import flows
    from prefect import Flow
    assert all(isinstance(one, Flow) for one in (backup, restore, retention, undo, verify, flows.restore, flows.undo))
    assert same is backup is importlib.import_module("flows.backup").backup
    assert callable(make_backup) and type(flows) is type(sys)
    """
    done = run(script, "import deployments.jobs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # what others made takes longer to import than all of this, and is the same to each of these
    forking = """
    import os, sys
    import prefect.blocks.core, pyarrow.compute, pyarrow.parquet
    from prefect import Flow, flow, task
    for first in sys.argv[1:]:
        if (child := os.fork()) == 0:
            sys.argv[1:] = [first]
            break
        assert os.waitpid(child, 0)[1] == 0, first
    else:
        sys.exit()
    """
    firsts = ["", "import flows.backup, flows.restore", "from flows.backup import make_backup"]
    firsts += ["from flows.undo import undo", "import flows.verify", "import flows.check, flows.cli"]
    done = run(forking + script, *firsts, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_process_that_began_without_prefect_says_so_where_it_would_be_needed(tmp_path: Path) -> None:
    made = Application(tmp_path / "app")
    script = """
    import lastgood
    lastgood.backup("trading.yaml")
    from flows import backup
    assert backup("trading.yaml").base is not None
    for needed in (lambda: lastgood.backup("saved"), lambda: backup.serve()):
        try:
            needed()
        except (AttributeError, lastgood.LastgoodError) as error:
            print(type(error).__name__, "does without Prefect" in str(error))
    """
    done = run(script, cwd=made.folder)
    assert done.stdout == "ConfigurationError True\nAttributeError True\n", done.stderr


def test_plans_of_other_sources_can_be_used_at_the_same_time(tmp_path: Path) -> None:
    """Without Prefect a plan's model knows only the sources of the plan that is read."""
    one, other = Application(tmp_path / "one"), Application(tmp_path / "other", "live_state")
    script = """
    import asyncio, sys, lastgood
    for plan in sys.argv[1:] * 2:
        lastgood.stats(plan)
    async def main():
        made = await asyncio.gather(*(lastgood.backup(plan, "full", wait_seconds=60) for plan in sys.argv[1:] * 4))
        print(sorted(len(one.sources) for one in made))
    asyncio.run(main())
    """
    done = run(script, str(one.plan), str(other.plan), cwd=other.folder)
    assert done.stdout == "[1, 1, 1, 1, 2, 2, 2, 2]\n", done.stderr


def test_an_awaited_verb_leaves_the_loop_free_and_gives_what_the_plain_one_gives(application: Application) -> None:
    async def main() -> Any:
        beats, stop = 0, asyncio.Event()

        async def beat() -> None:
            nonlocal beats
            while not stop.is_set():
                beats += 1
                await asyncio.sleep(0)

        beating = asyncio.create_task(beat())
        made = await asyncio.create_task(lastgood.backup(application.plan, "full"))  # type: ignore[arg-type]
        stop.set()
        await beating
        assert beats > 10
        return made

    made = asyncio.run(main())
    assert [one.backup_id for one in lastgood.list_backups(application.plan)] == [made.backup_id]


def test_an_error_of_an_awaited_verb_is_raised_where_it_is_awaited(application: Application) -> None:
    async def main() -> None:
        with pytest.raises(BackupNotFound):
            await lastgood.restore(application.plan, "latest")  # type: ignore[misc]

    asyncio.run(main())


@pytest.mark.parametrize("form", [str, Path, read_plan])
def test_a_plan_is_a_path_or_a_plan(application: Application, form: Any) -> None:
    assert lastgood.backup(form(application.plan)).plan == "trading"


def test_what_is_no_plan_type_or_mode_is_refused_in_words(application: Application) -> None:
    with pytest.raises(ConfigurationError, match="is no plan"):
        lastgood.backup(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'total' is none of full, differential"):
        lastgood.backup(application.plan, "total")
    with pytest.raises(ConfigurationError, match="'exactly' is none of preview"):
        lastgood.restore(application.plan, mode="exactly")
    assert lastgood.list_backups(application.plan) == []


def test_given_state_is_backed_up_in_place_of_live_state_and_given_back_as_it_was(application: Application) -> None:
    manager = lastgood.BackupManager(application.plan)
    given = {"position:1": 0, "other": {"a": (1, 2.5, None, b"x")}, "": False}
    made = manager.create_backup("full", given)
    assert [source.name for source in made.sources] == ["live"]
    assert manager.restore_from_backup(made.backup_id, apply_state=False) == given
    assert live(application) == {"position:1": 5, "position:2": None}
    manager.restore_from_backup(made.backup_id)
    assert live(application) == given
    changed = manager.create_backup("incremental", {**given, "position:1": 1})
    assert (changed.base, changed.upserts) == (made.backup_id, 1)
    lastgood.undo(application.plan)
    assert live(application) == {"position:1": 5, "position:2": None}


@pytest.mark.parametrize("kind", list(BackupType))
def test_given_state_can_be_backed_up_by_any_plan_in_any_type(kind: BackupType, tmp_path: Path) -> None:
    made = Application(tmp_path / "app")
    said = made.plan.read_text() + "critical: ['ledger/orders']\n"
    made.plan.write_text(said)
    stored = lastgood.backup(made.plan, kind, state_data={"a": [1], "b": None})
    assert lastgood.read_state(made.plan, stored.backup_id) == {"a": [1], "b": None}
    with pytest.raises(lastgood.LastgoodError, match="state"):
        lastgood.restore(made.plan, stored.backup_id)
    assert lastgood.backup(made.plan).backup_type is BackupType.FULL  # of the ledger again


def test_given_state_that_cannot_be_kept_exactly_is_refused(application: Application) -> None:
    for wrong in ({"a": object()}, {1: "a"}):
        with pytest.raises(lastgood.LastgoodError):
            lastgood.backup(application.plan, state_data=wrong)  # type: ignore[arg-type]
    assert lastgood.list_backups(application.plan) == []


def test_the_state_of_a_backup_is_read_by_collection_through_its_chain(application: Application) -> None:
    lastgood.backup(application.plan, "full")
    application.sql("UPDATE orders SET price = 9 WHERE id = 1")
    application.sql("DELETE FROM orders WHERE id = 2")
    live(application)["position:3"] = "new"
    made = lastgood.backup(application.plan)
    state: Any = lastgood.read_state(application.plan, made.backup_id)
    assert state["live/state"] == {"position:1": 5, "position:2": None, "position:3": "new"}
    assert state["ledger/orders"].select(["id", "price"]).to_pylist() == [{"id": 1, "price": 9.0}]


def test_an_empty_state_is_read_as_one(application: Application) -> None:
    live(application).clear()
    application.sql("DELETE FROM orders")
    lastgood.backup(application.plan, "full")
    state: Any = lastgood.read_state(application.plan)
    assert state["live/state"] == {}
    assert state["ledger/orders"].num_rows == 0
    made = lastgood.backup(application.plan, "full", state_data={})
    assert lastgood.read_state(application.plan, made.backup_id) == {}


def test_the_newest_of_a_type_is_restored(application: Application) -> None:
    with pytest.raises(BackupNotFound, match="no snapshot backup"):
        lastgood.restore_latest(application.plan, "snapshot")
    full = lastgood.backup(application.plan, "full")
    application.sql("DELETE FROM orders WHERE id = 1")
    newest = lastgood.backup(application.plan)
    assert lastgood.restore_latest(application.plan).backup_id == newest.backup_id
    assert lastgood.restore_latest(application.plan, BackupType.FULL).backup_id == full.backup_id
    assert application.sql("SELECT count(*) FROM orders") == [(2,)]


def test_a_backup_that_is_damaged_fails_its_test_restore(application: Application) -> None:
    made = lastgood.backup(application.plan, "full")
    for stored in (application.folder / "backups" / "backups" / "trading" / made.backup_id).rglob("*"):
        if stored.suffix == ".pack":
            stored.write_bytes(b"damaged")
    manager = lastgood.BackupManager(application.plan)
    with pytest.raises(CorruptionDetected):
        manager.test_restore()
    with pytest.raises(BackupNotFound, match="not known to be corrupted"):
        manager.restore_latest_backup("full")


class Collected:
    """A collector that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.values: dict[str, float] = {}

    def record_counter(self, name: str) -> None:
        self.told.append(name)

    def record_histogram(self, name: str, value: float) -> None:
        self.told.append(name)
        self.values[name] = value


def test_a_collector_is_told_of_backups_and_cleanings_under_the_published_names(application: Application) -> None:
    collected = Collected()
    manager = lastgood.BackupManager(application.plan, collected)
    made = manager.create_backup("full")
    operations = "backup.operations"
    assert sorted(collected.told) == [
        f"{operations}.created_success",
        f"{operations}.created_total",
        f"{operations}.duration_seconds",
        f"{operations}.size_bytes_total",
    ]
    assert collected.told[0] == f"{operations}.created_total"
    assert collected.values[f"{operations}.size_bytes_total"] == made.size_stored
    collected.told.clear()
    manager.cleanup_old_backups()
    assert collected.told == ["backup.retention.cleaned_total", "backup.retention.cleaned_success"]
    collected.told.clear()
    with lastgood.lock(application.plan):
        for refused in (lambda: manager.create_backup("full"), manager.cleanup_old_backups):
            with pytest.raises(RepositoryLocked):
                refused()
    assert set(collected.told) == {
        f"{operations}.created_total",
        f"{operations}.created_failed",
        f"{operations}.duration_seconds",
        "backup.retention.cleaned_total",
        "backup.retention.cleaned_failed",
    }
    counted: Any = manager.get_performance_metrics()["operations"]
    assert counted[f"{operations}.created_total"] == 2
    assert counted[f"{operations}.created_failed"] == 1


def test_a_broken_collector_stops_no_backup(application: Application) -> None:
    class Broken:
        def record_counter(self, name: str) -> None:
            raise OSError("nobody listens")

        record_histogram = None

    manager = lastgood.BackupManager(application.plan, Broken())  # type: ignore[arg-type]
    assert manager.create_backup("full").rows == 4
    manager.cleanup_old_backups()


def test_a_collector_that_does_not_answer_holds_up_no_backup(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, told = threading.Event(), Collected()

    class Stuck(Collected):
        def record_counter(self, name: str) -> None:
            answers.wait(60)
            told.record_counter(name)

    monkeypatch.setattr(metrics, "WAIT_SECONDS", 0.05)
    manager = lastgood.BackupManager(application.plan, Stuck())
    assert manager.create_backup("full").rows == 4
    assert not told.told
    answers.set()


@pytest.mark.parametrize("awaited", [False, True])
def test_a_collector_of_coroutines_is_awaited(application: Application, awaited: bool) -> None:
    collected = Collected()

    class Awaited:
        async def record_counter(self, name: str) -> None:
            await asyncio.sleep(0)
            collected.record_counter(name)

        async def record_histogram(self, name: str, value: float) -> None:
            collected.record_histogram(name, value)

    manager = lastgood.BackupManager(application.plan, Awaited())

    async def main() -> None:
        await manager.cleanup_old_backups()  # type: ignore[misc]

    if awaited:
        asyncio.run(main())
    else:
        manager.cleanup_old_backups()
    assert collected.told == ["backup.retention.cleaned_total", "backup.retention.cleaned_success"]


def test_an_error_says_nothing_of_event_loops(application: Application) -> None:
    with pytest.raises(ConfigurationError) as raised:
        lastgood.backup(application.folder / "none.yaml")
    assert "event loop" not in "".join(traceback.format_exception(raised.value))


def test_a_lock_keeps_runs_away_with_and_async_with(application: Application) -> None:
    async def held() -> None:
        async with lastgood.lock(application.plan, "a migration") as lease:
            lease.check()
            with pytest.raises(RepositoryLocked, match="for a migration"):
                await lastgood.backup(application.plan)  # type: ignore[misc]

    with lastgood.lock(application.plan, "a migration"), pytest.raises(RepositoryLocked, match="for a migration"):
        lastgood.backup(application.plan)
    asyncio.run(held())
    again = lastgood.lock(application.plan)
    for _ in range(2):
        with again as lease:
            lease.check()
    lastgood.backup(application.plan)


def test_a_lock_that_is_waited_for_comes_when_it_is_given_back(application: Application) -> None:
    async def main() -> None:
        first = lastgood.lock(application.plan)
        await first.__aenter__()

        async def second() -> int:
            async with lastgood.lock(application.plan, wait_seconds=60) as lease:
                return lease.token

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        await first.__aexit__()
        assert await waiting > 0

    asyncio.run(main())


def test_who_gives_up_waiting_for_a_lock_leaves_none_behind(application: Application) -> None:
    async def main() -> None:
        for beats in range(40):  # given up at many moments of taking it
            taking = asyncio.create_task(lastgood.lock(application.plan).__aenter__())
            for _ in range(beats * 20):
                await asyncio.sleep(0)
            taken = not taking.cancel()
            if taken:
                break
            with pytest.raises(asyncio.CancelledError):
                await taking

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("lastgood-lock"):
            thread.join()
    with lastgood.lock(application.plan, wait_seconds=60):
        assert [one.name for one in threading.enumerate()].count("lease-trading") <= 2


def test_a_plan_that_only_this_process_knows_has_no_schedules(application: Application) -> None:
    plan = read_plan(application.plan)
    made = BackupPlan(name="trading", sources=plan.sources, repository=plan.repository, encryption=plan.encryption)
    manager = lastgood.BackupManager(made)
    with pytest.raises(ConfigurationError, match="known to this process only"):
        manager.start_scheduled_backups()
    assert manager.is_running is False
    manager.stop_scheduled_backups()


def test_a_wrong_plan_has_no_schedules(tmp_path: Path) -> None:
    manager = lastgood.BackupManager(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match=r"none\.yaml"):
        manager.start_scheduled_backups()
    assert manager.is_running is False


@pytest.mark.share(3)
def test_modules_are_found_beside_the_face() -> None:
    assert Path(lastgood.__file__).parent == ROOT
    assert sys.modules["flows"].__file__ == str(ROOT / "flows" / "__init__.py")
