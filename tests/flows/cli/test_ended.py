"""Commands that stand still or are told to end in the middle of a backup, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.errors import RepositoryLocked
from blocks.plan.plan import read_plan
from blocks.repository.block import Repository
from tests.flows.cli.desk import Desk

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 60.0
COMMAND = "import sys; from lastgood import main; sys.exit(main())"
HOOK = """
import os, sys, time
open(sys.argv[1], "x").write(str(os.getpid()))
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
"""
"""Says that the lease is held, and lets the backup go on when it is told to."""


class Running:
    """A backup that waits in its hook, with the lease of its plan."""

    def __init__(self, desk: Desk, lease_seconds: int) -> None:
        self.begun, self.go_on = desk.folder / "begun", desk.folder / "go on"
        plan = yaml.safe_load(desk.plan.read_text())
        command = [sys.executable, "-c", HOOK, str(self.begun), str(self.go_on)]
        tell = "$LASTGOOD_MOMENT $LASTGOOD_VERB $LASTGOOD_OUTCOME $LASTGOOD_ERROR"
        after = ["sh", "-c", f'echo "{tell}" > told; cat backups/locks/trading/* >> told']
        plan["hooks"] = {"before": [{"command": command, "timeout_seconds": 600}], "backup": {"after": [after]}}
        plan["repository"]["lease_seconds"] = lease_seconds
        desk.plan.write_text(yaml.safe_dump(plan))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "backup", str(desk.plan), "--no-server"],
            cwd=desk.folder,
            env=clean | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_as_from_a_terminal,
        )
        wait_for("the hook", self.begun.exists)
        self.locks = desk.folder / "backups" / "locks" / "trading"

    def lease(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(max(self.locks.iterdir()).read_text())
        return found

    def stand_still(self) -> None:
        """Stop, until the lease was not written for longer than it is long."""
        os.kill(self.process.pid, signal.SIGSTOP)
        wait_for("the expiry", lambda: time.time() - max(self.locks.iterdir()).stat().st_mtime > 1.2)

    def wake(self) -> tuple[int, str]:
        """Go on; return the exit code and what was said."""
        self.go_on.touch()
        os.kill(self.process.pid, signal.SIGCONT)
        said = self.process.communicate(timeout=DEADLINE_SECONDS)[1]
        return self.process.returncode, said

    def end(self) -> None:
        self.go_on.touch()
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
        self.process.kill()
        self.process.communicate()


def _as_from_a_terminal() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(what: str, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not there():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def running(desk: Desk, request: pytest.FixtureRequest) -> Iterator[Running]:
    made = Running(desk, request.param)
    yield made
    made.end()


def repository(desk: Desk) -> Repository:
    plan = read_plan(desk.plan)
    return plan.repository.unlock(plan.encryption)


@pytest.mark.parametrize("running", [1], indirect=True)
def test_a_backup_that_stood_still_for_longer_than_its_lease_goes_on_and_commits(desk: Desk, running: Running) -> None:
    running.stand_still()
    code, said = running.wake()
    assert (code, "no longer holds" in said) == (0, False), said
    (made,) = repository(desk).backups("trading")
    assert made.fencing_token == 1
    assert running.lease()["released"]


@pytest.mark.parametrize("running", [1], indirect=True)
def test_a_backup_that_stood_still_while_another_run_took_the_plan_commits_nothing(
    desk: Desk, running: Running
) -> None:
    running.stand_still()
    with repository(desk).lease("trading", "full backup", holder="another machine") as lease:
        code, said = running.wake()
        assert code == 5
        assert "another run took it over (token 2 after 1)" in said
        assert "Nothing was committed" in said
        lease.check()
    assert repository(desk).backups("trading") == []


@pytest.mark.parametrize("running", [300], indirect=True)
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_backup_that_is_told_to_end_gives_its_lease_back(
    desk: Desk, running: Running, ending: signal.Signals
) -> None:
    running.process.send_signal(ending)
    said = running.process.communicate(timeout=DEADLINE_SECONDS)[1]
    assert running.process.returncode == 128 + ending
    assert said.endswith("interrupted\n")
    assert running.lease()["released"]
    assert repository(desk).backups("trading") == []
    hook = Path("/proc") / running.begun.read_text().strip() / "stat"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while hook.exists() and hook.read_text().rpartition(") ")[2][0] != "Z":  # nobody may have taken note of its end
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("running", [300], indirect=True)
def test_a_backup_that_is_told_to_end_runs_its_hooks_after_it_before_it_gives_its_lease_back(
    desk: Desk, running: Running
) -> None:
    running.process.send_signal(signal.SIGTERM)
    said = running.process.communicate(timeout=DEADLINE_SECONDS)[1]
    assert (running.process.returncode, said) == (128 + signal.SIGTERM, "interrupted\n")
    told, lease = (desk.folder / "told").read_text().splitlines()
    assert told == "after backup failed interrupted"
    assert not json.loads(lease)["released"]
    assert running.lease()["released"]


@pytest.mark.parametrize("running", [300], indirect=True)
def test_a_backup_whose_lease_is_broken_commits_nothing(desk: Desk, running: Running) -> None:
    held = desk.run("unlock", "PLAN", "--json")
    assert held.code == 10
    assert (held.json["held"]["process"], held.json["broken"]) == ("running", False)
    assert desk.done("unlock", "PLAN", "--yes", "--json").json["broken"]
    code, said = running.wake()
    assert code == 5
    assert "broke it with `lastgood unlock`" in said
    assert repository(desk).backups("trading") == []
    with repository(desk).lease("trading", "full backup", holder="another machine"):
        pass


@pytest.mark.parametrize("running", [300], indirect=True)
def test_the_lease_of_a_killed_process_is_free(desk: Desk, running: Running) -> None:
    with pytest.raises(RepositoryLocked), repository(desk).lease("trading", "full backup", holder="another machine"):
        pass
    running.process.kill()
    running.process.wait()
    shown = desk.done("unlock", "PLAN", "--json").json
    assert (shown["held"]["process"], shown["held"]["expired"], shown["broken"]) == ("ended", True, False)
    with repository(desk).lease("trading", "full backup", holder="another machine") as lease:
        assert lease.token == 2
