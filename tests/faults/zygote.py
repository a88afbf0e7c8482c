"""A process that has done everything once, keeps no thread, and forks two children for each case: victim and witness.

    request  {"scenario": ..., "seed": ..., "folder": ..., "number": 7}   one line of JSON
    reply    {"killed": true, "at": "link backups/...", "problems": [...]}

Importing Prefect and Arrow, and all that happens only once, for every one of several hundred cases would take minutes.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.faults.crash_scenarios import SCENARIOS, Case
from tests.faults.killing import DIED
from tests.faults.restore_scenarios import RESTORES

ALL = SCENARIOS | RESTORES
_PROBLEMS = "problems"
_KILLED = (signal.SIGKILL, signal.SIGXFSZ)


def _in_child(case: Case, work: Callable[[], None]) -> int:
    """Do work in a forked child; return its wait status."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        os.environ["XDG_STATE_HOME"] = str(case.folder / "state")
        work()
        code = 0
    except BaseException:
        (case.folder / _PROBLEMS).write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _run(case: Case) -> dict[str, object]:
    case.folder.mkdir(parents=True)
    for name in ("repository", "state"):
        shutil.copytree(case.seed / name, case.folder / name)
    scenario = ALL[case.scenario]
    status = _in_child(case, lambda: scenario.doing(case))
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _KILLED
    problems = []
    if not killed and status:
        problems.append("the victim failed by itself:\n" + (case.folder / _PROBLEMS).read_text())
    elif _in_child(case, lambda: scenario.witness(case)):
        problems.append((case.folder / _PROBLEMS).read_text())
    at = (case.folder / DIED).read_text() if killed else "the end"
    if not problems:
        shutil.rmtree(case.folder)
    return {"killed": killed, "at": at, "problems": problems}


def _warm_up() -> None:
    """Do once what is slow the first time; Arrow's own threads survive a fork."""
    with tempfile.TemporaryDirectory() as name:
        seed = Path(name)
        os.environ["XDG_STATE_HOME"] = str(seed / "state")
        for scenario in ("a differential backup", "a verification"):
            SCENARIOS[scenario].prepare(seed / scenario)
            case = Case(scenario, seed / scenario, seed / scenario, 0)
            SCENARIOS[scenario].doing(case)
            SCENARIOS[scenario].witness(case)
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


def main() -> None:
    _warm_up()
    for line in sys.stdin:
        print(json.dumps(_run(Case.from_json(line))), flush=True)


if __name__ == "__main__":
    main()
