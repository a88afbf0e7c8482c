"""O1: what Prefect costs on a small backup."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager

from benchmarks.bench import Bench
from benchmarks.measure import CommandFailed, Contestant, Run, compete
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome

START_SECONDS = 120


def run(bench: Bench) -> Outcome:
    """Back up three small collections as a recorded run, and without a server, in turn."""
    ledger = bench.folder / "small.db"
    ledger.unlink(missing_ok=True)
    with closing(sqlite3.connect(ledger)) as connection, connection:
        for table in ("orders", "positions", "portfolio"):
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(n, f"row {n}") for n in range(100)])
    ours = Lastgood(bench, "small", {"ledger": {"type": "sqlite", "path": str(ledger)}})
    ours.init()
    with server(bench) as url:
        flows: list[float] = []
        contestants = [
            Contestant("recorded in Prefect", lambda: _recorded(ours, url, flows)),
            Contestant("--no-server", lambda: ours.backup("full")),
        ]
        series = compete(contestants, bench.pairs, bench.say)
    over = sorted(a.seconds - b.seconds for a, b in zip(series[0].runs, series[1].runs, strict=True))
    outcome = Outcome("O1", "full backup of three collections of 100 rows, whole command", series)
    outcome.facts = [
        ("flow run, start to end, median", f"{sorted(flows)[len(flows) // 2]:.2f} s", ""),
        ("overhead of Prefect on the command, median", f"{over[len(over) // 2]:.2f} s", "2.5 s (goal 1.5 s)"),
        ("least and most", f"{over[0]:.2f} .. {over[-1]:.2f} s", ""),
    ]
    outcome.notes = ["The server (SQLite, fresh database) is up before; its start is not counted."]
    return outcome


def _recorded(ours: Lastgood, url: str, flows: list[float]) -> Run:
    done = ours("backup", "--type", "full", PREFECT_API_URL=url)
    if "is not recorded" in done.output:
        raise CommandFailed("the Prefect server was too slow to answer, so the backup ran without it; measure again")
    flows.append(_newest_run_seconds(url))
    return done


def _newest_run_seconds(url: str) -> float:
    """Ask the server how long the newest flow run took."""
    wanted = json.dumps({"limit": 1, "sort": "START_TIME_DESC"}).encode()
    request = urllib.request.Request(f"{url}/flow_runs/filter", wanted, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return float(json.load(answer)[0]["total_run_time"])


@contextmanager
def server(bench: Bench) -> Iterator[str]:
    """Run a Prefect server of our own on a free port."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (bench.folder / "server.log").open("wb") as log:
        running = subprocess.Popen([sys.executable, *words], env=bench.env, stdout=log, stderr=log)
        try:
            _await(f"http://127.0.0.1:{port}/api/health", running)
            yield f"http://127.0.0.1:{port}/api"
        finally:
            running.terminate()
            running.wait()


def _await(url: str, running: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and running.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the Prefect server did not come up; see server.log with --keep")
