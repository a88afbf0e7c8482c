"""SIGKILL at every durable operation of a command on a repository in S3; then another process looks.

Run as `python -m tests.faults.far_kills [--share 1] [--seed 0] [WORDS]`: exit code 1 where anything was lost.

The process that forks the victims keeps no thread and never calls the server itself: what a client of an object store
has in its threads does not survive a fork.

    request  {"command": "full", "number": 7}   one line of JSON
    reply    {"killed": true, "at": "before put ...", "problems": [...]}
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blocks.storage.base import StorageTier
from tests.faults.crash_scenarios import SCENARIOS, Case, many_packs
from tests.faults.far import Bucket, History
from tests.faults.killing import DIED
from tests.faults.tier_faults import COMMANDS
from tests.object_servers import Seaweed, seaweed

ROOT = Path(__file__).parents[2]
MOST = 400
_PROBLEMS = "problems"
_SEVERAL = " of several packs"

KILLED = ("full", "full" + _SEVERAL, "incremental", "incremental" + _SEVERAL, "verify", "retention")
"""The commands that write."""


class Killer:
    """The process that forks victims, and its history.

    Args:
        history: What it forks victims and witnesses for.
    """

    def __init__(self, history: History) -> None:
        described = history.folder / "history.pickle"
        described.write_bytes(pickle.dumps(history))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.far_kills", "--serve", str(described)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, command: str, number: int) -> dict[str, Any]:
        """Kill a command at its `number`-th moment, from 1, and look at what is left."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"command": command, "number": number}), file=self._process.stdin, flush=True)
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def killer(server: Seaweed, folder: Path) -> Iterator[Killer]:
    """A history on a server, and who kills commands on copies of it."""
    made = Killer(History(Bucket.of(server), folder))
    try:
        yield made
    finally:
        made.close()


def _at(number: int, folder: Path) -> Callable[[str, str, str], None]:
    """Die at the `number`-th moment around durable operations."""
    moments, guard = iter(range(1, 1_000_000)), threading.Lock()

    def moment(operation: str, name: str, when: str) -> None:
        with guard:
            if next(moments) == number:
                (folder / DIED).write_text(f"{when} {operation} {name}")
                os.kill(os.getpid(), signal.SIGKILL)

    return moment


def _in_child(folder: Path, work: Callable[[], object]) -> int:
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        (folder / _PROBLEMS).write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _victim(history: History, prefix: str, command: str, number: int, folder: Path) -> None:
    history.place.put(prefix, history.objects)
    history.use_state_of(prefix)
    if _SEVERAL in command:
        many_packs(pytest.MonkeyPatch())  # this process dies, or ends
    StorageTier.durable = staticmethod(_at(number, folder))
    wrong = COMMANDS[command.removesuffix(_SEVERAL)].run(history, history.plan(prefix))
    assert wrong == [], wrong


def _witness(history: History, prefix: str, command: str) -> None:
    history.use_state_of(prefix)
    problems = history.witness(prefix, may_be_gone=command == "retention")
    assert problems == [], problems
    history.drop(prefix)


def _one(history: History, number: int, command: str, case: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = f"killed-{os.getpid()}-{case}"
        status = _in_child(folder, lambda: _victim(history, prefix, command, number, folder))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        problems = []
        if (not killed and status) or _in_child(folder, lambda: _witness(history, prefix, command)):
            problems.append((folder / _PROBLEMS).read_text())
        return {"killed": killed, "at": (folder / DIED).read_text() if killed else "the end", "problems": problems}


def _serve(described: Path) -> None:
    # what is slow the first time is done once, on a local repository
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        scenario = "a differential backup"
        SCENARIOS[scenario].prepare(Path(name))
        SCENARIOS[scenario].doing(Case(scenario, Path(name), Path(name), 0))
    history: History = pickle.loads(described.read_bytes())
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    for case, line in enumerate(sys.stdin):
        request = json.loads(line)
        print(json.dumps(_one(history, request["number"], request["command"], case)), flush=True)


def every_moment(killing: Killer, command: str, share: float = 1.0, seed: int = 0) -> tuple[list[str], list[str]]:
    """Kill a command at all moments, or at a share of them by seed; returns where it died, and what was wrong."""
    died, wrong, chosen = [], [], random.Random(f"{seed} {command}")
    for number in range(1, MOST):
        if share < 1 and chosen.random() >= share:
            continue
        outcome = killing.run(command, number)
        wrong += [f"{command}, {number}, killed {outcome['at']}: {text}" for text in outcome["problems"]]
        if not outcome["killed"]:
            break
        died.append(outcome["at"])
    return died, wrong


def main() -> int:
    """Kill all commands at all moments, or at a share of them by seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--serve", type=Path)
    options.add_argument("--share", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("words", nargs="*")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    if given.serve is not None:
        _serve(given.serve)
        return 0
    kills = faults = 0
    with tempfile.TemporaryDirectory(prefix="lastgood-kills-") as name, seaweed(Path(name) / "server") as server:
        os.environ.update(server.environment)
        with killer(server, Path(name) / "history") as killing:
            for command in KILLED:
                if not all(word in command for word in given.words):
                    continue
                died, wrong = every_moment(killing, command, given.share, given.seed)
                print(f"{command}: killed at {len(died)} moments, {len(wrong)} faults", flush=True)
                for one in wrong:
                    print(f"FAULT {one}", flush=True)
                kills, faults = kills + len(died), faults + len(wrong)
    print(f"seed {given.seed}: {kills} kills, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
