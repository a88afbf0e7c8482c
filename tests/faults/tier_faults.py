"""Everything that an object store and the way to it can do wrong, at every request of every command.

Run as `python -m tests.faults.tier_faults [--share 1] [--seed 0] [--seconds N] [WORDS]`: a line for each command and
fault, and exit code 1 where anything was lost, misnamed or wrong. WORDS choose commands and faults.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from blocks.errors import CorruptionDetected, LastgoodError, Partial, RepositoryLocked, RepositoryUnavailable
from blocks.plan.plan import BackupPlan
from blocks.records import BackupStatus
from blocks.rows.selection import Selection
from flows.backup import make_backup
from flows.check import check_repository
from flows.pipeline import executor
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.far import FULL, INCREMENTAL, LONG_AFTER, Bucket, History
from tests.faults.live_state import PLAN, dump_of
from tests.faults.proxy import Fault, Plan, Proxy, Request, at, nothing, proxy
from tests.object_servers import seaweed

HANGS_SECONDS = 60
TRIES = 2
FOR_EVER = 1_000_000
STALE_REQUESTS = 25
"""So long a listing stays the one of before: for ever would be no storage."""
PASSING = tuple(
    one for one in Fault if one not in (Fault.EXPIRED, Fault.DENIED, Fault.WRONG_BYTES, Fault.WRONG_UPLOAD, Fault.STALE)
)
"""What a second attempt of the same request mends."""
LASTING = tuple(one for one in Fault if one not in (Fault.SLOW, Fault.WRONG_UPLOAD))


@dataclass(frozen=True)
class Command:
    """What is done while something goes wrong.

    Attributes:
        run: Does it; returns what was wrong with its result.
    """

    run: Callable[[History, BackupPlan], list[str]]


def _full(history: History, plan: BackupPlan) -> list[str]:
    made = make_backup(plan, FULL)
    return [] if made.backup_type is FULL else [f"made a {made.backup_type}"]


def _incremental(history: History, plan: BackupPlan) -> list[str]:
    made = make_backup(plan, INCREMENTAL)
    return [] if made.promoted_because is None else [f"became a full: {made.promoted_because}"]


def _restore(history: History, plan: BackupPlan) -> list[str]:
    """Restore one row by its key."""
    newest = history.made[-1].backup_id
    to = Path(tempfile.mkdtemp(dir=history.folder)) / "one.db"
    make_restore(plan, RestoreRequest(newest, selection=Selection(("ledger/orders",), ("10003",)), to=str(to)))
    rows = [line for line in dump_of(to) if line.startswith('INSERT INTO "orders"')]
    wanted = [one for one in history.oracles[newest].dump if one.startswith('INSERT INTO "orders" VALUES(10003,')]
    shutil.rmtree(to.parent)
    return [] if rows == wanted != [] else [f"a wrong row came back: {rows}"]


def _verify(history: History, plan: BackupPlan) -> list[str]:
    result = make_verification(plan, deep=False)
    return [] if result.status is BackupStatus.VERIFIED else [f"{result.status}: {result.findings}"]


def _retain(history: History, plan: BackupPlan) -> list[str]:
    done = apply_retention(plan, now=datetime.now(UTC) + LONG_AFTER, accept_clock=True)
    removed = {one.backup_id for one in done.removed}
    return [] if removed <= history.oracles.keys() - history.kept else [f"removed {sorted(removed)}"]


def _list(history: History, plan: BackupPlan) -> list[str]:
    survey = plan.repository.unlock(plan.encryption).survey(PLAN)
    listed = {one.backup_id for one in survey.backups}
    return survey.findings or ([] if listed == history.oracles.keys() else [f"listed {sorted(listed)}"])


def _check(history: History, plan: BackupPlan) -> list[str]:
    result = check_repository(plan, read_share=1.0)
    # what the storage refused is named, and is no damage: exit code 4
    return [one for one in result.findings if one not in result.unavailable]


COMMANDS = {
    "full": Command(_full),
    "incremental": Command(_incremental),
    "restore": Command(_restore),
    "verify": Command(_verify),
    "retention": Command(_retain),
    "list": Command(_list),
    "check": Command(_check),
}


@dataclass(frozen=True)
class Case:
    """One command, one fault, at one request or at all from it on."""

    command: str
    fault: Fault
    number: int
    lasting: bool

    def __str__(self) -> str:
        when = "from" if self.lasting else "at"
        return f"{self.command}, {self.fault} {when} request {self.number}"


@dataclass
class Outcome:
    """What came of a case: the error that a person sees, what was hit, what is wrong with all that."""

    error: LastgoodError | None
    hit: list[tuple[Request, Fault]]
    problems: list[str]

    def __str__(self) -> str:
        what = f"{type(self.error).__name__}: {self.error.message}" if self.error else "success"
        return f"{what}; hit {', '.join(str(one) for one, _ in self.hit[:2])}; {'; '.join(self.problems)}"


@dataclass
class Trial:
    """A history behind a proxy, which cases are tried on."""

    history: History
    front: Proxy

    def requests(self, command: str) -> int:
        """Count the requests of a command that nothing happens to."""
        prefix = self.history.copy()
        self.front.use(nothing)
        assert COMMANDS[command].run(self.history, self.history.plan(prefix)) == []
        count = len(self.front.seen)
        self.history.drop(prefix)
        return count

    def run(self, case: Case, plan_of_faults: Plan | None = None) -> Outcome:
        """Run a command, then look as one that comes later.

        Args:
            case: What is run, and what goes wrong.
            plan_of_faults: At which requests, where that is not by their number.
        """
        history = self.history
        prefix = history.copy(history.before_last if case.fault is Fault.STALE else None)
        if case.fault is Fault.STALE:
            self._remember_old_listings(prefix)
        seconds = 2 if case.fault is Fault.TIMEOUT else 20
        plan = history.plan(prefix, attempts=1 if case.lasting and case.fault is Fault.TIMEOUT else TRIES,
                            timeout_seconds=seconds)  # fmt: skip
        last = case.number + (STALE_REQUESTS if case.fault is Fault.STALE else FOR_EVER)
        self.front.use(plan_of_faults or at(case.number, case.fault, last if case.lasting else None))
        error, problems = None, []
        with _awake(), at_most(HANGS_SECONDS):
            try:
                problems = COMMANDS[case.command].run(history, plan)
            except LastgoodError as exc:
                error = exc
            except Exception:
                problems = [f"no error of ours: {traceback.format_exc()}"]
            hit = self.front.done
            self.front.use(nothing)
            outcome = Outcome(error, hit, [*_misnamed(case, error, hit), *_unexpected(case, problems, hit)])
            outcome.problems += self._afterwards(case, prefix)
        if not outcome.problems:
            history.drop(prefix)
        return outcome

    def _afterwards(self, case: Case, prefix: str) -> list[str]:
        try:
            return self.history.witness(
                prefix, case.command == "retention",
                condemned=case.command in ("verify", "check") and case.fault in _WRONG,
            )  # fmt: skip
        except Exception:
            return [f"afterwards: {traceback.format_exc()}"]

    def _remember_old_listings(self, prefix: str) -> None:
        """Let the proxy see the listings of the history as it was before its newest backup, then bring that in."""
        self.front.use(nothing)
        self.front.forget_listings()
        home = self.history.folder / "states" / prefix
        shutil.copytree(home, home.with_suffix(".before"))
        plan = self.history.plan(prefix)
        repository = plan.repository.unlock(plan.encryption)
        repository.current_lease(PLAN)
        repository.audit(PLAN)
        for one in repository.survey(PLAN).backups:
            repository.missing(one)
        shutil.rmtree(home)
        home.with_suffix(".before").rename(home)
        self.history.place.put(prefix, self.history.objects)


_WRONG = (Fault.WRONG_BYTES, Fault.STALE)


def _misnamed(case: Case, error: LastgoodError | None, hit: list[tuple[Request, Fault]]) -> list[str]:
    """Say what is wrong with the error that a fault led to."""
    if error is None:
        return []
    if not hit:
        return ["failed although nothing went wrong"]
    if not error.hint:
        return ["no hint"]
    if case.fault is Fault.WRONG_BYTES:
        # a lease that says another nonce is another run's
        lease = any("/locks/" in request.target for request, _ in hit)
        named = (CorruptionDetected, RepositoryLocked) if lease else CorruptionDetected
        return [] if isinstance(error, named) else [f"wrong bytes were called {type(error).__name__}"]
    if case.fault is Fault.STALE:
        named = (CorruptionDetected, RepositoryUnavailable, RepositoryLocked)
        return [] if isinstance(error, named) else [f"a stale listing was called {type(error).__name__}"]
    if case.fault in PASSING and not case.lasting:
        return ["failed where a second attempt mends it"]
    named = (RepositoryUnavailable, Partial)
    return [] if isinstance(error, named) else [f"exit code {error.exit_code}, where the storage failed"]


def _unexpected(case: Case, problems: list[str], hit: list[tuple[Request, Fault]]) -> list[str]:
    """Say what is wrong with a result; bytes that are wrong may be called so, and make a full of an incremental."""
    if case.fault in _WRONG and hit:
        return [one for one in problems if "no error of ours" in one or "a wrong row" in one or "removed" in one]
    return problems


@contextmanager
def _awake() -> Iterator[None]:
    """Let retries of stages follow each other at once: what is waited for is over or is not, whatever the time."""
    waiting = executor.time
    executor.time = SimpleNamespace(sleep=lambda seconds: None)  # type: ignore[assignment]
    try:
        yield
    finally:
        executor.time = waiting


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise where something hangs; where even that cannot be raised, say where each thread is, and end."""

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError(f"it hangs for {seconds} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def all_cases(counts: dict[str, int]) -> list[Case]:
    """Every fault at every request, once, and for good from there on."""
    return [
        Case(command, fault, number, lasting)
        for command, count in counts.items()
        for number in range(count)
        for fault in Fault
        for lasting in ((False, True) if fault in LASTING else (False,))
    ]


def main() -> int:
    """Try all cases, or a share of them by seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--share", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=float("inf"))
    options.add_argument("words", nargs="*")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    faults = tried = refused = 0
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory(prefix="lastgood-faults-") as name:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        with seaweed(Path(name) / "server") as server, proxy(server.endpoint) as front:
            os.environ.update(server.environment)
            trial = Trial(History(Bucket.of(server), Path(name) / "history", front.endpoint), front)
            counts = {command: trial.requests(command) for command in COMMANDS}
            print(f"requests: {counts}", flush=True)
            cases = [one for one in all_cases(counts) if all(word in str(one) for word in given.words)]
            random.Random(given.seed).shuffle(cases)
            for case in cases[: round(len(cases) * given.share)]:
                if time.monotonic() > end:
                    break
                outcome = trial.run(case)
                tried += 1
                refused += outcome.error is not None
                faults += bool(outcome.problems)
                if outcome.problems:
                    print(f"FAULT {case}: {outcome}", flush=True)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"seed {given.seed}: {tried} of {len(cases)} cases, {refused} ended with an error of ours, {faults} faults, "
        f"{used.ru_utime + used.ru_stime:.0f} s of processor time"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
