"""Every command of the README runs, in order, in one scratch folder; then what they made is looked at.

(The commands of docs/cli.md run in tests/flows/cli.)
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.blocks.sources.redis.kit import RedisServer
from tests.e2e.prefect_support import ROOT, Prefect
from tests.e2e.warm import Warm
from tests.postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.timeout(400)

BIN = Path(sys.executable).parent
BACKGROUND = ("prefect worker start",)
"""Commands that do not end by themselves: started, and stopped at the end."""
PASSWORD = "a password for the tests only"
MADE_BEFORE = {"2h ago": "0s ago"}
"""A time at which the scratch repository has a backup, instead of the one in the text."""
SHELL = set("|&;<>()$`*?[]#~!{}")
"""What may mean more to a shell than the words of a command, where it is not quoted."""


@dataclass
class Readme:
    """The README's commands, run.

    Attributes:
        folder: Where they ran.
        prefect: The server that they used.
        warm: Runs others there.
        failed: What those that failed printed.
        run: How many ran.
    """

    folder: Path
    prefect: Prefect
    warm: Warm
    failed: list[str] = field(default_factory=list)
    run: int = 0

    def prices(self) -> list[float]:
        with closing(sqlite3.connect(self.folder / "state/ledger.db")) as live:
            return [price for (price,) in live.execute("SELECT price FROM orders ORDER BY id")]


def commands(document: Path) -> list[str]:
    """The command lines of a document's `sh` blocks, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for raw in lines if (line := re.sub(r"(^|\s{2,})#.*", "", raw).strip())]


def block(document: Path, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The README's Redis, behind a password."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.many([("HSET", f"position:{symbol}", "quantity", n) for n, symbol in enumerate(("AAPL", "AAPL.X", "MSFT"))])
    server.many([("SET", "order:1", "open"), ("SET", "session:1", "not backed up")])
    server("CONFIG", "SET", "requirepass", PASSWORD)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def books() -> Iterator[PostgresServer]:
    """The README's PostgreSQL, with a role that may restore, too."""
    with postgres_server() as server:
        server.run("postgres", "CREATE ROLE backup SUPERUSER LOGIN")
        server.create("books", "CREATE TABLE fills (id serial PRIMARY KEY, price numeric)")
        server.run("books", "INSERT INTO fills (price) SELECT n / 3.0 FROM generate_series(1, 100) n")
        yield server


@pytest.fixture(scope="module")
def scratch(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: Prefect, cache: RedisServer, books: PostgresServer
) -> dict[str, str]:
    """Make a folder of the README's plan, live state and what `prefect deploy` needs; give the environment."""
    folder = tmp_path_factory.mktemp("readme")
    plan = block(ROOT / "README.md", "yaml")
    for said, meant in (("localhost:6379", f"localhost:{cache.port}"), ("@localhost/", f"@127.0.0.1:{books.port}/")):
        assert said in plan
        plan = plan.replace(said, meant)
    (folder / "trading.yaml").write_text(plan)
    (folder / "quality").mkdir()
    (folder / "quality/ledger.json").write_text(block(ROOT / "README.md", "json"))
    (folder / "state/models").mkdir(parents=True)
    (folder / "state/models/trend.bin").write_bytes(os.urandom(100_000))
    with sqlite3.connect(folder / "state/ledger.db") as live:
        live.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL)")
        live.executemany("INSERT INTO orders VALUES (?, ?, ?)", ((n, "AAPL", n / 2) for n in range(100)))
    live.close()
    for name in ("prefect.yaml", "prefect.toml", "flows", "blocks", "deployments"):
        (folder / name).symlink_to(ROOT / name)
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PWD": str(folder),
        "HOME": str(folder),
        "COLUMNS": "160",
        "CACHE_PASSWORD": PASSWORD,
        "BOOKS_PASSWORD": PASSWORD,
        "LASTGOOD_PASSPHRASE": "a passphrase for the tests only",
        "PREFECT_HOME": str(folder / "prefect-home"),
        "PREFECT_API_URL": prefect_server.server.api_url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.fixture(scope="module")
def readme(scratch: dict[str, str], prefect_server: Prefect) -> Iterator[Readme]:
    """Everything that the README says, done; what it started in the background goes on until the tests are over."""
    folder, lines = Path(scratch["PWD"]), commands(ROOT / "README.md")
    started: list[subprocess.Popen[bytes]] = []
    with Warm(folder, scratch) as warm:
        done = Readme(folder, prefect_server, warm)
        try:
            for line in lines:
                if line.startswith("make "):
                    subprocess.run(["make", "-n", line.split()[1]], cwd=ROOT, check=True, capture_output=True)
                elif line.startswith(BACKGROUND):
                    started.append(subprocess.Popen(line, shell=True, cwd=folder, env=scratch, start_new_session=True))
                elif error := _run(line, done, scratch):
                    done.failed.append(error)
                    break
                done.run += 1
            yield done
        finally:
            for process in started:
                os.killpg(process.pid, 15)
                process.wait(30)
            for deployment in _deployments(prefect_server).values():
                prefect_server.delete(f"/deployments/{deployment['id']}")


def _run(line: str, done: Readme, env: dict[str, str]) -> str:
    """Run a command line; return what it printed where it failed."""
    for said, meant in MADE_BEFORE.items():
        line = line.replace(said, meant)
    # the first of all is run as people run it, by the program that was installed, in a shell
    if done.run <= 2:
        ran = subprocess.run(
            ["bash", "-c", line], cwd=done.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        code, printed = ran.returncode, ran.stdout
    else:
        unquoted = re.sub(r"'[^']*'", "", line)
        assert not SHELL.intersection(unquoted), f"a shell makes more of {line}"
        code, printed = done.warm.run(*shlex.split(line))
    return f"{line}\n{printed}" if code else ""


def _deployments(prefect: Prefect) -> dict[str, dict[str, object]]:
    """The deployments of the README's plan on a server."""
    flows = {flow["id"]: flow["name"] for flow in prefect.post("/flows/filter")}
    found = prefect.post("/deployments/filter", work_pools={"name": {"any_": ["lastgood"]}})
    return {f"{flows[d['flow_id']]}/{d['name']}": d for d in found}


def test_every_command_of_the_readme_runs(readme: Readme) -> None:
    assert not readme.failed, readme.failed[0]
    assert readme.run == len(commands(ROOT / "README.md")) > 10


def test_a_process_worker_has_made_the_backup_that_the_command_line_asked_for(readme: Readme) -> None:
    (run,) = (r for r in readme.prefect.runs_of("incremental-trading") if not r["auto_scheduled"])
    assert run["state_type"] == "COMPLETED"
    made = next(a for a in readme.prefect.artifacts(run["id"]).values() if a["key"] == "backup-trading")
    assert "# Incremental backup `INC_" in made["data"]


def test_a_process_worker_restores_what_the_command_line_asks_for(readme: Readme) -> None:
    before = readme.prices()
    # by its id: the schedule of the deployment may come round meanwhile, and back up what is put back here
    listed = json.loads(readme.warm.done("lastgood", "list", "trading.yaml", "--json").stdout)["backups"]
    newest = [one["id"] for one in listed if one["type"] != "emergency"][-1]
    with closing(sqlite3.connect(readme.folder / "state/ledger.db")) as live, live:
        live.execute("UPDATE orders SET price = 0")
    words = ("prefect", "deployment", "run", "restore/by-hand-trading", "-p", "mode=exact", "--watch")
    code, printed = readme.warm.run(*words, "-p", f"backup={newest}")
    assert code == 0, printed
    assert readme.prices() == before == [n / 2 for n in range(100)]
