"""Two processes at once on one plan: backup, retention, check, restore and verify in every pair.

Run as `python -m tests.faults.pairs [--count 100] [--seed 0] [--place folder|s3] [WORDS]`: exit code 1 where a backup
was lost, a chain broken, something found that is not there, or another error raised than that the plan is locked.

Each interleaving is one of two kinds, by its number: the first process is stopped before or after one of its calls of
the storage until the second has ended; or both run at once, with random pauses at their calls.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from blocks.errors import RepositoryLocked
from blocks.storage.base import StorageTier
from blocks.storage.local import LocalTier
from tests.faults.crash_scenarios import SCENARIOS, Case
from tests.faults.far import Bucket, Folder, History
from tests.faults.tier_faults import COMMANDS
from tests.object_servers import seaweed

ROOT = Path(__file__).parents[2]
VERBS = ("incremental", "retention", "check", "restore", "verify")
PAIRS = tuple(itertools.combinations_with_replacement(VERBS, 2))
HANGS_SECONDS = 120
READS = ("get", "list", "folders", "size")
CALLS = {"incremental": 70, "retention": 110, "check": 70, "restore": 15, "verify": 30}
"""Calls of the storage that a command makes, before and after counted; where it makes fewer, the other comes after."""
PAUSE_SECONDS = 0.05


class Pairs:
    """The process that forks two commands for each interleaving.

    Args:
        history: What both work on.
    """

    def __init__(self, history: History) -> None:
        described = history.folder / "pairs.pickle"
        described.write_bytes(pickle.dumps(history))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.pairs", "--serve", str(described)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, first: str, second: str, seed: int) -> dict[str, Any]:
        """Run two commands, interleaved by a seed; returns how each ended, and what is wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"verbs": [first, second], "seed": seed}), file=self._process.stdin, flush=True)
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def pairs(place: Bucket | Folder, folder: Path) -> Iterator[Pairs]:
    """A history in a place, and who runs two commands on copies of it."""
    made = Pairs(History(place, folder))
    try:
        yield made
    finally:
        made.close()


def _watch(moment: Callable[[], None]) -> None:
    """Call something before and after every call of the storage."""
    from blocks.storage.objects import ObjectTier

    StorageTier.durable = staticmethod(lambda operation, name, when: moment())

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            moment()
            found = original(*args, **options)
            moment()
            return found

        return call

    for kind in (LocalTier, ObjectTier):
        for name in READS:
            setattr(kind, name, watched(getattr(kind, name)))


def _pausing(chosen: random.Random) -> Callable[[], None]:
    guard = threading.Lock()

    def moment() -> None:
        with guard:
            seconds = PAUSE_SECONDS * chosen.random() if chosen.random() < 0.3 else 0.0
        time.sleep(seconds)

    return moment


def _stopping(number: int, stopped: int, going: int) -> Callable[[], None]:
    """Stop once, at the `number`-th moment, until the other one has ended."""
    moments, guard = iter(range(1, 1_000_000)), threading.Lock()

    def moment() -> None:
        with guard:
            if next(moments) == number:
                os.close(stopped)
                os.read(going, 1)

    return moment


class _Run:
    """One command in a child.

    Args:
        history: What it works on.
        prefix: Where the repository is.
        verb: The command.
        said: Where the child says how it ended.
        watch: Called in the child; returns what watches its calls.
    """

    def __init__(
        self, history: History, prefix: str, verb: str, said: Path, watch: Callable[[], Callable[[], None]]
    ) -> None:
        self._said = said
        self._child = os.fork()
        if self._child == 0:
            signal.alarm(HANGS_SECONDS)
            try:
                _watch(watch())
                self._do(history, prefix, verb)
            finally:
                os._exit(0)

    def _do(self, history: History, prefix: str, verb: str) -> None:
        ended, problems = "success", []
        try:
            history.use_state_of(prefix)
            problems = COMMANDS[verb].run(history, history.plan(prefix))
        except RepositoryLocked:
            ended = "locked"
        except BaseException:
            ended, problems = "failed", [traceback.format_exc()]
        self._said.write_text(json.dumps({"ended": ended, "problems": [f"{verb}: {one}" for one in problems]}))

    def wait(self) -> dict[str, Any]:
        status = os.waitpid(self._child, 0)[1]
        if not self._said.exists():
            return {"ended": "failed", "problems": [f"it hung, or died with status {status}"]}
        said: dict[str, Any] = json.loads(self._said.read_text())
        return said


def _interleaved(history: History, prefix: str, verbs: Sequence[str], seed: int, folder: Path) -> list[dict[str, Any]]:
    chosen = random.Random(f"{seed} {verbs}")
    first, second = verbs if chosen.random() < 0.5 else reversed(verbs)
    if seed % 2:
        seeds = [chosen.random(), chosen.random()]
        both = [
            _Run(history, prefix, verb, folder / str(n), lambda n=n: _pausing(random.Random(seeds[n])))  # type: ignore[misc]
            for n, verb in enumerate((first, second))
        ]
        return [one.wait() for one in both]
    (is_stopped, stopped), (going, go) = os.pipe(), os.pipe()
    number = chosen.randrange(1, CALLS[first])

    def watch() -> Callable[[], None]:
        os.close(is_stopped)
        os.close(go)
        return _stopping(number, stopped, going)

    one = _Run(history, prefix, first, folder / "0", watch)
    os.close(stopped)
    os.close(going)
    os.read(is_stopped, 1)  # it stopped, or ended
    other = _Run(history, prefix, second, folder / "1", lambda: lambda: None).wait()
    os.close(go)
    os.close(is_stopped)
    return [one.wait(), other]


def _one(history: History, verbs: Sequence[str], seed: int, case: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = f"pair-{os.getpid()}-{case}"
        _in_child(folder, lambda: _copied(history, prefix))
        said = _interleaved(history, prefix, verbs, seed, folder)
        backups = sum(one["ended"] == "success" for one, verb in zip(said, verbs, strict=True)) if verbs else 0
        problems = [text for one in said for text in one["problems"]]
        problems += _in_child(folder, lambda: _witness(history, prefix, verbs, backups))
        shutil.rmtree(history.folder / "states" / prefix, ignore_errors=True)
        return {"ended": [one["ended"] for one in said], "problems": problems}


def _copied(history: History, prefix: str) -> list[str]:
    history.place.put(prefix, history.objects)
    history.use_state_of(prefix)
    return []


def _witness(history: History, prefix: str, verbs: Sequence[str], most: int) -> list[str]:
    history.use_state_of(prefix)
    problems = history.witness(prefix, may_be_gone="retention" in verbs, new_at_most=most)
    if not problems:
        history.drop(prefix)
    return problems


def _in_child(folder: Path, work: Callable[[], list[str]]) -> list[str]:
    said = folder / "said"
    if child := os.fork():
        os.waitpid(child, 0)
        problems: list[str] = json.loads(said.read_text())
        return problems
    try:
        said.write_text(json.dumps(work()))
    except BaseException:
        said.write_text(json.dumps([f"afterwards: {traceback.format_exc()}"]))
    finally:
        os._exit(0)


def _serve(described: Path) -> None:
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
        print(json.dumps(_one(history, request["verbs"], request["seed"], case)), flush=True)


def main() -> int:
    """Interleave every pair in a number of ways, by seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--serve", type=Path)
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--place", choices=["folder", "s3"], default=None)
    options.add_argument("words", nargs="*")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    if given.serve is not None:
        _serve(given.serve)
        return 0
    faults = 0
    with tempfile.TemporaryDirectory(prefix="lastgood-pairs-") as name:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        for place in [given.place] if given.place else ["folder", "s3"]:
            faults += _all(place, Path(name) / place, given)
    return 1 if faults else 0


def _all(kind: str, folder: Path, given: argparse.Namespace) -> int:
    faults = count = locked = 0
    with seaweed(folder / "server") if kind == "s3" else nullcontext() as server:
        os.environ.update(server.environment if server else {})
        place = Bucket.of(server) if server else Folder(folder / "places")
        with pairs(place, folder / "history") as running:
            for verbs in PAIRS:
                if not all(word in " ".join(verbs) for word in given.words):
                    continue
                for seed in range(given.seed, given.seed + given.count):
                    said = running.run(*verbs, seed)
                    count, locked = count + 1, locked + ("locked" in said["ended"])
                    faults += bool(said["problems"])
                    for problem in said["problems"]:
                        print(
                            f"FAULT {kind}, {' and '.join(verbs)}, seed {seed}: {said['ended']}: {problem}", flush=True
                        )
    print(f"{kind}: {count} interleavings, {locked} found the plan locked, {faults} faults", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
