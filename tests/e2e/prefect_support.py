"""A client of the tests' Prefect server, commands run against it, and a small plan."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from blocks.plan.plan import BackupPlan, read_plan
from deployments.server import LocalServer

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 120.0

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], within: float = DEADLINE_SECONDS) -> T:
    """Look until there is something, for so many seconds."""
    deadline = time.monotonic() + within
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"{what} did not come within {within:.0f} seconds"
        time.sleep(0.1)
    return found


class Prefect:
    """A Prefect server as its API and its command line see it."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self._client = httpx.Client(base_url=server.api_url, timeout=30, trust_env=False)

    def post(self, path: str, **body: Any) -> Any:
        """Ask the API."""
        return self._ask("POST", path, json=body).json()

    def get(self, path: str) -> Any:
        """Read from the API."""
        return self._ask("GET", path).json()

    def put(self, path: str, **body: Any) -> None:
        """Replace through the API."""
        self._ask("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """Delete through the API."""
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask again where the server has just started, or SQLite under it was busy."""

        def answered() -> httpx.Response | None:
            answer = self._client.request(method, path, **options)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer.raise_for_status()

        return wait_for(f"an answer of {path}", answered)

    def environment(self) -> dict[str, str]:
        """The environment of a client of this server."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return clean | {
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_HOME": str(self.server.home),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def command(self, *words: str) -> str:
        """Run a prefect command in the checkout and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *words], cwd=ROOT, env=self.environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def background(self, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a python program in the checkout until the context ends."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=self.environment(), stdout=out, stderr=subprocess.STDOUT
            )
            try:
                yield process
            finally:
                end(process)

    def finished(self, flow_run: str, within: float = DEADLINE_SECONDS) -> dict[str, Any]:
        """Wait for a flow run to end, for so many seconds, and return it."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/flow_runs/{flow_run}")
            return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return wait_for(f"the end of run {flow_run}", look, within)

    def newest_run(self, flow: str, plan: SmallPlan) -> dict[str, Any]:
        """Return the newest run of a flow on a plan that has ended; other tests use the server at the same time."""
        runs = self.runs(flow, plan)
        return self.finished(max(runs, key=lambda run: run["start_time"])["id"])

    def runs(self, flow: str, plan: SmallPlan) -> list[dict[str, Any]]:
        """Return the runs of a flow on a plan that have begun."""
        begun = {"start_time": {"is_null_": False}}
        found = self.post(
            "/flow_runs/filter", flows={"name": {"any_": [flow]}}, flow_runs=begun, sort="START_TIME_DESC"
        )
        return [run for run in found if Path(run["parameters"]["plan"]).parent == plan.folder]

    def artifacts(self, flow_run: str) -> dict[str, dict[str, Any]]:
        """Return the artifacts of a run by key."""
        found = self.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run]}})
        return {artifact["key"]: artifact for artifact in found}

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """Return the runs of a deployment."""
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", deployments={"name": {"any_": [deployment]}})
        return found


def end(process: subprocess.Popen[bytes]) -> int:
    """End a process that this test started, kindly at first, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class SmallPlan:
    """A ledger and a few files, and the YAML plan that backs them up."""

    def __init__(self, folder: Path, name: str = "shop") -> None:
        self.name, self.folder, self.ledger = name, folder, folder / "state" / "ledger.db"
        (folder / "state" / "models").mkdir(parents=True)
        (folder / "state" / "models" / "one.bin").write_bytes(os.urandom(5_000))
        (folder / "passphrase").write_text("correct horse battery staple")
        (folder / "passphrase").chmod(0o600)
        with closing(sqlite3.connect(self.ledger)) as db, db:
            db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, quantity INTEGER)")
            db.executemany("INSERT INTO orders VALUES (?, ?)", [(n, n * 10) for n in range(1, 101)])
        self.path = folder / f"{name}.yaml"
        self.path.write_text(
            yaml.safe_dump(
                {
                    "name": name,
                    "sources": {
                        "ledger": {"type": "sqlite", "path": "./state/ledger.db"},
                        "models": {"type": "files", "url": "./state/models"},
                    },
                    "repository": {"url": "./backups"},
                    "encryption": {"credential": {"passphrase_file": "./passphrase"}},
                    "critical": ["ledger/orders"],
                }
            )
        )
        self.plan: BackupPlan = read_plan(self.path)
        self.plan.repository.initialize(self.plan.encryption)

    def execute(self, sql: str) -> None:
        """Change the ledger."""
        with closing(sqlite3.connect(self.ledger)) as db, db:
            db.execute(sql)

    def quantities(self) -> dict[int, int]:
        """What the ledger holds."""
        with closing(sqlite3.connect(self.ledger)) as db:
            return dict(db.execute("SELECT id, quantity FROM orders"))

    def backups(self) -> list[Any]:
        """The committed backups, oldest first."""
        return self.plan.repository.unlock(self.plan.encryption).backups(self.name)
