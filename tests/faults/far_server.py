"""The server of an object store killed while ours writes, and started again with its data; and one without room.

Run as `python -m tests.faults.far_server [--share 1] [--seed 0]`: exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import LastgoodError, RepositoryUnavailable
from tests.faults.far import Bucket, Folder, History
from tests.faults.proxy import Fault, Proxy, Request, nothing, proxy
from tests.faults.tier_faults import COMMANDS
from tests.object_servers import Seaweed, seaweed

MOMENTS = (Fault.CUT_REQUEST, Fault.HALF_UPLOAD, Fault.LOST_REPLY)
"""The server dies before it gets an upload, in the middle of it, or after it has it, and before it says so."""

VOLUMES_SECONDS = 60

FULL_SOON = ("-master.volumeSizeLimitMB=1", "-volume.max=8")
"""Options of a server that takes about 8 MB; then it answers 500, and goes on removing."""


def wait_for_volumes(place: Bucket | Folder, prefix: str) -> None:
    """Wait until the parts of a server have found each other again: until then it says 500 of what it has."""
    end = time.monotonic() + VOLUMES_SECONDS
    while True:
        try:
            place.objects(prefix)
        except Exception:
            assert time.monotonic() < end, "the server does not find its data again"
            time.sleep(0.2)
        else:
            return


@dataclass
class Dying:
    """A server behind a proxy, which dies at an upload, with what it has in its folder."""

    server: Seaweed
    front: Proxy
    history: History

    def run(self, command: str, upload: int, moment: Fault) -> tuple[LastgoodError | None, list[str]]:
        """Kill the server at the `upload`-th upload of a command; returns our error, and what is wrong afterwards."""
        prefix = self.history.copy()
        starting: list[threading.Thread] = []
        self._arm(upload, moment, starting)
        error, problems = None, []
        try:
            problems = COMMANDS[command].run(self.history, self.history.plan(prefix, attempts=4))
        except LastgoodError as exc:
            error = exc
        self.front.use(nothing)
        self.front.passed = nothing
        for one in starting:
            one.join()
        wait_for_volumes(self.history.place, prefix)
        if not starting:
            problems.append("the server never died")
        if error is not None and not isinstance(error, RepositoryUnavailable):
            problems.append(f"exit code {error.exit_code}: {error.message}")
        problems += self.history.witness(prefix, may_be_gone=command == "retention")
        return error, problems

    def _arm(self, upload: int, moment: Fault, starting: list[threading.Thread]) -> None:
        uploads = iter(range(1, 1_000_000))
        dies_after = Request(-1, "", "")

        def plan(request: Request) -> Fault | None:
            nonlocal dies_after
            if request.method != "PUT" or next(uploads) != upload:
                return None
            dies_after = request
            if moment is Fault.CUT_REQUEST:
                self._die(starting)
            return moment

        def passed(request: Request) -> None:
            if request is dies_after and moment is not Fault.CUT_REQUEST:
                self._die(starting)

        self.front.use(plan)
        self.front.passed = passed

    def _die(self, starting: list[threading.Thread]) -> None:
        self.server.kill()
        again = threading.Thread(target=self.server.start, name="start the server again")
        again.start()
        starting.append(again)


@contextmanager
def dying(folder: Path) -> Iterator[Dying]:
    """A server of its own, that may be killed."""
    with seaweed(folder / "server") as server, proxy(server.endpoint) as front:
        os.environ.update(server.environment)
        yield Dying(server, front, History(Bucket.of(server), folder / "history", front.endpoint))


def main() -> int:
    """Kill the server at every upload of every command that writes, or at a share of them by seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--share", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    logging.disable(logging.WARNING)
    faults = kills = failed = 0
    with tempfile.TemporaryDirectory(prefix="lastgood-servers-") as name:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        with dying(Path(name)) as one:
            for command in ("full", "incremental", "verify", "retention"):
                prefix = one.history.copy()
                one.front.use(nothing)
                COMMANDS[command].run(one.history, one.history.plan(prefix))
                uploads = sum(request.method == "PUT" for request in one.front.seen)
                cases = [(upload, moment) for upload in range(1, uploads + 1) for moment in MOMENTS]
                random.Random(f"{given.seed} {command}").shuffle(cases)
                for upload, moment in cases[: max(1, round(len(cases) * given.share))]:
                    error, problems = one.run(command, upload, moment)
                    kills, failed, faults = kills + 1, failed + (error is not None), faults + bool(problems)
                    for problem in problems:
                        print(f"FAULT {command}, upload {upload}, {moment}: {error}: {problem}", flush=True)
    print(f"seed {given.seed}: the server was killed {kills} times, {failed} commands failed, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
