"""Every command of the README runs, in order, in one scratch folder. (Those of docs/cli.md run in tests/flows/cli.)"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.server import LocalServer, local_server
from tests.blocks.sources.redis.kit import RedisServer
from tests.postgres_server import PostgresServer, postgres_server

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BACKGROUND = ("prefect worker start",)
"""Commands that do not end by themselves: started, and stopped at the end."""
PASSWORD = "a password for the tests only"
MADE_BEFORE = {"2h ago": "0s ago"}
"""A time at which the scratch repository has a backup, instead of the one in the text."""


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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with local_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


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


@pytest.fixture
def scratch(tmp_path: Path, server: LocalServer, cache: RedisServer, books: PostgresServer) -> dict[str, str]:
    """Make a folder of the README's plan, live state and what `prefect deploy` needs; give the environment."""
    plan = block(ROOT / "README.md", "yaml")
    for written, meant in (("localhost:6379", f"localhost:{cache.port}"), ("@localhost/", f"@127.0.0.1:{books.port}/")):
        assert written in plan
        plan = plan.replace(written, meant)
    (tmp_path / "trading.yaml").write_text(plan)
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/ledger.json").write_text(block(ROOT / "README.md", "json"))
    (tmp_path / "state/models").mkdir(parents=True)
    (tmp_path / "state/models/trend.bin").write_bytes(os.urandom(100_000))
    with sqlite3.connect(tmp_path / "state/ledger.db") as live:
        live.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL)")
        live.executemany("INSERT INTO orders VALUES (?, ?, ?)", ((n, "AAPL", n / 2) for n in range(100)))
    live.close()
    for name in ("prefect.yaml", "prefect.toml", "flows", "blocks", "deployments"):
        (tmp_path / name).symlink_to(ROOT / name)
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PWD": str(tmp_path),
        "HOME": str(tmp_path),
        "COLUMNS": "160",
        "CACHE_PASSWORD": PASSWORD,
        "BOOKS_PASSWORD": PASSWORD,
        "LASTGOOD_PASSPHRASE": "a passphrase for the tests only",
        "PREFECT_HOME": str(tmp_path / "prefect-home"),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.mark.parametrize("name", ["README.md"])
@pytest.mark.timeout(400)
def test_every_command_of_a_document_runs(name: str, scratch: dict[str, str]) -> None:
    folder, lines = Path(scratch["PWD"]), commands(ROOT / name)
    assert len(lines) > 10
    started: list[subprocess.Popen[bytes]] = []
    try:
        for line in lines:
            if line.startswith("make "):
                subprocess.run(["make", "-n", line.split()[1]], cwd=ROOT, check=True, capture_output=True)
            elif line.startswith(BACKGROUND):
                started.append(subprocess.Popen(line, shell=True, cwd=folder, env=scratch, start_new_session=True))
            else:
                run(line, folder, scratch)
    finally:
        for process in started:
            os.killpg(process.pid, 15)
            process.wait(30)


def run(line: str, folder: Path, env: dict[str, str]) -> None:
    for written, meant in MADE_BEFORE.items():
        line = line.replace(written, meant)
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
