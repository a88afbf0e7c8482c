"""Try to lose data with one command line, one edit of a plan, or one ordinary accident; report each result.

Run as `python -m tests.faults.campaign [-v] [--share 1] [--seed 0] [WORDS]`: a table, and exit code 1 where anything
was lost. WORDS choose the attempts whose name has all of them; of these a share is made, by seed.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults import campaign_accidents, campaign_places, campaign_plans, campaign_servers
from tests.faults.campaign_attempts import ATTEMPTS, Attempt
from tests.faults.campaign_world import Verdict, World, judge, make_world

_ALL = (campaign_places, campaign_plans, campaign_accidents, campaign_servers)


def _made_again(seed: Path, folder: Path) -> World:
    """Put the world where it was made: state at another place would be another's, and each restore of it refused."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(seed, folder, symlinks=True)
    return World(folder)


def _try(attempt: Attempt, seed: Path, folder: Path) -> tuple[Verdict, World]:
    world = _made_again(seed, folder)
    with attempt.surroundings(world):
        world.look()
        world.runs.clear()
        complaints = attempt.action(world) or []
        verdict = judge(world, attempt.repository)
    verdict.complaints += complaints
    return verdict, world


def main() -> int:
    """Make all attempts; print the table."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell lets its background jobs ignore them
        signal.signal(number, signal.default_int_handler)
    options = argparse.ArgumentParser()
    options.add_argument("-v", dest="verbose", action="store_true")
    options.add_argument("--share", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("words", nargs="*")
    given = options.parse_args()
    meant = [number for number, one in enumerate(ATTEMPTS) if all(word in one.name for word in given.words)]
    chosen = sorted(random.Random(given.seed).sample(meant, round(len(meant) * given.share)))
    faults = 0
    with tempfile.TemporaryDirectory(prefix="lastgood-campaign-") as name:
        top = Path(name)
        top.chmod(0o755)
        seed, folder = top / "seed", top / "attempt" / "world"
        make_world(folder)
        folder.rename(seed)
        # where nothing is restored attempts prove nothing
        _made_again(seed, folder).must("restore", "FUL", "--yes")
        for number in chosen:
            attempt, started = ATTEMPTS[number], time.monotonic()
            try:
                verdict, world = _try(attempt, seed, folder)
            except Exception:
                verdict, world = Verdict("the attempt itself failed", complaints=[traceback.format_exc()]), None
            bad = bool(verdict.lost or verdict.complaints)
            faults += bad
            print(
                f"{'FAULT ' if bad else ''}{attempt.name} | {verdict.word} | {time.monotonic() - started:.1f}s",
                flush=True,
            )
            for what in [*verdict.lost[:6], *verdict.complaints]:
                print(f"    ! {what}")
            if (bad or given.verbose) and world is not None:
                for run in [one for one in world.runs if one.words[0] not in ("list", "check") or one.code]:
                    print(
                        f"    $ {' '.join(run.words)} -> {run.code}\n      "
                        + (run.out + run.err).strip()[:1200].replace("\n", "\n      ")
                    )
    ours, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = ours.ru_utime + ours.ru_stime + children.ru_utime + children.ru_stime
    print(f"seed {given.seed}: {len(chosen)} of {len(meant)} attempts, {faults} faults, {used:.0f} s of processor time")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
